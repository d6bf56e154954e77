"""What the kit adds to a unary call: the kit's client and server against bare grpc.aio.

Both echo 64 raw bytes between two processes. Rounds alternate, and each
figure is set against the bare one of its own round: the ratio stands even when the machine's speed
does not. The kit has recovery, metadata and timeout on the server, metadata
and timeout on the client; ``logged`` adds a line per call on the server, written to a pipe.

Run: ``python -m tests.bench.kit_call [--seconds 2] [--rounds 3]``
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from kit.middleware import logging, metadata
from kit.middleware.recovery import recovery
from kit.middleware.timeout import timeout
from kit.testing.grpc import running
from kit.transport.grpc import GrpcClient, GrpcServer

METHOD = "/bench.Echo/Call"
PAYLOAD = bytes(64)
REACH = 1.5
Call = Callable[[bytes], Awaitable[bytes]]


async def echo(request: bytes, _context: Any) -> bytes:
    return request


def handlers() -> dict[str, Any]:
    return {"Call": grpc.unary_unary_rpc_method_handler(echo)}


async def serve(kind: str) -> None:
    """Serve until stdin closes; the first line of stdout is the address."""
    loop = asyncio.get_running_loop()
    if kind == "bare":
        server = grpc.aio.server()
        server.add_registered_method_handlers("bench.Echo", handlers())
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(f"127.0.0.1:{port}", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        await server.stop(None)
        return
    layers = [recovery(), metadata.server(), timeout()]
    if kind == "logged":
        layers.insert(1, logging.server())
    own = GrpcServer(address="127.0.0.1:0", middleware=layers)
    own.add_registered_method_handlers("bench.Echo", handlers())
    async with running(own) as address:
        print(address, flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


@asynccontextmanager
async def server_process(kind: str) -> AsyncIterator[tuple[int, str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.kit_call", "--serve", kind),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.pid, (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(call: Call, clients: int, seconds: float) -> int:
    """How many calls ``clients`` made one after the other, each, until the time was over."""
    end = time.monotonic() + seconds

    async def client() -> int:
        count = 0
        while time.monotonic() < end:
            await call(PAYLOAD)
            count += 1
        return count

    return sum(await asyncio.gather(*(client() for _ in range(clients))))


async def measure(seconds: float, rounds: int) -> float:
    """Print the table; give the ratio at 32 clients."""
    ratio = 0.0
    print("clients pair                    calls/s server us client us  x bare")
    async with (
        server_process("bare") as bare,
        server_process("kit") as kit,
        server_process("logged") as logged,
        grpc.aio.insecure_channel(bare[1]) as to_bare,
        grpc.aio.insecure_channel(kit[1]) as to_kit,
        GrpcClient(kit[1], middleware=[metadata.client(), timeout()]) as own,
        GrpcClient(logged[1], middleware=[metadata.client(), timeout()]) as own_logged,
    ):
        pairs: list[tuple[str, int, Call]] = [
            ("bare to bare", bare[0], to_bare.unary_unary(METHOD)),
            ("bare to kit", kit[0], to_kit.unary_unary(METHOD)),
            ("kit to kit", kit[0], own.unary_unary(METHOD)),
            ("kit to kit, logged", logged[0], own_logged.unary_unary(METHOD)),
        ]
        for _, _, call in pairs:
            await load(call, 32, seconds / 2)  # warm
        for clients in (1, 32):
            figures: dict[str, list[tuple[float, float, float]]] = {}
            for _ in range(rounds):
                for name, pid, call in pairs:
                    await load(call, clients, seconds / 10)
                    theirs, ours = cpu_seconds(pid), time.process_time()
                    started = time.monotonic()
                    count = await load(call, clients, seconds)
                    rate = count / (time.monotonic() - started)
                    figures.setdefault(name, []).append(
                        (
                            rate,
                            (cpu_seconds(pid) - theirs) / count * 1e6,
                            (time.process_time() - ours) / count * 1e6,
                        )
                    )
            for name, rows in figures.items():
                rate, server_us, client_us = (
                    statistics.median(column) for column in zip(*rows, strict=True)
                )
                against = statistics.median(
                    bare_row[0] / row[0]
                    for bare_row, row in zip(figures["bare to bare"], rows, strict=True)
                )
                print(
                    f"{clients:>7} {name:<22} {rate:>8.0f} {server_us:>9.0f} {client_us:>9.0f} "
                    f"{against:>7.2f}"
                )
                if name == "kit to kit":
                    ratio = against
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", choices=["bare", "kit", "logged"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return 0
    ratio = asyncio.run(measure(options.seconds, options.rounds))
    verdict = "reached" if ratio <= REACH else "missed"
    print(f"kit / bare = {ratio:.2f}, to reach: {REACH} ({verdict})")
    return 0 if ratio <= REACH else 1


if __name__ == "__main__":
    sys.exit(main())
