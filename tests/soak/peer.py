"""The server of the soak: it notes each call it begins, and answers so that errors would show.

Methods of ``/soak.Soak``; a request starts with the call's id, 8 bytes:

======  ==============================================================
Echo    id, CRC-32 of the request, the rest of the request
Fail    NOT_FOUND, the id in message and details
Slow    Echo after 50 ms
Count   20 messages: id, number, 100 bytes
Talk    for each message the Echo of it
Report  what this process holds, as JSON
======  ==============================================================
"""

import asyncio
import gc
import json
import os
import signal
import sys
import zlib
from pathlib import Path

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import (
    Keepalive,
    Limits,
    Route,
    RpcFailed,
    ServerCall,
    ServerTls,
    StreamRoute,
    UnaryRoute,
)
from kit.transport.lean import LeanServer
from tests.soak.ledger import Bytes

ID_BYTES = 8
COUNT = 20
SLOW_S = 0.05
GRACE_S = 2.0
KEEPALIVE = Keepalive(interval=3.0, timeout=3.0, accepted_interval=0.5)


def answer(request: bytes) -> bytes:
    """What Echo makes of a request."""
    return request[:ID_BYTES] + zlib.crc32(request).to_bytes(4, "big") + request[ID_BYTES:]


def counted(call_id: bytes, number: int) -> bytes:
    """A message of Count."""
    return call_id + bytes((number,)) * 100


def failure(call_id: bytes) -> RpcFailed:
    """How Fail ends."""
    text = f"nothing at {int.from_bytes(call_id, 'big')} \u20ac"
    return RpcFailed(GrpcCode.NOT_FOUND, text, (("grpc-status-details-bin", call_id),))


def anonymous_kb(pid: int | str = "self") -> int:
    """Resident memory that is no file's, in KiB: without the ledger."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("no RssAnon in /proc/self/status")


def descriptors() -> int:
    """Open files and sockets of this process."""
    return len(os.listdir("/proc/self/fd"))


async def serve(port: int, ledger: Path, calls: int, tls: ServerTls | None) -> None:
    """Serve until SIGTERM; the first line of stdout is the port."""
    server: LeanServer
    with Bytes(ledger, calls) as ran:

        def begin(request: bytes) -> None:
            number = int.from_bytes(request[:ID_BYTES], "big")
            ran[number] = min(ran[number] + 1, 255)

        async def echo(request: bytes, _call: ServerCall) -> bytes:
            begin(request)
            return answer(request)

        async def fail(request: bytes, _call: ServerCall) -> bytes:
            begin(request)
            raise failure(request[:ID_BYTES])

        async def slow(request: bytes, _call: ServerCall) -> bytes:
            begin(request)
            await asyncio.sleep(SLOW_S)
            return answer(request)

        async def count(call: ServerCall) -> None:
            request = await call.read()
            assert request is not None
            begin(request)
            for number in range(COUNT):
                await call.write(counted(request[:ID_BYTES], number))

        async def talk(call: ServerCall) -> None:
            first = True
            while (message := await call.read()) is not None:
                if first:
                    begin(message)
                first = False
                await call.write(answer(message))

        async def report(_request: bytes, _call: ServerCall) -> bytes:
            gc.collect()
            return json.dumps(
                {
                    "rss_kb": anonymous_kb(),
                    "blocks": sys.getallocatedblocks(),
                    "fds": descriptors(),
                    "tasks": len(asyncio.all_tasks()),
                    "connections": len(server._connections),
                    "running": server.running,
                }
            ).encode()

        routes: dict[str, Route] = {
            "/soak.Soak/Echo": UnaryRoute(echo),
            "/soak.Soak/Fail": UnaryRoute(fail),
            "/soak.Soak/Slow": UnaryRoute(slow),
            "/soak.Soak/Count": StreamRoute(count),
            "/soak.Soak/Talk": StreamRoute(talk),
            "/soak.Soak/Report": UnaryRoute(report),
        }
        server = LeanServer(routes.__getitem__, tls=tls, limits=Limits(), keepalive=KEEPALIVE)
        bound = await server.listen("127.0.0.1", port)
        await server.start()
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        print(bound, flush=True)
        await stopped.wait()
        await server.stop(GRACE_S)


def main() -> None:
    port, ledger, calls, loop, *certificate = sys.argv[1:]
    tls = ServerTls(*(Path(path).read_bytes() for path in certificate)) if certificate else None
    serving = serve(int(port), Path(ledger), int(calls), tls)
    if loop == "asyncio":
        asyncio.run(serving)
    else:
        import uvloop

        uvloop.run(serving)


if __name__ == "__main__":
    main()
