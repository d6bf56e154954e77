"""One coordinator for each store, one business and one event loop for the whole session.

A test that asks for ``tm`` runs once for each store when its row (``test_row_07_…``) is one where
the store matters, and on SQLite alone otherwise, on either gRPC engine. One that asks for ``api``
runs over all three on SQLite.
"""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.conformance.dtm.business import Business, open_business
from tests.conformance.dtm.clients import Api
from tests.conformance.dtm.coordinators import (
    FOREIGN,
    ON_LEAN,
    STORES,
    Coordinator,
    Coordinators,
    coordinators,
)
from tests.engines import ENGINES
from tests.processes import processes

STORE_ROWS = frozenset((*range(6, 13), *range(15, 27), 33, 42, *range(46, 53), 54, 56, 62))


APIS = ("grpc", "http", "json-rpc")


def row_of(name: str) -> int:
    """The row of the feature checklist that a test proves; 0: none."""
    found = re.match(r"test_row_(\d+)_", name)
    return int(found[1]) if found else 0


def stores_of(name: str) -> tuple[str, ...]:
    """Where a test is asked; SQLite once more when it would meet one engine only."""
    if row_of(name) in STORE_ROWS:
        return STORES
    return (STORES[0],) if len(ENGINES) == 1 else (STORES[0], ON_LEAN)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The default store is asked over every API, each of the others over one."""
    if "store" not in metafunc.fixturenames:
        return
    default: str = "foreign"
    others: list[str] = []
    if not FOREIGN:
        default, *others = stores_of(metafunc.function.__name__)
    if "api" not in metafunc.fixturenames:
        metafunc.parametrize("store", (default, *others))
        return
    pairs = [(default, name) for name in APIS]
    pairs += [(store, APIS[number % len(APIS)]) for number, store in enumerate(others)]
    metafunc.parametrize(("store", "api_name"), pairs)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def business() -> AsyncIterator[Business]:
    async with open_business() as opened:
        yield opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def deployed(
    business: Business, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Coordinators]:
    folder = tmp_path_factory.mktemp("coordinators")
    async with processes(folder) as run, coordinators(run, business) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def tm(deployed: Coordinators, store: str) -> AsyncIterator[Coordinator]:
    """The coordinator of ``store``; it must not have failed unexpectedly when the test is over."""
    coordinator = await deployed.of_store(store)
    yield coordinator
    process = coordinator.process
    if process is None or process.running:
        await coordinator.clean()
    if process is not None:
        said, process.output = process.output, ""
        assert process.running, f"the coordinator ended:\n{said[-4000:]}"
        assert "Traceback" not in said, said


@pytest.fixture
def api(tm: Coordinator, api_name: str) -> Api:
    """One of the APIs; the branches of its transactions are called as it is."""
    return tm.api(api_name)
