"""``x-www-form-urlencoded``: queries, path variables and forms.

In: either name of a field, dots descend into messages, ``a=1&a=2`` fills a list, ``m[k]=v`` a map.
Unknown names and empty values are ignored. Out: fields that are set, by JSON name, sorted.

Source: go-kratos/kratos encoding/form/proto_decode.go, proto_encode.go, well_known_types.go.
"""

import base64
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from kit.encoding import CodecError, families, protojson
from kit.encoding.families import AnyDescriptor, AnyField

MOST_PAIRS = 1_000
"""Names and values in one text; more are refused."""

_Field = FieldDescriptor
_TRUE, _FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}
_INTEGER = re.compile(r"[+-]?[0-9]+")
_FLOAT = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_HEX_FLOAT = re.compile(r"[+-]?0[xX][0-9a-fA-F]*\.?[0-9a-fA-F]*[pP][+-]?[0-9]+")
_WORDS = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_WRAPPERS = {
    f"google.protobuf.{name}Value"
    for name in ("Bool", "Bytes", "Double", "Float", "String", "Int32", "Int64", "UInt32", "UInt64")
}


class FormCodec:
    """``application/x-www-form-urlencoded`` for messages of google.protobuf."""

    name = "x-www-form-urlencoded"

    def encode(self, value: Any) -> bytes:
        """See :meth:`kit.encoding.Codec.encode`."""
        if not isinstance(value, Message):
            raise CodecError(f"{type(value).__name__} is not a protobuf message")
        return encode_pairs(pairs_of(value)).encode()

    def decode(self, data: bytes, kind: Any) -> Any:
        """See :meth:`kit.encoding.Codec.decode`."""
        if not families.is_google(kind):
            raise CodecError(f"{getattr(kind, '__name__', kind)} is not a protobuf message")
        message = kind()
        bind(message, parse(data))
        return message


def parse(data: bytes) -> dict[str, list[str]]:
    """The values of each name.

    Raises:
        CodecError: there are too many, or the text is not UTF-8.

    >>> parse(b"a=1&b=x+y&a=%32")
    {'a': ['1', '2'], 'b': ['x y']}
    """
    if not data:
        return {}
    try:
        pairs = parse_qsl(
            data.decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MOST_PAIRS,
        )
    except ValueError as exc:
        raise CodecError(f"malformed form: {exc}") from exc
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def bind(message: Message, values: dict[str, list[str]]) -> None:
    """Put ``values`` into the fields that their names address.

    Raises:
        CodecError: a value does not fit its field.
    """
    for name, texts in values.items():
        _bind(message, name, texts)


def _bind(message: Message, name: str, texts: list[str]) -> None:
    steps = _steps(name)
    for position, step in enumerate(steps):
        field = _find(message, step)
        if field is None:
            return
        rest = steps[position + 1 :]
        if protojson.is_map(field):
            if rest:
                _set_map(message, field, ".".join(rest), texts)
                return
            raise CodecError(f"{name}: a map wants {name}[key]=value")
        if not rest:
            _set(message, field, texts)
            return
        if field.message_type is None or field.is_repeated:
            raise CodecError(f'invalid path: "{step}" is not a message')
        message = getattr(message, field.name)


def _steps(name: str) -> list[str]:
    """``a.b[c]`` as ``a``, ``b``, ``c``; brackets with nothing in them mean a list.

    >>> _steps("user.tags[a.b]"), _steps("ids[]")
    (['user', 'tags', 'a.b'], ['ids'])
    """
    head, bracket, key = name.partition("[")
    steps = head.split(".")
    if bracket and key.endswith("]") and len(key) > 1:
        steps.append(key[:-1])
    return steps


def _find(message: Message, name: str) -> AnyField | None:
    descriptor = message.DESCRIPTOR
    found = descriptor.fields_by_name.get(name)
    return found or descriptor.fields_by_camelcase_name.get(name) or _by_json(descriptor, name)


