"""The accounts in SQLite when a call is given up half-way."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from apps.trans.biz import Change
from apps.trans.data import DatabaseLedger, Sqlite
from kit.dtm.barrier import BranchBarrier


async def test_a_call_cancelled_while_it_waits_for_the_file_leaves_no_transaction_open(
    tmp_path: Path,
) -> None:
    """What the next call does is committed; its answer is no lie."""
    path = tmp_path / "trans.db"
    async with Sqlite(str(path)) as database:
        ledger = DatabaseLedger(database, 100)
        await ledger.create_tables()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            plain = asyncio.create_task(ledger.apply(Change(1, balance=5), None))
            await asyncio.sleep(0.1)
            plain.cancel()
            await asyncio.sleep(0.1)
            other.execute("COMMIT")
            with pytest.raises(asyncio.CancelledError):
                await plain

            assert await ledger.apply(
                Change(2, balance=5), BranchBarrier("saga", "g", "01", "action")
            )
            rows = other.execute("SELECT user_id, balance FROM user_account").fetchall()
            assert rows == [(2, 105)]
