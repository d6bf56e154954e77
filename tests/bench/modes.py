"""Every store and mode: transactions with two branches and WaitResult beside the echo of the turn.

The first store keeps nothing: what the others cost is the difference. They are real servers on
this machine, as durable as they can be: SQLite synchronous=FULL, PostgreSQL with its defaults,
MariaDB innodb_flush_log_at_trx_commit=1, Redis appendfsync always. A tcc is four calls of its
client and two of branches, the others one and two.

Run: ``python -m tests.bench.modes [--seconds 2] [--rounds 2] [--clients 32]
[--stores memory,sqlite,postgres,mysql,redis] [--modes msg,saga,tcc] [--engine lean]
[--profile FILE]``.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from kit.testing.mariadb import mariadb_server
from kit.testing.postgres import postgres_server
from kit.testing.redis import redis_server
from tests.bench.deployment import BenchmarkFailed, Deployment, deployment

ROOT = Path(__file__).parents[2]
STORES = ("memory", "sqlite", "postgres", "mysql", "redis")
MODES = ("msg", "saga", "tcc")
REACH = {
    "grpcio": {"sqlite": 0.30, "postgres": 0.25, "mysql": 0.25, "redis": 0.25},
    "lean": {"sqlite": 0.9, "postgres": 0.9, "mysql": 0.75, "redis": 1.0},
}
"""Of the echo rate, msg at 32 clients."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One measurement beside its yardstick."""

    rate: float
    ratio: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


@asynccontextmanager
async def store_settings(name: str, folder: Path) -> AsyncIterator[Mapping[str, object]]:
    """The section ``Store`` for a server that runs meanwhile."""
    match name:
        case "memory":
            yield {"Driver": "memory"}
        case "sqlite":
            yield {"Driver": "sqlite", "Path": str(folder / "coordinator.db")}
        case "postgres":
            async with postgres_server() as server:
                given = server.settings
                yield {
                    "Driver": "postgres",
                    "Host": given["host"],
                    "Port": given["port"],
                    "User": given["user"],
                    "Password": given["password"],
                    "Db": given["database"],
                }
        case "mysql":
            async with mariadb_server(own=True) as maria:
                yield {
                    "Driver": "mysql",
                    "Host": maria.host,
                    "Port": maria.port,
                    "User": maria.user,
                    "Password": maria.password,
                }
        case "redis":
            async with redis_server() as redis:
                yield {"Driver": "redis", "Host": redis.host, "Port": redis.port}
        case _:
            raise BenchmarkFailed(f"store {name!r} is unknown; use {', '.join(STORES)}")


async def turn(deployed: Deployment, mode: str, clients: int, seconds: float) -> Turn:
    """The echo, then transactions; every branch has to have been called."""
    echo = await deployed.measure("echo", clients, seconds)
    calls, spent = await deployed.servers.branches(), deployed.cpu_seconds()
    done = await deployed.measure(mode, clients, seconds)
    spent, calls = deployed.cpu_seconds() - spent, await deployed.servers.branches() - calls
    if calls < 2 * done.count:
        raise BenchmarkFailed(f"{done.count} {mode} were answered after {calls} branch calls")
    return Turn(
        done.rate, done.rate / echo.rate, done.p50_ms, done.p99_ms, spent / done.count * 1e6
    )


async def measured(
    store: str,
    modes: Sequence[str],
    clients: int,
    seconds: float,
    rounds: int,
    engine: str,
    profile: Path | None,
) -> dict[str, list[Turn]]:
    """The turns of each mode on one store; they alternate."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as name:
        folder = Path(name)
        async with (
            store_settings(store, folder) as settings,
            deployment(
                folder, profile, store=settings, settings={"GrpcEngine": engine}
            ) as deployed,
        ):
            for mode in modes:
                await deployed.measure(mode, clients, min(seconds, 1.0))  # warm
            turns: dict[str, list[Turn]] = {mode: [] for mode in modes}
            for _ in range(rounds):
                for mode in modes:
                    turns[mode].append(await turn(deployed, mode, clients, seconds))
                    print(".", end="", flush=True, file=sys.stderr)
            return turns


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.modes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--engine", choices=REACH, default="lean", help="of the coordinator")
    parser.add_argument("--profile", type=Path, help="of the coordinator, into FILE.STORE each")
    parser.add_argument("--modes", default=",".join(MODES))
    options = parser.parse_args()
    modes = options.modes.split(",")
    print(
        f"{options.clients} clients, engine {options.engine}; tx / echo is the median of the rounds"
    )
    print(f"{'store':10}{'mode':6}{'tx/s':>8}{'tx/echo':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>8}")
    for store in options.stores.split(","):
        profile = options.profile and options.profile.with_name(f"{options.profile.name}.{store}")
        turns = await measured(
            store,
            modes,
            options.clients,
            options.seconds,
            options.rounds,
            options.engine,
            profile,
        )
        for mode, each in turns.items():
            ratio = median(t.ratio for t in each)
            said = ""
            reach = REACH[options.engine].get(store)
            if mode == "msg" and reach is not None:
                word = "reached" if ratio >= reach else "missed"
                said = f"  to reach {reach:.2f} ({word})"
            print(
                f"{store:10}{mode:6}{median(t.rate for t in each):8,.0f}{ratio:9.2f}"
                f"{median(t.p50_ms for t in each):9.1f}{median(t.p99_ms for t in each):9.1f}"
                f"{median(t.cpu_us for t in each):8,.0f}{said}",
                flush=True,
            )
    print(file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main())
