"""What clients of healthy branches feel of targets that hang.

Two coordinators take turns at the same msg transactions; one of them has others in hand besides,
whose branches are on 20 targets: ten take each call and never answer, ten accept the connection and
say nothing. Those transactions ask to be tried again after a second and are given anew before each
turn; whoever is not measured is stopped meanwhile.

Run: ``python -m tests.bench.hanging [--seconds 2] [--rounds 5] [--clients 8] [--each 5]``.
"""

import argparse
import asyncio
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import grpc.aio

from tests.bench.deployment import (
    BenchmarkFailed,
    Deployment,
    deployment,
    first_line,
    piped,
    running_servers,
)
from tests.bench.load import Round, submission

ROOT = Path(__file__).parents[2]
TARGETS = 20
SETTLES_S = 0.3
REACH = 1.10
"""Of the p99 without targets that hang (design.md §7)."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One turn of each."""

    quiet: Round
    hanging: Round


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
                alone = await quiet.measure("msg", clients, seconds)
            with quiet.paused():
                await burden(hanging, targets, each)
                await asyncio.sleep(SETTLES_S)
                calls = await servers.branches()
                beside = await hanging.measure("msg", clients, seconds)
                calls = await servers.branches() - calls
            if calls < 2 * beside.count:
                raise BenchmarkFailed(f"{beside.count} were answered after {calls} branch calls")
            pairs.append(Pair(alone, beside))
        return pairs


async def main() -> None:
    """Print both lines and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hanging", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--each", type=int, default=5, help="transactions to each target a turn")
    options = parser.parse_args()
    pairs = await measured(options.clients, options.seconds, options.rounds, options.each)
    print(f"{options.clients} clients of healthy branches; medians of {len(pairs)} turns")
    print(f"{'targets that hang':20}{'tx/s':>8}{'p50 ms':>9}{'p99 ms':>9}")
    for title, rounds in (
        ("none", [pair.quiet for pair in pairs]),
        (str(TARGETS), [pair.hanging for pair in pairs]),
    ):
        print(
            f"{title:20}{median(r.rate for r in rounds):8,.0f}"
            f"{median(r.p50_ms for r in rounds):9.1f}{median(r.p99_ms for r in rounds):9.1f}"
        )
    ratio = median(pair.hanging.p99_ms / pair.quiet.p99_ms for pair in pairs)
    print(
        f"p99 with / without = {ratio:.2f}, to reach: {REACH:.2f} "
        f"({'reached' if ratio <= REACH else 'missed'})"
    )


if __name__ == "__main__":
    asyncio.run(main())
