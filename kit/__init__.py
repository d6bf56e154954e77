"""kit: microservices with distributed transactions.

The names a service's main file needs; all else is imported from its own package.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.app import App, run, run_command

    __version__: str

_HOMES = {"App": "kit.app", "run": "kit.app", "run_command": "kit.app"}


def __getattr__(name: str) -> object:
    """A name of another module, imported now: ``import kit.errors`` itself stays light."""
    if name == "__version__":
        return version("kit")
    if home := _HOMES.get(name):
        return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["App", "__version__", "run", "run_command"]
