"""A plain grpc.aio server that branches may call, and requests of a plain client.

Nothing of the kit is in the way: what the coordinator sends is what is seen.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio

from kit.dtm.pb import dtm_pb2

SUBMIT = "/dtmgimp.Dtm/Submit"
BRANCH_PAYLOAD = b"\x08\x1e\x10\x01"  # 30 cents of account 1


@dataclass(frozen=True, slots=True)
class BranchCall:
    """One call as it arrived; ``method`` is the last part of its path."""

    gid: str
    branch_id: str
    method: str
    payload: bytes


class Branches:
    """Answers every method with an empty message after ``behaviour``, and remembers the calls.

    Attributes:
        address: ``host:port``.
        calls: in the order of arrival.
    """

    def __init__(self, behaviour: Callable[[BranchCall], Awaitable[None]] | None = None) -> None:
        self.address = ""
        self.calls: list[BranchCall] = []
        self._behaviour = behaviour
        self._news = asyncio.Condition()

    def url(self, method: str) -> str:
        """Of a step that calls ``method``."""
        return f"{self.address}/api.trans.v1.Trans/{method}"

    def count(self, gid: str) -> Counter[str]:
        """How often each branch of ``gid`` was called."""
        return Counter(call.branch_id for call in self.calls if call.gid == gid)

    async def until(self, enough: Callable[[], bool], within: float) -> None:
        """Wait for calls until ``enough``."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(enough)

    async def answer(self, method: str, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """Take a call."""
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        call = BranchCall(
            metadata.get("dtm-gid", ""),
            metadata.get("dtm-branch_id", ""),
            method.rpartition("/")[2],
            request,
        )
        async with self._news:
            self.calls.append(call)
            self._news.notify_all()
        if self._behaviour is not None:
            await self._behaviour(call)
        return b""


class _AnyMethod(grpc.GenericRpcHandler):
    def __init__(self, branches: Branches) -> None:
        self._branches = branches

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def handle(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return await self._branches.answer(call.method, request, context)

        return grpc.unary_unary_rpc_method_handler(handle)


@asynccontextmanager
async def serving(
    behaviour: Callable[[BranchCall], Awaitable[None]] | None = None,
) -> AsyncIterator[Branches]:
    """A running branch server on loopback."""
    branches = Branches(behaviour)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_AnyMethod(branches),))
    branches.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield branches
    finally:
        await server.stop(None)


def submission(
    gid: str, *urls: str, wait_result: bool = False, retry_interval: int = 0
) -> dtm_pb2.DtmRequest:
    """A msg with one step for each of ``urls``."""
    return dtm_pb2.DtmRequest(
        Gid=gid,
        TransType="msg",
        TransOptions=dtm_pb2.DtmTransOptions(WaitResult=wait_result, RetryInterval=retry_interval),
        Steps=json.dumps([{"action": url} for url in urls]),
        BinPayloads=[BRANCH_PAYLOAD for _ in urls],
    )


async def submit(channel: grpc.aio.Channel, request: dtm_pb2.DtmRequest | bytes) -> None:
    """Send a Submit; raises ``grpc.aio.AioRpcError`` when it is refused or not acknowledged."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    await channel.unary_unary(SUBMIT)(data, timeout=10)
