"""CPU per unary call of both engines at the seam: an echo of 64 bytes between two processes.

Rounds alternate over the four pairs of server and client, so that the machine's speed concerns all
of them. A server's figure is taken with the lean client, a client's with the lean server: the other
side then waits for nobody.

Run: ``python -m tests.conformance.lean.bench [--seconds 2] [--rounds 3] [--clients 32] [--uvloop]``
"""

import argparse
import asyncio
import os
import statistics
import sys
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

METHOD = "/bench.Echo/Call"
PAYLOAD = bytes(64)
METADATA: RawMetadata = tuple((f"dtm-{name}", "0123456789") for name in ("gid", "op", "to", "by"))
ENGINES: tuple[EngineName, ...] = ("grpcio", "lean")


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
        *(sys.executable, "-m", "tests.conformance.lean.bench", "--serve", engine),
        *(("--uvloop",) if fast else ()),
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


async def measure(seconds: float, rounds: int, clients: int, *, fast: bool) -> None:
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
    print("server  client   calls/s  server us  client us   (medians)")
    middle = {
        pair: [statistics.median(column) for column in zip(*rows, strict=True)]
        for pair, rows in figures.items()
    }
    for (server, client), (rate, server_us, client_us) in middle.items():
        print(f"{server:<7} {client:<7} {rate:>8.0f} {server_us:>10.1f} {client_us:>10.1f}")
    by_server = middle["grpcio", "lean"][1] / middle["lean", "lean"][1]
    by_client = middle["lean", "grpcio"][2] / middle["lean", "lean"][2]
    print(f"server: {by_server:.1f} times less CPU, client: {by_client:.1f} times less")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--serve", choices=ENGINES)
    options = parser.parse_args()
    if options.serve:
        run(serve(options.serve), fast=options.uvloop)
    else:
        run(
            measure(options.seconds, options.rounds, options.clients, fast=options.uvloop),
            fast=options.uvloop,
        )


if __name__ == "__main__":
    main()
