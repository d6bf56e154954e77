"""The branches of every transaction, in a process of its own and as light as can be.

It shares the cores with the coordinator that is measured, so it is served by the lean engine, the
same for every coordinator. ``/bench.Sink/Count`` tells how many branch calls there were,
``/bench.Sink/First`` when the first of them since it was last asked came; every other method is a
branch, which is counted and answered with an empty message. The first line of stdout is the
address; it serves until stdin closes. Run by ``python -m tests.bench``.
"""

import asyncio
import sys
import time

from kit.transport.grpc.engine import Keepalive, Limits, Route, ServerCall, UnaryRoute
from kit.transport.lean.server import LeanServer


class Sink:
    """Takes every call."""

    def __init__(self) -> None:
        self._branches = 0
        self._first = 0.0
        self._questions = {
            "/bench.Sink/Count": UnaryRoute(self._tell),
            "/bench.Sink/First": UnaryRoute(self._tell_first),
        }
        self._branch = UnaryRoute(self._take)

    def route(self, method: str) -> Route:
        return self._questions.get(method, self._branch)

    async def _tell(self, _request: bytes, _: ServerCall) -> bytes:
        return str(self._branches).encode()

    async def _tell_first(self, _request: bytes, _: ServerCall) -> bytes:
        first, self._first = self._first, 0.0
        return str(first).encode()

    async def _take(self, _request: bytes, _: ServerCall) -> bytes:
        self._first = self._first or time.perf_counter()
        self._branches += 1
        return b""


async def serve() -> None:
    server = LeanServer(Sink().route, tls=None, limits=Limits(), keepalive=Keepalive())
    port = await server.listen("127.0.0.1", 0)
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    from kit.app.command import run

    run(serve())
