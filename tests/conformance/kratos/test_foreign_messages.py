"""Methods that take and give messages of protobuf-py and of betterproto, by what these can do."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kit.testing.grpc import running
from kit.transport.grpc import GrpcClient, GrpcServer
from kit.transport.http import HttpClient, HttpServer
from tests.unit.transport.http import shop_pb2 as pb
from tests.unit.transport.http import shop_pb2_grpc
from tests.unit.transport.http.shop import SERVICE, Shop

wkt = pytest.importorskip("protobuf.wkt", reason="protobuf-py comes with kit[validate]")
StringValue = wkt.StringValue
"""One text, number 1: on the wire it is the ``id`` of a request and of an item."""


class Betterproto:
    """A message as betterproto makes them: ``parse`` fills an instance, ``bytes`` writes it."""

    def __init__(self) -> None:
        self.id = ""

    def parse(self, data: bytes) -> "Betterproto":
        self.id = pb.Item.FromString(data).id
        return self

    def __bytes__(self) -> bytes:
        return pb.Item(id=self.id).SerializeToString()


class Foreign(Shop):
    async def Get(self, request: StringValue, context: Any) -> StringValue:  # type: ignore[valid-type]  # noqa: N802
        assert isinstance(request, StringValue)
        return StringValue(value=f"{request.value}!")  # type: ignore[attr-defined]

    async def Create(self, request: Betterproto, context: Any) -> Betterproto:  # noqa: N802
        request.id += "?"
        return request

    async def Chat(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncIterator[Betterproto], context: Any
    ) -> AsyncIterator[Betterproto]:
        async for item in request_iterator:
            assert isinstance(item, Betterproto)
            yield item


@pytest.mark.parametrize("engine", ["grpcio", "lean"])
async def test_grpc_serves_them(engine: Any) -> None:
    """The client has google.protobuf and sees no difference."""
    server = GrpcServer(address="127.0.0.1:0", engine=engine)
    shop_pb2_grpc.add_ShopServicer_to_server(Foreign(), server.services)
    async with running(server) as address, GrpcClient(address, timeout=30) as client:
        stub: Any = shop_pb2_grpc.ShopStub(client.channel)
        assert (await stub.Get(pb.GetRequest(id="7"))).id == "7!"
        assert (await stub.Create(pb.Item(id="7"))).id == "7?"
        async with stub.Chat([pb.Item(id="a"), pb.Item(id="b")]) as chat:
            assert [item.id async for item in chat] == ["a", "b"]


async def test_http_serves_them() -> None:
    """A reply is written as the message that the method declares."""
    server = HttpServer(address="127.0.0.1:0")
    server.add_service(SERVICE, Foreign())
    await server.listen()
    serving = asyncio.create_task(server.serve())
    try:
        async with HttpClient(server.endpoint or "", timeout=30) as http:
            methods = SERVICE.methods_by_name
            assert (await http.invoke(methods["Get"], pb.GetRequest(id="7"))).id == "7!"
            assert (await http.invoke(methods["Create"], pb.Item(id="7"))).id == "7?"
    finally:
        await server.stop(1)
        await serving
