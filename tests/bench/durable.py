"""A msg with two branches beside a workflow of ``dbos`` with two steps, on the same kind of store.

Both write down what was done before they go on, and both call the same sink for each branch or
step. They take turns. SQLite is in WAL mode with synchronous=FULL for both, each in its own file;
PostgreSQL is one server with its defaults and a database for each.

Run: ``python -m tests.bench.durable [--seconds 2] [--rounds 3] [--clients 1,32]
[--stores sqlite,postgres]``.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import apsw

from tests.bench.deployment import BenchmarkFailed, deployment, first_line, piped, running_servers
from tests.bench.load import Round
from tests.bench.modes import store_settings

ROOT = Path(__file__).parents[2]
STORES = ("sqlite", "postgres")


@dataclass(frozen=True, slots=True)
class Pair:
    """One turn of each."""

    msg: Round
    workflow: Round


def database(store: str, settings: Mapping[str, object], folder: Path) -> str:
    """The URL of a database for ``dbos`` where ``store`` is."""
    if store == "sqlite":
        path = folder / "dbos.db"
        file = apsw.Connection(str(path))
        file.execute("PRAGMA journal_mode = WAL").fetchall()  # the file remembers it
        file.close()
        return f"sqlite:///{path}"
    if store == "postgres":
        who = f"{settings['User']}:{settings['Password']}"
        return f"postgresql://{who}@{settings['Host']}:{settings['Port']}/dbos"
    raise BenchmarkFailed(f"store {store!r} is unknown here; use {', '.join(STORES)}")


@asynccontextmanager
async def workflows(url: str, sink: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that runs workflows of ``dbos``."""
    async with piped("tests.bench.dbos_steps", url, sink) as process:
        await first_line(process)
        yield process


async def ask(process: asyncio.subprocess.Process, clients: int, seconds: float) -> Round:
    """One measurement of workflows."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{clients} {seconds}\n".encode())
    line = await process.stdout.readline()
    if not line:
        raise BenchmarkFailed(f"dbos ended at {clients} clients")
    return Round(**json.loads(line))


async def measured(
    store: str, numbers: list[int], seconds: float, rounds: int
) -> dict[int, list[Pair]]:
    """The turns on one store, by number of clients."""
    pairs: dict[int, list[Pair]] = {number: [] for number in numbers}
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as name:
        folder = Path(name)
        async with (
            store_settings(store, folder) as settings,
            running_servers() as servers,
            deployment(folder, store=settings, servers=servers) as deployed,
            workflows(database(store, settings, folder), servers.sink) as dbos,
        ):
            await deployed.measure("msg", max(numbers), min(seconds, 1.0))  # warm
            await ask(dbos, max(numbers), min(seconds, 1.0))
            for _ in range(rounds):
                for number in numbers:
                    msg = await deployed.measure("msg", number, seconds)
                    calls = await servers.branches()
                    workflow = await ask(dbos, number, seconds)
                    calls = await servers.branches() - calls
                    if calls < 2 * workflow.count:
                        raise BenchmarkFailed(f"{workflow.count} workflows made {calls} calls")
                    pairs[number].append(Pair(msg, workflow))
                    print(".", end="", flush=True, file=sys.stderr)
    return pairs


async def main() -> None:
    """Print a line for each store and number of clients."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.durable", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,32", help="numbers, separated by commas")
    parser.add_argument("--stores", default=",".join(STORES))
    options = parser.parse_args()
    numbers = [int(number) for number in options.clients.split(",")]
    print(
        f"{'store':10}{'clients':>8}{'msg/s':>8}{'p50 ms':>9}{'dbos/s':>9}{'p50 ms':>9}"
        f"{'msg / dbos':>12}"
    )
    for store in options.stores.split(","):
        measurements = await measured(store, numbers, options.seconds, options.rounds)
        for number, pairs in measurements.items():
            print(
                f"{store:10}{number:8}{median(p.msg.rate for p in pairs):8,.0f}"
                f"{median(p.msg.p50_ms for p in pairs):9.1f}"
                f"{median(p.workflow.rate for p in pairs):9,.0f}"
                f"{median(p.workflow.p50_ms for p in pairs):9.1f}"
                f"{median(p.msg.rate / p.workflow.rate for p in pairs):12.1f}",
                flush=True,
            )
    print(file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main())
