"""Values and lines as text, in the form Go's ``%v`` gives them.

Source: go-kratos/kratos log/std.go; the Go package fmt for the form of values.
"""

import re
from collections.abc import Mapping, Set
from decimal import Decimal
from enum import Enum
from math import isfinite

MAX_LINE_CHARS = 64 * 1024
"""Of one line without its stack; the rest is cut, with a note of how much it was."""

_FORGING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that end a line, drive a terminal, turn the reading order, or cannot be encoded."""


_QUOTE_FOR = (" ", "=", '"')


def escape(text: str) -> str:
    r"""``text`` on one line: a value cannot forge a second one, nor drive the reader's terminal.

    Backslashes stay as they are; this is for reading, not for decoding.

    >>> print(escape("paid\nINFO msg=transfer out 30 cents"), escape("C:\\temp é"))
    paid\nINFO msg=transfer out 30 cents C:\temp é
    """
    return text if text.isprintable() else _FORGING.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def quoted(text: str) -> str:
    r"""``text`` as slog's text handler writes it: in quotes when it would not stand alone.

    >>> print(quoted("[::]:9000"), quoted("a b"), quoted('say "x"'), quoted(""), quoted("a\nb"))
    [::]:9000 "a b" "say \"x\"" "" "a\nb"

    Source: the Go package log/slog, text_handler.go, needsQuoting.
    """
    if text and text.isprintable() and not any(mark in text for mark in _QUOTE_FOR):
        return text
    inner = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escape(inner)}"'


def cut(text: str, limit: int = MAX_LINE_CHARS) -> str:
    """``text``, or its beginning and how much is missing.

    >>> cut("abcdef", 4)
    'abcd... (2 characters more)'
    """
    return (
        text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} characters more)"
    )


def go_text(value: object) -> str:
    """``value`` as Go prints it with ``%v``.

    >>> print(go_text(True), go_text(None), go_text(1.0), go_text(1e20), go_text(5e-324))
    true <nil> 1 100000000000000000000 5e-324
    >>> print(go_text([1, "a b"]), go_text({"b": 2, "a": None}), go_text(b"hi"))
    [1 a b] map[a:<nil> b:2] [104 105]
    """
    kind = type(value)
    if kind is str or kind is int:
        return str(value)
    if kind is float:
        return _go_float(value)  # type: ignore[arg-type]
    match value:
        case bool():
            return "true" if value else "false"
        case Enum():  # a word where it is one, else the name a reader knows
            return value.value if isinstance(value.value, str) else value.name
        case str() | int():
            return str(value)
        case None:
            return "<nil>"
        case float():  # a subclass, such as numpy's
            return _go_float(value)
        case BaseException():  # TimeoutError() and its like have no text of their own
            return str(value) or type(value).__name__
        case Mapping():
            pairs = sorted((go_text(key), go_text(item)) for key, item in value.items())
            return "map[" + " ".join(f"{key}:{item}" for key, item in pairs) + "]"
        case list() | tuple() | Set() | bytes() | bytearray():
            return "[" + " ".join(map(go_text, value)) + "]"
        case _:
            return str(value)


def _go_float(value: float) -> str:
    if not isfinite(value):
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    # Go changes to an exponent at 1e21, Python at 1e16; below 1e-4 both do.
    if 1e16 <= abs(value) < 1e21:
        return format(Decimal(repr(value)), "f")
    return repr(value).removesuffix(".0")
