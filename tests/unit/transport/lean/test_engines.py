"""An engine is chosen by its name; grpcio unless another is asked for."""

from typing import Any, cast

import pytest

from kit.transport.grpc import GrpcClient, GrpcServer
from kit.transport.grpc.engines import client_engine, server_engine
from kit.transport.grpc.grpcio import GrpcioConnection, GrpcioServer
from kit.transport.lean import LeanConnection, LeanServer


def test_engines_have_names_and_grpcio_is_the_default() -> None:
    servers = [server_engine(name) for name in (None, "grpcio", "lean")]
    assert servers == [GrpcioServer, GrpcioServer, LeanServer]
    clients = [client_engine(name) for name in (None, "grpcio", "lean")]
    assert clients == [GrpcioConnection, GrpcioConnection, LeanConnection]


def test_an_engine_of_ones_own_is_taken_as_it_is() -> None:
    made: list[Any] = []

    def engine(*arguments: Any, **options: Any) -> Any:
        made.append((arguments, options))

    GrpcServer(address="127.0.0.1:0", engine=engine)
    assert server_engine(engine) is engine
    assert client_engine(engine) is engine
    assert len(made) == 1


async def test_a_name_that_is_no_engine_is_refused_with_those_that_are() -> None:
    unknown = cast("Any", "netty")
    with pytest.raises(ValueError, match="engine 'netty' is not known; write grpcio or lean"):
        GrpcServer(address="127.0.0.1:0", engine=unknown)
    with pytest.raises(ValueError, match="engine 'netty' is not known; write grpcio or lean"):
        GrpcClient("127.0.0.1:1", engine=unknown)
