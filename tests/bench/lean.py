"""The lean engine beside grpcio at the seam: CPU per unary call, latency, memory.

An echo of 64 bytes with four pairs of metadata and a deadline, between two processes. Rounds
alternate over the four pairs of server and client, so that the machine's speed concerns all of
them. A server's figure is taken with the lean client, a client's with the lean server: the other
side then waits for nobody. Latency is that of one client that calls again once answered, lean on
both sides against grpcio on both. Memory is :mod:`tests.bench.idle`.

Run: ``python -m tests.bench.lean [--seconds 2] [--rounds 3] [--clients 32] [--connections 1000]
[--asyncio]``; 1 is the code of a missed figure.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kit.transport.grpc  # noqa: F401  (quiets grpcio)
from kit.transport.grpc.engine import (
    Connection,
    Keepalive,
    Limits,
    RawMetadata,
    Route,
    ServerCall,
    UnaryRoute,
)
from kit.transport.grpc.engines import EngineName, client_engine, server_engine
from tests.bench import idle

METHOD = "/bench.Echo/Call"
PAYLOAD = bytes(64)
METADATA: RawMetadata = tuple((f"dtm-{name}", "0123456789") for name in ("gid", "op", "to", "by"))
ENGINES: tuple[EngineName, ...] = ("grpcio", "lean")
TIMES, LATENCY, IDLE_BYTES = 4.0, 0.6, 30_000


def run(main: Coroutine[Any, Any, Any], *, fast: bool) -> Any:
    """``asyncio.run``, on uvloop when asked for."""
    if not fast:
        return asyncio.run(main)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def echo(request: bytes, _call: ServerCall) -> bytes:
    return request


def route(_method: str) -> Route:
    return UnaryRoute(echo)


async def serve(engine: EngineName) -> None:
    """Serve until stdin closes; the first line of stdout is the port."""
    server = server_engine(engine)(route, tls=None, limits=Limits(), keepalive=Keepalive())
    port = await server.listen("127.0.0.1", 0)
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


@asynccontextmanager
async def server_process(engine: EngineName, *, fast: bool) -> AsyncIterator[tuple[int, str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.lean", "--serve", engine),
        *(() if fast else ("--asyncio",)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.pid, "127.0.0.1:" + (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(connection: Connection, clients: int, seconds: float) -> int:
    end = time.monotonic() + seconds

    async def client() -> int:
        count = 0
        while (now := time.monotonic()) < end:
            await connection.unary(METHOD, PAYLOAD, METADATA, now + 3.0)
            count += 1
        return count

    return sum(await asyncio.gather(*(client() for _ in range(clients))))


Figures = dict[tuple[str, str], list[float]]


async def measure(seconds: float, rounds: int, clients: int, *, fast: bool) -> Figures:
    """Calls a second, CPU of server and client in us a call; medians of the rounds."""
    figures: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    async with (
        server_process("grpcio", fast=fast) as grpcio,
        server_process("lean", fast=fast) as lean,
    ):
        servers = {"grpcio": grpcio, "lean": lean}
        pairs = {
            (server, client): client_engine(client)(
                servers[server][1], authority=None, tls=None, limits=Limits(), keepalive=Keepalive()
            )
            for server in ENGINES
            for client in ENGINES
        }
        for connection in pairs.values():
            await load(connection, clients, seconds / 2)
        for _ in range(rounds):
            for pair, connection in pairs.items():
                pid = servers[pair[0]][0]
                await load(connection, clients, seconds / 10)
                theirs, ours, started = cpu_seconds(pid), time.process_time(), time.monotonic()
                count = await load(connection, clients, seconds)
                took = time.monotonic() - started
                row = (
                    count / took,
                    (cpu_seconds(pid) - theirs) / count * 1e6,
                    (time.process_time() - ours) / count * 1e6,
                )
                figures.setdefault(pair, []).append(row)
        for connection in pairs.values():
            await connection.close()
    return {
        pair: [statistics.median(column) for column in zip(*rows, strict=True)]
        for pair, rows in figures.items()
    }


def echo_lines(many: Figures, one: Figures, clients: int) -> tuple[list[str], bool]:
    """The figures of calls, and whether all are met."""
    lines = [
        f"server  client   calls/s  server us  client us   ({clients} calls at once, CPU a call)"
    ]
    for (server, client), (rate, server_us, client_us) in many.items():
        lines.append(f"{server:<7} {client:<7} {rate:>8.0f} {server_us:>10.1f} {client_us:>10.1f}")
    by_server = many["grpcio", "lean"][1] / many["lean", "lean"][1]
    by_client = many["lean", "grpcio"][2] / many["lean", "lean"][2]
    latency = one["grpcio", "grpcio"][0] / one["lean", "lean"][0]
    met = by_server >= TIMES, by_client >= TIMES, latency <= LATENCY
    micros = (
        f"{1e6 / one['lean', 'lean'][0]:.0f} us against {1e6 / one['grpcio', 'grpcio'][0]:.0f} us"
    )
    lines += [
        f"server: {by_server:.1f} times less CPU (reach >= {TIMES}: {_word(met[0])})",
        f"client: {by_client:.1f} times less CPU (reach >= {TIMES}: {_word(met[1])})",
        f"one client: {micros}, {latency:.2f} times (reach <= {LATENCY}: {_word(met[2])})",
    ]
    return lines, all(met)


async def memory_lines(connections: int, *, fast: bool) -> tuple[list[str], bool]:
    """Memory of idle connections, and whether it is met by those of the lean engine."""
    lines, met = [], True
    for engine in ENGINES:
        for tls in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                each = await idle.measure(engine, connections, Path(folder), tls=tls, fast=fast)
            line = f"idle {engine} connection, {'TLS  ' if tls else 'plain'}:"
            line += f" server {each[0] / 1e3:.1f} kB, client {each[1] / 1e3:.1f} kB"
            if engine == "lean":
                good = max(each) <= IDLE_BYTES
                met = met and good
                line += f" (reach <= {IDLE_BYTES / 1e3:.0f} kB: {_word(good)})"
            lines.append(line)
    return lines, met


def _word(met: bool) -> str:
    return "met" if met else "missed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--asyncio", action="store_true", help="its own loop, not uvloop's")
    parser.add_argument("--serve", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    fast = not options.asyncio
    if options.serve:
        run(serve(options.serve), fast=fast)
        return 0
    print(f"loop: {'uvloop' if fast else 'asyncio'}")
    seconds, rounds = options.seconds, options.rounds
    many = run(measure(seconds, rounds, options.clients, fast=fast), fast=fast)
    one = run(measure(seconds, rounds, 1, fast=fast), fast=fast)
    lines, met = echo_lines(many, one, options.clients)
    print(*lines, sep="\n", flush=True)
    lines, small = run(memory_lines(options.connections, fast=fast), fast=fast)
    print(*lines, sep="\n")
    return 0 if met and small else 1


if __name__ == "__main__":
    sys.exit(main())
