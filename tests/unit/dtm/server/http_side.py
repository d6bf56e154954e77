"""A coordinator's HTTP side on a real socket, over the real engine and a store in memory."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from kit.dtm.core import Branch, Policy, Transaction
from kit.dtm.server.caller import BranchAnswer
from kit.dtm.server.engine import Engine
from kit.dtm.server.gid import new_gid
from kit.dtm.server.http_app import AsgiApp
from kit.dtm.server.http_server import HttpLimits, HttpServer
from kit.dtm.server.metrics import Metrics
from kit.dtm.server.service import Service
from kit.dtm.server.web import web_app
from kit.dtm.store import Store
from kit.dtm.store.memory import MemoryStore
from kit.dtm.wire import Result
from kit.testing import ManualClock

BASE = "/api/dtmsvr"
OK = BranchAnswer(Result.SUCCESS)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def json(self) -> object:
        """The body, decoded."""
        return json.loads(self.data)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.data.decode()


class Branches:
    """Answers branch calls as the test says, by URL; success where it says nothing."""

    def __init__(self) -> None:
        self.answers: dict[str, BranchAnswer] = {}
        self.calls: list[tuple[str, str, bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        self.calls.append((branch.branch_id, branch.url, branch.payload))
        await self.gate.wait()
        return self.answers.get(branch.url, OK)


@dataclass(slots=True)
class Side:
    """What a test may touch."""

    url: str
    port: int
    session: aiohttp.ClientSession
    store: Store
    branches: Branches
    metrics: Metrics
    server: HttpServer
    clock: ManualClock
    service: Service
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        """Send a request; a body other than bytes is made JSON."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        data = None if body is None else io.BytesIO(text)
        url = URL(f"{self.url}{path}", encoded=True)
        async with self.session.request(method, url, data=data, allow_redirects=False) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, name: str) -> Answer:
        """GET below the base path."""
        return await self.ask("GET", f"{BASE}/{name}")

    async def post(self, name: str, body: object) -> Answer:
        """POST below the base path."""
        return await self.ask("POST", f"{BASE}/{name}", body)

    async def rpc(self, method: str, params: object = None, **changes: object) -> Answer:
        """A JSON-RPC call."""
        call = {"jsonrpc": "2.0", "id": "1", "method": method, "params": params, **changes}
        return await self.ask("POST", "/api/json-rpc", call)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.connections.append(writer)
        return reader, writer


@asynccontextmanager
async def http_side(
    *,
    store: Store | None = None,
    clock: ManualClock | None = None,
    limits: HttpLimits | None = None,
    mounts: Mapping[str, AsgiApp] | None = None,
) -> AsyncIterator[Side]:
    """A coordinator on a free port of loopback, stopped when the block ends."""
    clock, branches, metrics = clock or ManualClock(), Branches(), Metrics()
    store = store or MemoryStore(clock)
    async with store:
        engine = Engine(store, branches, clock, Policy(), owner="one")
        service = Service(engine, store, clock, new_gid=lambda: new_gid(clock.now_ms()))
        app = web_app(service, metrics, mounts=mounts)
        server = HttpServer(app, address="127.0.0.1:0", limits=limits)
        await server.listen()
        assert server.endpoint, "it listens"
        port = int(server.endpoint.rpartition(":")[2])
        serving = asyncio.create_task(server.serve())
        async with aiohttp.ClientSession() as session:
            side = Side(
                f"http://127.0.0.1:{port}",
                port, session, store, branches, metrics, server, clock, service,
            )  # fmt: skip
            try:
                yield side
            finally:
                branches.gate.set()
                for writer in side.connections:
                    writer.close()
        await server.stop(5)
        await serving
        await engine.aclose(grace=0.01)


def msg(gid: str = "g1", **changes: object) -> dict[str, object]:
    """The body of a msg with one branch."""
    return {
        "gid": gid,
        "trans_type": "msg",
        "steps": [{"action": "http://b.test/in"}],
        "payloads": ['{"amount":30}'],
        **changes,
    }
