"""Transactions, branches and key-values as JSON objects with dtm's keys.

What is empty is left out, except what dtm's page and clients look for. Instants are RFC 3339 in
the zone of this machine, with milliseconds where there are some.

Source: dtm-labs/dtm dtmsvr/storage/trans.go (TransGlobalStore, TransBranchStore, KVStore).
"""

import base64
from datetime import UTC, datetime
from typing import TypeAlias

from kit.dtm.core import Branch, Transaction
from kit.dtm.store import Held, KeyValue
from kit.dtm.store.rows import options_text

Shape: TypeAlias = dict[str, object]


def held_shape(held: Held) -> Shape:
    """A stored transaction, without its branches."""
    return transaction_shape(held.tx, row_id=held.id, owner=held.owner)


def transaction_shape(tx: Transaction, *, row_id: int = 0, owner: str = "") -> Shape:
    """A transaction, without its branches."""
    options = tx.options
    given: Shape = {
        "gid": tx.gid,
        "trans_type": tx.trans_type,
        "status": tx.status,
        "query_prepared": tx.query_prepared,
        "protocol": tx.protocol,
        "finish_time": _instant(tx.finish_time),
        "rollback_time": _instant(tx.rollback_time),
        "result": tx.result,
        "rollback_reason": tx.rollback_reason,
        "options": options_text(options),
        "custom_data": tx.custom_data,
        "next_cron_interval": tx.next_cron_interval,
        "next_cron_time": _instant(tx.next_cron_time),
        "owner": owner,
        "wait_result": options.wait_result,
        "timeout_to_fail": options.timeout_to_fail,
        "request_timeout": options.request_timeout,
        "retry_interval": options.retry_interval,
        "branch_headers": dict(options.branch_headers),
    }
    last: Shape = {"retry_limit": options.retry_limit, "retry_count": tx.retry_count}
    return {
        **_head(row_id, tx.create_time, tx.update_time),
        **_given(given),
        "concurrent": options.concurrent,
        **_given(last),
    }


def branch_shape(gid: str, branch: Branch) -> Shape:
    """A branch of the transaction ``gid``."""
    return {
        **_head(0, branch.create_time, branch.update_time),
        **_given(
            {
                "gid": gid,
                "url": branch.url,
                "bin_data": base64.b64encode(branch.payload).decode(),
                "branch_id": branch.branch_id,
                "op": branch.op,
                "status": branch.status,
                "finish_time": _instant(branch.finish_time),
            }
        ),
    }


def kv_shape(row: KeyValue) -> Shape:
    """An entry of the key-value table."""
    return {
        **_head(row.id, row.create_time, row.update_time),
        "cat": row.cat,
        "k": row.key,
        "v": row.value,
        "version": row.version,
    }


def _head(row_id: int, created: int, updated: int) -> Shape:
    return {
        "id": row_id,
        "create_time": _instant(created or None),
        "update_time": _instant(updated or None),
    }


def _given(shape: Shape) -> Shape:
    return {key: value for key, value in shape.items() if value}


def _instant(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    at = datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone()
    return at.isoformat(timespec="milliseconds" if milliseconds % 1000 else "seconds")
