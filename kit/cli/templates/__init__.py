"""The texts that ``kit new`` and ``kit proto`` write, and how they are filled in."""

import functools
import re
from importlib.resources import files
from pathlib import Path

import jinja2


def render(name: str, **values: object) -> str:
    """A template of this package with ``values``; a value that is missing is an error."""
    return (
        _environment()
        .from_string(files(__name__).joinpath(name).read_text(encoding="utf-8"))
        .render(values)
    )


def wrapped(code: str, longest: int = 100) -> str:
    """Python code whose imports are broken as a formatter would, when a name makes them long."""

    def wrap(match: re.Match[str]) -> str:
        if len(match[0]) <= longest:
            return match[0]
        names = "".join(f"    {name},\n" for name in match[2].split(", "))
        return f"{match[1]}(\n{names})"

    return re.sub(r"^(from \S+ import )([^(\n]+)$", wrap, code, flags=re.MULTILINE)


@functools.cache
def _environment() -> jinja2.Environment:
    return environment()


def environment(folder: Path | None = None) -> jinja2.Environment:
    """How templates are read, those of ``folder`` if it is given."""
    return jinja2.Environment(  # noqa: S701  (what is written is code, not HTML)
        loader=jinja2.FileSystemLoader(folder) if folder else None,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
