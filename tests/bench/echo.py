"""A bare grpc.aio server in a process of its own: the yardstick of calls, and the sink of branches.

``/bench.Echo/Call`` gives back what it got, ``/bench.Sink/Count`` how many branch calls there were,
``/bench.Sink/First`` when the first of them since it was last asked came; every other method is a
branch, which is counted and answered with an empty message. The first line
of stdout is the address; it serves until stdin closes. Run by ``python -m tests.bench``.
"""

import asyncio
import sys
import time

import grpc
import grpc.aio


class Everything(grpc.GenericRpcHandler):
    """Has a handler for any path."""

    def __init__(self) -> None:
        self._branches = 0
        self._first = 0.0
        self._echo = grpc.unary_unary_rpc_method_handler(self._give_back)
        self._count = grpc.unary_unary_rpc_method_handler(self._tell)
        self._when = grpc.unary_unary_rpc_method_handler(self._tell_first)
        self._branch = grpc.unary_unary_rpc_method_handler(self._take)

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        match call.method:
            case "/bench.Echo/Call":
                return self._echo
            case "/bench.Sink/Count":
                return self._count
            case "/bench.Sink/First":
                return self._when
            case _:
                return self._branch

    async def _give_back(self, request: bytes, _: object) -> bytes:
        return request

    async def _tell(self, _request: bytes, _: object) -> bytes:
        return str(self._branches).encode()

    async def _tell_first(self, _request: bytes, _: object) -> bytes:
        first, self._first = self._first, 0.0
        return str(first).encode()

    async def _take(self, _request: bytes, _: object) -> bytes:
        self._first = self._first or time.perf_counter()
        self._branches += 1
        return b""


async def serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Everything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    from kit.app.command import run

    run(serve())
