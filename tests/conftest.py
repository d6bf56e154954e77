"""What has to be settled before the first test module is imported."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

# Read once, when grpc is imported: its C core would note each closed socket in the output.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# Its fork handler would crash children that are started under another user, such as databases.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# Contract suites live in the kit: their plain assertions should explain themselves as well.
pytest.register_assert_rewrite("kit.testing.store", "kit.testing.registry", "kit.testing.barrier")

from kit.testing.etcd import EtcdServer, etcd_server  # noqa: E402  (after the two above)
from kit.transport.grpc.engines import EngineName  # noqa: E402
from tests.engines import ENGINES, speaking  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--rewrite`` for the transcripts of the transaction core."""
    parser.addoption(
        "--rewrite", action="store_true", help="write what the core does now into transcripts"
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def etcd() -> AsyncIterator[EtcdServer]:
    """A real etcd on a free port, for tests of one module that leave it running."""
    async with etcd_server() as server:
        yield server


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[EngineName]:
    """Both gRPC engines, one after the other, for all that the test begins."""
    with speaking(request.param):
        yield request.param
