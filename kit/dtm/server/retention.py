"""Deletes transactions that ended long ago, a few at a time; nothing unfinished ever expires.

With an archive each of them is first written to a file, one JSON object a line: durable there
before it is deleted here. After a crash in between it stands in the archive twice.
"""

import asyncio
import base64
import json
import os
from collections.abc import Sequence

from kit import log
from kit.clock import Clock
from kit.dtm.core import Transaction
from kit.dtm.store import Store
from kit.dtm.store.rows import BRANCH_COLUMNS, GLOBAL_COLUMNS, branch_row, global_row
from kit.errors import Error

logger = log.get_logger()

BATCH = 500
_EVERY_S = 60.0


async def purge_for_ever(store: Store, clock: Clock, *, keep_s: int, archive: str = "") -> None:
    """Delete what ended more than ``keep_s`` seconds ago, every minute, until cancelled.

    Args:
        store: from which they are deleted.
        clock: sleeps between two looks; ages are measured on the store's.
        keep_s: seconds.
        archive: path of the file that keeps a copy; empty keeps none.
    """
    while True:
        try:
            before = await store.now_ms() - keep_s * 1000
            while await _purge(store, before, archive) == BATCH:
                await clock.sleep(0.05)  # writers of live transactions go first
        except Error as error:
            logger.warning("finished transactions not deleted", reason=error.message)
        except OSError as error:
            logger.error("finished transactions not archived: they stay", reason=str(error))  # noqa: TRY400
        await clock.sleep(_EVERY_S)


async def _purge(store: Store, before: int, archive: str) -> int:
    if not archive:
        return await store.purge(before, BATCH)
    expired = await store.expired(before, BATCH)
    if expired:
        await asyncio.to_thread(_append, archive, expired)
        await store.delete([tx.gid for tx in expired])
    return len(expired)


def _append(path: str, transactions: Sequence[Transaction]) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        data = "".join(f"{_line(tx)}\n" for tx in transactions).encode()
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            data = b"\n" + data  # a crash or a full disk left half a line, which spoils no other
        while data:
            data = data[os.write(file, data) :]
        os.fsync(file)
    finally:
        os.close(file)


def _line(tx: Transaction) -> str:
    """A transaction under the names of its columns; instants in milliseconds, payloads base64."""
    line = dict(zip(GLOBAL_COLUMNS, global_row(tx), strict=True))
    branches = [dict(zip(BRANCH_COLUMNS, branch_row(b), strict=True)) for b in tx.branches]
    for branch in branches:
        payload = branch["bin_data"]
        assert isinstance(payload, bytes)
        branch["bin_data"] = base64.b64encode(payload).decode()
    return json.dumps({**line, "branches": branches}, ensure_ascii=False, separators=(",", ":"))
