"""A transaction as the JSON that dtm keeps in Redis, and back.

Keys, their order and what is left out when empty are dtm's; instants have milliseconds and are UTC.
``id`` is 0, as dtm's is in Redis.

Source: dtm-labs/dtm dtmsvr/storage/trans.go (TransGlobalStore, TransBranchStore, KVStore).
"""

import json
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from json.encoder import encode_basestring as _quoted
from typing import Any

from kit.dtm.core.model import Branch, Transaction
from kit.dtm.store import Held, KeyValue, StoreCorrupt
from kit.dtm.store.redis.wire import Reply
from kit.dtm.store.rows import (
    GLOBAL_COLUMNS,
    STAMPED_BRANCH_COLUMNS,
    Value,
    options_text,
    transaction,
)

MAX_INSTANT = 253_402_300_799_999
"""The last millisecond of the year 9999: what is later is written as this."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANTS = ("create_time", "update_time", "finish_time", "rollback_time", "next_cron_time")
_NUMBERS = ("create_time", "update_time", "next_cron_interval")
_ABSENT: dict[str, Any] = {
    **dict.fromkeys((*GLOBAL_COLUMNS, *STAMPED_BRANCH_COLUMNS), ""),
    **dict.fromkeys(_INSTANTS),
    **dict.fromkeys(_NUMBERS, 0),
}
"""What the absence of a key says."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def global_text(tx: Transaction) -> str:
    """The record of a transaction.

    The options stand in it twice, as dtm's do: as a text, and each as a key. ``next_cron_time`` is
    last, where the scripts replace it.
    """
    options = options_text(tx.options, tx.retry_count)
    members = _members(
        ("create_time", _spelled(tx.create_time)),
        ("update_time", _spelled(tx.update_time)),
        ("gid", tx.gid),
        ("trans_type", tx.trans_type),
        ("status", tx.status),
        ("query_prepared", tx.query_prepared),
        ("protocol", tx.protocol),
        ("finish_time", _spelled(tx.finish_time)),
        ("rollback_time", _spelled(tx.rollback_time)),
        ("result", tx.result),
        ("rollback_reason", tx.rollback_reason),
        ("options", options),
        ("custom_data", tx.custom_data),
        ("next_cron_interval", tx.next_cron_interval),
    )
    due = _spelled(tx.next_cron_time)
    last = "" if due is None else f',"next_cron_time":"{due}"'
    return f'{{"id":0,{members},{options[1:-1]}{last}}}'


def branch_text(gid: str, branch: Branch) -> str:
    """The record of a branch behind its stamps, which the scripts put before it."""
    members = _members(
        ("gid", gid),
        ("url", branch.url),
        ("bin_data", b64encode(branch.payload).decode()),
        ("branch_id", branch.branch_id),
        ("op", branch.op),
        ("status", branch.status),
        ("finish_time", _spelled(branch.finish_time)),
    )
    return f"{members}}}"


def _members(*pairs: tuple[str, str | int | None]) -> str:
    """Members of a JSON object, without those that are empty.

    A transaction writes six records; the encoder of ``json`` sets itself up anew for each.
    """
    return ",".join(
        [
            f'"{name}":{_quoted(value) if isinstance(value, str) else value}'
            for name, value in pairs
            if value
        ]
    )


def branch_field(branch: Branch) -> str:
    """Where the lease of a transaction keeps the place of ``branch``; no two have the same."""
    return f"{len(branch.op)}:{branch.op}{branch.branch_id}"


def entry_text(cat: str, key: str, value: str, version: int) -> str:
    """The record of an entry behind its stamps."""
    return _encode({"cat": cat, "k": key, "v": value, "version": version})[1:]


def entry_name(cat: str, key: str) -> str:
    """What names an entry: dtm's ``<cat>_<key>``, made such that no two have the same.

    >>> entry_name("topics", "a_b"), entry_name("a_b", "c"), entry_name("a", "b_c")
    ('topics_a_b', 'a%5Fb_c', 'a_b_c')
    """
    return cat.replace("%", "%25").replace("_", "%5F") + "_" + key


def held(record: Reply, fence: Reply, owner: Reply, lease_until: Reply, branches: Reply) -> Held:
    """A transaction with its lease, as a script gave it.

    Raises:
        StoreCorrupt: it is none that a coordinator wrote.
    """
    tx = _transaction(record, branches)
    if fence is None:
        raise StoreCorrupt(
            f"gid {tx.gid!r} has no fence: dtm itself wrote it, or its lease is gone"
        )
    return Held(tx, int(fence), owner.decode(), int(lease_until))


def entry(record: Reply) -> KeyValue:
    """An entry as a script gave it.

    Raises:
        StoreCorrupt: it is none that a coordinator wrote.
    """
    try:
        row = json.loads(record)
        return KeyValue(
            str(row["cat"]),
            str(row["k"]),
            str(row["v"]),
            int(row["version"]),
            _instant(row["create_time"]) or 0,
            _instant(row["update_time"]) or 0,
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise StoreCorrupt(f"an entry of the key-value table cannot be read: {exc!r}") from exc


def capped(instant: int | None) -> int | None:
    """``instant``, or the last one that can be spelled."""
    return None if instant is None else min(instant, MAX_INSTANT)


def _transaction(record: Reply, branches: Sequence[bytes]) -> Transaction:
    try:
        row = _row(record)
        rows = [_branch_values(branch) for branch in branches]
    except (ValueError, TypeError) as exc:
        raise StoreCorrupt(f"a record cannot be read: {exc}") from exc
    return transaction([row[name] for name in GLOBAL_COLUMNS], rows)


def _row(record: bytes) -> dict[str, Any]:
    """What the keys say; those that are not there, or null, say what their absence does."""
    given = json.loads(record.decode())
    if type(given) is not dict:
        raise ValueError("it is not a JSON object")
    row = _ABSENT | {name: value for name, value in given.items() if value is not None}
    for name in _INSTANTS:
        if row[name]:
            row[name] = _instant(row[name])
    return row


def _branch_values(record: bytes) -> list[Value]:
    row = _row(record)
    row["bin_data"] = a2b_base64(row["bin_data"], strict_mode=True)
    return [row[name] for name in STAMPED_BRANCH_COLUMNS]


@lru_cache(maxsize=1_024)  # a transaction's instants are often the same millisecond
def _spelled(instant: Value) -> str | None:
    """An instant as dtm's text, always 24 characters."""
    if instant is None:
        return None
    assert isinstance(instant, int)
    at = _EPOCH + timedelta(milliseconds=min(instant, MAX_INSTANT))
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


@lru_cache(maxsize=1_024)
def _parsed(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def _instant(text: object) -> int | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"{text!r} stands where an instant should")
    return _parsed(text)
