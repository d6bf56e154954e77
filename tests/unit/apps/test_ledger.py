"""The accounts in SQLite: calls given up half-way, and accounts that owe."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from apps.trans.biz import Accounts, Change
from apps.trans.data import DatabaseLedger, Sqlite
from kit.dtm.barrier import BranchBarrier
from kit.dtm.errors import Failure


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


async def test_who_owes_after_an_undo_is_paid_and_undone_and_can_pay_nothing(
    tmp_path: Path,
) -> None:
    """An undo that were refused would be asked for again without end."""
    path = tmp_path / "trans.db"
    async with Sqlite(str(path)) as database:
        ledger = DatabaseLedger(database, 100)
        await ledger.create_tables()
        accounts = Accounts(ledger)

        def branch(gid: str, op: str) -> BranchBarrier:
            return BranchBarrier("saga", gid, "01", op)

        await accounts.transfer_in(50, 1, branch("g1", "action"))
        await accounts.transfer_in(50, 1, branch("g2", "action"))
        await accounts.transfer_out(200, 1, None)
        await accounts.revert_in(50, 1, branch("g1", "compensate"))
        await accounts.revert_in(50, 1, branch("g2", "compensate"))
        with pytest.raises(Failure, match="balance of user 1 too low: 1 cents are not there"):
            await accounts.transfer_out(1, 1, None)
        await accounts.transfer_in(130, 1, None)
        await accounts.transfer_out(30, 1, None)
        with closing(sqlite3.connect(path)) as reader:
            assert reader.execute("SELECT balance FROM user_account").fetchall() == [(0,)]
