"""What a JSON call over HTTP costs beside bare Starlette.

Each server is a process of its own, loaded by this one over 8 connections; told is the CPU time of
the server a call, in interleaved rounds, and each round is set against the bare one of its own.

Run: ``python -m tests.bench.http_call [--calls 6000] [--rounds 4]``
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
from typing import Any

import uvicorn
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kit.middleware.recovery import recovery
from kit.ports import free_port
from kit.transport.http import HttpServer
from tests.unit.transport.http.shop import SERVICE, Shop
from tests.unit.transport.http.shop_pb2 import Item

BODY = b'{"id":"7","priceCents":"500","color":"RED","shelf":"s1"}'
REQUEST = (
    b"POST /v1/items HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    b"accept: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
CONNECTIONS = 8
REACH = 1.5
KINDS = {
    "plain": "bare Starlette, JSONResponse(await request.json())",
    "messages": "bare Starlette, google.protobuf.json_format both ways",
    "kit": "the kit: binding, recovery, message in and out",
}


class Quick(Shop):
    async def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        return request


async def plain(request: Request) -> Response:
    return JSONResponse(await request.json())


async def messages(request: Request) -> Response:
    item = json_format.Parse(await request.body(), Item())
    text = json_format.MessageToJson(item, indent=None, always_print_fields_with_no_presence=True)
    return Response(text, media_type="application/json")


async def serve(kind: str, port: int) -> None:
    if kind == "kit":
        server = HttpServer(address=f"127.0.0.1:{port}", middleware=[recovery()])
        server.add_service(SERVICE, Quick())
        await server.serve()
        return
    endpoint = plain if kind == "plain" else messages
    app = Starlette(routes=[Route("/v1/items", endpoint, methods=["POST"])])
    config = uvicorn.Config(app, port=port, http="httptools", ws="none", log_level="error")
    await uvicorn.Server(config).serve()


async def load(port: int, calls: int) -> None:
    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(calls // CONNECTIONS):
            writer.write(REQUEST)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r")[0]))
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measured(kind: str, calls: int) -> float:
    """CPU µs of the server of ``kind`` a call."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.http_call", "--serve", kind, "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: ASYNC220  (at once)
    try:
        for _ in range(1_200):
            try:
                await load(port, 400)
                break
            except OSError:
                await asyncio.sleep(0.05)
        before = cpu_seconds(process.pid)
        await load(port, calls)
        return (cpu_seconds(process.pid) - before) / calls * 1e6
    finally:
        process.kill()
        process.wait()


async def measure(calls: int, rounds: int) -> float:
    """Print the table; give the median ratio of the kit to bare Starlette."""
    costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, found in costs.items():
            found.append(await measured(kind, calls))
    print(f"{'HTTP JSON call':<58} server us  x bare")
    ratio = 0.0
    for kind, found in costs.items():
        ratio = statistics.median(
            own / bare for own, bare in zip(found, costs["plain"], strict=True)
        )
        print(f"{KINDS[kind]:<58} {statistics.median(found):>9.0f} {ratio:>7.2f}")
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=6_000, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--serve", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve, options.port))
        return 0
    ratio = asyncio.run(measure(options.calls, options.rounds))
    print(
        f"kit / bare = {ratio:.2f}, to reach: {REACH} ({'reached' if ratio <= REACH else 'missed'})"
    )
    return 0 if ratio <= REACH else 1


if __name__ == "__main__":
    sys.exit(main())
