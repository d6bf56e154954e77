"""Server reflection under both names; kratos-wire §4.2, dependencies.md §3."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2

from kit.testing.grpc import running
from kit.transport.grpc import GrpcServer

Request = reflection_pb2.ServerReflectionRequest
VERSIONS = ["v1", "v1alpha"]
OWN = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "kratos.api.Metadata",
]


async def ask(channel: grpc.aio.Channel, version: str, *requests: Any) -> list[Any]:
    async def send() -> AsyncIterator[Any]:
        for request in requests:
            yield request

    info = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        Request.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    return [reply async for reply in info(send())]


def files(reply: Any) -> list[str]:
    return [
        descriptor_pb2.FileDescriptorProto.FromString(text).name
        for text in reply.file_descriptor_response.file_descriptor_proto
    ]


@pytest.mark.parametrize("version", VERSIONS)
async def test_services_are_listed_in_order(serve: Any, version: str) -> None:
    [reply] = await ask(await serve(), version, Request(list_services=""))
    names = [service.name for service in reply.list_services_response.service]
    assert names == ["api.trans.v1.Trans", *OWN]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("api.trans.v1.Trans", "api/trans/v1/trans.proto"),
        ("api.trans.v1.Trans.TransOut", "api/trans/v1/trans.proto"),
        ("api.trans.v1.AdjustInfo.Amount", "api/trans/v1/trans.proto"),
        (".api.trans.v1.AdjustInfo", "api/trans/v1/trans.proto"),
        ("grpc.reflection.v1.ServerReflection", "grpc/reflection/v1/reflection.proto"),
        ("grpc.health.v1.Health", "grpc_health/v1/health.proto"),
    ],
)
async def test_a_symbol_leads_to_its_file(serve: Any, version: str, symbol: str, file: str) -> None:
    """Methods and fields too, which grpcio-reflection does not find."""
    [reply] = await ask(await serve(), version, Request(file_containing_symbol=symbol))
    assert files(reply) == [file]


async def test_a_file_comes_with_its_imports(serve: Any) -> None:
    name = "google/rpc/status.proto"
    replies = await ask(
        await serve(), "v1", Request(file_by_filename=name), Request(list_services="*")
    )
    assert files(replies[0]) == [name, "google/protobuf/any.proto"]
    assert replies[1].HasField("list_services_response")


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Request(file_by_filename="no.proto"), "not found: no.proto"),
        (Request(file_containing_symbol="no.Symbol"), "not found: no.Symbol"),
        (
            Request(file_containing_symbol="api.trans.v1.Trans.No"),
            "not found: api.trans.v1.Trans.No",
        ),
        (Request(all_extension_numbers_of_type="no.Type"), "not found: no.Type"),
    ],
)
async def test_what_is_not_found_is_said_inside_the_reply(
    serve: Any, request_: Any, text: str
) -> None:
    [reply] = await ask(await serve(), "v1", request_)
    assert (reply.error_response.error_code, reply.error_response.error_message) == (5, text)
    assert reply.original_request == request_


async def test_extensions_are_found_by_their_numbers(serve: Any) -> None:
    """google.api.http extends MethodOptions with number 72295728."""
    from google.api import annotations_pb2  # noqa: F401  (registers the extension)

    options = "google.protobuf.MethodOptions"
    extension = Request(
        file_containing_extension={"containing_type": options, "extension_number": 72295728}
    )
    replies = await ask(
        await serve(), "v1", Request(all_extension_numbers_of_type=options), extension
    )
    assert 72295728 in replies[0].all_extension_numbers_response.extension_number
    assert files(replies[1])[0] == "google/api/annotations.proto"


async def test_an_empty_request_is_an_invalid_argument(serve: Any) -> None:
    [reply] = await ask(await serve(), "v1alpha", Request())
    assert reply.error_response.error_code == 3


async def test_a_pool_of_ones_own_is_asked_first(serve: Any) -> None:
    """The coordinator shows dtmgimp.Dtm out of a pool that no user's copy can collide with."""
    proto = descriptor_pb2.FileDescriptorProto(
        name="dtmgimp.proto",
        package="dtmgimp",
        message_type=[{"name": "Nothing"}],
        service=[
            {
                "name": "Dtm",
                "method": [
                    {
                        "name": "Submit",
                        "input_type": ".dtmgimp.Nothing",
                        "output_type": ".dtmgimp.Nothing",
                    }
                ],
            }
        ],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)

    async def submit(_request: bytes, _call: Any) -> bytes:
        return b""

    server = GrpcServer(address="127.0.0.1:0", descriptor_pools=[pool])
    server.register_unary("/dtmgimp.Dtm/Submit", submit)
    listed, described = await ask(
        await serve(server=server),
        "v1alpha",
        Request(list_services=""),
        Request(file_containing_symbol="dtmgimp.Dtm.Submit"),
    )
    assert "dtmgimp.Dtm" in [service.name for service in listed.list_services_response.service]
    assert files(described) == ["dtmgimp.proto"]


async def test_reflection_can_be_switched_off(serve: Any) -> None:
    channel = await serve(server=GrpcServer(address="127.0.0.1:0", disable_reflection=True))
    with pytest.raises(grpc.aio.AioRpcError, match=r"unknown service grpc\.reflection\.v1\."):
        await ask(channel, "v1", Request(list_services=""))


async def test_an_idle_tool_does_not_hold_up_the_stop() -> None:
    server = GrpcServer(address="127.0.0.1:0")
    async with running(server) as address, grpc.aio.insecure_channel(address) as channel:
        info: Any = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Request.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )()
        await info.write(Request(list_services=""))
        assert (await info.read()).HasField("list_services_response")
        await server.stop()
        assert await info.code() is grpc.StatusCode.UNAVAILABLE
