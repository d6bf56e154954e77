"""grpc.health.v1 as kratos serves it; kratos-wire §4.2, §22 row 7."""

import asyncio
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.testing.grpc import running
from kit.transport.grpc import GrpcServer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def test_the_server_as_a_whole_serves_from_the_start(serve: Any) -> None:
    stub = health_pb2_grpc.HealthStub(await serve())
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
    listed = await stub.List(health_pb2.HealthListRequest())
    assert {name: reply.status for name, reply in listed.statuses.items()} == {"": SERVING}


async def test_business_services_are_not_registered_by_name(serve: Any, failure: Any) -> None:
    stub = health_pb2_grpc.HealthStub(await serve())
    error = await failure(stub.Check(health_pb2.HealthCheckRequest(service="api.trans.v1.Trans")))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "unknown service")


async def test_watches_flip_when_the_server_stops() -> None:
    """kratos clients keep a watch open on each connection and leave when it says NOT_SERVING."""
    server = GrpcServer(address="127.0.0.1:0")
    async with running(server) as address, grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        other = stub.Watch(health_pb2.HealthCheckRequest(service="api.trans.v1.Trans"))
        assert (await watch.read()).status == SERVING
        assert (await other.read()).status == SERVICE_UNKNOWN
        further = asyncio.ensure_future(other.read())
        await stub.Check(health_pb2.HealthCheckRequest())
        assert not further.done(), "a watch on an unknown service stays open"
        await server.stop(grace=5.0)
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.code() is grpc.StatusCode.UNAVAILABLE
        assert await other.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.gather(further, return_exceptions=True)


async def test_custom_health_leaves_the_service_out(serve: Any, failure: Any) -> None:
    channel = await serve(server=GrpcServer(address="127.0.0.1:0", custom_health=True))
    error = await failure(
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    )
    assert error.details() == "unknown service grpc.health.v1.Health"
