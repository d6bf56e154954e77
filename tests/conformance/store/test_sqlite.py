"""The SQLite store keeps the store contract, whichever driver speaks to the file."""

from pathlib import Path

import pytest

from kit.dtm.store.connection import Connect, connect_apsw, connect_stdlib
from kit.dtm.store.sqlite import SqliteStore
from kit.testing.store import STORE_CHECKS, StoreCheck, check_store


@pytest.mark.parametrize("connect", [connect_apsw, connect_stdlib])
@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_sqlite_store_keeps_the_contract(
    check: StoreCheck, connect: Connect, tmp_path: Path
) -> None:
    """Each promise of kit.dtm.store.Store."""
    path = tmp_path / "coordinator.db"
    await check_store(lambda clock: SqliteStore(path, clock, connect=connect), [check])
