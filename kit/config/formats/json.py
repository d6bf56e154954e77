"""JSON with lines.

The standard library reads it, and says what is wrong; a second walk over text that is known to be
right notes where the keys stand.
"""

import json
import re
from bisect import bisect

from kit.config.errors import ConfigError, Problem
from kit.config.tree import MAX_DEPTH, MAX_VALUES, Node, Origin, Path, join

_SPACE = re.compile(r"[ \t\n\r]*")


def parse_json(text: str, label: str) -> Node:
    """The tree of a JSON document; its value is ``None`` when ``text`` is empty.

    Raises:
        ConfigError: ``label:line:column: what is wrong``.
    """
    if not text.strip():
        return Node(None, Origin(label, 1))
    try:
        json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        where = f"{label}:{error.lineno}:{error.colno}"
        raise ConfigError.of(error.msg[:1].lower() + error.msg[1:], where) from error
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise ConfigError.of(str(error), label) from error
    except RecursionError:
        raise ConfigError.of(f"the document is deeper than {MAX_DEPTH} levels", label) from None
    walker = _Walker(text, label)
    node = walker.value((), 1)
    if walker.problems:
        raise ConfigError(walker.problems)
    return node


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number in JSON")


class _Walker:
    """Walks over a right document once, from left to right."""

    def __init__(self, text: str, label: str) -> None:
        self.problems: list[Problem] = []
        self._text, self._label = text, label
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode
        self._line_ends = [found.start() for found in re.finditer("\n", text)]
        self._values = 0

    def value(self, path: Path, depth: int, line: int = 0) -> Node:
        """The value that stands next; ``line`` is that of its key."""
        self._skip()
        origin = Origin(self._label, line or self._line())
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            what = f"deeper than {MAX_DEPTH} levels" if depth > MAX_DEPTH else "too large"
            raise ConfigError.of(f"the document is {what}", f"{self._label}:{self._line()}")
        match self._text[self._at]:
            case "{":
                return Node(self._mapping(path, depth), origin)
            case "[":
                return Node(self._list(path, depth), origin)
            case _:
                scalar, self._at = self._decode(self._text, self._at)
                return Node(scalar, origin)

    def _mapping(self, path: Path, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while self._next("}"):
            line = self._line()
            key, self._at = self._decode(self._text, self._at)
            self._skip()
            self._at += 1  # the colon
            node = self.value((*path, key), depth + 1, line)
            if key in entries:
                message = f"given twice, first on line {entries[key].origin.line}"
                self.problems.append(Problem(f"{self._label}:{line}", join((*path, key)), message))
            entries[key] = node
        return entries

    def _list(self, path: Path, depth: int) -> list[Node]:
        items: list[Node] = []
        while self._next("]"):
            items.append(self.value((*path, str(len(items))), depth + 1))
        return items

    def _next(self, end: str) -> bool:
        """Step over the bracket or comma here; whether another element follows before ``end``."""
        self._skip()
        if self._text[self._at] in "{[,":
            self._at += 1
            self._skip()
        if self._text[self._at] != end:
            return True
        self._at += 1
        return False

    def _skip(self) -> None:
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]

    def _line(self) -> int:
        return bisect(self._line_ends, self._at - 1) + 1
