"""The imports of a Python file: those it has, and those that new code needs."""

import ast
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from kit.cli.templates import wrapped

_THIRD = ("google", "kit")

Key = tuple[str, str]
"""The module, and the name that is imported from it."""


@dataclass(slots=True)
class Imports:
    """Names by what they were imported as.

    Attributes:
        known: what is called how.
        needed: those of them that the file does not have yet.
    """

    known: dict[Key, str] = field(default_factory=dict)
    needed: list[Key] = field(default_factory=list)

    @classmethod
    def of(cls, tree: ast.Module) -> "Imports":
        """Those at the top of a file."""
        found = {
            (each.module or "", alias.name): alias.asname or alias.name
            for each in tree.body
            if isinstance(each, ast.ImportFrom)
            for alias in each.names
        }
        return cls(found)

    def name(self, module: str, name: str) -> str:
        """What ``name`` of ``module`` is called in the file; imported if it is not yet."""
        key = (module, name)
        if key not in self.known:
            local = name
            if local in self.known.values():
                local = f"{module.replace('.', '_')}_{name}"
            self.known[key] = local
            self.needed.append(key)
        return self.known[key]

    def head(self) -> str:
        """The lines for :attr:`needed`, in the usual three groups."""
        groups: list[list[Key]] = [[], [], []]
        for key in sorted(self.needed):
            groups[_group(key[0])].append(key)
        return "\n".join("".join(map(self._line, group)) for group in groups if group)

    def inserted(self, lines: list[str], tree: ast.Module) -> list[str]:
        """``lines`` of a file with those for :attr:`needed`, each beside its like."""
        result = list(lines)
        places = [(_place(tree, key), key) for key in sorted(self.needed)]
        for place, key in sorted(places, reverse=True):
            result[place:place] = [self._line(key)]
        return result

    def _line(self, key: Key) -> str:
        local = "" if self.known[key] == key[1] else f" as {self.known[key]}"
        return wrapped(f"from {key[0]} import {key[1]}{local}\n")


def _place(tree: ast.Module, key: Key) -> int:
    """How many lines come before an import of ``key``: smaller ones of its package are above."""
    found = [each for each in tree.body if isinstance(each, ast.ImportFrom)]
    like = [each for each in found if _top(each.module) == _top(key[0])]
    like = like or [each for each in found if _group(each.module) == _group(key[0])]
    smaller = [each for each in like if (each.module or "", each.names[0].name) < key]
    if smaller:
        return _end(smaller[-1:])
    if like:
        return like[0].lineno - 1
    every = [each for each in tree.body if isinstance(each, ast.Import | ast.ImportFrom)]
    if not every and ast.get_docstring(tree) is not None:
        return _end(tree.body[:1])
    return _end(every)


def _group(module: str | None) -> int:
    """Which of the usual three groups it is in: Python's own, of others, of the project."""
    top = _top(module)
    return 0 if top in sys.stdlib_module_names else 1 if top in _THIRD else 2


def _top(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _end(nodes: Iterable[ast.stmt]) -> int:
    return max((each.end_lineno or 0 for each in nodes), default=0)
