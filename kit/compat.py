"""Which major version of kratos the peers, the log readers and the dashboards expect.

A service sets it once, before it makes servers, clients and middleware, mostly out of its
configuration::

    kit.compat.use(settings.compat)

What is told ``compat=`` itself follows that instead. What differs is listed in docs/kit/app.md.
"""

from enum import StrEnum


class Compat(StrEnum):
    """A field of a configuration may have this type: ``compat: v3``."""

    V2 = "v2"
    V3 = "v3"


_chosen = Compat.V2


def use(compat: Compat | str) -> None:
    """Follow ``compat`` in this process, wherever nothing else is said.

    Raises:
        ValueError: it is neither ``v2`` nor ``v3``.
    """
    global _chosen
    try:
        _chosen = Compat(compat)
    except ValueError:
        raise ValueError(f"compat {compat!r} is not known; write v2 or v3") from None


def chosen(compat: Compat | None = None) -> Compat:
    """``compat`` itself, else what the process follows; ``v2`` unless :func:`use` was called."""
    return compat or _chosen


__all__ = ["Compat", "chosen", "use"]
