"""A service that uses every form of binding, and a server for it on loopback."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty
from yarl import URL

from kit.errors import Forbidden, NotFound
from kit.transport import Handler, Middleware, current_call
from kit.transport.http import HttpServer, Raw, Redirect
from tests.unit.transport.http import shop_pb2 as pb
from tests.unit.transport.http.shop_pb2_grpc import ShopServicer

SERVICE = pb.DESCRIPTOR.services_by_name["Shop"]


class Shop(ShopServicer):
    """Answers what it was asked, and notes it."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def Get(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request)
        match request.id:
            case "none":
                raise NotFound("ITEM_NOT_FOUND", "no such item", {"id": "none"})
            case "panic":
                raise ZeroDivisionError("oops")
            case "business":
                from kit.errors import Error

                raise Error(10001, "BUSINESS", "no")
            case "nothing":
                return None
            case "raw":
                return Raw(b"raw", "text/x-raw", 201, (("x-raw", "1"),))
            case "redirect":
                return Redirect("/v1/items/7")
            case "redirected":
                raise ValueError("told to leave") from Redirect("/v1/items/7?a=1&b=2", 303)
            case "wrong":
                return pb.Filter()
            case "header":
                current = current_call()
                assert current is not None
                current.reply_headers.set("X-Own", "yes")
                return pb.Item(id=context.info.path_template)
            case "abort":
                await context.abort(_Code(), "not now")
            case "slow":
                self.entered.set()
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        return pb.Item(id=request.id, shelf=request.shelf)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request)
        return pb.ListReply(names=[request.filter.text])

    async def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request)
        return request

    async def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request)
        return request.item

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked.append(request)
        return Empty()

    async def File(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.Item(id=request.name)

    async def Names(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ListReply(names=["a", "b"])

    async def Raw(self, request: Any, context: Any) -> Any:  # noqa: N802
        return HttpBody(content_type=request.content_type, data=request.data[::-1])

    async def Any(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.Item(id=f"{context.info.verb} {request.id}")

    async def Echo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return request

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        if request.page_size < 0:
            raise Forbidden("NEGATIVE", "less than none")
        try:
            for number in range(request.page_size):
                if number == 3:
                    raise NotFound("NO_MORE", "only three")
                yield pb.Item(id=f"item\n{number}" if number == 1 else str(number))
                if request.filter.text == "slow":
                    self.entered.set()
                    await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def Sum(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        total = 0
        async for item in request_iterator:
            total += item.price_cents
        return pb.Item(id="sum", price_cents=total)

    async def Chat(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for item in request_iterator:
            if item.id == "bad":
                raise Forbidden("BAD_WORD", "mind your tongue")
            yield pb.Item(id=f"{item.id}!", shelf=item.shelf)


class _Code:
    """Like a member of grpc.StatusCode."""

    value = (14, "unavailable")


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        import json

        return json.loads(self.body)


@dataclass
class Side:
    """A running server."""

    url: str
    port: int
    session: aiohttp.ClientSession
    shop: Shop
    server: HttpServer
    seen: list[str] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def ask(self, verb: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request as it is written; ``content_type`` and such are headers."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        url = URL(f"{self.url}{path}", encoded=True)
        async with self.session.request(
            verb, url, data=body, headers=sent, allow_redirects=False,
            skip_auto_headers=["Content-Type", "Accept"],
        ) as reply:  # fmt: skip
            return Answer(reply.status, reply.headers, await reply.read())

    async def json(self, verb: str, path: str, text: str) -> Answer:
        """Send JSON."""
        return await self.ask(verb, path, text.encode(), content_type="application/json")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer


def noting(seen: list[str]) -> Middleware:
    """Middleware that writes down the operations it is around."""

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            info = current_call()
            assert info is not None
            seen.append(f"{info.kind} {info.operation}")
            return await handler(request)

        return call

    return wrap


@asynccontextmanager
async def shop_side(setup: Any = None, **options: Any) -> AsyncIterator[Side]:
    """A shop on a free port of loopback; ``setup`` may add to its server."""
    seen: list[str] = []
    options.setdefault("middleware", [noting(seen)])
    server = HttpServer(address="127.0.0.1:0", **options)
    shop = Shop()
    server.add_service(SERVICE, shop)
    if setup is not None:
        setup(server)
    await server.listen()
    serving = asyncio.create_task(server.serve())
    url = server.endpoint
    assert url is not None
    async with aiohttp.ClientSession() as session:
        side = Side(url, int(url.rpartition(":")[2]), session, shop, server, seen)
        try:
            yield side
        finally:
            for writer in side.writers:
                writer.close()
            await server.stop(1)
            await serving
