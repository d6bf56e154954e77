"""Branches over HTTP (aiohttp) and gRPC (the kit's server): they answer as told, and remember."""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from kit.dtm.errors import Failure, Ongoing
from kit.errors import Error
from kit.testing.grpc import running
from kit.transport.grpc import GrpcServer, ServerCall

IDS = ("gid", "trans_type", "branch_id", "op", "dtm", "phase2_url")
NAMES = (
    "out", "out-undo", "in", "in-undo", "try", "confirm", "cancel", "query", "xa", "nest",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Heard:
    """A call of a branch.

    Attributes:
        how: ``GET``, ``POST`` or ``grpc``.
        name: of the branch.
        ids: what the caller sent along, dtm's names.
        headers: of HTTP, or the metadata.
    """

    how: str
    name: str
    ids: dict[str, str]
    payload: bytes
    headers: dict[str, str]


Answer = Callable[[Heard], Awaitable[bytes]]


class Business:
    """Answers ``OK`` unless :meth:`script` says otherwise.

    Attributes:
        heard: calls, in the order of arrival.
        scheme: ``grpc`` or ``http``: what :meth:`url` gives.
    """

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.scheme = "http"
        self.http_address = ""
        self.grpc_address = ""
        self._scripts: dict[str, list[Exception | bytes]] = defaultdict(list)
        self._answers: dict[str, Answer] = {}

    def url(self, name: str) -> str:
        """Where the branch ``name`` is."""
        if self.scheme == "grpc":
            return f"{self.grpc_address}/busi.Busi/{name}"
        return f"http://{self.http_address}/{name}"

    def script(self, name: str, *answers: Exception | bytes) -> None:
        """What the next calls of ``name`` are answered; afterwards it answers ``OK``."""
        self._scripts[name] += answers

    def on(self, name: str, answer: Answer) -> None:
        """Have ``answer`` called."""
        self._answers[name] = answer

    def names(self) -> list[str]:
        """Of the branches called, in order."""
        return [call.name for call in self.heard]

    async def answer(self, call: Heard) -> bytes:
        self.heard.append(call)
        if self._scripts[call.name]:
            told = self._scripts[call.name].pop(0)
            if isinstance(told, Exception):
                raise told
            return told
        if call.name in self._answers:
            return await self._answers[call.name](call)
        return b"OK"

    async def over_http(self, request: web.Request) -> web.Response:
        ids = {key: request.query[key] for key in IDS if key in request.query}
        headers = {key.lower(): value for key, value in request.headers.items()}
        body = await request.read()
        name = request.path.removeprefix("/")
        try:
            reply = await self.answer(Heard(request.method, name, ids, body, headers))
        except Failure as exc:
            return web.Response(status=409, text=exc.message)
        except Ongoing as exc:
            return web.Response(status=425, text=exc.message)
        except Error as exc:
            return web.Response(status=500, text=exc.message)
        return web.Response(body=reply)

    def over_grpc(self, name: str) -> Callable[[bytes, ServerCall], Awaitable[bytes]]:
        async def handle(request: bytes, call: ServerCall) -> bytes:
            metadata = {key: str(value) for key, value in call.metadata}
            ids = {key: metadata[f"dtm-{key}"] for key in IDS if f"dtm-{key}" in metadata}
            return await self.answer(Heard("grpc", name, ids, request, metadata))

        return handle


@asynccontextmanager
async def running_business() -> AsyncIterator[Business]:
    """A business on free ports of loopback."""
    business = Business()
    app = web.Application()
    app.router.add_route("*", "/{name}", business.over_http)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    business.http_address = f"{host}:{port}"
    server = GrpcServer(address="127.0.0.1:0")
    for name in NAMES:
        server.register_unary(f"/busi.Busi/{name}", business.over_grpc(name))
    try:
        async with running(server) as address:
            business.grpc_address = address
            yield business
    finally:
        await runner.cleanup()
