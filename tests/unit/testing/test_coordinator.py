"""The coordinator for users' tests: real, on real ports, with a clock of its own."""

import json
from typing import Any, cast, get_args

import aiohttp
import pytest
from aiohttp import web

from kit.dtm.client import DtmClient, Msg, Options
from kit.dtm.server.config import Settings
from kit.dtm.wire import Status
from kit.testing import Coordinator
from kit.transport.grpc.engines import EngineName
from tests.engines import engine_at, hearing


class Shop:
    """A branch over HTTP that is closed at first."""

    def __init__(self) -> None:
        self.open = False
        self.calls: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.append(request.query["op"])
        return web.Response(status=200 if self.open else 500)

    async def __aenter__(self) -> "Shop":
        app = web.Application()
        app.router.add_route("*", "/{name}", self.handle)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


async def submit(dtm: Coordinator, shop: Shop, gid: str) -> int:
    body = {
        "gid": gid,
        "trans_type": "msg",
        "steps": [{"action": f"{shop.url}/order"}],
        "payloads": ["{}"],
    }
    async with aiohttp.ClientSession() as session:
        reply = await session.post(f"{dtm.http_url}/submit", data=json.dumps(body))
        return reply.status


async def test_minutes_of_retries_take_no_time() -> None:
    """Each advance returns once what was due has been tried."""
    async with Shop() as shop, Coordinator() as dtm:
        assert await submit(dtm, shop, "g1") == 200
        await dtm.settle()
        tries = len(shop.calls)
        assert tries == 1
        await dtm.advance(23)
        assert len(shop.calls) == tries + 1
        assert (await dtm.transaction("g1")).status is Status.SUBMITTED
        shop.open = True
        await dtm.advance(45)
        assert (await dtm.transaction("g1")).status is Status.SUCCEED


async def test_a_round_can_be_asked_for_before_it_is_due() -> None:
    """It has ended when the call returns."""
    async with Shop() as shop, Coordinator() as dtm:
        await submit(dtm, shop, "g1")
        await dtm.settle()
        shop.open = True
        await dtm.round("g1")
        assert (await dtm.transaction("g1")).status is Status.SUCCEED


async def test_a_gid_that_nobody_stored_is_named() -> None:
    """Not answered with a transaction that does not exist."""
    async with Coordinator() as dtm:
        with pytest.raises(LookupError, match="nobody"):
            await dtm.transaction("nobody")
        with pytest.raises(LookupError, match="nobody"):
            await dtm.round("nobody")


@pytest.mark.parametrize("engine", get_args(EngineName))
async def test_it_speaks_on_the_engine_that_it_is_told(engine: EngineName) -> None:
    """To those who call it, and to branches."""
    order = "/shop.Shop/Order"
    async with (
        hearing(order) as (shop, heard),
        Coordinator(engine=engine) as dtm,
        DtmClient(dtm.grpc_address) as client,
    ):
        await Msg(client, options=Options(wait_result=True)).add(f"{shop}{order}").submit()
        assert heard == {order: engine}
        assert await engine_at(dtm.grpc_address) == engine


async def test_it_speaks_as_a_coordinator_does_that_is_told_nothing() -> None:
    """So that tests see what production does."""
    async with Coordinator() as dtm:
        assert await engine_at(dtm.grpc_address) == Settings().grpc_engine == "lean"


def test_a_name_that_is_no_engine_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match="engine 'netty' is not known; write grpcio or lean"):
        Coordinator(engine=cast("Any", "netty"))
