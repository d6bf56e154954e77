"""A workflow whose process is killed, and which goes on in the next one."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kit.dtm.client import DtmClient
from kit.ports import free_port
from kit.testing import Coordinator
from tests.conformance.client.conftest import ended

ALL = ["out", "between", "in", "commit in", "commit out"]


@asynccontextmanager
async def process(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """``crashing.py``, ready to be called."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.conformance.client.crashing",
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await child.stdout.readline() == b"ready\n"
        yield child
    finally:
        child.stdin.close()
        await child.wait()


@pytest.mark.parametrize("dies_at", ALL)
async def test_a_killed_workflow_goes_on_where_it_was(
    dtm: Coordinator, tmp_path: Path, dies_at: str
) -> None:
    """What was recorded is not done again; what was under way when the process died is."""
    log, port = tmp_path / "log", free_port()
    async with process(dtm.grpc_address, port, log, dies_at, "crash-1") as child:
        async with asyncio.timeout(60):
            assert await child.wait() == -9
    async with (
        process(dtm.grpc_address, port, log, "nowhere"),
        DtmClient(dtm.grpc_address, http=dtm.http_url) as client,
    ):
        state = await ended(dtm, client, "crash-1")
    assert state.result == b"30"
    done = [line for line in log.read_text().splitlines() if line != "between"]
    expected = [line for line in ALL if line != "between"]
    if dies_at in expected:
        expected.insert(expected.index(dies_at), dies_at)
    assert done == expected
