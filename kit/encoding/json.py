"""``json`` and ``protojson``: messages by the protobuf mapping, other values as they are.

Source: go-kratos/kratos encoding/json/json.go of v2; encoding/protojson of v3.
"""

import dataclasses
from typing import Any

from google.protobuf.message import Message

from kit.encoding import CodecError, families, protojson


class JsonCodec:
    """``application/json`` in the form of kratos v2.

    Beside messages it takes what JSON has, dataclasses, and pydantic models.
    """

    name = "json"

    def encode(self, value: Any) -> bytes:
        """See :meth:`kit.encoding.Codec.encode`."""
        if isinstance(value, Message):
            return protojson.dumps(value)
        if families.is_foreign(type(value)):
            return families.to_json(value)
        return encode_plain(value)

    def decode(self, data: bytes, kind: Any) -> Any:
        """See :meth:`kit.encoding.Codec.decode`."""
        if families.is_google(kind):
            message = kind()
            protojson.merge(protojson.loads(data), message)
            return message
        if families.is_foreign(kind):
            return families.from_json(kind, data)
        return decode_plain(data, kind)


class ProtoJsonCodec(JsonCodec):
    """``application/protojson``: messages only."""

    name = "protojson"

    def encode(self, value: Any) -> bytes:
        """See :meth:`kit.encoding.Codec.encode`."""
        if not families.is_message(type(value)):
            raise CodecError(f"{type(value).__name__} is not a protobuf message")
        return super().encode(value)

    def decode(self, data: bytes, kind: Any) -> Any:
        """See :meth:`kit.encoding.Codec.decode`."""
        if not families.is_message(kind):
            raise CodecError(f"{getattr(kind, '__name__', kind)} is not a protobuf message")
        return super().decode(data, kind)


def encode_plain(value: Any) -> bytes:
    """Plain values, dataclasses and pydantic models as JSON.

    Raises:
        CodecError: ``value`` holds something else.
    """
    model = getattr(value, "model_dump_json", None)
    if model is not None:
        return str(model()).encode()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    try:
        return protojson.text_of(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise CodecError(f"{type(value).__name__} cannot be written as JSON: {exc}") from exc


def decode_plain(data: bytes, kind: Any) -> Any:
    """JSON as a value of ``kind``: a plain type, a dataclass, or a pydantic model.

    Raises:
        CodecError: it is malformed, or of another type.
    """
    model = getattr(kind, "model_validate_json", None)
    if model is not None:
        try:
            return model(data)
        except ValueError as exc:
            raise CodecError(str(exc)) from exc
    value = protojson.loads(data)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise CodecError(f"{kind.__name__} is an object in JSON")
        known = {field.name for field in dataclasses.fields(kind) if field.init}
        try:
            return kind(**{key: each for key, each in value.items() if key in known})
        except (TypeError, ValueError) as exc:
            raise CodecError(str(exc)) from exc
    if isinstance(kind, type) and not isinstance(value, kind):
        raise CodecError(f"{type(value).__name__} given where {kind.__name__} is wanted")
    return value
