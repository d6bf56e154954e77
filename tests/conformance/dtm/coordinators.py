"""Coordinators to be tested: processes of ours, one for each store, or one that runs elsewhere.

By default every coordinator is a process of this project, started with ``--dev`` so that its clock
can be moved ahead. With ``DTM_HTTP=http://localhost:36789/api/dtmsvr`` and
``DTM_GRPC=localhost:36790`` in the environment the suite asks that coordinator instead, on this
machine, because the branches listen on loopback.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest
import yaml

from kit.ports import free_port
from kit.testing.mariadb import mariadb_server
from kit.testing.postgres import postgres_server
from kit.testing.redis import RedisServer, redis_server
from kit.transport.grpc.engines import EngineName
from tests.conformance.dtm.business import Business
from tests.conformance.dtm.clients import (
    SUCCESS,
    Api,
    GrpcApi,
    HttpApi,
    JsonRpcApi,
    Reply,
    Tx,
    unique,
)
from tests.engines import chosen
from tests.processes import COORDINATOR, Process, Processes

STORES = ("sqlite", "postgres", "mysql", "redis")
ON_LEAN = "sqlite-lean"
"""SQLite once more, for what is asked on SQLite alone."""

ENGINES: dict[str, EngineName] = {"postgres": "lean", "redis": "lean", ON_LEAN: "lean"}
"""The gRPC engine of a store's coordinators, grpcio for others: whatever is asked is asked on both
engines. ``GRPC_ENGINE=lean`` in the environment takes it for all.
"""
FOREIGN = "DTM_HTTP" in os.environ

SETTLES_WITHIN = 60.0
_QUICKLY = 0.4
_POLL = 0.01

TERMINAL = ("succeed", "failed")

Settings = dict[str, Any]


@dataclass
class Coordinator:
    """One coordinator and all ways to talk to it.

    Attributes:
        settings: its configuration; empty for one that runs elsewhere.
        process: ``None`` for one that runs elsewhere.
        used: gids of the running test.
    """

    store: str
    business: Business
    http: HttpApi
    grpc: GrpcApi
    settings: Settings = field(default_factory=dict)
    process: Process | None = None
    used: list[str] = field(default_factory=list)

    def gid(self, stem: str = "tx") -> str:
        """A new gid; what is unfinished after the test is stopped."""
        gid = unique(stem)
        self.used.append(gid)
        return gid

    async def clean(self) -> None:
        """Stop what the test left unfinished."""
        used, self.used = self.used, []
        for gid in used:
            await self.http.post("forceStop", {"gid": gid})

    @property
    def foreign(self) -> bool:
        """Whether it runs elsewhere."""
        return FOREIGN

    @property
    def json_rpc(self) -> JsonRpcApi:
        return JsonRpcApi(self.http)

    def api(self, name: str) -> Api:
        """``http``, ``grpc`` or ``json-rpc``."""
        apis: dict[str, Api] = {"http": self.http, "grpc": self.grpc, "json-rpc": self.json_rpc}
        return apis[name]

    # -- what is stored -------------------------------------------------------

    async def query(self, gid: str) -> dict[str, Any]:
        """``{"transaction": …, "branches": […]}``."""
        reply = await self.http.get("query", gid=gid)
        assert reply.code == 200, reply
        assert isinstance(reply.body, dict)
        return reply.body

    async def tx(self, gid: str) -> dict[str, Any]:
        """The stored transaction."""
        found = (await self.query(gid))["transaction"]
        assert found is not None, f"{gid} is not stored"
        assert isinstance(found, dict)
        return found

    async def status(self, gid: str) -> str:
        return str((await self.tx(gid))["status"])

    async def rows(self, gid: str) -> str:
        """The statuses of its branches in stored order: ``P S F`` for prepared, succeed, failed."""
        branches = (await self.query(gid))["branches"]
        return " ".join(branch["status"][0].upper() for branch in branches)

    async def keys(self, gid: str) -> list[str]:
        """``["01 action", …]`` in stored order."""
        branches = (await self.query(gid))["branches"]
        return [f"{branch['branch_id']} {branch['op']}" for branch in branches]

    async def until(self, gid: str, status: str, within: float = SETTLES_WITHIN) -> dict[str, Any]:
        """Wait until the transaction is in ``status``; give it."""
        end = time.monotonic() + within
        while (tx := await self.tx(gid))["status"] != status:
            if time.monotonic() > end or tx["status"] in TERMINAL:
                story = self.business.story(gid)
                raise AssertionError(f"{gid} is not {status}: {tx}; heard {story}")
            await asyncio.sleep(_POLL)
        return tx

    async def settled(self, gid: str, within: float = SETTLES_WITHIN) -> dict[str, Any]:
        """Wait until no round of it is running: no branch is asked and nobody holds its lease.

        dtm's ``owner`` stays where it was, so there it has to look the same for a while.
        """
        enough = 8 if FOREIGN else 2
        end = time.monotonic() + within
        last: dict[str, Any] = {}
        same = 0
        while same < enough:
            if time.monotonic() > end:
                raise AssertionError(f"{gid} changes all the time: {last}")
            now = await self.query(gid)
            asked = any(call.ended == 0 for call in self.business.calls(gid))
            held = not FOREIGN and bool((now["transaction"] or {}).get("owner"))
            same = same + 1 if now == last and not asked and not held else 0
            last = now
            await asyncio.sleep(_POLL)
        assert last["transaction"] is not None, f"{gid} is not stored"
        return dict(last["transaction"])

    async def until_row(self, gid: str, key: str, status: str) -> None:
        """Wait until the branch ``01 action`` is in ``status``."""
        async with asyncio.timeout(SETTLES_WITHIN):
            while True:
                rows = (await self.query(gid))["branches"]
                if any(
                    f"{r['branch_id']} {r['op']}" == key and r["status"] == status for r in rows
                ):
                    return
                await asyncio.sleep(_POLL)

    # -- time -----------------------------------------------------------------

    async def skip(self, seconds: float) -> None:
        """Let time pass: at once where the clock is ours, in real time elsewhere."""
        if FOREIGN:
            await asyncio.sleep(seconds + 3)
            return
        reply = await self.http.post("/api/dev/clock", {"advance_s": seconds})
        assert reply.code == 200, reply

    async def now(self) -> float:
        """The coordinator's clock in seconds since the epoch."""
        if FOREIGN:
            return time.time()
        reply = await self.http.post("/api/dev/clock", {"advance_s": 0})
        return float(reply.body["now_ms"]) / 1000

    async def past(self, gid: str, seconds: float) -> None:
        """Let time pass until a decision about ``gid`` is due, and see that it is looked at.

        Where the time of leases is the store's own, which nobody moves, the transaction is made due
        by hand: its decisions follow the coordinator's clock all the same.
        """
        before = await self.settled(gid)
        await self.skip(seconds)
        end = time.monotonic() + _QUICKLY
        while time.monotonic() < end:
            if await self.tx(gid) != before:
                return
            await asyncio.sleep(_POLL)
        await self.retry(gid)

    async def retry(self, gid: str) -> None:
        """Make the transaction due now, whatever its next time is."""
        reply = await self.http.post("resetNextCronTime", {"gid": gid})
        assert reply.word == SUCCESS, reply

    async def retry_until(self, gid: str, calls: int, name: str = "") -> None:
        """Retry, and wait until that many calls of ``gid`` were made and written down."""
        await self.settled(gid)
        await self.retry(gid)
        await self.business.until_called(gid, calls, name)
        await self.settled(gid)


