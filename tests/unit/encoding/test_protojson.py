"""Messages as JSON in kratos' v2 form: spec §9.3."""

import json
import math
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.encoding import CodecError
from kit.encoding.json import JsonCodec, ProtoJsonCodec
from tests.unit.transport.http.shop_pb2 import RED, Everything, Item, ListReply

CODEC = JsonCodec()


def read(text: str) -> Everything:
    return CODEC.decode(text.encode(), Everything)


def test_every_field_is_written_and_unset_messages_are_null() -> None:
    """Go writes null for an unset message; oneofs and optional fields are left out."""
    value = json.loads(CODEC.encode(Everything()))
    assert value["aString"] == ""
    assert value["anInt64"] == "0"
    assert value["color"] == "COLOR_UNSPECIFIED"
    assert value["numbers"] == []
    assert value["counts"] == {}
    assert value["nested"] is None
    assert value["at"] is None
    assert value["newName"] == ""
    assert not {"name", "number", "chosen", "maybe"} & value.keys()


def test_values_are_written_as_protobuf_says() -> None:
    """64-bit numbers as text, enums by name, bytes in standard base64, times as text."""
    message = Everything(
        an_int64=2**53 + 1, color=RED, a_bytes=b"\xff\xfe", a_double=1.0, a_float=0.1
    )
    message.at.FromJsonString("2026-01-02T03:04:05.120Z")
    message.during.FromNanoseconds(1_500_000_000)
    message.text.value = ""
    message.by_number[7].id = "x"
    message.maybe = 0
    value = json.loads(CODEC.encode(message))
    assert value["anInt64"] == "9007199254740993"
    assert value["color"] == "RED"
    assert value["aBytes"] == "//4="
    assert value["aFloat"] == 0.1
    assert value["at"] == "2026-01-02T03:04:05.120Z"
    assert value["during"] == "1.500s"
    assert value["text"] == ""
    assert value["byNumber"]["7"]["id"] == "x"
    assert value["maybe"] == 0
    assert b'"aDouble":1,' in CODEC.encode(message), "as Go writes it"


def test_an_enum_of_an_unknown_number_is_written_as_number() -> None:
    """Nothing is lost between versions."""
    assert json.loads(CODEC.encode(Item(color=9)))["color"] == 9  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "text"), [(math.nan, "NaN"), (-math.inf, "-Infinity")])
def test_numbers_that_json_lacks_are_texts(number: float, text: str) -> None:
    """Both ways."""
    assert json.loads(CODEC.encode(Everything(a_double=number)))["aDouble"] == text
    back = read(f'{{"aDouble":"{text}"}}').a_double
    assert back == number or math.isnan(back)


def test_text_is_not_escaped_for_html() -> None:
    """And letters beyond ASCII stay letters."""
    assert '"<é>"'.encode() in CODEC.encode(Item(id="<é>"))


def test_names_are_read_in_both_forms_and_unknown_ones_ignored() -> None:
    """Null means unset."""
    message = read('{"an_int64":"5","aUint32":6,"newName":"n","nobody":[1],"nested":null}')
    assert (message.an_int64, message.a_uint32, message.renamed) == (5, 6, "n")
    assert not message.HasField("nested")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"anInt32":2147483648}', "anInt32"),
        ('{"anInt32":"x"}', "anInt32"),
        ('{"anInt32":1.5}', "anInt32"),
        ('{"anInt32":true}', "anInt32"),
        ('{"aUint64":-1}', "aUint64"),
        ('{"aBool":"true"}', "aBool"),
        ('{"aString":5}', "aString"),
        ('{"aBytes":"*"}', "aBytes"),
        ('{"color":"BLUE"}', "color"),
        ('{"color":1.5}', "color"),
        ('{"items":[{"priceCents":"x"}]}', "items[0].priceCents"),
        ('{"items":{}}', "items"),
        ('{"numbers":[null]}', "numbers[0]"),
        ('{"counts":{"a":"b"}}', "counts[a]"),
        ('{"byNumber":{"x":{}}}', "byNumber"),
        ('{"name":"a","number":1}', "number"),
        ('{"at":"yesterday"}', "at"),
        ('{"during":5}', "during"),
        ('{"aFloat":1e39}', "aFloat"),
        ('{"aDouble":NaN}', "NaN"),
        ('{"aString":"\\ud800"}', "Everything"),
        ("[]", "Everything"),
        ("{", "malformed JSON"),
        ("", "malformed JSON"),
        ("\x00", "malformed JSON"),
        ("[" * 100_000, "nested"),
        ('{"nested":' * 500 + "{}" + "}" * 500, "nested"),
    ],
)
def test_what_does_not_fit_is_refused_where_it_stands(text: str, where: str) -> None:
    """The error names the field and says little of what was sent."""
    with pytest.raises(CodecError) as caught:
        read(text)
    assert where in str(caught.value)
    assert len(str(caught.value)) < 2_500


