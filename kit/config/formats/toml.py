"""TOML with lines.

The standard library reads it; lines come from the statements, a table header or a key each. What
stands inside an inline table or a list has the line of its statement.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time

from kit.config.errors import ConfigError
from kit.config.tree import MAX_DEPTH, MAX_VALUES, Node, Origin

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[\]{}=\n]",
    re.DOTALL,
)


def parse_toml(text: str, label: str) -> Node:
    """The tree of a TOML document.

    Raises:
        ConfigError: ``label:line:column: what is wrong``. A key given twice is wrong in TOML.
    """
    text = text.replace("\r\n", "\n")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), text, label) from error
    except ValueError as error:  # a number of thousands of digits
        raise ConfigError.of(str(error), label) from error
    except RecursionError:
        raise ConfigError.of(f"the document is deeper than {MAX_DEPTH} levels", label) from None
    return _Builder(label, dict(_lines(text))).build(document, (), 1)


class _Builder:
    def __init__(self, label: str, lines: Mapping[tuple[str | int, ...], int]) -> None:
        self._label, self._lines = label, lines
        self._values = 0

    def build(self, value: object, path: tuple[str | int, ...], line: int) -> Node:
        line = self._lines.get(path, line)
        origin = Origin(self._label, line)
        self._values += 1
        if len(path) > MAX_DEPTH or self._values > MAX_VALUES:
            what = f"deeper than {MAX_DEPTH} levels" if len(path) > MAX_DEPTH else "too large"
            raise ConfigError.of(f"the document is {what}", str(origin))
        match value:
            case dict():
                below = {key: self.build(item, (*path, key), line) for key, item in value.items()}
                return Node(below, origin)
            case list():
                items = [self.build(item, (*path, at), line) for at, item in enumerate(value)]
                return Node(items, origin)
            case datetime() | date() | time():  # a model that wants an instant reads its text
                return Node(value.isoformat(), origin)
            case str() | bool() | int() | float():
                return Node(value, origin)
            case _:
                raise AssertionError(f"tomllib gave a {type(value).__name__}")


def _syntax_error(message: str, text: str, label: str) -> ConfigError:
    place = _PLACE.search(message)
    line, column = (place[1], place[2]) if place and place[1] else (text.count("\n") + 1, 1)
    message = _PLACE.sub("", message)
    return ConfigError.of(message[:1].lower() + message[1:], f"{label}:{line}:{column}")


def _lines(text: str) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Paths and the lines of the statements that name them, in a right document."""
    table: tuple[str | int, ...] = ()
    elements: dict[tuple[str | int, ...], int] = {}
    for line, statement, equals in _statements(text):
        if statement.startswith("["):
            double = statement.startswith("[[")
            table = _inside(_keys(statement.strip("[]")), elements)
            if double:
                elements[table] = elements.get(table, -1) + 1
                yield table, line
                table = (*table, elements[table])
            yield table, line
        else:
            path = table
            for key in _keys(statement[:equals]):
                path = (*path, key)
                yield path, line


def _inside(
    keys: tuple[str, ...], elements: Mapping[tuple[str | int, ...], int]
) -> tuple[str | int, ...]:
    """``keys`` with the place of the latest element after each table that is a list."""
    path: tuple[str | int, ...] = ()
    for at, key in enumerate(keys):
        path = (*path, key)
        if path in elements and at < len(keys) - 1:
            path = (*path, elements[path])
    return path


def _statements(text: str) -> Iterator[tuple[int, str, int]]:
    """Each statement with its line and, in it, the place of the first ``=`` outside of quotes."""
    start, depth, line = 0, 0, 1
    equals = comment = -1
    for token in _TOKEN.finditer(text + "\n"):
        match token[0]:
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth -= 1
            case "=" if equals < 0:
                equals = token.start()
            case word if word.startswith("#") and depth == 0:
                comment = token.start()
            case "\n" if depth == 0:
                statement = text[start : token.start() if comment < 0 else comment]
                if statement.strip():
                    yield line, statement.strip(), equals - start - _indent(statement)
                line += text.count("\n", start, token.end())
                start, equals, comment = token.end(), -1, -1


def _indent(statement: str) -> int:
    return len(statement) - len(statement.lstrip())


def _keys(dotted: str) -> tuple[str, ...]:
    """The parts of a dotted key; the standard library knows how they may be quoted."""
    keys: list[str] = []
    below: object = tomllib.loads(f"{dotted} = 0")
    while isinstance(below, dict):
        ((key, below),) = below.items()
        keys.append(key)
    return tuple(keys)