def _by_json(descriptor: Any, name: str) -> AnyField | None:
    return next((field for field in descriptor.fields if field.json_name == name), None)


def _set(message: Message, field: AnyField, texts: list[str]) -> None:
    one_of = field.containing_oneof
    if one_of is not None and (message.WhichOneof(one_of.name) or "") != "":
        raise CodecError(f'field already set for oneof "{one_of.name}"')
    if field.is_repeated:
        _append(message, field, texts)
        return
    if len(texts) > 1:
        listed = ", ".join(text[:64] for text in texts[:8])
        raise CodecError(f'too many values for field "{field.name}": {listed}')
    text = texts[0]
    if not text:
        return
    if field.message_type is not None:
        target = getattr(message, field.name)
        if _fill(target, text, field.name):
            target.SetInParent()
    else:
        setattr(message, field.name, scalar(field, text))


def _append(message: Message, field: AnyField, texts: Iterable[str]) -> None:
    target = getattr(message, field.name)
    for text in texts:
        if field.message_type is not None:
            _fill(target.add(), text, field.name)
        elif text or field.type == _Field.TYPE_STRING:
            target.append(scalar(field, text))


def _set_map(message: Message, field: AnyField, key: str, texts: list[str]) -> None:
    entry = field.message_type
    element = entry.fields_by_name["value"]
    target = getattr(message, field.name)
    at = scalar(entry.fields_by_name["key"], key)
    if element.message_type is not None:
        _fill(target[at], texts[-1], field.name)
    else:
        target[at] = scalar(element, texts[-1])


def scalar(field: AnyField, text: str) -> Any:
    """One value of ``field``, which holds no messages, as Go's strconv reads it.

    Raises:
        CodecError: ``text`` is no such value.
    """
    where = f'field "{field.name}"'
    if field.enum_type is not None:
        return _enum(field, text)
    if field.cpp_type == _Field.CPPTYPE_BOOL:
        if text not in _TRUE | _FALSE:
            raise CodecError(f"{where}: {text[:64]!r} is not true or false")
        return text in _TRUE
    if field.type == _Field.TYPE_STRING:
        return text
    if field.type == _Field.TYPE_BYTES:
        return protojson.from_base64(text, where)
    if field.cpp_type in {_Field.CPPTYPE_DOUBLE, _Field.CPPTYPE_FLOAT}:
        return _float(text, where)
    if not _INTEGER.fullmatch(text) or len(text) > 32:
        raise CodecError(f"{where}: {text[:64]!r} is not an integer")
    return protojson.scalar_reader(field)(int(text), where)


def _enum(field: AnyField, text: str) -> int:
    enum = field.enum_type
    if text in enum.values_by_name:
        return int(enum.values_by_name[text].number)
    if _INTEGER.fullmatch(text) and len(text) < 12 and int(text) in enum.values_by_number:
        return int(text)
    raise CodecError(f'field "{field.name}": "{text[:64]}" is not a valid value')


def _float(text: str, where: str) -> float:
    if _FLOAT.fullmatch(text) or _WORDS.fullmatch(text):
        number = float(text)
        if math.isfinite(number) or _WORDS.fullmatch(text):
            return number
    elif _HEX_FLOAT.fullmatch(text):
        try:
            return float.fromhex(text)
        except (ValueError, OverflowError):
            pass
    raise CodecError(f"{where}: {text[:64]!r} is not a number, or out of range")


