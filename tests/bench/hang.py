"""Targets that hang: every second one takes calls and never answers, the others say nothing at all.

Connections of the latter are made by the kernel.

The argument is how many. The first line of stdout has their addresses, separated by commas; they
hang until stdin closes. Run by ``python -m tests.bench.hanging``.
"""

import asyncio
import socket
import sys
from contextlib import AsyncExitStack

import grpc
import grpc.aio


class Never(grpc.GenericRpcHandler):
    """Has a handler for any path that does not return."""

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._hang)

    async def _hang(self, _request: bytes, _: object) -> bytes:
        return await asyncio.get_running_loop().create_future()


async def serve(number: int) -> None:
    addresses = []
    async with AsyncExitStack() as stack:
        for place in range(number):
            if place % 2:
                server = grpc.aio.server()
                server.add_generic_rpc_handlers((Never(),))
                port = server.add_insecure_port("127.0.0.1:0")
                await server.start()
                stack.push_async_callback(server.stop, None)
            else:
                silent = socket.create_server(("127.0.0.1", 0), backlog=1_000)
                port = stack.enter_context(silent).getsockname()[1]
            addresses.append(f"127.0.0.1:{port}")
        print(",".join(addresses), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    from kit.app.command import run

    run(serve(int(sys.argv[1])))
