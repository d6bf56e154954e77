"""Messages as Go's generated structs look to a codec that knows nothing of protobuf.

That is how kratos serves ``json`` from v3 on, ``xml`` and ``yaml``: enums are numbers, a timestamp
is ``{seconds, nanos}``, 64-bit numbers are numbers. A oneof is a struct in a struct: written under
its capitalised name, and not readable.

Source: protobuf-go cmd/protoc-gen-go, GoCamelCase; encoding/json, encoding/xml of Go.
"""

import base64
from collections.abc import Callable
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from kit.encoding import CodecError, protojson
from kit.encoding.families import AnyDescriptor, AnyField

Name: TypeAlias = Callable[[AnyField], str]

_Field = FieldDescriptor
_NUMBERS = {
    *(_Field.CPPTYPE_INT32, _Field.CPPTYPE_INT64, _Field.CPPTYPE_UINT32, _Field.CPPTYPE_UINT64),
    *(_Field.CPPTYPE_DOUBLE, _Field.CPPTYPE_FLOAT, _Field.CPPTYPE_ENUM),
}


def go_name(name: str) -> str:
    """The Go form of a field's or message's name.

    >>> go_name("user_id"), go_name("_x"), go_name("a1_b")
    ('UserId', 'XX', 'A1B')
    """
    written: list[str] = []
    upper = True
    for index, letter in enumerate(name):
        if letter == "_" and index == 0:
            written.append("X")
        elif letter == "_" and index + 1 < len(name) and name[index + 1].islower():
            upper = True
            continue
        else:
            written.append(letter.upper() if upper and letter.islower() else letter)
        upper = letter.isdigit() or (letter == "_" and index == 0)
    return "".join(written)


def to_struct(message: Message, name: Name, *, defaults: bool) -> dict[str, Any]:
    """``message`` as a tree of plain values, in the order of its fields.

    Args:
        message: what to write.
        name: the name a field goes by.
        defaults: whether fields with zero values are written; unset messages never are.
    """
    tree: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        presence = field.has_presence and not field.is_repeated
        value = getattr(message, field.name)
        if presence and not message.HasField(field.name):
            continue
        if not presence and not defaults and not value:
            continue
        written = _tree_of(field, value, name, defaults=defaults)
        one_of = field.containing_oneof
        if one_of is not None and len(one_of.fields) > 1:
            tree[go_name(one_of.name)] = {go_name(field.name): written}
        else:
            tree[name(field)] = written
    return tree


def _tree_of(field: AnyField, value: Any, name: Name, *, defaults: bool) -> Any:
    if protojson.is_map(field):
        element = field.message_type.fields_by_name["value"]
        return {
            ("false", "true")[key] if isinstance(key, bool) else str(key): _one(
                element, value[key], name, defaults=defaults
            )
            for key in value
        }
    if field.is_repeated:
        return [_one(field, each, name, defaults=defaults) for each in value]
    return _one(field, value, name, defaults=defaults)


def _one(field: AnyField, value: Any, name: Name, *, defaults: bool) -> Any:
    if field.message_type is not None:
        return to_struct(value, name, defaults=defaults)
    if field.type == _Field.TYPE_BYTES:
        return base64.b64encode(value).decode()
    return value


def from_struct(tree: Any, message: Message, fields: Callable[[AnyDescriptor, str], Any]) -> None:
    """Put a tree of plain values into ``message``.

    Args:
        tree: what a codec has read.
        message: what to fill.
        fields: finds the field of a name, or ``None``.

    Raises:
        CodecError: a value does not fit its field.
    """
    descriptor = message.DESCRIPTOR
    if not isinstance(tree, dict):
        raise CodecError(f"{descriptor.name}: {type(tree).__name__} given, not an object")
    for key, value in tree.items():
        field = fields(descriptor, str(key))
        if field is None or value is None:
            continue
        one_of = field.containing_oneof
        if one_of is not None and len(one_of.fields) > 1:
            raise CodecError(f"{key}: members of a oneof cannot be read from structs")
        try:
            _put(field, value, message, fields)
        except CodecError:
            raise
        except (TypeError, ValueError) as exc:
            raise CodecError(f"{key}: {exc}") from exc


def _put(field: AnyField, value: Any, message: Message, fields: Any) -> None:
    target = getattr(message, field.name)
    if protojson.is_map(field):
        element = field.message_type.fields_by_name["value"]
        read_key = protojson.scalar_reader(field.message_type.fields_by_name["key"])
        if not isinstance(value, dict):
            raise CodecError(f"{field.name}: {type(value).__name__} given, not an object")
        for key, each in value.items():
            at = read_key(key, field.name)
            if element.message_type is not None:
                from_struct(each, target[at], fields)
            else:
                target[at] = _read(element, each)
    elif field.is_repeated:
        if not isinstance(value, list):
            raise CodecError(f"{field.name}: {type(value).__name__} given, not a list")
        for each in value:
            if field.message_type is not None:
                from_struct(each, target.add(), fields)
            else:
                target.append(_read(field, each))
    elif field.message_type is not None:
        target.SetInParent()
        from_struct(value, target, fields)
    else:
        setattr(message, field.name, _read(field, value))


def _read(field: AnyField, value: Any) -> Any:
    if field.cpp_type in _NUMBERS and isinstance(value, str):
        raise CodecError(f"{field.name}: a text given where a number is wanted")
    return protojson.scalar_reader(field)(value, field.name)
