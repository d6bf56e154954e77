"""A transaction as rows of dtm's tables, and back.

Columns have dtm's names (dtm-labs/dtm sqls/dtmsvr.storage.postgres.sql). Two things differ:
instants are integer milliseconds UTC instead of local wall time in whole seconds, and ``options``
is read back, so that a transaction found after a crash runs under the options it was submitted
with. As with dtm, ``retry_count`` has no column: it is one more key of ``options``.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import TypeAlias

from kit.dtm.core.model import Branch, Options, Transaction
from kit.dtm.store import StoreCorrupt
from kit.dtm.wire import BranchStatus, Protocol, Status, TransType

Value: TypeAlias = str | int | bytes | None
Row: TypeAlias = tuple[Value, ...]

GLOBAL_COLUMNS = (
    "trans_type", "status", "query_prepared", "protocol",
    "create_time", "update_time", "finish_time", "rollback_time",
    "options", "custom_data", "next_cron_interval", "next_cron_time",
    "result", "rollback_reason", "gid",
)  # fmt: skip
"""What :func:`global_row` gives, in its order: gid last, because an UPDATE names it last."""

BRANCH_COLUMNS = ("branch_id", "op", "url", "bin_data", "status", "finish_time")
"""What :func:`branch_row` gives, in its order."""

STAMPED_BRANCH_COLUMNS = (*BRANCH_COLUMNS, "create_time", "update_time")
"""What a branch is read back from: the store's own stamps stand behind what was written."""

# dtm's order of the keys (dtm-labs/dtm client/dtmcli/types.go, TransOptions), which puts
# retry_count last: its own tools show the text as it is.
_OPTION_KEYS = (
    "wait_result", "timeout_to_fail", "request_timeout", "retry_interval",
    "branch_headers", "concurrent", "retry_limit",
)  # fmt: skip
_PLAIN_OPTION_KEYS = tuple(key for key in _OPTION_KEYS if key != "branch_headers")
_plain_options = attrgetter(*_PLAIN_OPTION_KEYS)
_OPTION_TYPES = {
    **{key: type(getattr(Options(), key)) for key in _OPTION_KEYS},
    "retry_count": int,
}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def global_row(tx: Transaction) -> Row:
    """The values of :data:`GLOBAL_COLUMNS`."""
    return (
        tx.trans_type,
        tx.status,
        tx.query_prepared,
        tx.protocol,
        tx.create_time,
        tx.update_time,
        tx.finish_time,
        tx.rollback_time,
        options_text(tx.options, tx.retry_count),
        tx.custom_data,
        tx.next_cron_interval,
        tx.next_cron_time,
        tx.result,
        tx.rollback_reason,
        tx.gid,
    )


def branch_row(branch: Branch) -> Row:
    """The values of :data:`BRANCH_COLUMNS`."""
    return (
        branch.branch_id,
        branch.op,
        branch.url,
        branch.payload,
        branch.status,
        branch.finish_time,
    )


def transaction(row: Sequence[Value], branch_rows: Sequence[Sequence[Value]]) -> Transaction:
    """The transaction that its row and the rows of its branches say.

    Args:
        row: the values of :data:`GLOBAL_COLUMNS`.
        branch_rows: the values of :data:`STAMPED_BRANCH_COLUMNS` each, in creation order; without
            the stamps those of the branches stay 0.

    Raises:
        StoreCorrupt: a value is none that a coordinator writes; the message names gid and value.
    """
    (
        trans_type, status, query_prepared, protocol,
        create_time, update_time, finish_time, rollback_time,
        options, custom_data, next_cron_interval, next_cron_time,
        result, rollback_reason, gid,
    ) = row  # fmt: skip
    try:
        known, retry_count = _options(_text(options))
        return Transaction(
            gid=_text(gid),
            trans_type=TransType(_text(trans_type)),
            status=Status(_text(status)),
            protocol=Protocol(_text(protocol)),
            query_prepared=_text(query_prepared),
            custom_data=_text(custom_data),
            options=known,
            branches=tuple(_branch(branch) for branch in branch_rows),
            create_time=_number(create_time),
            update_time=_number(update_time),
            finish_time=_instant(finish_time),
            rollback_time=_instant(rollback_time),
            next_cron_interval=_number(next_cron_interval),
            next_cron_time=_instant(next_cron_time),
            rollback_reason=_text(rollback_reason),
            result=_text(result),
            retry_count=retry_count,
        )
    except ValueError as exc:
        raise StoreCorrupt(f"gid {gid!r}: {exc}") from exc


def options_text(options: Options, retry_count: int = 0) -> str:
    """``options`` as dtm writes them: zero values left out, except ``concurrent``.

    Source: dtm-labs/dtm dtmsvr/trans_class.go (TransGlobal.BeforeSave).

    >>> options_text(Options(wait_result=True, retry_limit=3))
    '{"wait_result":true,"concurrent":false,"retry_limit":3}'
    >>> options_text(Options(retry_limit=3), retry_count=2)
    '{"concurrent":false,"retry_limit":3,"retry_count":2}'
    """
    headers = tuple(options.branch_headers.items()) if options.branch_headers else ()
    return _options_text(_plain_options(options), headers, retry_count)


@lru_cache(maxsize=256)  # few differ, and encoding them anew was a tenth of a write
def _options_text(
    values: tuple[int, ...], headers: tuple[tuple[str, str], ...], retry_count: int
) -> str:
    given: dict[str, object] = dict.fromkeys(_OPTION_TYPES)
    given.update(zip(_PLAIN_OPTION_KEYS, values, strict=True), branch_headers=dict(headers))
    given["retry_count"] = retry_count
    return _encode({key: given[key] for key in given if given[key] or key == "concurrent"})


@lru_cache(maxsize=256)  # few differ, and decoding them anew was a quarter of reading a row
def _options(text: str) -> tuple[Options, int]:
    """The options and the retry count that ``text`` says."""
    given = json.loads(text) if text else {}
    if type(given) is not dict:
        raise ValueError(f"options {text!r} is not a JSON object")
    known = {key: given[key] for key in _OPTION_TYPES if key in given}
    for key, value in known.items():
        if type(value) is not _OPTION_TYPES[key]:
            raise ValueError(f"options.{key} is {value!r}, not {_OPTION_TYPES[key].__name__}")
    retry_count = known.pop("retry_count", 0)
    return Options(**known), retry_count


def _branch(row: Sequence[Value]) -> Branch:
    branch_id, op, url, payload, status, finish_time, *stamps = row
    return Branch(
        _text(branch_id),
        _text(op),
        _text(url),
        _blob(payload),
        BranchStatus(_text(status)),
        _instant(finish_time),
        *map(_number, stamps),
    )


def _text(value: Value) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(f"{value!r} stands where text should")


def _blob(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ValueError(f"{value!r} stands where a blob should")


def _number(value: Value) -> int:
    if isinstance(value, int):
        return value
    raise ValueError(f"{value!r} stands where a number should")


def _instant(value: Value) -> int | None:
    return None if value is None else _number(value)
