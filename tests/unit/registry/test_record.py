"""Registry values are byte for byte what Go writes, and everything Go writes can be read."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import BadRequest
from kit.registry import ServiceInstance
from kit.registry.record import decode, encode

GO_WRITES = [
    pytest.param(
        ServiceInstance("host-1", "trans", "v1.0", {}, ("grpc://10.0.0.5:9000",)),
        b'{"id":"host-1","name":"trans","version":"v1.0","metadata":{},'
        b'"endpoints":["grpc://10.0.0.5:9000"]}',
        id="the transfer service",
    ),
    pytest.param(
        ServiceInstance("6a5c", "dtmservice", "", None, ("grpc://localhost:36790",)),
        b'{"id":"6a5c","name":"dtmservice","version":"","metadata":null,'
        b'"endpoints":["grpc://localhost:36790"]}',
        id="the dtm driver, without metadata",
    ),
    pytest.param(
        ServiceInstance("", "trans"),
        b'{"id":"","name":"trans","version":"","metadata":{},"endpoints":[]}',
        id="hardly anything",
    ),
    pytest.param(
        ServiceInstance("1", "a&b", "<v>", {"b": "2", "a": "1", "B": "3"}, ("http://h?a=1&b=2",)),
        rb'{"id":"1","name":"a\u0026b","version":"\u003cv\u003e",'
        rb'"metadata":{"B":"3","a":"1","b":"2"},"endpoints":["http://h?a=1\u0026b=2"]}',
        id="HTML characters and the order of keys",
    ),
    pytest.param(
        ServiceInstance("1", "\u8f6c\u8d26", "\u2028\u2029\u00e9\U0001f3ab", {}, ()),
        b'{"id":"1","name":"\xe8\xbd\xac\xe8\xb4\xa6",'
        b'"version":"\\u2028\\u2029\xc3\xa9\xf0\x9f\x8e\xab","metadata":{},"endpoints":[]}',
        id="line separators escaped, other text as UTF-8",
    ),
    pytest.param(
        ServiceInstance("1", 'q"\\/', "\n\r\t\x01\x7f", {}, ()),
        rb'{"id":"1","name":"q\"\\/","version":"\n\r\t\u0001' + b"\x7f"
        rb'","metadata":{},"endpoints":[]}',
        id="quotes and control characters",
    ),
]


@pytest.mark.parametrize(("instance", "value"), GO_WRITES)
def test_an_instance_is_written_as_go_writes_it(instance: ServiceInstance, value: bytes) -> None:
    """kratos registry.ServiceInstance through Go's encoding/json; and it reads back."""
    assert encode(instance) == value
    assert decode(value) == instance


def test_half_a_surrogate_pair_is_written_as_the_replacement_character() -> None:
    """UTF-8 cannot hold it; Go has U+FFFD there."""
    value = encode(ServiceInstance("a\udc80", "n", metadata={"k\ud800": "v\ud83c\udfab"}))
    assert json.loads(value)["id"] == "a\ufffd"
    assert json.loads(value)["metadata"] == {"k\ufffd": "v\U0001f3ab"}


@pytest.mark.parametrize(
    ("value", "instance"),
    [
        (b"{}", ServiceInstance("", "", metadata=None)),
        (b'{"name":"t","more":[1,{"x":null}]}', ServiceInstance("", "t", metadata=None)),
        (b'{"ID":"1","Name":"t","METADATA":{}}', ServiceInstance("1", "t")),
        ('{"name":"t","endpoint\u017f":["e"]}'.encode(),
         ServiceInstance("", "t", "", None, ("e",))),
        (b'{"id":null,"name":"t","endpoints":null}', ServiceInstance("", "t", metadata=None)),
        (b'{"name":"t","metadata":{"k":null},"endpoints":[null]}',
         ServiceInstance("", "t", "", {"k": ""}, ("",))),
        (b'{"name":"\xff"}', ServiceInstance("", "\ufffd", metadata=None)),
        (rb'{"name":"\ud800x\ud83c\udfab"}', ServiceInstance("", "\ufffdx🎫", metadata=None)),
        (b' {"name" : "t"}\n', ServiceInstance("", "t", metadata=None)),
    ],
)  # fmt: skip
def test_a_value_is_read_as_go_reads_it(value: bytes, instance: ServiceInstance) -> None:
    """Unknown keys ignored, missing and null ones empty, keys in any case, broken text repaired."""
    assert decode(value) == instance


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (b"", "Expecting value"),
        (b"not json", "Expecting value"),
        (b'{"id":"1"} x', "Extra data"),
        (b'["id"]', "a JSON object is wanted, this is a list"),
        (b"null", "this is null"),
        (b'{"id":1}', "id: 1 where text is wanted"),
        (b'{"name":{}}', "name: an object where text is wanted"),
        (b'{"metadata":[]}', "metadata: a list where an object is wanted"),
        (b'{"metadata":{"weight":10}}', "metadata.weight: 10 where text is wanted"),
        (b'{"endpoints":"e"}', "endpoints: text where a list is wanted"),
        (b'{"endpoints":[1]}', "endpoints: 1 where text is wanted"),
        (b'{"more":NaN}', "NaN is not JSON"),
        (b'{"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_value_that_is_no_instance_is_refused(value: bytes, complaint: str) -> None:
    """With a ValueError that says what and where."""
    with pytest.raises(ValueError, match=re.escape(complaint)):
        decode(value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, ["instance.name", "empty"]),
        ({"id": 7}, ["instance.id", "7"]),
        ({"version": None}, ["instance.version", "None"]),
        ({"metadata": {"weight": 10}}, ["metadata['weight']", "10"]),
        ({"metadata": {1: "x"}}, ["metadata key 1"]),
        ({"endpoints": "grpc://10.0.0.5:9000"}, ["endpoints", "grpc://10.0.0.5:9000"]),
        ({"endpoints": ("grpc://a:1", 2)}, ["endpoints[1]", "2"]),
    ],
    ids=str,
)
def test_what_no_peer_could_read_is_not_written(
    fields: dict[str, object], words: list[str]
) -> None:
    """The error names the field and what is in it."""
    with pytest.raises(BadRequest) as caught:
        encode(ServiceInstance(**{"id": "1", "name": "trans", **fields}))  # type: ignore[arg-type]
    assert all(word in caught.value.message for word in words), caught.value.message


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.builds(
        ServiceInstance,
        texts,
        texts.filter(bool),
        texts,
        st.none() | st.dictionaries(texts, texts),
        st.lists(texts).map(tuple),
    )
)
def test_what_is_written_reads_back(instance: ServiceInstance) -> None:
    """Any text, in one line without the characters that Go escapes."""
    value = encode(instance)
    assert decode(value) == instance
    assert not set("<>&\n\u2028\u2029") & set(value.decode())


@given(st.binary())
def test_any_bytes_are_read_or_refused(value: bytes) -> None:
    """Nothing but a ValueError ever comes of foreign bytes."""
    try:
        decode(value)
    except ValueError:
        pass
