"""The codec table, and the codecs that look at messages as plain structs."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from kit.encoding import CodecError, CodecTable, subtype
from kit.encoding.json import JsonCodec
from kit.encoding.standard import codecs
from tests.unit.transport.http.shop_pb2 import RED, Everything, Item, ListReply

TABLE = codecs()


def test_a_content_type_finds_its_codec_by_sub_type_as_written() -> None:
    """The main type does not matter, case does, parameters do not: spec §9.2."""
    names = {"application/json", "text/json; charset=utf-8", "application/json ;q=1"}
    assert {TABLE.for_content_type(name).name for name in names} == {"json"}  # type: ignore[union-attr]
    for unknown in ("application/JSON", "json", "", "*/*", "application/xml, application/json"):
        assert TABLE.for_content_type(unknown) is None
    assert subtype("a/b;c/d") == "b"
    assert [codec.name for codec in TABLE] == [
        "json", "protojson", "proto", "xml", "yaml", "x-www-form-urlencoded"
    ]  # fmt: skip


def test_a_codec_of_a_name_that_cannot_be_found_is_refused() -> None:
    """Content types are compared in lower case."""
    codec: Any = JsonCodec()
    codec.name = "JSON"
    with pytest.raises(ValueError, match="lower case"):
        CodecTable().register(codec)


@pytest.mark.parametrize("name", ["json", "protojson", "proto", "xml", "yaml"])
def test_a_message_survives_every_codec(name: str) -> None:
    """Lists, numbers of 64 bits, enums, letters."""
    codec = TABLE.get(name)
    assert codec is not None
    reply = ListReply(
        items=[Item(id="é<&>", price_cents=2**60, color=RED), Item()], names=["a", "b"]
    )
    assert codec.decode(codec.encode(reply), ListReply) == reply


@pytest.mark.parametrize("name", ["json", "protojson", "proto", "xml", "yaml"])
@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"<a", b"[1", b"{1", b"- a\n b: ["])
def test_malformed_bytes_are_refused_by_every_codec(name: str, data: bytes) -> None:
    """With an error of the codec, never another one."""
    codec = TABLE.get(name)
    assert codec is not None
    with pytest.raises(CodecError):
        codec.decode(data, Everything)


def test_xml_writes_go_names() -> None:
    """As Go's encoding/xml writes the generated struct."""
    codec = TABLE.get("xml")
    assert codec is not None
    text = codec.encode(Item(id="a", price_cents=5, color=RED)).decode()
    assert (
        text == "<Item><Id>a</Id><PriceCents>5</PriceCents><Color>1</Color><Shelf></Shelf></Item>"
    )
    with pytest.raises(CodecError, match="map has no form"):
        codec.encode(Everything(counts={"a": 1}))


@pytest.mark.parametrize(
    "data",
    [
        b'<!DOCTYPE x [<!ENTITY a "b">]><Item><Id>&a;</Id></Item>',
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><Item/>',
        b"<Nested>" * 200,
        b"<Item><PriceCents>x</PriceCents></Item>",
    ],
)
def test_xml_that_wants_more_than_a_message_is_refused(data: bytes) -> None:
    """Entities, files, depth."""
    codec = TABLE.get("xml")
    assert codec is not None
    with pytest.raises(CodecError):
        codec.decode(data, Item)


def test_yaml_with_aliases_is_refused() -> None:
    """A few lines of them unfold into gigabytes."""
    codec = TABLE.get("yaml")
    assert codec is not None
    with pytest.raises(CodecError, match="aliases"):
        codec.decode(b"a: &a [1]\nb: [*a, *a]", dict)
    assert codec.decode(b"id: x\npricecents: 5", Item) == Item(id="x", price_cents=5)


def test_json_of_v3_follows_the_rules_for_structs() -> None:
    """Proto names, numbers, nothing that is zero, HTML escaped; no text for a number."""
    codec = codecs("v3").get("json")
    assert codec is not None
    message = Everything(an_int64=5, color=RED, a_string="<", name="n")
    message.at.seconds = 7
    text = codec.encode(message)
    assert b"\\u003c" in text
    assert json.loads(text) == {
        "an_int64": 5, "a_string": "<", "color": 1, "Kind": {"Name": "n"}, "at": {"seconds": 7}
    }  # fmt: skip
    assert codec.decode(b'{"AN_INT64":5,"at":{"seconds":7}}', Everything).at.seconds == 7
    for refused in (b'{"an_int64":"5"}', b'{"color":"RED"}', b'{"name":"n"}'):
        with pytest.raises(CodecError):
            codec.decode(refused, Everything)


class Model(BaseModel):
    size: int


@dataclass
class Plain:
    size: int


@pytest.mark.parametrize("kind", [Model, Plain])
def test_json_takes_models_and_dataclasses(kind: type[Any]) -> None:
    """For routes written by hand."""
    codec = JsonCodec()
    assert codec.decode(codec.encode(kind(size=3)), kind) == kind(size=3)
    with pytest.raises(CodecError):
        codec.decode(b'{"length":3}', kind)
    with pytest.raises(CodecError):
        codec.encode({"a": object()})


class Binary:
    """A message as protobuf-py makes them."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def to_binary(self) -> bytes:
        return self.data

    @classmethod
    def from_binary(cls, data: bytes) -> "Binary":
        return cls(data)

    def to_json(self) -> str:
        return json.dumps({"data": self.data.decode()})

    @classmethod
    def from_json(cls, text: str) -> "Binary":
        return cls(json.loads(text)["data"].encode())


class Parsed:
    """A message as betterproto makes them: ``parse`` fills an instance."""

    def __init__(self) -> None:
        self.data = b""

    def __bytes__(self) -> bytes:
        return self.data

    def parse(self, data: bytes) -> "Parsed":
        self.data = data
        return self

    def to_json(self) -> str:
        return json.dumps({"data": self.data.decode()})

    def from_json(self, text: str) -> "Parsed":
        return self.parse(json.loads(text)["data"].encode())


@pytest.mark.parametrize("kind", [Binary, Parsed])
@pytest.mark.parametrize("name", ["proto", "json", "protojson"])
def test_messages_of_other_packages_are_known_by_their_methods(kind: type[Any], name: str) -> None:
    """None of these packages is imported."""
    codec = TABLE.get(name)
    assert codec is not None
    message = codec.decode(b'{"data":"x"}', kind)
    assert codec.decode(codec.encode(message), kind).data == message.data
    with pytest.raises(CodecError):
        TABLE.get("json").decode(b"[", kind)  # type: ignore[union-attr]
