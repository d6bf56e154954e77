"""``kratos.api.Metadata`` of kratos v2: which services and methods a server has, and their files.

Its messages stand in a descriptor pool of their own: a program that generates kratos' own
``metadata.proto`` can be imported beside this.

Source: go-kratos/kratos api/metadata/server.go, metadata.proto.
"""

from collections.abc import Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from kit.errors.codes import GrpcCode
from kit.transport.grpc.context import decoded
from kit.transport.grpc.engine import Route, RpcFailed, ServerCall, UnaryRoute
from kit.transport.grpc.services import Services

SERVICE = "kratos.api.Metadata"

_FIELD = descriptor_pb2.FieldDescriptorProto
_SET = "google.protobuf.FileDescriptorSet"


def _pool() -> DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="kratos/api/metadata.proto",
        package="kratos.api",
        syntax="proto3",
        dependency=[descriptor_pb2.DESCRIPTOR.name],
    )
    fields: dict[str, list[tuple[str, bool, str]]] = {
        "ListServicesRequest": [],
        "ListServicesReply": [("services", True, ""), ("methods", True, "")],
        "GetServiceDescRequest": [("name", False, "")],
        "GetServiceDescReply": [("file_desc_set", False, _SET)],
    }
    for name, given in fields.items():
        message = file.message_type.add(name=name)
        for number, (field, repeated, kind) in enumerate(given, start=1):
            message.field.add(
                name=field,
                number=number,
                label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL,
                type=_FIELD.TYPE_MESSAGE if kind else _FIELD.TYPE_STRING,
                type_name=f".{kind}" if kind else None,
            )
    service = file.service.add(name="Metadata")
    for method in ("ListServices", "GetServiceDesc"):
        service.method.add(
            name=method,
            input_type=f".kratos.api.{method}Request",
            output_type=f".kratos.api.{method}Reply",
        )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return pool


POOL = _pool()
"""Where the service is described."""


def _message(name: str) -> Any:
    return GetMessageClass(POOL.FindMessageTypeByName(f"kratos.api.{name}"))


_ListReply = _message("ListServicesReply")
_DescRequest = _message("GetServiceDescRequest")
_DescReply = _message("GetServiceDescReply")


class Metadata:
    """Answers out of what is registered and out of descriptor pools.

    Args:
        services: what the server serves.
        pools: where descriptors are looked for, in this order.
    """

    def __init__(self, services: Services, pools: Sequence[DescriptorPool]) -> None:
        self._services = services
        self._pools = tuple(pools)

    def routes(self) -> dict[str, Route]:
        """The methods by name."""
        return {
            "ListServices": UnaryRoute(self._list),
            "GetServiceDesc": UnaryRoute(self._describe),
        }

    async def _list(self, _request: bytes, _call: ServerCall) -> bytes:
        names = self._services.names()
        methods = set(self._services.methods())
        for name in names:  # generic handlers do not say what they have, descriptors do
            if (service := self._found(name)) is not None:
                methods.update(f"/{name}/{method.name}" for method in service.methods)
        reply = _ListReply(services=names, methods=sorted(methods))
        return bytes(reply.SerializeToString())

    async def _describe(self, request: bytes, _call: ServerCall) -> bytes:
        name = decoded(request, _DescRequest.FromString).name
        service = self._found(name) if name in self._services.names() else None
        if service is None:
            raise RpcFailed(GrpcCode.NOT_FOUND, f"service {name} not found")
        reply = _DescReply()
        for file in _with_imports(service.file):
            reply.file_desc_set.file.add().MergeFromString(file.serialized_pb)
        return bytes(reply.SerializeToString())

    def _found(self, name: str) -> ServiceDescriptor | None:
        for pool in self._pools:
            try:
                return pool.FindServiceByName(name)
            except KeyError:
                continue
        return None


def _with_imports(file: FileDescriptor) -> list[FileDescriptor]:
    """``file`` and all that it imports, each behind what it needs."""
    found: dict[str, FileDescriptor] = {}

    def visit(current: FileDescriptor) -> None:
        if current.name in found:
            return
        for needed in current.dependencies:
            visit(needed)
        found[current.name] = current

    visit(file)
    return list(found.values())
