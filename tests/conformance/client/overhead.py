"""What the client adds to a submit: the kit's :class:`Msg` against a bare stub of ``grpc.aio``.

Both submit a message of two steps to the same server, another process that answers at once. Rounds
alternate, and each figure is set against the bare one of its own round: the ratio stands even when
the machine's speed does not. The bar is 1.3.

Run: ``python -m tests.conformance.client.overhead [--calls 100] [--rounds 60]``
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty

from kit.dtm.client import DtmClient, Msg
from kit.dtm.pb.dtm_pb2 import DtmRequest, DtmTransOptions

SUBMIT = "/dtmgimp.Dtm/Submit"
OUT, IN = "discovery:///trans/api.trans.v1.Trans/TransOut", "localhost:9000/a.v1.Trans/TransIn"
BODY = b"\x08\x1e\x10\x01"
STEPS = f'[{{"action":"{OUT}"}},{{"action":"{IN}"}}]'


async def serve() -> None:
    """Answer until stdin closes; the first line of stdout is the address."""

    async def submit(_request: bytes, _context: object) -> bytes:
        return b""

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(submit)
    server.add_registered_method_handlers("dtmgimp.Dtm", {"Submit": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


async def measure(address: str, calls: int, rounds: int) -> None:
    """Print microseconds and ratios."""
    async with grpc.aio.insecure_channel(address) as channel, DtmClient(address) as client:
        stub = channel.unary_unary(
            SUBMIT,
            request_serializer=DtmRequest.SerializeToString,
            response_deserializer=Empty.FromString,
        )

        async def bare(gid: str) -> None:
            request = DtmRequest(
                Gid=gid,
                TransType="msg",
                TransOptions=DtmTransOptions(),
                BinPayloads=[BODY, BODY],
                Steps=STEPS,
            )
            await stub(request, timeout=10.0)

        async def ours(gid: str) -> None:
            await Msg(client, gid).add(OUT, BODY).add(IN, BODY).submit()

        async def timed(call: Callable[[str], Awaitable[None]]) -> float:
            began = time.perf_counter()
            for number in range(calls):
                await call(f"order-{number}")
            return (time.perf_counter() - began) / calls

        await timed(bare)
        await timed(ours)
        pairs = [(await timed(bare), await timed(ours)) for _ in range(rounds)]
    ratio = statistics.median(with_kit / without for without, with_kit in pairs)
    micros = [statistics.median(side) * 1e6 for side in zip(*pairs, strict=True)]
    print(f"bare stub {micros[0]:.0f} us, Msg.submit {micros[1]:.0f} us, ratio {ratio:.2f}")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--serve", action="store_true")
    given = parser.parse_args()
    if given.serve:
        await serve()
        return
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.conformance.client.overhead",
        "--serve",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    address = (await server.stdout.readline()).decode().strip()
    await measure(address, given.calls, given.rounds)
    server.stdin.close()
    await server.wait()


if __name__ == "__main__":
    asyncio.run(main())
