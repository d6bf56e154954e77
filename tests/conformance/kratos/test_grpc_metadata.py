"""``kratos.api.Metadata`` to a client that has only its proto; kratos-wire §4.3."""

from collections.abc import Callable
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.message_factory import GetMessageClass

from kit.compat import Compat
from kit.transport.grpc import GrpcServer

LIST = "/kratos.api.Metadata/ListServices"
DESCRIBE = "/kratos.api.Metadata/GetServiceDesc"


PROTO = """
    name: "peer.proto" package: "peer" syntax: "proto3"
    dependency: "google/protobuf/descriptor.proto"
    message_type {
      name: "List"
      field { name: "services" number: 1 label: LABEL_REPEATED type: TYPE_STRING }
      field { name: "methods" number: 2 label: LABEL_REPEATED type: TYPE_STRING }
    }
    message_type {
      name: "Ask"
      field { name: "name" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    }
    message_type {
      name: "Files"
      field { name: "set" number: 1 label: LABEL_OPTIONAL type: TYPE_MESSAGE
              type_name: ".google.protobuf.FileDescriptorSet" }
    }
"""


@pytest.fixture(scope="module")
def peer() -> Callable[[str], Any]:
    """The messages as another program has them, by name."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(text_format.Parse(PROTO, descriptor_pb2.FileDescriptorProto()))
    return lambda name: GetMessageClass(pool.FindMessageTypeByName(f"peer.{name}"))


async def described(channel: grpc.aio.Channel, peer: Any, name: str) -> Any:
    request = peer("Ask")(name=name).SerializeToString()
    reply = await channel.unary_unary(DESCRIBE)(request)
    return peer("Files").FromString(reply).set.file


async def test_services_and_methods_are_listed_in_order(serve: Any, peer: Any) -> None:
    """Everything that is registered, itself included."""
    channel = await serve()
    found = peer("List").FromString(await channel.unary_unary(LIST)(b""))
    methods = list(found.methods)
    assert list(found.services) == [
        "api.trans.v1.Trans",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "kratos.api.Metadata",
    ]
    assert methods == sorted(methods)
    assert {"/api.trans.v1.Trans/TransIn", "/grpc.health.v1.Health/Watch", LIST} <= set(methods)


@pytest.mark.parametrize(
    "name", ["api.trans.v1.Trans", "kratos.api.Metadata", "grpc.reflection.v1.ServerReflection"]
)
async def test_a_service_comes_with_what_its_file_needs_ahead_of_it(
    serve: Any, peer: Any, name: str
) -> None:
    """So that the files can be taken into a pool one after the other."""
    files = await described(await serve(), peer, name)
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    assert pool.FindServiceByName(name).file.name == files[-1].name


async def test_an_unknown_service_is_not_found(serve: Any, failure: Any, peer: Any) -> None:
    """Also one that the program knows and this server does not serve."""
    channel = await serve()
    for name in ("no.Such", "google.longrunning.Operations"):
        error = await failure(described(channel, peer, name))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert error.details() == f"service {name} not found"


@pytest.mark.parametrize("without", [{"compat": Compat.V3}, {"disable_reflection": True}])
async def test_v3_and_servers_that_tell_nothing_do_not_have_it(
    serve: Any, failure: Any, without: dict[str, Any]
) -> None:
    """kratos v3 removed it; here it goes with reflection as well."""
    channel = await serve(server=GrpcServer(address="127.0.0.1:0", **without))
    error = await failure(channel.unary_unary(LIST)(b""))
    assert error.details() == "unknown service kratos.api.Metadata"


def test_a_program_may_bring_its_own_copy_of_the_proto() -> None:
    """Nothing of ours is in the pool in which generated code registers itself."""
    default = descriptor_pool.Default()
    with pytest.raises(KeyError):
        default.FindFileByName("kratos/api/metadata.proto")
    with pytest.raises(KeyError):
        default.FindServiceByName("kratos.api.Metadata")
