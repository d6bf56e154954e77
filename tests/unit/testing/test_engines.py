"""A case that says it runs on an engine does: nothing falls back to the other one unseen."""

from pathlib import Path

import pytest

from kit.testing.grpc import running
from kit.transport.grpc import GrpcClient, GrpcServer
from kit.transport.grpc.engines import EngineName, client_engine, server_engine
from kit.transport.grpc.grpcio import GrpcioConnection, GrpcioServer
from kit.transport.lean import LeanConnection, LeanServer
from tests.conformance.dtm import coordinators
from tests.engines import VARIABLE, chosen, engine_at, hearing, speaking
from tests.faults import stand
from tests.processes import CLIENT, client_command, coordinator_config, trans_config

ENGINES = {"grpcio": (GrpcioServer, GrpcioConnection), "lean": (LeanServer, LeanConnection)}


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_not_told_its_engine_takes_the_one_that_is_spoken(engine: EngineName) -> None:
    """In this process, and in the configurations of those that it starts."""
    with speaking(engine):
        assert (server_engine(None), client_engine(None)) == ENGINES[engine]
        assert f"GrpcEngine: {engine}\n" in coordinator_config(1, Path("x.db"))
        assert f"engine: {engine}\n" in trans_config("127.0.0.1:1")
        assert client_command() == (CLIENT, "-engine", engine)


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_engine_is_known_from_outside(engine: EngineName) -> None:
    """That of a server by its first frame, that of a caller by its name."""
    async with running(GrpcServer(address="127.0.0.1:0", engine=engine)) as address:
        assert await engine_at(address) == engine
    async with hearing("/a.B/C") as (address, heard), GrpcClient(address, engine=engine) as client:
        await client.unary("/a.B/C", b"")
        assert heard == {"/a.B/C": engine}


def test_the_environment_of_a_run_comes_before_the_choice_of_a_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert (chosen(), chosen("lean")) == ("grpcio", "lean")
    monkeypatch.setenv(VARIABLE, "grpcio")
    assert chosen("lean") == "grpcio"
    monkeypatch.setenv(VARIABLE, "leen")
    with pytest.raises(AssertionError, match="GRPC_ENGINE=leen: write grpcio or lean"):
        chosen()


@pytest.mark.parametrize("store", coordinators.STORES)
def test_every_store_meets_one_engine_in_the_cases_and_the_other_in_the_faults(store: str) -> None:
    found = {table.get(store, "grpcio") for table in (coordinators.ENGINES, stand.ENGINES)}
    assert found == {"grpcio", "lean"}
