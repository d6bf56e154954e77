"""Queries and forms: spec §10."""

import math

import pytest

from kit.encoding import CodecError
from kit.encoding.form import MOST_PAIRS, FormCodec
from tests.unit.transport.http.shop_pb2 import GREEN, RED, Everything, Item, ListRequest

CODEC = FormCodec()


def read(text: str) -> Everything:
    return CODEC.decode(text.encode(), Everything)


def test_scalars_are_read_as_go_reads_them() -> None:
    """Either name, unknown names ignored, empty values too."""
    message = read(
        "an_int64=-5&aUint32=%2B6&aBool=T&a_double=0x1p4&aFloat=.5&nobody=1&aString=&color=1"
    )
    assert message.an_int64 == -5
    assert message.a_uint32 == 6
    assert message.a_bool
    assert (message.a_double, message.a_float) == (16.0, 0.5)
    assert message.color == RED
    assert math.isnan(read("aDouble=NaN").a_double)
    assert read("aBytes=%2F%2F4%3D").a_bytes == b"\xff\xfe"


def test_lists_maps_and_nested_messages_are_addressed_by_name() -> None:
    """``a[]`` and ``a`` mean one list; maps take brackets or dots, the last value wins."""
    request: ListRequest = CODEC.decode(
        b"colors=RED&colors[]=2&filter.text=x&filter.labels[a.b]=1&filter.labels.c=2&"
        b"filter.labels.c=3",
        ListRequest,
    )
    assert list(request.colors) == [RED, GREEN]
    assert request.filter.text == "x"
    assert dict(request.filter.labels) == {"a.b": "1", "c": "3"}


def test_well_known_types_have_texts() -> None:
    """Times, durations in Go's form, wrappers, masks, structs."""
    message = read(
        "at=2026-01-02T03:04:05.000000006Z&during=1h2m3.5s&text=a&big=7&mask=aB,c.dE&"
        "tree=%7B%22a%22%3A1%7D&value=5&pauses=1s&pauses=2ms"
    )
    assert message.at.nanos == 6
    assert (message.during.seconds, message.during.nanos) == (3723, 500_000_000)
    assert (message.text.value, message.big.value) == ("a", 7)
    assert list(message.mask.paths) == ["a_b", "c.d_e"]
    assert message.tree["a"] == 1
    assert message.value.string_value == "5"
    assert message.pauses[1].nanos == 2_000_000
    assert not read("at=null").HasField("at")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("anInt32=1&anInt32=2", 'too many values for field "an_int32": 1, 2'),
        ("anInt32=2147483648", "an_int32"),
        ("anInt32= 1", "an_int32"),
        ("anInt32=1_0", "an_int32"),
        ("aBool=yes", "a_bool"),
        ("aDouble=1e999", "a_double"),
        ("aDouble=1_0", "a_double"),
        ("color=BLUE", '"BLUE" is not a valid value'),
        ("color=9", '"9" is not a valid value'),
        ("aBytes=%", "a_bytes"),
        ("name=a&number=1", 'field already set for oneof "kind"'),
        ("during=1.5", "during"),
        ("during=s", "during"),
        ("at=yesterday", "yesterday"),
        ("nested=1", 'unsupported message type: "tests.shop.v1.Everything"'),
        ("any=1", "unsupported message type"),
        ("items=1", "unsupported message type"),
        ("counts=1", "counts[key]=value"),
        ("counts[a]=b", "not an integer"),
        ("aString.x=1", "is not a message"),
        ("aString=%ff", "malformed form"),
        ("tree={", "malformed JSON"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, said: str) -> None:
    """In kratos' words where it has some."""
    with pytest.raises(CodecError) as caught:
        read(text)
    assert said in str(caught.value)


def test_too_many_pairs_are_refused() -> None:
    """Before each of them is looked at."""
    with pytest.raises(CodecError, match="malformed form"):
        read("&".join(["a=1"] * (MOST_PAIRS + 1)))


def test_set_fields_are_written_sorted_by_json_name() -> None:
    """Spaces become ``+``; times are true UTC."""
    message = Everything(a_string="a b", color=GREEN, a_bool=True, numbers=[1, 2], a_bytes=b"\xff")
    message.nested.a_string = "é"
    message.counts["k"] = 1
    message.at.seconds = 1
    message.text.value = "t"
    message.during.FromMilliseconds(1500)
    assert CODEC.encode(message).decode() == (
        "aBool=true&aBytes=%2Fw%3D%3D&aString=a+b&at=1970-01-01T00%3A00%3A01Z&color=GREEN&"
        "counts%5Bk%5D=1&during=1.500s&nested.aString=%C3%A9&numbers=1&numbers=2&text=t"
    )
    assert CODEC.decode(CODEC.encode(message), Everything) == message


def test_a_list_of_messages_cannot_be_written() -> None:
    """There is no name for its parts."""
    with pytest.raises(CodecError, match="items"):
        CODEC.encode(Everything(items=[Item(id="a")]))
