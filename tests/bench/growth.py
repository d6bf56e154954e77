"""Speed and memory beside a growing number of unfinished transactions.

Stores hold that many transactions that are due in an hour. A coordinator on such a store and one on
an empty store take turns at the same msg transactions, with gids such as NewGid gives and with
random ones. Then claims are timed on the store itself. Then up to 100,000 of the stored ones are
due at once and the coordinator is started anew, as after a long outage: the time from its start to
the first branch call counts, imports included.

Run: ``python -m tests.bench.growth [--sizes 10000,100000]
[--stores sqlite,postgres,mysql,redis] [--seconds 1] [--rounds 3] [--clients 32]``.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.deployment import BenchmarkFailed, Servers, deployment, running_servers
from tests.bench.filling import AN_HOUR, fill, opened, settle
from tests.bench.modes import store_settings

ROOT = Path(__file__).parents[2]
BACKLOG = 100_000
CLAIMS = 30
BATCH = 100
KINDS = ("msg", "random")
DRAINED_S = 3.0
FIRST_WITHIN_S = 30.0
APART = {"sqlite": "Path", "postgres": "Schema", "mysql": "Db", "redis": "RedisPrefix"}
"""What keeps an empty and a filled store apart, by driver."""

REACH = {"submit": 0.9, "claim": 5.0, "start": 2.0, "memory": 200.0}
"""Share of the empty store's rate; ms; seconds; MiB (design.md §7, for a million)."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one number of unfinished transactions; units as their names end."""

    rate_per_s: float
    ratio: float
    random_ratio: float
    claim_ms: float
    worst_claim_ms: float
    first_retry_s: float
    retries_per_s: float
    peak_mib: float

    @property
    def missed(self) -> list[str]:
        """What is not as good as it has to be."""
        met = {
            "submit": self.ratio >= REACH["submit"],
            "submit with random gids": self.random_ratio >= REACH["submit"],
            "claim": self.claim_ms <= REACH["claim"],
            "start": self.first_retry_s <= REACH["start"],
            "memory": self.peak_mib <= REACH["memory"],
        }
        return [name for name, reached in met.items() if not reached]


async def claims(settings: Mapping[str, object], due: int) -> list[float]:
    """Make ``due`` transactions due; give the milliseconds of claims of 100 of them."""
    took = []
    async with opened(settings) as store:
        later_than = await store.now_ms() + AN_HOUR // 2
        while due > 0:
            made, _ = await store.reset_cron_time(later_than, min(due, 1_000))
            due -= made or due
    await settle(settings)
    async with opened(settings) as store:
        for _ in range(CLAIMS):
            began = time.perf_counter()
            claimed = await store.claim("bench", BATCH, lease_s=0.001)
            took.append((time.perf_counter() - began) * 1e3)
            if len(claimed) != BATCH:
                raise BenchmarkFailed(f"a claim of {BATCH} gave {len(claimed)}")
    return took


async def rates(
    folders: Mapping[str, Path],
    stores: Mapping[str, Mapping[str, object]],
    servers: Servers,
    clients: int,
    seconds: float,
    rounds: int,
) -> tuple[dict[str, list[tuple[float, float]]], float]:
    """Transactions a second of each kind, empty and filled in turns; and the filled one's MiB."""
    async with AsyncExitStack() as stack:
        empty, filled = [
            await stack.enter_async_context(
                deployment(folders[name], store=stores[name], servers=servers)
            )
            for name in ("empty", "filled")
        ]
        turns: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        for number in range(rounds + 1):
            for kind in KINDS:
                pair = [await each.measure(kind, clients, seconds) for each in (empty, filled)]
                if number > 0:  # the first is for warming up
                    turns[kind].append((pair[0].rate, pair[1].rate))
        return turns, filled.peak_mib()


