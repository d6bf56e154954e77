"""An etcd and a place to start processes in, for the length of a test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.etcd import EtcdClient
from kit.testing.etcd import EtcdServer, etcd_server
from tests.processes import Processes, processes


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Processes]:
    async with processes(tmp_path) as owner:
        yield owner


@pytest.fixture
async def etcd() -> AsyncIterator[EtcdServer]:
    async with etcd_server() as server:
        yield server


@pytest.fixture
async def keys(etcd: EtcdServer) -> AsyncIterator[EtcdClient]:
    """A client of the test's etcd."""
    async with EtcdClient(etcd.endpoint) as client:
        yield client