def _fill(target: Message, text: str, name: str) -> bool:
    """Fill a well-known message from one text; whether it is set at all."""
    kind = target.DESCRIPTOR.full_name
    if kind in _WRAPPERS:
        if text or kind.endswith("StringValue"):
            field = target.DESCRIPTOR.fields_by_name["value"]
            target.value = scalar(field, text)  # type: ignore[attr-defined]
        return True
    if kind in {"google.protobuf.Timestamp", "google.protobuf.Duration"} and text == "null":
        return False
    value: Any
    match kind:
        case "google.protobuf.Timestamp":
            value = text
        case "google.protobuf.Duration":
            value = _duration(text, name)
        case "google.protobuf.FieldMask":
            target.paths.extend(_snake(path) for path in text.split(","))  # type: ignore[attr-defined]
            return True
        case "google.protobuf.Struct":
            value = protojson.loads(text)
        case "google.protobuf.Value":
            value = text
        case _:
            raise CodecError(f'unsupported message type: "{kind}"')
    try:
        protojson.merge(value, target)
    except CodecError as exc:
        raise CodecError(f'field "{name}": {text[:64]!r} cannot be read: {exc}') from exc
    return True


def _duration(text: str, name: str) -> str:
    """Go's text form in that of protobuf's JSON, exact to the nanosecond."""
    sign, rest = ("-", text[1:]) if text[:1] == "-" else ("", text.removeprefix("+"))
    total, position = 0, 0
    while rest != "0" and position < len(rest) <= 64:
        part = _DURATION_PART.match(rest, position)
        if part is None or not (part[1] or part[2]):
            break
        unit = _NANOSECONDS[part[3]]
        fraction = part[2] or ""
        total += int(part[1] or 0) * unit + int(fraction or 0) * unit // 10 ** len(fraction)
        position = part.end()
    if not rest or (rest != "0" and position != len(rest)):
        raise CodecError(f'field "{name}": {text[:64]!r} is not a duration such as 1h2m3.5s')
    return f"{sign}{total // 10**9}.{total % 10**9:09}s"


def _snake(path: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), path)


# ---- out ----


def pairs_of(message: Message, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of each field that is set.

    Raises:
        CodecError: a list of messages, or a type without a text, is set.
    """
    for field, value in message.ListFields():
        name = f"{prefix}{field.json_name}"
        if protojson.is_map(field):
            entry: AnyDescriptor = field.message_type
            element = entry.fields_by_name["value"]
            for key in value:
                where = f"{name}[{key_text(key)}]"
                yield from _pairs(element, value[key], where)
        elif field.is_repeated:
            for each in value:
                if field.message_type is not None and not _has_text(each):
                    raise CodecError(f"{name}: a list of messages has no place in a query")
                yield from _pairs(field, each, name)
        else:
            yield from _pairs(field, value, name)


def encode_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """Pairs as one text, sorted by name."""
    return urlencode(sorted(pairs, key=lambda pair: pair[0]))


def value_text(field: AnyField, value: Any) -> str:
    """The one text of a field's value, as a path has it.

    Raises:
        CodecError: it has none.
    """
    if field.is_repeated or (field.message_type is not None and not _has_text(value)):
        raise CodecError(f"{field.name} has no text that could stand in a path")
    return text_of(field, value) if field.message_type is None else _known_text(value)


def key_text(value: Any) -> str:
    """A scalar as a form writes it."""
    return ("false", "true")[value] if isinstance(value, bool) else str(value)


def _pairs(field: AnyField, value: Any, name: str) -> Iterator[tuple[str, str]]:
    if field.message_type is None:
        yield name, text_of(field, value)
    elif _has_text(value):
        yield name, _known_text(value)
    else:
        yield from pairs_of(value, f"{name}.")


def text_of(field: AnyField, value: Any) -> str:
    """The text of one value of a field that holds no messages."""
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(value) if known is None else known.name
    if field.type == _Field.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return key_text(value)


def _has_text(message: Message) -> bool:
    kind = message.DESCRIPTOR.full_name
    return kind in _WRAPPERS or kind in {
        f"google.protobuf.{name}" for name in ("Timestamp", "Duration", "FieldMask", "Struct")
    }


def _known_text(message: Message) -> str:
    kind = message.DESCRIPTOR.full_name
    if kind == "google.protobuf.Struct":
        return json_format.MessageToJson(message, indent=None)
    value = json_format.MessageToDict(message)
    return key_text(value)
