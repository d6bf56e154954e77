"""Durable cycles a second of the SQLite store, beside fdatasync alone on the same disk.

A cycle creates a transaction with two branches under a lease, then saves it finished. Each depth is
so many callers that each wait for their answers. Run ``python -m tests.bench.store [SECONDS]``.
"""

import asyncio
import gc
import os
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from kit.dtm.core.model import Branch, Options, Transaction
from kit.dtm.store import Change
from kit.dtm.store.sqlite import SqliteStore
from kit.dtm.wire import BranchStatus, Op, Status, TransType

DEPTHS = (1, 32, 128)
MOST_A_SECOND = 15_000
OWNER = "bench"


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run; ``cpu_us`` is user and system time of the whole process, for each cycle."""

    depth: int
    gids: str
    cycles_per_s: float
    cpu_us: float
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return (
            f"depth {self.depth:>3}, {self.gids} gids: {self.cycles_per_s:6.0f} cycles/s, "
            f"{self.cpu_us:4.0f} µs CPU, p50 {self.p50_ms:5.2f} ms, p99 {self.p99_ms:5.2f} ms"
        )


def fdatasync_rate(folder: Path, seconds: float) -> float:
    """Appends of 4 KiB a second, each brought to the disk: the rate of commits without a group."""
    with open(folder / "yardstick", "wb", buffering=0) as file:
        done, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            file.write(bytes(4_096))
            os.fdatasync(file.fileno())
            done += 1
    return done / seconds


def cycles(number: int, gids: str) -> list[tuple[Transaction, Change]]:
    """What each cycle writes, made beforehand: a coordinator's own work is not the store's."""
    now = time.time_ns() // 1_000_000
    serial = count(now << 20)
    name = {"random": lambda: uuid.uuid4().hex, "ordered": lambda: f"{next(serial):032x}"}[gids]
    return [_cycle(name(), now) for _ in range(number)]


def _cycle(gid: str, now: int) -> tuple[Transaction, Change]:
    url = "localhost:9000/api.trans.v1.Trans/"
    tx = Transaction(
        gid,
        TransType.MSG,
        Status.SUBMITTED,
        options=Options(wait_result=True),
        branches=(
            Branch("01", Op.ACTION, f"{url}TransOut", b"\x08\x1e\x10\x01"),
            Branch("02", Op.ACTION, f"{url}TransIn", b"\x08\x1e\x10\x02"),
        ),
        create_time=now,
        update_time=now,
        next_cron_interval=10,
        next_cron_time=now + 10_000,
    )
    ended = replace(
        tx, status=Status.SUCCEED, finish_time=now, next_cron_time=None, next_cron_interval=0
    )
    branches = tuple(
        replace(branch, status=BranchStatus.SUCCEED, finish_time=now) for branch in tx.branches
    )
    return tx, Change(ended, branches, fence=1, owner=OWNER, release=True)


async def measure(folder: Path, depth: int, gids: str, seconds: float) -> Figures:
    """Run cycles in a new store for about ``seconds``."""
    work = iter(cycles(int(seconds * MOST_A_SECOND), gids))
    waits: list[float] = []

    async def caller(store: SqliteStore, work: Iterator[tuple[Transaction, Change]]) -> None:
        for tx, change in work:
            began = time.perf_counter()
            if began > end:
                return
            await store.create(tx, owner=OWNER)
            await store.save(change)
            waits.append(time.perf_counter() - began)

    gc.freeze()  # what was made beforehand is not the store's garbage either
    async with SqliteStore(folder / f"{depth}-{gids}.db") as store:
        spent, began = _cpu_s(), time.perf_counter()
        end = began + seconds
        async with asyncio.TaskGroup() as callers:
            for _ in range(depth):
                callers.create_task(caller(store, work))
        took, spent = time.perf_counter() - began, _cpu_s() - spent
    gc.unfreeze()
    waits.sort()
    return Figures(
        depth,
        gids,
        len(waits) / took,
        spent / len(waits) * 1e6,
        waits[len(waits) // 2] * 1e3,
        waits[len(waits) * 99 // 100] * 1e3,
    )


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the figures; the argument is the length of each run, 2 seconds by default."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    with tempfile.TemporaryDirectory(dir=".") as name:  # /tmp may be no disk
        folder = Path(name)
        print(f"fdatasync alone: {fdatasync_rate(folder, 0.5):.0f} a second")
        for gids in ("ordered", "random"):
            for depth in DEPTHS:
                print(asyncio.run(measure(folder, depth, gids, seconds)), flush=True)


if __name__ == "__main__":
    main()
