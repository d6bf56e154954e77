"""Payloads in the form that their branch takes."""

import math
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from api.trans.v1.trans_pb2 import AdjustInfo
from kit.dtm.client import PayloadError
from kit.dtm.client.payloads import data_bytes, payload_for
from kit.dtm.wire import Protocol

HTTP, GRPC, JSON_RPC = Protocol.HTTP, Protocol.GRPC, Protocol.JSON_RPC
ADJUST = AdjustInfo(Amount=30, UserID=1)
WIRE = b"\x08\x1e\x10\x01"


@dataclass
class Transfer:
    amount: int
    day: date


class Model(BaseModel):
    amount: int


class Better:
    """As betterproto's messages are seen from outside."""

    def SerializeToString(self) -> bytes:  # noqa: N802
        return WIRE

    def to_dict(self) -> dict[str, Any]:
        return {"amount": "30"}


@pytest.mark.parametrize(
    ("url", "payload", "protocol", "expected"),
    [
        ("http://a/x", {"b": 1, "a": "ü"}, HTTP, '{"b":1,"a":"ü"}'.encode()),
        ("http://a/x", Transfer(30, date(2026, 1, 2)), HTTP, b'{"amount":30,"day":"2026-01-02"}'),
        ("http://a/x", Model(amount=30), HTTP, b'{"amount":30}'),
        ("http://a/x", [Model(amount=30)], HTTP, b'[{"amount":30}]'),
        ("http://a/x", Better(), HTTP, b'{"amount":"30"}'),
        ("http://a/x", b'{"raw":1}', HTTP, b'{"raw":1}'),
        ("http://a/x", None, HTTP, b"null"),
        ("a:1/S/M", ADJUST, GRPC, WIRE),
        ("a:1/S/M", Better(), GRPC, WIRE),
        ("a:1/S/M", b"\xff", GRPC, b"\xff"),
        ("a:1/S/M", None, GRPC, b""),
        ("http://a/x", {"a": 1}, GRPC, b'{"a":1}'),
        ("http://a/x", ADJUST, GRPC, WIRE),
        ("topic://t", {"a": 1}, GRPC, b'{"a":1}'),
        ("topic://t", ADJUST, GRPC, WIRE),
        ("a:1/S/M", ADJUST, JSON_RPC, WIRE),
    ],
)
def test_a_payload_takes_the_form_of_its_branch(
    url: str, payload: object, protocol: Protocol, expected: bytes
) -> None:
    """The table of the module."""
    assert payload_for(url, payload, protocol, "payload") == expected


def test_a_message_is_json_for_http() -> None:
    """With the names of the proto, which parsers of protobuf's JSON take as well as camel case."""
    data = payload_for("http://a/x", ADJUST, HTTP, "payload")
    assert data == b'{"Amount":"30","UserID":"1"}'


@pytest.mark.parametrize(
    ("url", "payload", "protocol", "words"),
    [
        ("a:1/S/M", {"a": 1}, GRPC, "step 1 is dict"),
        ("a:1/S/M", Model(amount=1), GRPC, "step 1 is Model"),
        ("http://a/x", {"a": object()}, HTTP, "step 1 of type dict cannot be written as JSON"),
        ("http://a/x", math.nan, HTTP, "step 1 of type float cannot be written"),
        ("http://a/x", b"\xff", HTTP, "step 1 is not UTF-8"),
    ],
)
def test_what_cannot_be_sent_names_the_field_and_the_way_out(
    url: str, payload: object, protocol: Protocol, words: str
) -> None:
    """A ``TypeError`` as well, which callers of the first client caught."""
    with pytest.raises(PayloadError, match=words) as raised:
        payload_for(url, payload, protocol, "step 1")
    assert isinstance(raised.value, TypeError)
    assert "; " in raised.value.message or "takes" in raised.value.message


def test_a_message_that_only_encodes_itself_has_no_json() -> None:
    """HTTP branches cannot be given it."""

    class Opaque:
        def SerializeToString(self) -> bytes:  # noqa: N802
            return b""

    with pytest.raises(PayloadError, match="Opaque, has no JSON form"):
        payload_for("http://a/x", Opaque(), HTTP, "step 1")


def test_data_of_a_workflow_is_a_message_or_json() -> None:
    """Nothing is empty bytes."""
    assert [data_bytes(p, "data") for p in (None, b"x", ADJUST, {"a": 1})] == [
        b"",
        b"x",
        WIRE,
        b'{"a":1}',
    ]
