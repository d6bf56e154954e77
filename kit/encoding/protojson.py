"""Protobuf messages as JSON by the protobuf mapping, in the form of kratos.

Out: every field is written, unset messages as ``null``; members of a oneof and ``optional`` fields
only when set. In: either name of a field, unknown fields are ignored, an unknown name of an enum
is an error.

What a message looks like is worked out once and kept; well-known types are left to the protobuf
package.

Source: go-kratos/kratos encoding/json/json.go (v2); protobuf-go encoding/protojson.
"""

import base64
import binascii
import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from kit.encoding import CodecError
from kit.encoding.families import AnyDescriptor, AnyField

_Field = FieldDescriptor
_Encode: TypeAlias = Callable[[Any], Any]
_Decode: TypeAlias = Callable[[Any, str], Any]

_WELL_KNOWN = {
    f"google.protobuf.{name}"
    for name in (
        *("Any", "Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue"),
        *("BoolValue", "BytesValue", "DoubleValue", "FloatValue", "StringValue"),
        *("Int32Value", "Int64Value", "UInt32Value", "UInt64Value"),
    )
}
_NULL_IS_A_VALUE = {"google.protobuf.Value", "google.protobuf.NullValue"}
_DEEPEST = 100
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 400
_INTEGERS = {
    _Field.CPPTYPE_INT32: (-(2**31), 2**31),
    _Field.CPPTYPE_INT64: (-(2**63), 2**63),
    _Field.CPPTYPE_UINT32: (0, 2**32),
    _Field.CPPTYPE_UINT64: (0, 2**64),
}
_AS_TEXT = {_Field.CPPTYPE_INT64, _Field.CPPTYPE_UINT64}
_SPECIAL_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(message: Message) -> bytes:
    """``message`` as JSON text.

    Raises:
        CodecError: it has no such form, as an Any of an unknown type.
    """
    try:
        return text_of(to_value(message))
    except (TypeError, ValueError, RecursionError) as exc:
        raise CodecError(f"{message.DESCRIPTOR.full_name} cannot be written: {exc}") from exc


def text_of(value: Any) -> bytes:
    """A tree of plain values as compact JSON."""
    return _ENCODER.encode(value).encode()


def loads(data: bytes | str) -> Any:
    """JSON text as a tree of plain values.

    Raises:
        CodecError: it is malformed.
    """
    try:
        return _DECODER.decode(data if isinstance(data, str) else data.decode())
    except RecursionError as exc:
        raise CodecError("JSON is nested too deeply") from exc
    except ValueError as exc:
        raise CodecError(f"malformed JSON: {exc}") from exc


def to_value(message: Message) -> Any:
    """``message`` as a tree of plain values."""
    return _writer(message.DESCRIPTOR)(message)


def merge(value: Any, message: Message) -> None:
    """Put what ``value``, a tree of plain values, says into ``message``.

    Raises:
        CodecError: a value does not fit its field; the text names it.
    """
    try:
        _reader(message.DESCRIPTOR)(value, message, "", 0)
    except CodecError:
        raise
    except RecursionError as exc:
        raise CodecError("the message is nested too deeply") from exc
    except (TypeError, ValueError) as exc:  # as a lone surrogate, which JSON can write
        raise CodecError(f"{message.DESCRIPTOR.name}: {exc}") from exc


