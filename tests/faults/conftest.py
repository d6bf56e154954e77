"""One place for coordinators and the servers of their stores, and one event loop, for all tests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.conformance.dtm.business import open_business
from tests.conformance.dtm.coordinators import Coordinators, coordinators
from tests.processes import processes


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def deployed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Coordinators]:
    """Servers are started when a test first asks for their store."""
    folder = tmp_path_factory.mktemp("faults")
    async with (
        processes(folder) as run,
        open_business() as business,
        coordinators(run, business) as started,
    ):
        yield started
