"""``json`` of kratos v3: messages by the rules for plain structs.

Source: go-kratos/kratos encoding/json/json.go of v3; encoding/json of Go.
"""

from typing import Any

from google.protobuf.message import Message

from kit.encoding import CodecError, families, protojson, structs
from kit.encoding.families import AnyDescriptor, AnyField
from kit.encoding.json import decode_plain, encode_plain

_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}
_ESCAPED = str.maketrans(_ESCAPES)


class StructJsonCodec:
    """``application/json`` in the form of kratos v3."""

    name = "json"

    def encode(self, value: Any) -> bytes:
        """See :meth:`kit.encoding.Codec.encode`."""
        if not isinstance(value, Message):
            return encode_plain(value)
        tree = structs.to_struct(value, lambda field: field.name, defaults=False)
        try:
            text = protojson.text_of(tree).decode()
        except ValueError as exc:
            raise CodecError(f"{value.DESCRIPTOR.name} cannot be written: {exc}") from exc
        return text.translate(_ESCAPED).encode()  # these letters stand in texts only

    def decode(self, data: bytes, kind: Any) -> Any:
        """See :meth:`kit.encoding.Codec.decode`."""
        if not families.is_google(kind):
            return decode_plain(data, kind)
        message = kind()
        structs.from_struct(protojson.loads(data), message, _find)
        return message


def _find(descriptor: AnyDescriptor, name: str) -> AnyField | None:
    exact = descriptor.fields_by_name.get(name)
    if exact is not None:
        return exact
    lowered = name.lower()
    return next((field for field in descriptor.fields if field.name.lower() == lowered), None)
