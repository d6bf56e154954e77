"""Durations as configuration writes them.

Inside the kit a duration is a float of seconds; text forms end here.
"""

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Seconds of Go's text form; a bare number is refused because its unit would be a guess.

    Raises:
        ValueError: ``text`` is not a duration.

    >>> parse_duration("1.5s"), parse_duration("1h2m"), parse_duration("200ms")
    (1.5, 3720.0, 0.2)
    """
    rest, sign = text.strip(), 1.0
    if rest[:1] in {"-", "+"}:
        sign, rest = (-1.0 if rest[0] == "-" else 1.0), rest[1:]
    if rest == "0":
        return 0.0
    total, position = 0.0, 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None:
            break
        total += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    if not rest or position != len(rest):
        raise ValueError(f"{text!r} is not a duration; write for example 500ms, 1.5s or 1h2m")
    return sign * total


def format_duration(seconds: float) -> str:
    """A short text of ``seconds`` that :func:`parse_duration` reads back, to the nanosecond.

    >>> format_duration(1.5), format_duration(0.2), format_duration(90), format_duration(1e-6)
    ('1.5s', '200ms', '90s', '0.001ms')
    """
    if seconds and abs(seconds) < 1:
        return f"{_decimal(seconds * 1000, 6)}ms"
    return f"{_decimal(seconds, 9)}s"


def _decimal(value: float, places: int) -> str:
    """``value`` without an exponent and without zeros at the end."""
    return f"{value:.{places}f}".rstrip("0").rstrip(".")
