"""The client speaks gRPC on the engine that it is told, to the coordinator and to branches."""

import asyncio
from typing import Any, cast, get_args

import pytest

from kit.dtm.client import DtmClient, sync, tcc
from kit.transport.grpc.engines import EngineName
from tests.engines import hearing

METHODS = [f"/dtmgimp.Dtm/{name}" for name in ("NewGid", "Prepare", "RegisterBranch", "Submit")]
TRY = "/busi.Busi/Try"
UNKNOWN = cast("Any", "netty")
REFUSAL = "engine 'netty' is not known; write grpcio or lean"


@pytest.mark.parametrize("engine", get_args(EngineName))
async def test_a_transaction_is_spoken_on_the_engine_of_its_client(engine: EngineName) -> None:
    async with (
        hearing(*METHODS, TRY) as (address, heard),
        DtmClient(address, engine=engine) as client,
        tcc(client) as t,
    ):
        await t.call_branch(b"", f"{address}{TRY}", f"{address}/c", f"{address}/d")
    assert heard == dict.fromkeys([*METHODS, TRY], engine)


@pytest.mark.parametrize("engine", get_args(EngineName))
async def test_so_it_is_without_an_event_loop(engine: EngineName) -> None:
    def work(address: str) -> None:
        with sync.DtmClient(address, engine=engine) as client, sync.tcc(client) as t:
            t.call_branch(b"", f"{address}{TRY}", f"{address}/c", f"{address}/d")

    async with hearing(*METHODS, TRY) as (address, heard):
        await asyncio.to_thread(work, address)
    assert heard == dict.fromkeys([*METHODS, TRY], engine)


@pytest.mark.parametrize("server", ["localhost:36790", "http://localhost:36789/api/dtmsvr"])
def test_a_name_that_is_no_engine_is_refused_with_those_that_are(server: str) -> None:
    """Over HTTP as well, whose branches may speak gRPC; without a loop when it is first used."""
    with pytest.raises(ValueError, match=REFUSAL):
        DtmClient(server, engine=UNKNOWN)
    with sync.DtmClient(server, engine=UNKNOWN) as client, pytest.raises(ValueError, match=REFUSAL):
        client.new_gid()