async def cold_start(
    folder: Path, store: Mapping[str, object], servers: Servers
) -> tuple[float, float, float]:
    """Seconds from start to the first retry, retries a second afterwards, and peak MiB."""
    await servers.first_branch()
    async with deployment(folder, store=store, servers=servers) as deployed:
        first = 0.0
        while not first:
            if time.perf_counter() - deployed.started > FIRST_WITHIN_S:
                raise BenchmarkFailed(f"no retry within {FIRST_WITHIN_S:g} s of the start")
            await asyncio.sleep(0.05)
            first = await servers.first_branch()
        calls, began = await servers.branches(), time.perf_counter()
        await asyncio.sleep(DRAINED_S)
        calls = await servers.branches() - calls
        took = time.perf_counter() - began
        return first - deployed.started, calls / 2 / took, deployed.peak_mib()


async def grown(
    stores: Mapping[str, Mapping[str, object]],
    folder: Path,
    size: int,
    clients: int,
    seconds: float,
    rounds: int,
) -> Figures:
    """Everything about one size; ``stores`` are an empty and a filled one."""
    folders = {name: folder / f"{name}-{size}" for name in stores}
    for each in folders.values():
        each.mkdir()
    async with running_servers() as servers:
        began = time.perf_counter()
        await fill(stores["filled"], size, servers.sink)
        await settle(stores["filled"])
        print(f"{size:,} made in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        turns, peak = await rates(folders, stores, servers, clients, seconds, rounds)
        took = await claims(stores["filled"], min(size, BACKLOG))
        first, drained, again = await cold_start(folders["filled"], stores["filled"], servers)
    return Figures(
        rate_per_s=median(filled for _, filled in turns["msg"]),
        ratio=median(filled / empty for empty, filled in turns["msg"]),
        random_ratio=median(filled / empty for empty, filled in turns["random"]),
        claim_ms=median(took),
        worst_claim_ms=max(took),
        first_retry_s=first,
        retries_per_s=drained,
        peak_mib=max(peak, again),
    )


async def measured(store: str, size: int, clients: int, seconds: float, rounds: int) -> Figures:
    """The figures of one store and size, on data of their own."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as name:
        folder = Path(name)
        async with store_settings(store, folder) as common:
            key = APART[store]
            stores = {
                which: {
                    **common,
                    key: str(folder / f"{which}.db") if store == "sqlite" else f"{which}{size}",
                }
                for which in ("empty", "filled")
            }
            return await grown(stores, folder, size, clients, seconds, rounds)


async def main() -> None:
    """Print a line for each store and size."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument("--sizes", default="10000,100000", help="numbers, separated by commas")
    parser.add_argument("--stores", default=",".join(APART))
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    print(
        f"msg at {options.clients} clients; to reach: {REACH['submit']:g} of the empty store's "
        f"rate, claim {REACH['claim']:g} ms, first retry {REACH['start']:g} s, "
        f"{REACH['memory']:g} MiB"
    )
    print(
        f"{'store':10}{'unfinished':>11}{'tx/s':>7}{'of empty':>10}{'random':>8}{'claim ms':>10}"
        f"{'worst':>8}{'1st retry s':>13}{'retries/s':>11}{'peak MiB':>10}"
    )
    for store in options.stores.split(","):
        for size in map(int, options.sizes.split(",")):
            got = await measured(store, size, options.clients, options.seconds, options.rounds)
            verdict = f"missed: {', '.join(got.missed)}" if got.missed else "reached"
            print(
                f"{store:10}{size:11,}{got.rate_per_s:7,.0f}{got.ratio:10.2f}"
                f"{got.random_ratio:8.2f}{got.claim_ms:10.1f}"
                f"{got.worst_claim_ms:8.1f}{got.first_retry_s:13.2f}{got.retries_per_s:11,.0f}"
                f"{got.peak_mib:10.0f}  {verdict}",
                flush=True,
            )


if __name__ == "__main__":
    from kit.app.command import run

    run(main())  # with the loop that a coordinator has
