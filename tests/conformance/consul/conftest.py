"""What the tests of a real Consul share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from io import StringIO
from typing import TypeVar

import pytest
import pytest_asyncio
import structlog

import kit.log
from kit.consul import ConsulClient, ConsulOptions
from kit.testing.consul import ConsulServer, consul_server

T = TypeVar("T")


async def eventually(
    look: Callable[[], Awaitable[T]], wanted: Callable[[T], bool], *, within: float = 20.0
) -> T:
    """What ``look`` gives as soon as it is ``wanted``."""
    seen: T | None = None
    try:
        async with asyncio.timeout(within):
            while not wanted(seen := await look()):
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {within} s; last seen: {seen!r}") from None
    return seen


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def consul() -> AsyncIterator[ConsulServer]:
    """A real Consul that nobody harms."""
    async with consul_server() as server:
        yield server


@pytest.fixture
async def own_consul() -> AsyncIterator[ConsulServer]:
    """A real Consul for one test that does it harm."""
    async with consul_server() as server:
        yield server


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> AsyncIterator[ConsulClient]:
    """Somebody else who looks at the Consul of the test."""
    name = "own_consul" if "own_consul" in request.fixturenames else "consul"
    server: ConsulServer = request.getfixturevalue(name)
    async with ConsulClient(ConsulOptions(server.address, timeout=10.0)) as client:
        yield client


@pytest.fixture
def lines() -> Iterator[Callable[[], list[str]]]:
    """Reads what the log has so far."""
    stream = StringIO()
    kit.log.configure(stream=stream)
    yield lambda: stream.getvalue().splitlines()
    kit.log.configure(records=False)
    structlog.reset_defaults()
