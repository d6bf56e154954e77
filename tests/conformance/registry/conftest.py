"""What the tests of registries in a real etcd share."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from io import StringIO
from typing import TypeVar

import pytest
import structlog

import kit.log
from kit.etcd import EtcdClient, EtcdOptions
from kit.registry import ServiceInstance
from kit.registry.etcd import EtcdRegistry
from kit.testing.etcd import EtcdServer, etcd_server

T = TypeVar("T")

TRANS = ServiceInstance("host-1", "trans", "v1.0", {}, ("grpc://10.0.0.5:9000",))
TRANS_KEY = "/microservices/trans/host-1"
TRANS_VALUE = (
    b'{"id":"host-1","name":"trans","version":"v1.0","metadata":{},'
    b'"endpoints":["grpc://10.0.0.5:9000"]}'
)
TTL = 4
"""Seconds. etcd would give leases of 1 s, but this machine may be busy for as long."""


def quick(server: EtcdServer, **options: object) -> EtcdOptions:
    """Options that notice within seconds what takes fifteen in the field."""
    wanted = {"timeout": 5.0, "keepalive": 2.0, **options}
    return EtcdOptions((server.endpoint,), **wanted)  # type: ignore[arg-type]


def impatient(server: EtcdServer, *, patience: float = 30.0, **options: object) -> EtcdRegistry:
    """A registry with a short lease."""
    return EtcdRegistry(quick(server, **options), ttl=TTL, patience=patience)


async def eventually(
    look: Callable[[], Awaitable[T]], wanted: Callable[[T], bool], *, within: float = 30.0
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


@pytest.fixture
async def own_etcd() -> AsyncIterator[EtcdServer]:
    """A real etcd for one test that does it harm."""
    async with etcd_server() as server:
        yield server


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> AsyncIterator[EtcdClient]:
    """Somebody else who looks at the etcd of the test."""
    name = "own_etcd" if "own_etcd" in request.fixturenames else "etcd"
    server: EtcdServer = request.getfixturevalue(name)
    async with EtcdClient(EtcdOptions((server.endpoint,), timeout=10.0)) as client:
        yield client


@pytest.fixture
def lines() -> Iterator[Callable[[], list[str]]]:
    """Reads what the log has so far."""
    stream = StringIO()
    kit.log.configure(stream=stream)
    yield lambda: stream.getvalue().splitlines()
    kit.log.configure(records=False)
    structlog.reset_defaults()
