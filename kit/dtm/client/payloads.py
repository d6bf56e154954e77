"""Payloads as bytes: JSON for HTTP branches, protobuf for gRPC branches.

=======================  ==============================  ======================================
payload                  branch over HTTP                branch over gRPC
=======================  ==============================  ======================================
protobuf, betterproto    JSON; from a gRPC client the    the encoded message
                         encoded message, as dtm's
dataclass, pydantic,     JSON                            refused
dict, list, text,
number, ``None``
bytes                    as they are                     as they are
=======================  ==============================  ======================================

Source: dtm-labs/dtm client/dtmcli/saga.go (Add), client/dtmgrpc/saga.go (Add).
"""

import json
from typing import Protocol as TypingProtocol
from typing import TypeAlias, runtime_checkable

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtobufMessage
from pydantic_core import PydanticSerializationError, to_jsonable_python

from kit.dtm.client.errors import PayloadError
from kit.dtm.wire import TOPIC_PREFIX, Protocol

HTTP_SCHEMES = ("http://", "https://")


@runtime_checkable
class Message(TypingProtocol):
    """A protobuf message of any library that encodes itself."""

    def SerializeToString(self) -> bytes:  # noqa: N802  (protobuf's name)
        """The encoded message."""
        ...


Payload: TypeAlias = Message | bytes | object
"""What a branch is given; the table above says what becomes of it."""


def payload_for(url: str, payload: Payload, protocol: Protocol, field: str) -> bytes:
    """``payload`` as the branch at ``url`` is to receive it.

    Args:
        url: a topic takes what either kind of branch would.
        payload: see the table of the module.
        protocol: of the coordinator's API; HTTP and JSON-RPC carry text only.
        field: names the payload in errors.

    Raises:
        PayloadError: there is no such form of ``payload``.
    """
    over_http = url.startswith(HTTP_SCHEMES)
    if isinstance(payload, bytes | bytearray | memoryview):
        data = bytes(payload)
    elif isinstance(payload, Message):
        as_text = over_http if protocol is Protocol.JSON_RPC else protocol is Protocol.HTTP
        data = _message_json(payload, field) if as_text else _encoded(payload, field)
    elif protocol is Protocol.HTTP or over_http or url.startswith(TOPIC_PREFIX):
        data = json_bytes(payload, field)
    elif payload is None:
        data = b""
    else:
        raise PayloadError(
            f"{field} is {type(payload).__name__}; a gRPC branch takes a protobuf message or bytes"
        )
    if protocol is not Protocol.GRPC:
        check_text(data, field)
    return data


def data_bytes(payload: Payload, field: str) -> bytes:
    """``payload`` as the bytes that a workflow is given or gives: a message encoded, else JSON.

    Raises:
        PayloadError: there is no such form of ``payload``.
    """
    if payload is None:
        return b""
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload)
    if isinstance(payload, Message):
        return _encoded(payload, field)
    return json_bytes(payload, field)


def json_bytes(payload: object, field: str) -> bytes:
    """``payload`` as JSON without spaces.

    Raises:
        PayloadError: something in it has no JSON.

    >>> json_bytes({"amount": 30, "note": "ü"}, "payload").decode()
    '{"amount":30,"note":"ü"}'
    """
    try:
        text = json.dumps(
            payload,
            default=to_jsonable_python,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
        )
        return text.encode()
    except (TypeError, ValueError, RecursionError, PydanticSerializationError) as exc:
        raise PayloadError(
            f"{field} of type {type(payload).__name__} cannot be written as JSON: {exc}; give a "
            "dict, a dataclass, a pydantic model, a message or bytes"
        ) from exc


def check_text(data: bytes, field: str) -> None:
    """Refuse bytes that JSON cannot carry.

    Raises:
        PayloadError: ``data`` is not UTF-8.
    """
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        raise PayloadError(
            f"{field} is not UTF-8 text, the only thing that dtm's HTTP and JSON-RPC APIs carry; "
            "use the gRPC address of the coordinator, or give JSON"
        ) from exc


def _encoded(message: Message, field: str) -> bytes:
    try:
        return message.SerializeToString()
    except Exception as exc:  # each library has its own
        raise PayloadError(
            f"{field}, a {type(message).__name__}, cannot be encoded: {exc}"
        ) from exc


def _message_json(message: Message, field: str) -> bytes:
    if isinstance(message, ProtobufMessage):
        return json_bytes(MessageToDict(message, preserving_proto_field_name=True), field)
    to_dict = getattr(message, "to_dict", None)  # betterproto
    if callable(to_dict):
        return json_bytes(to_dict(), field)
    raise PayloadError(
        f"{field}, a {type(message).__name__}, has no JSON form, which HTTP branches are sent; "
        "give a dict, or bytes"
    )
