"""The memory store keeps the store contract."""

import pytest

from kit.dtm.store.memory import MemoryStore
from kit.testing.store import STORE_CHECKS, StoreCheck, check_store


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_memory_store_keeps_the_contract(check: StoreCheck) -> None:
    """Each promise of kit.dtm.store.Store."""
    await check_store(MemoryStore, [check])


def test_memory_store_says_that_nothing_survives() -> None:
    """A server that requires durability can refuse it."""
    [weakness] = MemoryStore().weaknesses
    assert weakness == "everything is lost when the process ends; use Driver: sqlite"
