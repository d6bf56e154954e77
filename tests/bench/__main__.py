"""Throughput and latency of the coordinator beside yardsticks of the same run.

A transaction is a msg with two branches and WaitResult: three calls over gRPC, and what makes it
durable. The coordinator runs as users run it, on SQLite with synchronous=FULL and its default log.
Yardsticks are a bare grpc.aio echo server under the same load generator and fdatasync alone; what
one client waits for a transaction is held against three waits for each of them. Rounds
of both alternate, so that a ratio stands even when the machine's speed does not. Then come the
other benchmarks of this folder, each with a yardstick of its own.

Run: ``make bench`` or ``python -m tests.bench [--seconds 2] [--rounds 3] [--clients 1,32,128]``;
writes docs/benchmarks.md unless ``--dry`` or ``--only`` is given. ``--full`` measures longer and up
to a million unfinished transactions.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench import report
from tests.bench.deployment import BenchmarkFailed, Deployment, deployment
from tests.bench.load import Round
from tests.bench.store import fdatasync_rate

ROOT = Path(__file__).parents[2]
REACH = 0.9
REACH_AT = 32
BRANCHES = 2
MAIN = "msg"
OTHERS = (
    *("durable", "kit", "client", "barrier", "store", "modes", "grpcio_modes"),
    *("growth", "hanging", "lean"),
)
"""The benchmarks that are printed as they are, in the order of the page."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One round: the yardstick, then transactions."""

    echo: Round
    light: Round
    msg: Round
    cpu_us: float

    @property
    def ratio(self) -> float:
        return self.msg.rate / self.echo.rate


def row(clients: int, pairs: Sequence[Pair]) -> report.Row:
    """What the rounds at one number of clients come to."""
    best = max(pairs, key=lambda pair: pair.msg.rate)
    return report.Row(
        clients,
        echo_median=median(pair.echo.rate for pair in pairs),
        echo_best=max(pair.echo.rate for pair in pairs),
        msg_median=median(pair.msg.rate for pair in pairs),
        msg_best=best.msg.rate,
        ratio_median=median(pair.ratio for pair in pairs),
        ratio_best=max(pair.ratio for pair in pairs),
        echo_ms=median(pair.echo.p50_ms for pair in pairs),
        p50_ms=median(pair.msg.p50_ms for pair in pairs),
        p99_ms=median(pair.msg.p99_ms for pair in pairs),
        cpu_us=median(pair.cpu_us for pair in pairs),
        light_median=median(pair.light.rate for pair in pairs),
    )


async def one_pair(deployed: Deployment, clients: int, seconds: float) -> Pair:
    """Measure the echo, then transactions, and check that every branch was called."""
    echo = await deployed.measure("echo", clients, seconds)
    light = await deployed.measure("light-echo", clients, seconds)
    calls, spent = await deployed.servers.branches(), deployed.cpu_seconds()
    msg = await deployed.measure("msg", clients, seconds)
    spent, calls = deployed.cpu_seconds() - spent, await deployed.servers.branches() - calls
    if calls < BRANCHES * msg.count:
        raise BenchmarkFailed(f"{msg.count} transactions were answered after {calls} branch calls")
    return Pair(echo, light, msg, spent / msg.count * 1e6)


async def coordinator(
    folder: Path, clients: Sequence[int], seconds: float, rounds: int, profile: Path | None
) -> list[report.Row]:
    """The table, one row a number of clients."""
    pairs: dict[int, list[Pair]] = {number: [] for number in clients}
    async with deployment(folder, profile) as deployed:
        for kind in ("echo", "msg"):
            await deployed.measure(kind, max(clients), min(seconds, 1.0))  # warm
        for _ in range(rounds):
            for number in clients:
                pairs[number].append(await one_pair(deployed, number, seconds))
                print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return [row(number, measured) for number, measured in pairs.items()]


def arguments(seconds: float, full: bool) -> dict[str, list[str]]:
    """The command of each of :data:`OTHERS`; ``seconds`` are those of the table of msg."""
    shorter = f"{seconds if full else seconds / 2:g}"
    sizes = "10000,100000,1000000" if full else "10000,100000"
    return {
        "durable": ["durable", "--seconds", shorter, *(["--rounds", "5"] if full else [])],
        "kit": ["kit_figures", "--seconds", shorter],
        "client": ["client", *(["--rounds", "60"] if full else [])],
        "barrier": ["barrier"],
        "store": ["store", shorter],
        "modes": ["modes", "--seconds", shorter],
        "grpcio_modes": ["modes", "--seconds", shorter, "--engine", "grpcio", "--modes", "msg"],
        "growth": ["growth", "--seconds", shorter, "--sizes", sizes],
        "hanging": ["hanging", "--seconds", f"{seconds * 3:g}"],
        "lean": ["lean", "--seconds", shorter],
    }


def other(module: str, *args: str) -> str:
    """What another benchmark of this folder prints.

    Raises:
        BenchmarkFailed: it did not come to its end; 1 is the code of one that missed its figure.
    """
    command = [sys.executable, "-m", f"tests.bench.{module}", *args]
    print(f"tests.bench.{' '.join([module, *args])}", file=sys.stderr, flush=True)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.stdout or (done.returncode and "Traceback" in done.stderr):
        raise BenchmarkFailed(f"tests.bench.{module} failed:\n{done.stderr[-2_000:]}")
    return done.stdout.rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,32,128", help="numbers, separated by commas")
    parser.add_argument(
        "--only",
        choices=(MAIN, *OTHERS),
        action="append",
        help="measure this one and leave docs/benchmarks.md as it is; may be given again",
    )
    parser.add_argument("--full", action="store_true", help="longer, and up to 1,000,000")
    parser.add_argument("--dry", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--profile", type=Path, help="run the coordinator under cProfile into this")
    options = parser.parse_args()
    wanted = options.only or (MAIN, *OTHERS)
    clients = [int(number) for number in options.clients.split(",")]
    busy = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-")))
        try:
            rows, conclusion = [], ""
            if MAIN in wanted:
                syncs = fdatasync_rate(folder, 0.5)  # in this folder: /tmp may be no disk
                rows = asyncio.run(
                    coordinator(folder, clients, options.seconds, options.rounds, options.profile)
                )
                conclusion = report.verdict(rows, syncs, REACH_AT, REACH)
                print(report.table(rows), conclusion, sep="\n\n", flush=True)
            parts = {}
            for name, command in arguments(options.seconds, options.full).items():
                if name in wanted:
                    parts[name] = other(*command)
                    print(f"\n{parts[name]}", flush=True)
        except BenchmarkFailed as failure:
            print(f"bench: {failure}", file=sys.stderr)
            return 1
    if not (options.dry or options.only):
        page = report.page(
            rows,
            conclusion,
            parts,
            command=" ".join(["python -m tests.bench", *sys.argv[1:]]),
            busy=busy,
            measured=f"{options.rounds} rounds of {options.seconds:g} s",
        )
        (ROOT / "docs" / "benchmarks.md").write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
