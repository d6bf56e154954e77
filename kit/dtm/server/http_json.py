"""JSON as Go's ``encoding/json`` reads and writes it, with complaints that name the field.

Reading: invalid UTF-8 and lone surrogates become U+FFFD, keys of an :class:`Object` match in any
case, ``null`` is as good as absent, what nobody asks for is ignored, a value of another type is
refused. Writing: ``<``, ``>``, ``&`` and the two line separators of JavaScript are escaped.

Source: Go encoding/json (decode.go, encode.go), as dtm-labs/dtm dtmsvr/api_http.go uses it.
"""

import json
import re
from collections.abc import Mapping
from typing import NoReturn

_SHOWN = 60
_INT64 = 1 << 63
_MAX_DIGITS = 20
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class BadJson(ValueError):
    """Not JSON, or not of the shape that was asked for; the text names the field."""


class _Huge:
    """A whole number that no field can hold; harmless under a key that nobody reads."""

    def __init__(self, digits: str) -> None:
        self._digits = digits

    def __repr__(self) -> str:
        return self._digits


def decode(data: bytes) -> object:
    """The value that ``data`` spells.

    Raises:
        BadJson: it is none; the text says where it stops being JSON.
    """
    text = data.decode("utf-8", "replace")
    if not text.strip(" \t\r\n"):
        raise BadJson("unexpected end of JSON input; send a JSON object")
    try:
        value: object = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise BadJson(f"not JSON: {error}") from None
    except RecursionError:
        raise BadJson("not JSON that can be read: nested too deeply") from None
    return value


def decode_object(data: bytes) -> Mapping[str, object]:
    """The object that ``data`` spells; ``null`` is an empty one, as in Go.

    Raises:
        BadJson: it is none.
    """
    return as_object("the body", decode(data))


def as_object(field: str, value: object) -> Mapping[str, object]:
    """``value``, when it is an object; ``null`` is an empty one.

    Raises:
        BadJson: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        _refuse(field, value, "an object")
    return value


def encode(value: object) -> bytes:
    """``value`` as compact UTF-8 JSON, keys in the order they have."""
    text = _encode(value)
    for character, escape in _ESCAPES.items():
        if character in text:  # in JSON they stand inside of strings only
            text = text.replace(character, escape)
    return text.encode()


class Object:
    """The fields of a JSON object, as a Go struct takes them: keys match in any case.

    Args:
        fields: a decoded object. Of keys that differ in case only, the last one wins.
    """

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = {key.lower(): value for key, value in fields.items() if value is not None}

    def value(self, name: str) -> object:
        """Whatever stands under ``name``; ``None`` when nothing does."""
        return self._fields.get(name)

    def text(self, name: str) -> str:
        """A text; empty when it is absent.

        All readers raise :class:`BadJson` when the value has another type.
        """
        value = self._fields.get(name)
        return "" if value is None else text_of(name, value)

    def integer(self, name: str) -> int:
        """A whole number of 64 bits; 0 when it is absent."""
        value = self._fields.get(name)
        if value is None:
            return 0
        if isinstance(value, _Huge) or (type(value) is int and not -_INT64 <= value < _INT64):
            raise BadJson(f"{name}: {_shown(value)} is too large; use a number of 64 bits")
        if type(value) is not int:
            _refuse(name, value, "a whole number")
        return value

    def boolean(self, name: str) -> bool:
        """True or false; false when it is absent."""
        value = self._fields.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            _refuse(name, value, "true or false")
        return value

    def texts(self, name: str) -> list[str]:
        """An array of texts; empty when it is absent."""
        return [text_of(f"{name}[{index}]", item) for index, item in self._items(name)]

    def text_map(self, name: str) -> dict[str, str]:
        """An object of texts; empty when it is absent."""
        return text_map_of(name, self._fields.get(name))

    def text_maps(self, name: str) -> list[dict[str, str]]:
        """An array of objects of texts; empty when it is absent."""
        return [text_map_of(f"{name}[{index}]", item) for index, item in self._items(name)]

    def _items(self, name: str) -> "enumerate[object]":
        value = self._fields.get(name, [])
        if not isinstance(value, list):
            _refuse(name, value, "an array")
        return enumerate(value)


def text_map_of(field: str, value: object) -> dict[str, str]:
    """``value``, when it is an object of texts.

    Raises:
        BadJson: it, or something in it, is something else.
    """
    found = as_object(field, value)
    return {
        text_of(f"a key of {field}", key): text_of(f"{field}.{_clipped(key)}", item)
        for key, item in found.items()
    }


def text_of(field: str, value: object) -> str:
    """``value``, when it is a text that can be stored; ``null`` is empty.

    Raises:
        BadJson: it is something else, or holds a NUL character.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse(field, value, "a text")
    if "\0" in value:
        raise BadJson(f"{field}: it holds a NUL character, which cannot be stored; leave it out")
    return value if value.isascii() else _SURROGATE.sub("\ufffd", value)


def _refuse(field: str, value: object, wanted: str) -> NoReturn:
    raise BadJson(
        f"{field}: {_shown(value)} stands where {wanted} belongs; send {wanted}, or leave it out"
    )


def _shown(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return repr(_clipped(value))
        case dict():
            return "an object"
        case list():
            return "an array"
    return _clipped(repr(value))


def _clipped(text: str) -> str:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return _SURROGATE.sub("\ufffd", shown)


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys stand where they were written last, so that the last one wins."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    found.clear()
    for key, value in pairs:
        if value is None and key in found:  # Go leaves a field alone that is null
            continue
        found.pop(key, None)
        found[key] = value
    return found


def _whole(digits: str) -> "int | _Huge":
    return int(digits) if len(digits) <= _MAX_DIGITS else _Huge(digits)


def _no_constant(name: str) -> NoReturn:
    raise BadJson(f"not JSON: {name} is no number of JSON; leave it out")


_decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_whole, parse_constant=_no_constant)