def seconds_of(text: str) -> float:
    """An instant as the API shows it, in seconds since the epoch."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Coordinators:
    """Starts coordinators and the servers of their stores, each when it is first asked for."""

    def __init__(self, run: Processes, business: Business, stack: AsyncExitStack) -> None:
        self.run = run
        self.business = business
        self._stack = stack
        self._started: dict[str, Coordinator] = {}
        self._servers: dict[str, Settings] = {}
        self._absent: dict[str, BaseException] = {}
        self.redis: RedisServer | None = None

    async def of_store(self, store: str) -> Coordinator:
        """The one that the tests of a session share; another one when that has ended."""
        found = self._started.get(store)
        if found is None or (found.process is not None and not found.process.running):
            hook = self.business.http("alert")
            found = await (self._foreign() if FOREIGN else self.start(store, AlertWebHook=hook))
            self._started[store] = found
        return found

    async def start(
        self,
        store: str = "sqlite",
        *,
        folder: Path | None = None,
        flags: tuple[str, ...] = ("--dev",),
        env: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Coordinator:
        """A coordinator of our own.

        Args:
            store: where it keeps transactions; servers are shared by all coordinators of a store.
            folder: of its file; a restart takes the same one.
            flags: after ``-c``.
            env: of its process.
            settings: of its configuration, over those that all have.
        """
        given = {
            "Listen": "127.0.0.1",
            "HttpPort": free_port(),
            "GrpcPort": free_port(),
            "GrpcEngine": chosen(ENGINES.get(store, "grpcio")),
            "TransCronInterval": 1,
            "MicroService": {"Driver": "dtm-driver-kratos"},
            **settings,
        }
        folder = folder or self.folder()
        stored = await self.store_settings("sqlite" if store == ON_LEAN else store, folder)
        given["Store"] = {**stored, **settings.get("Store", {})}
        process = await self.launch(given, folder, flags, env)
        await process.listens(given["GrpcPort"], given["HttpPort"])
        return await self.connected(store, given, process)

    async def launch(
        self,
        settings: Settings,
        folder: Path,
        flags: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """The process alone, ready or not."""
        config = folder / "coordinator.yaml"
        config.write_text(yaml.safe_dump(settings))
        return await self.run.start("coordinator", COORDINATOR, "-c", str(config), *flags, env=env)

    def folder(self) -> Path:
        """A new one for a coordinator."""
        folder = self.run.folder / unique("coordinator")
        folder.mkdir()
        return folder

    async def connected(
        self, store: str, settings: Settings, process: Process | None = None
    ) -> Coordinator:
        """Clients of a coordinator that listens at the ports of ``settings``."""
        return await self._connect(
            f"http://127.0.0.1:{settings['HttpPort']}/api/dtmsvr",
            f"127.0.0.1:{settings['GrpcPort']}",
            store,
            settings,
            process,
        )

    async def store_settings(self, store: str, folder: Path) -> Settings:
        """The ``Store`` section; the server is started when it is the first time."""
        if store in ("sqlite", "memory"):
            return {"Driver": store, "Path": str(folder / "coordinator.db")}
        if store in self._absent:
            raise self._absent[store]
        if store not in self._servers:
            try:
                self._servers[store] = await self._server(store)
            except BaseException as error:
                self._absent[store] = error
                raise
        return self._servers[store]

    def apart(self, store: str) -> Settings:
        """Store settings for coordinators that share nothing with the others of the server."""
        name = unique("apart").replace("-", "_")
        return {
            "postgres": {"Schema": name},
            "mysql": {"Db": name},
            "redis": {"RedisPrefix": f"{{{name}}}"},
        }.get(store, {})

    async def _server(self, store: str) -> Settings:
        enter = self._stack.enter_async_context
        if store == "postgres":
            place = (await enter(postgres_server())).settings
            return {
                "Driver": store,
                "Host": place["host"],
                "Port": place["port"],
                "User": place["user"],
                "Password": place["password"],
                "Db": place["database"],
            }
        if store == "mysql":
            maria = await enter(mariadb_server(own=True))
            return {
                "Driver": store,
                "Host": maria.host,
                "Port": maria.port,
                "User": maria.user,
                "Password": maria.password,
                "Db": "dtm",
            }
        self.redis = await enter(redis_server())
        return {"Driver": store, "Host": self.redis.host, "Port": self.redis.port}

    async def _foreign(self) -> Coordinator:
        return await self._connect(
            os.environ["DTM_HTTP"].rstrip("/"), os.environ["DTM_GRPC"], "foreign", {}, None
        )

    async def _connect(
        self, http: str, target: str, store: str, settings: Settings, process: Process | None
    ) -> Coordinator:
        session = await self._stack.enter_async_context(aiohttp.ClientSession())
        channel = await self._stack.enter_async_context(grpc.aio.insecure_channel(target))
        return Coordinator(
            store,
            self.business,
            HttpApi(session, http, self.business),
            GrpcApi(channel, self.business),
            settings,
            process,
        )


@asynccontextmanager
async def coordinators(run: Processes, business: Business) -> AsyncIterator[Coordinators]:
    """A place to start coordinators from; clients and servers are gone when the block is left."""
    async with AsyncExitStack() as stack:
        yield Coordinators(run, business, stack)


def ours() -> None:
    """Skip a test that has to start, stop or configure its coordinator."""
    if FOREIGN:
        pytest.skip("DTM_HTTP is set: that coordinator is not ours to start, stop or configure")


def saga(api: Api, gid: str, *names: str, custom_data: str = "", **options: Any) -> Tx:
    """A saga whose steps call ``out`` and ``outBack`` for the name ``out``."""
    steps = [
        {"action": api.url(name), "compensate": api.url(f"{name}Back")}
        for name in (names or ("out", "in"))
    ]
    return Tx(gid, "saga", steps, custom_data=custom_data, options=options)


def msg(
    api: Api, gid: str, *names: str, query: str = "", custom_data: str = "", **options: Any
) -> Tx:
    """A message whose steps call ``names``; ``query`` is the branch that is asked about it."""
    steps = [{"action": api.url(name)} for name in (names or ("out", "in"))]
    asked = api.url(query) if query else ""
    return Tx(gid, "msg", steps, query_prepared=asked, custom_data=custom_data, options=options)


def accepted(reply: Reply) -> None:
    """It was a success."""
    assert reply.word == SUCCESS, reply
