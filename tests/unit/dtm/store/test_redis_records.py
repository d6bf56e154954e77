"""Records in Redis are those of dtm, and names of entries do not collide."""

import json

import pytest

from kit.dtm.core.model import Branch, Options, Transaction
from kit.dtm.store import StoreCorrupt
from kit.dtm.store.redis.records import (
    MAX_INSTANT,
    branch_field,
    branch_text,
    entry_name,
    global_text,
    held,
)
from kit.dtm.wire import Op, Status, TransType

TX = Transaction(
    "g",
    TransType.MSG,
    Status.SUBMITTED,
    options=Options(wait_result=True),
    create_time=1_700_000_000_123,
    update_time=1_700_000_000_123,
    next_cron_interval=10,
    next_cron_time=1_700_000_010_000,
)


def test_a_transaction_has_the_keys_of_dtm() -> None:
    """Empty ones left out, options both as text and flat, next_cron_time last."""
    text = global_text(TX)
    assert json.loads(text) == {
        "id": 0,
        "create_time": "2023-11-14T22:13:20.123Z",
        "update_time": "2023-11-14T22:13:20.123Z",
        "gid": "g",
        "trans_type": "msg",
        "status": "submitted",
        "protocol": "grpc",
        "options": '{"wait_result":true,"concurrent":false}',
        "wait_result": True,
        "concurrent": False,
        "next_cron_interval": 10,
        "next_cron_time": "2023-11-14T22:13:30.000Z",
    }
    assert text.endswith(',"next_cron_time":"2023-11-14T22:13:30.000Z"}')


def test_an_instant_beyond_the_calendar_is_its_last() -> None:
    """A client may ask for a delay of ten thousand years."""
    tx = Transaction("g", TransType.MSG, Status.SUBMITTED, next_cron_time=1 << 60)
    read = held(global_text(tx).encode(), b"1", b"", b"0", [])
    assert read.tx.next_cron_time == MAX_INSTANT


def test_a_branch_has_the_keys_of_dtm() -> None:
    """Behind the stamps that the scripts write."""
    text = branch_text("g", Branch("01", Op.ACTION, "u", b"\x08\x1e"))
    assert text == (
        '"gid":"g","url":"u","bin_data":"CB4=","branch_id":"01","op":"action","status":"prepared"}'
    )


def test_no_two_branches_have_one_place() -> None:
    """Whatever their ids and ops are made of."""
    pairs = [("1", "2:a"), ("12:", "a"), ("", "12:a"), ("a", "1"), ("1", "a")]
    assert len({branch_field(Branch(branch_id, op, "u")) for branch_id, op in pairs}) == len(pairs)


def test_no_two_entries_have_one_name() -> None:
    """An underscore may stand in category and key; dtm's topics keep their names."""
    pairs = [("a_b", "c"), ("a", "b_c"), ("a%5Fb", "c"), ("", "a_b_c"), ("a", "_b_c")]
    assert len({entry_name(cat, key) for cat, key in pairs}) == len(pairs)
    assert entry_name("topics", "my_topic") == "topics_my_topic"


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"gid":"g","create_time":5}'])
def test_a_record_that_nobody_wrote_is_corrupt(record: bytes) -> None:
    """Rather than half a transaction."""
    with pytest.raises(StoreCorrupt):
        held(record, b"1", b"", b"0", [])
