"""What clients of healthy branches feel of targets that hang.

Two coordinators take turns at the same msg transactions; one of them has others in hand besides,
whose branches are on 20 targets: ten take each call and never answer, ten accept the connection and
say nothing. Those transactions ask to be tried again after a second and are given anew before each
turn. A turn is long enough for their calls to end after 3 seconds and for their first retries.
Whoever is not measured is stopped meanwhile, and catches up with what became due before it is
measured again.

Run: ``python -m tests.bench.hanging [--seconds 6] [--rounds 5] [--clients 8] [--each 5]``.
"""

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc.aio

from tests.bench.deployment import (
    BenchmarkFailed,
    Deployment,
    Servers,
    deployment,
    first_line,
    piped,
    running_servers,
)
from tests.bench.load import Round, submission

ROOT = Path(__file__).parents[2]
TARGETS = 20
CATCHES_UP_S = 1.0
SETTLES_S = 0.3
REACH = 1.10
"""Of the p99 without targets that hang (design.md §7)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What clients felt, and the coordinator's CPU time for each of their transactions."""

    felt: Round
    cpu_us: float


async def turn(deployed: Deployment, servers: Servers, clients: int, seconds: float) -> Turn:
    """Measure; every branch has to have been called."""
    calls, spent = await servers.branches(), deployed.cpu_seconds()
    felt = await deployed.measure("msg", clients, seconds)
    spent, calls = deployed.cpu_seconds() - spent, await servers.branches() - calls
    if calls < 2 * felt.count:
        raise BenchmarkFailed(f"{felt.count} were answered after {calls} branch calls")
    return Turn(felt, spent / felt.count * 1e6)


@dataclass(frozen=True, slots=True)
class Pair:
    """One turn of each."""

    quiet: Turn
    hanging: Turn


async def burden(deployed: Deployment, targets: list[str], each: int) -> None:
    """Submit ``each`` transactions to each of ``targets``, without waiting for a result."""
    async with grpc.aio.insecure_channel(deployed.target) as channel:
        submit = channel.unary_unary("/dtmgimp.Dtm/Submit")
        for target in targets * each:
            request = submission(target)
            request.TransOptions.WaitResult = False
            request.TransOptions.RetryInterval = 1
            await submit(request.SerializeToString())


async def measured(clients: int, seconds: float, rounds: int, each: int) -> list[Pair]:
    """The turns."""
    async with AsyncExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-"))
        servers = await stack.enter_async_context(running_servers())
        hang = await stack.enter_async_context(piped("tests.bench.hang", str(TARGETS)))
        targets = (await first_line(hang)).split(",")
        both = []
        for which in ("quiet", "hanging"):
            folder = Path(name) / which
            folder.mkdir()
            deployed = await stack.enter_async_context(deployment(folder, servers=servers))
            await deployed.measure("msg", clients, min(seconds, 1.0))  # warm
            both.append(deployed)
        quiet, hanging = both
        pairs = []
        for _ in range(rounds):
            with hanging.paused():
                await asyncio.sleep(CATCHES_UP_S)
                alone = await turn(quiet, servers, clients, seconds)
            with quiet.paused():
                await asyncio.sleep(CATCHES_UP_S)
                await burden(hanging, targets, each)
                await asyncio.sleep(SETTLES_S)
                beside = await turn(hanging, servers, clients, seconds)
            pairs.append(Pair(alone, beside))
            print(".", end="", flush=True, file=sys.stderr)
        return pairs


async def main() -> None:
    """Print both lines and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hanging", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--each", type=int, default=5, help="transactions to each target a turn")
    options = parser.parse_args()
    pairs = await measured(options.clients, options.seconds, options.rounds, options.each)
    print(f"{options.clients} clients of healthy branches; medians of {len(pairs)} turns")
    print(f"{'targets that hang':20}{'tx/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs/tx':>11}")
    for title, turns in (
        ("none", [pair.quiet for pair in pairs]),
        (str(TARGETS), [pair.hanging for pair in pairs]),
    ):
        print(
            f"{title:20}{median(t.felt.rate for t in turns):8,.0f}"
            f"{median(t.felt.p50_ms for t in turns):9.1f}"
            f"{median(t.felt.p99_ms for t in turns):9.1f}{median(t.cpu_us for t in turns):11,.0f}"
        )
    ratios = sorted(pair.hanging.felt.p99_ms / pair.quiet.felt.p99_ms for pair in pairs)
    print(
        f"p99 with / without = {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), "
        f"to reach: {REACH:.2f} ({'reached' if median(ratios) <= REACH else 'missed'})"
    )


if __name__ == "__main__":
    asyncio.run(main())