def test_bytes_that_are_no_utf8_are_refused() -> None:
    """As malformed JSON."""
    with pytest.raises(CodecError):
        CODEC.decode(b'{"aString":"\xff"}', Everything)


def test_well_known_types_are_read() -> None:
    """In protobuf's forms."""
    message = read(
        '{"at":"2026-01-02T03:04:05Z","during":"1.5s","big":"7","mask":"aB,c","tree":{"a":[1]},'
        '"value":null,"pauses":["1s"],"data":"AQI","text":null,"aBytes":"_-8"}'
    )
    assert message.at.seconds == 1767323045
    assert message.during.nanos == 500_000_000
    assert message.big.value == 7
    assert list(message.mask.paths) == ["a_b", "c"]
    assert message.tree["a"][0] == 1
    assert message.value.WhichOneof("kind") == "null_value"
    assert message.data.value == b"\x01\x02"
    assert not message.HasField("text")
    assert message.a_bytes == b"\xff\xef"


def test_an_empty_object_sets_a_message() -> None:
    """Presence survives."""
    assert read('{"nested":{}}').HasField("nested")


def test_protojson_takes_messages_only() -> None:
    """json takes plain values, too."""
    assert json.loads(CODEC.encode({"a": [1]})) == {"a": [1]}
    with pytest.raises(CodecError, match="dict is not a protobuf message"):
        ProtoJsonCodec().encode({})
    with pytest.raises(CodecError, match="dict"):
        ProtoJsonCodec().decode(b"{}", dict)
    assert ProtoJsonCodec().decode(b'{"id":"a"}', Item) == Item(id="a")


ITEMS = st.builds(
    Item,
    id=st.text(),
    price_cents=st.integers(-(2**63), 2**63 - 1),
    color=st.sampled_from([0, 1, 2]),
)
EVERYTHING: Any = st.builds(
    Everything,
    a_double=st.floats(allow_nan=False),
    a_float=st.floats(width=32, allow_nan=False),
    an_int32=st.integers(-(2**31), 2**31 - 1),
    a_uint64=st.integers(0, 2**64 - 1),
    a_bool=st.booleans(),
    a_bytes=st.binary(),
    numbers=st.lists(st.integers(-(2**63), 2**63 - 1)),
    items=st.lists(ITEMS, max_size=3),
    counts=st.dictionaries(st.text(), st.integers(-(2**31), 2**31 - 1)),
    chosen=st.none() | ITEMS,
    maybe=st.none() | st.integers(0, 5),
)


@given(EVERYTHING)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back_and_agrees_with_the_protobuf_package(message: Any) -> None:
    """Our fast form and the package's own read each other."""
    message.value.string_value = (
        "set"  # null, which stands for unset messages, is one of its values
    )
    text = CODEC.encode(message)
    assert CODEC.decode(text, Everything) == message
    assert json_format.Parse(text, Everything()) == message
    theirs = json_format.MessageToJson(message, always_print_fields_with_no_presence=True)
    assert read(theirs) == message


def test_lists_of_messages_are_written_in_order() -> None:
    """One plan serves every message of a type."""
    reply = ListReply(items=[Item(id="a"), Item(id="b")], names=["a", "b"])
    value = json.loads(CODEC.encode(reply))
    assert [item["id"] for item in value["items"]] == value["names"] == ["a", "b"]
