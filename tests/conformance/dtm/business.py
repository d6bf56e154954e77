"""A business with branches: answers HTTP, JSON-RPC and gRPC calls by script, and remembers them.

Nothing of the kit is in the way: what the coordinator sends is what is seen. What a branch answers
is written before the transaction that calls it: ``business.script(gid, "out", FAILURE, SUCCESS)``
answers the first call of ``out`` with FAILURE and all others with SUCCESS.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import grpc
import grpc.aio
from aiohttp import web
from grpc.aio import ServicerContext

HEARD_WITHIN = 60.0
_HELD_AT_MOST = 120.0


@dataclass(frozen=True)
class Answer:
    """What a branch says.

    Attributes:
        status: of HTTP.
        code: of gRPC.
        text: the body of HTTP, the message of a gRPC error.
        delay: seconds before it is said.
        gate: waited for before it is said.
    """

    status: int = 200
    code: grpc.StatusCode = grpc.StatusCode.OK
    text: str = ""
    delay: float = 0.0
    gate: asyncio.Event | None = None


SUCCESS = Answer()
FAILURE = Answer(409, grpc.StatusCode.ABORTED, "no money")
ONGOING = Answer(425, grpc.StatusCode.FAILED_PRECONDITION, "please wait")
ERROR = Answer(500, grpc.StatusCode.UNKNOWN, "something broke")


@dataclass
class Heard:
    """One call as it arrived.

    Attributes:
        began: on the monotonic clock.
        ended: when it was answered; 0 before.
        method: ``GET``, ``POST`` or ``grpc``.
        name: the last part of the path.
        path: all of it.
        query: of the URL, in the order it was sent.
        headers: or metadata, names in lower case.
    """

    began: float
    method: str
    name: str
    path: str
    body: bytes
    query: dict[str, str] = field(default_factory=dict)
    raw_query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    gid: str = ""
    trans_type: str = ""
    branch_id: str = ""
    op: str = ""
    ended: float = 0.0

    def of(self, get: Callable[[str], str | None]) -> Self:
        """This call, with what ``get`` knows about the transaction that it belongs to."""
        self.gid, self.trans_type = get("gid") or "", get("trans_type") or ""
        self.branch_id, self.op = get("branch_id") or "", get("op") or ""
        return self

    def __str__(self) -> str:
        """``01 action``."""
        return f"{self.branch_id} {self.op}"


class Business:
    """Every path and every method of it is a branch.

    Attributes:
        heard: all calls in the order of arrival.
    """

    def __init__(self) -> None:
        self.http_address = ""
        self.grpc_address = ""
        self.heard: list[Heard] = []
        self._scripts: dict[tuple[str, str], list[Answer]] = {}
        self._news = asyncio.Condition()

    def http(self, name: str) -> str:
        """The URL of an HTTP branch."""
        return f"http://{self.http_address}/busi/{name}"

    def grpc(self, name: str) -> str:
        """The URL of a gRPC branch."""
        return f"{self.grpc_address}/busi.Busi/{name}"

    def script(self, gid: str, name: str, *answers: Answer) -> None:
        """What ``name`` answers calls of ``gid``, one after the other; the last one for ever."""
        self._scripts[gid, name] = list(answers)

    def calls(self, gid: str, name: str = "") -> list[Heard]:
        """Calls of a transaction, of one branch when it is named."""
        return [c for c in self.heard if c.gid == gid and name in ("", c.name)]

    def story(self, gid: str) -> list[str]:
        """``["01 action", "01 compensate"]``, in the order of arrival."""
        return [str(call) for call in self.calls(gid)]

    async def until(self, enough: Callable[[], bool], within: float = HEARD_WITHIN) -> None:
        """Wait for calls and answers until ``enough``."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(enough)

    async def until_called(
        self, gid: str, times: int = 1, name: str = "", within: float = HEARD_WITHIN
    ) -> list[Heard]:
        """Wait for that many calls of ``gid`` to arrive; give them."""
        try:
            await self.until(lambda: len(self.calls(gid, name)) >= times, within)
        except TimeoutError:
            raise AssertionError(
                f"{gid}: {times} calls of {name or 'any branch'} expected, "
                f"heard only {[f'{c.name}: {c}' for c in self.calls(gid)]}"
            ) from None
        return self.calls(gid, name)

    async def answer(self, call: Heard) -> Answer:
        """Remember ``call`` and say what its script says."""
        async with self._news:
            self.heard.append(call)
            self._news.notify_all()
        script = self._scripts.get((call.gid, call.name), [SUCCESS])
        answer = script.pop(0) if len(script) > 1 else script[0]
        try:
            if answer.gate is not None:
                async with asyncio.timeout(_HELD_AT_MOST):
                    await answer.gate.wait()
            if answer.delay:
                await asyncio.sleep(answer.delay)
        finally:
            call.ended = time.monotonic()
        async with self._news:
            self._news.notify_all()
        return answer

    async def over_http(self, request: web.Request) -> web.Response:
        """Take an HTTP or JSON-RPC call."""
        body = await request.read()
        query = dict(request.query)
        origin: dict[str, str] = query
        if "method" in query and body.startswith(b"{"):
            params = json.loads(body).get("params")
            origin = params if isinstance(params, dict) else query
        call = Heard(
            began=time.monotonic(),
            method=request.method,
            name=request.path.rpartition("/")[2],
            path=request.path,
            body=body,
            query=query,
            raw_query=request.rel_url.raw_query_string,
            headers={key.lower(): value for key, value in request.headers.items()},
        ).of(origin.get)
        answer = await self.answer(call)
        text = answer.text or '{"dtm_result":"SUCCESS"}'
        return web.Response(status=answer.status, text=text)

    async def over_grpc(
        self, method: str, request: bytes, context: "ServicerContext[bytes, bytes]"
    ) -> bytes:
        """Take a gRPC call."""
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        call = Heard(
            began=time.monotonic(),
            method="grpc",
            name=method.rpartition("/")[2],
            path=method,
            body=request,
            headers=metadata,
        ).of(lambda key: metadata.get(f"dtm-{key}"))
        answer = await self.answer(call)
        if answer.code is not grpc.StatusCode.OK:
            await context.abort(answer.code, answer.text)
        return b""


class _AnyMethod(grpc.GenericRpcHandler):
    def __init__(self, business: Business) -> None:
        self._business = business

    def service(
        self, call: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        async def handle(request: bytes, context: "ServicerContext[bytes, bytes]") -> bytes:
            return await self._business.over_grpc(call.method, request, context)

        return grpc.unary_unary_rpc_method_handler(handle)


@asynccontextmanager
async def grpc_branches(business: Business) -> AsyncIterator[str]:
    """One more gRPC server of ``business``; gives its ``host:port``."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_AnyMethod(business),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def open_business() -> AsyncIterator[Business]:
    """A business on loopback, until the block is left."""
    business = Business()
    app = web.Application(client_max_size=8 << 20)
    app.router.add_route("*", "/{path:.*}", business.over_http)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    business.http_address = f"{host}:{port}"
    try:
        async with grpc_branches(business) as business.grpc_address:
            yield business
    finally:
        await runner.cleanup()


def overlapped(calls: Sequence[Heard]) -> bool:
    """Whether all ``calls`` were going on at the same time."""
    return max(call.began for call in calls) < min(call.ended for call in calls)
