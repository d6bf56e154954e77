"""kill -9 under load loses no transaction that was acknowledged (design.md §4, G1 and G8)."""

import asyncio
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import grpc.aio
import pytest

from kit.ports import free_port
from tests.branches import Branches, serving, submission, submit
from tests.processes import processes

LIVES = 3
SUBMITTED_A_LIFE = 100
CLIENTS = 16
FINISHES_WITHIN = 60.0
RETRY_INTERVAL = 1


@pytest.mark.usefixtures("engine")
async def test_every_acknowledged_transaction_finishes(tmp_path: Path) -> None:
    """Each in flight when the process dies is taken up by the next one on the same file."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"SEED={seed} pytest {__file__}")
    rng = random.Random(seed)
    acknowledged: set[str] = set()
    cut_short = 0
    async with processes(tmp_path) as run, serving() as branches:
        port = free_port()
        for life in range(LIVES):
            coordinator = await run.coordinator(port)
            target = rng.randrange(SUBMITTED_A_LIFE // 4, SUBMITTED_A_LIFE)
            enough = asyncio.Event()
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                load = Load(channel, branches, f"life{life}", target, enough)
                running = asyncio.create_task(load.run())
                async with asyncio.timeout(FINISHES_WITHIN):
                    await enough.wait()
                await coordinator.kill()
                await running
            acknowledged |= load.acknowledged
            assert len(load.acknowledged) >= target
            cut_short += len(unfinished(tmp_path))
        assert cut_short, f"no kill met a running transaction: SEED={seed}"

        coordinator = await run.coordinator(port)
        await until_all_finished(tmp_path, coordinator.output)
        for gid in acknowledged:
            assert branches.count(gid).keys() == {"01", "02"}, gid
        # What was stored without its client hearing of it finishes too; nothing is there by halves.
        statuses = dict(rows(tmp_path, "SELECT gid, status FROM trans_global"))
        assert acknowledged <= statuses.keys()
        assert set(statuses.values()) == {"succeed"}
        assert await coordinator.stop() == 0, coordinator.output
        assert "Traceback" not in coordinator.output


class Load:
    """Clients that submit until the coordinator is gone.

    Attributes:
        acknowledged: the gids that were.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        branches: Branches,
        name: str,
        target: int,
        enough: asyncio.Event,
    ) -> None:
        self.acknowledged: set[str] = set()
        self._channel = channel
        self._urls = [branches.url("TransOut"), branches.url("TransIn")]
        self._gids = (f"{name}-{number}" for number in range(SUBMITTED_A_LIFE + CLIENTS))
        self._target = target
        self._enough = enough

    async def run(self) -> None:
        """Submit, and say when ``target`` of them were acknowledged."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(self._client())

    async def _client(self) -> None:
        for gid in self._gids:
            request = submission(gid, *self._urls, retry_interval=RETRY_INTERVAL)
            try:
                await submit(self._channel, request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return
            self.acknowledged.add(gid)
            if len(self.acknowledged) == self._target:
                self._enough.set()


def rows(folder: Path, query: str) -> list[tuple[str, ...]]:
    """What the coordinator's database says."""
    with closing(sqlite3.connect(f"file:{folder / 'coordinator.db'}?mode=ro", uri=True)) as reader:
        return reader.execute(query).fetchall()


def unfinished(folder: Path) -> list[tuple[str, ...]]:
    """Stored transactions that are not over."""
    return rows(folder, "SELECT gid FROM trans_global WHERE status NOT IN ('succeed', 'failed')")


async def until_all_finished(folder: Path, said: str) -> None:
    """Wait for it."""
    try:
        async with asyncio.timeout(FINISHES_WITHIN):
            while unfinished(folder):
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"still going on: {unfinished(folder)}\n{said}") from None
