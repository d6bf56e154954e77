"""The MySQL store keeps the store contract on a real MariaDB."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import pytest_asyncio

from kit.clock import Clock
from kit.dtm.store import Change
from kit.dtm.store.mysql import MysqlStore, texts
from kit.dtm.store.mysql.link import Address, Link
from kit.testing.mariadb import MariadbServer, mariadb_server
from kit.testing.store import STORE_CHECKS, StoreCheck, check_store, transaction


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[MariadbServer]:
    async with mariadb_server() as running:
        yield running


@asynccontextmanager
async def empty_store(server: MariadbServer, clock: Clock | None) -> AsyncIterator[MysqlStore]:
    store = MysqlStore(
        server.host, server.port, server.user, server.password, "kit_contract", clock=clock
    )
    async with store:
        await store.clear()
        yield store


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_mysql_store_keeps_the_contract(server: MariadbServer, check: StoreCheck) -> None:
    """Each promise of kit.dtm.store.Store."""
    await check_store(lambda clock: empty_store(server, clock), [check])


async def test_rows_are_found_by_an_index_in_a_table_that_was_empty(server: MariadbServer) -> None:
    """The planner knows nothing of what came since; a scan would lock rows of others as well."""
    at = (server.host, server.port, server.user, server.password, "kit_plans")
    change = Change(transaction("gid-1"), (), fence=1, owner="one")
    gids = [f"gid-{n}" for n in range(32)]
    async with MysqlStore(*at) as store:
        await store.clear()
        await store.create(transaction("gid-1"), owner="one")
        link = Link(Address(*at))
        for statement, index in (
            (texts.lock_or_fail([change] * 32), "gid"),
            (texts.lock_globals(gids), "gid"),
            (texts.existing(gids), "gid"),
            (texts.select_globals(gids), "gid"),
            (texts.lock_held("one", gids), "gid"),
            (texts.lock_finished(gids), "gid"),
            (texts.select_branches(gids), "gid_uniq"),
            (texts.branch_keys(gids), "gid_uniq"),
            (texts.lock_due(100), "due_at"),
            (texts.NEXT_DUE, "due_at"),
            (texts.lock_later(1, 100), "due_at"),
            (texts.select_ended(1, 100), "ended_at"),
        ):
            explain = f"EXPLAIN FORMAT = JSON {statement}"
            _, told = await link.transact(partial(link.ask, texts.set_now(1), explain))
            [[plan]] = told.rows
            assert f'"key": "{index}"' in str(plan), (statement, plan)
        await link.aclose()