def field_to_value(field: AnyField, value: Any) -> Any:
    """One field's ``value``, repeated or not, as plain values."""
    return _field_writer(field)(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Made once: json.loads and json.dumps with arguments make one for each call.
_DECODER = json.JSONDecoder(parse_constant=_no_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


# ---- out ----

_writers: dict[AnyDescriptor, _Encode] = {}


def _writer(descriptor: AnyDescriptor) -> _Encode:
    writer = _writers.get(descriptor)
    if writer is None:
        known = descriptor.full_name in _WELL_KNOWN
        writer = _writers[descriptor] = _well_known if known else _message_writer(descriptor)
    return writer


def _well_known(message: Message) -> Any:
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def _message_writer(descriptor: AnyDescriptor) -> _Encode:
    plan: list[tuple[str, str, bool, bool, _Encode | None]] | None = None

    def write(message: Message) -> dict[str, Any]:
        nonlocal plan
        if plan is None:  # not before the first message: types may contain themselves
            plan = [
                (
                    field.json_name,
                    field.name,
                    field.has_presence and not field.is_repeated,
                    field.containing_oneof is None and field.message_type is not None,
                    _plain_or_writer(field),
                )
                for field in descriptor.fields
            ]
        written: dict[str, Any] = {}
        for json_name, name, presence, null, convert in plan:
            if presence and not message.HasField(name):
                if null:
                    written[json_name] = None
                continue
            value = getattr(message, name)
            written[json_name] = value if convert is None else convert(value)
        return written

    return write


def _plain_or_writer(field: AnyField) -> _Encode | None:
    """``None`` for fields whose Python value is their JSON value."""
    plain = field.cpp_type in {_Field.CPPTYPE_BOOL, _Field.CPPTYPE_INT32, _Field.CPPTYPE_UINT32}
    text = field.type == _Field.TYPE_STRING
    return None if (plain or text) and not field.is_repeated else _field_writer(field)


def _field_writer(field: AnyField) -> _Encode:
    if is_map(field):
        key, element = _map_key, _value_writer(field.message_type.fields_by_name["value"])
        return lambda values: {key(each): element(values[each]) for each in values}
    element = _value_writer(field)
    return (lambda values: [element(each) for each in values]) if field.is_repeated else element


def is_map(field: AnyField) -> bool:
    """Whether the field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _map_key(key: Any) -> str:
    return ("false", "true")[key] if isinstance(key, bool) else str(key)


def _value_writer(field: AnyField) -> _Encode:
    if field.message_type is not None:
        descriptor = field.message_type
        return lambda message: _writer(descriptor)(message)
    if field.enum_type is not None:
        return _enum_writer(field.enum_type)
    if field.cpp_type in _AS_TEXT:
        return str
    if field.type == _Field.TYPE_BYTES:
        return lambda data: base64.b64encode(data).decode()
    if field.cpp_type == _Field.CPPTYPE_DOUBLE:
        return _float
    if field.cpp_type == _Field.CPPTYPE_FLOAT:
        return lambda number: _float(_shortest(number))
    return lambda value: value


def _enum_writer(enum: AnyDescriptor) -> _Encode:
    if enum.full_name == "google.protobuf.NullValue":
        return lambda _: None
    names = {number: value.name for number, value in enum.values_by_number.items()}
    return lambda number: names.get(number, number)


def _float(number: float) -> float | int | str:
    if math.isfinite(number):
        return int(number) if number.is_integer() and 0 < abs(number) < 1e15 else number
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def _shortest(number: float) -> float:
    """The shortest text that is the same float of 32 bits."""
    if not math.isfinite(number):
        return number
    for digits in (6, 7, 8):
        short = float(f"{number:.{digits}g}")
        if (
            abs(short) <= 3.4028234e38
            and struct.unpack("<f", struct.pack("<f", short))[0] == number
        ):
            return short
    return number


# ---- in ----

_Read: TypeAlias = Callable[[Any, Any, str, int], None]
_readers: dict[AnyDescriptor, _Read] = {}


def _reader(descriptor: AnyDescriptor) -> _Read:
    reader = _readers.get(descriptor)
    if reader is None:
        known = descriptor.full_name in _WELL_KNOWN
        reader = _readers[descriptor] = _read_known if known else _message_reader(descriptor)
    return reader


def _read_known(value: Any, message: Message, where: str, _depth: int) -> None:
    try:
        json_format.ParseDict(value, message, ignore_unknown_fields=True)
    except (json_format.ParseError, TypeError, ValueError, AttributeError) as exc:
        raise CodecError(f"{where or 'the message'}: {exc}") from exc


def _message_reader(descriptor: AnyDescriptor) -> _Read:
    plan: dict[str, tuple[bool, str, _Read]] | None = None

    def read(value: Any, message: Message, where: str, depth: int) -> None:
        nonlocal plan
        if plan is None:
            plan = {}
            for field in descriptor.fields:
                one_of = field.containing_oneof
                group = one_of.name if one_of is not None and len(one_of.fields) > 1 else ""
                entry = (_keeps_null(field), group, _field_reader(field))
                plan[field.json_name] = plan[field.name] = entry
        if not isinstance(value, dict):
            raise CodecError(f"{where or descriptor.name}: {_said(value)} is not an object")
        if depth > _DEEPEST:
            raise CodecError(f"{where}: nested more than {_DEEPEST} levels deep")
        groups: set[str] | None = None
        for key, given in value.items():
            known = plan.get(key)
            if known is None:
                continue
            keeps_null, group, take = known
            if given is None and not keeps_null:
                continue
            here = f"{where}.{key}" if where else key
            if group:
                groups = set() if groups is None else groups
                if group in groups:
                    raise CodecError(f"{here}: another member of oneof {group!r} is given, too")
                groups.add(group)
            take(given, message, here, depth)

    return read


def _keeps_null(field: AnyField) -> bool:
    kind = field.message_type or field.enum_type
    return kind is not None and kind.full_name in _NULL_IS_A_VALUE and not field.is_repeated


def _field_reader(field: AnyField) -> _Read:
    name = field.name
    if is_map(field):
        return _map_reader(field)
    if field.message_type is not None:
        descriptor = field.message_type
        if field.is_repeated:
            return _messages_reader(name, descriptor)

        def read_message(value: Any, message: Message, where: str, depth: int) -> None:
            target = getattr(message, name)
            target.SetInParent()
            _reader(descriptor)(value, target, where, depth + 1)

        return read_message
    convert = scalar_reader(field)
    if field.is_repeated:

        def read_list(value: Any, message: Message, where: str, _depth: int) -> None:
            target = getattr(message, name)
            for index, each in enumerate(_list(value, where)):
                target.append(convert(each, f"{where}[{index}]"))

        return read_list

    def read_scalar(value: Any, message: Message, where: str, _depth: int) -> None:
        setattr(message, name, convert(value, where))

    return read_scalar


def _messages_reader(name: str, descriptor: AnyDescriptor) -> _Read:
    def read(value: Any, message: Message, where: str, depth: int) -> None:
        target = getattr(message, name)
        for index, each in enumerate(_list(value, where)):
            _reader(descriptor)(each, target.add(), f"{where}[{index}]", depth + 1)

    return read


def _map_reader(field: AnyField) -> _Read:
    name, entry = field.name, field.message_type
    key_of = _key_reader(entry.fields_by_name["key"])
    element = entry.fields_by_name["value"]
    descriptor = element.message_type
    convert = None if descriptor is not None else scalar_reader(element)

    def read(value: Any, message: Message, where: str, depth: int) -> None:
        if not isinstance(value, dict):
            raise CodecError(f"{where}: {_said(value)} is not an object")
        target = getattr(message, name)
        for text, given in value.items():
            here = f"{where}[{text}]"
            if convert is None:
                _reader(descriptor)(given, target[key_of(text, where)], here, depth + 1)
            else:
                target[key_of(text, where)] = convert(given, here)

    return read


def _key_reader(field: AnyField) -> _Decode:
    if field.type == _Field.TYPE_BOOL:

        def read_bool(value: Any, where: str) -> bool:
            if value not in {"true", "false"}:
                raise CodecError(f"{where}: key {value!r} is not true or false")
            return bool(value == "true")

        return read_bool
    return scalar_reader(field)


def scalar_reader(field: AnyField) -> _Decode:
    """Reads one value of ``field``, which holds no messages, out of JSON's plain values."""
    if field.enum_type is not None:
        return _enum_reader(field.enum_type)
    if field.cpp_type in _INTEGERS:
        return _integer_reader(*_INTEGERS[field.cpp_type])
    if field.cpp_type == _Field.CPPTYPE_BOOL:
        return _instance_reader(bool, "true or false")
    if field.type == _Field.TYPE_BYTES:
        return _bytes
    if field.type == _Field.TYPE_STRING:
        return _instance_reader(str, "a text")
    return _float_reader(single=field.cpp_type == _Field.CPPTYPE_FLOAT)


def _instance_reader(kind: type, described: str) -> _Decode:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, kind):
            raise CodecError(f"{where}: {_said(value)} is not {described}")
        return value

    return read


def _enum_reader(enum: AnyDescriptor) -> _Decode:
    numbers: dict[str, int] = {name: each.number for name, each in enum.values_by_name.items()}
    null = enum.full_name == "google.protobuf.NullValue"

    def read(value: Any, where: str) -> int:
        if isinstance(value, str) and value in numbers:
            return numbers[value]
        if isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31:
            return value
        if null and value is None:
            return 0
        raise CodecError(f"{where}: {_said(value)} is not a value of {enum.full_name}")

    return read


def _integer_reader(least: int, end: int) -> _Decode:
    def read(value: Any, where: str) -> int:
        number = value
        if (
            isinstance(value, str)
            and len(value) < 32
            and value.isascii()
            and value == value.strip()
        ):
            try:
                number = loads(value)  # the grammar of JSON: no +1, no 1_000, no 007
            except CodecError:
                number = None
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if not isinstance(number, int) or isinstance(number, bool):
            raise CodecError(f"{where}: {_said(value)} is not an integer")
        if not least <= number < end:
            raise CodecError(f"{where}: {_said(value)} is not between {least} and {end - 1}")
        return int(number)

    return read


def _number(text: str) -> int | float | None:
    """A number in the grammar of JSON, which has no ``+1``, ``1_000`` or ``007``."""
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        return None
    return float(text) if set(text) & set(".eE") else int(text)


def _float_reader(*, single: bool) -> _Decode:
    def read(value: Any, where: str) -> float:
        number = value
        if isinstance(value, str):
            if value in _SPECIAL_FLOATS:
                return _SPECIAL_FLOATS[value]
            number = _number(value)
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise CodecError(f"{where}: {_said(value)} is not a number")
        try:
            real = float(number)
            if single:
                struct.pack("<f", real)
        except OverflowError:
            real = math.inf
        if math.isinf(real):
            raise CodecError(f"{where}: {_said(value)} is out of range")
        return real

    return read


def _bytes(value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise CodecError(f"{where}: {_said(value)} is not a text in base64")
    return from_base64(value, where)


def from_base64(text: str, where: str) -> bytes:
    """The bytes of ``text`` in either alphabet, with or without padding.

    Raises:
        CodecError: it is not base64.
    """
    standard = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise CodecError(f"{where}: not base64: {exc}") from exc


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise CodecError(f"{where}: {_said(value)} is not a list")
    return value


def _said(value: Any) -> str:
    """``value`` in a message: short, for what peers send may be long."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 64 else f"{text[:61]}…"
