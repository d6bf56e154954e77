"""A bare grpc.aio server in a process of its own: the yardstick of calls.

``/bench.Echo/Call`` gives back what it got; none of this project's code is in its way. The first
line of stdout is the address; it serves until stdin closes. Run by ``python -m tests.bench``.
"""

import asyncio
import sys

import grpc
import grpc.aio


async def give_back(request: bytes, _: object) -> bytes:
    return request


async def serve() -> None:
    server = grpc.aio.server()
    handlers = {"Call": grpc.unary_unary_rpc_method_handler(give_back)}
    server.add_registered_method_handlers("bench.Echo", handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    from kit.app.command import run

    run(serve())
