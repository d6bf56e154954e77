"""``grpc.reflection.v1`` and ``v1alpha``: lets grpcurl and its like find services without protos.

Both versions have the same messages under two package names, so one handler serves both.

Source: grpc-go reflection/serverreflection.go.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2

from kit.errors.codes import GrpcCode
from kit.transport.grpc.context import decoded
from kit.transport.grpc.engine import Route, RpcFailed, ServerCall, StreamRoute

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

_Reply: TypeAlias = reflection_pb2.ServerReflectionResponse


def own_pools() -> tuple[DescriptorPool, DescriptorPool]:
    """The default pool of protobuf, and that of the reflection service itself."""
    return descriptor_pool.Default(), _v1_pool()


class Reflection:
    """Answers from descriptor pools.

    Args:
        services: gives the full names of what the server serves.
        pools: where descriptors are looked for, in this order.
    """

    def __init__(
        self, services: Callable[[], Iterable[str]], pools: Sequence[DescriptorPool]
    ) -> None:
        self._services = services
        self._pools = tuple(pools)
        self._stopped = asyncio.Event()

    def shutdown(self) -> None:
        """End the open streams: tools keep theirs for long, and a graceful stop waits for them."""
        self._stopped.set()

    def routes(self) -> dict[str, Route]:
        """The methods by name, the same for both services."""
        return {"ServerReflectionInfo": StreamRoute(self._info)}

    async def _info(self, call: ServerCall) -> None:
        stopped = asyncio.create_task(self._stopped.wait())  # ends below
        try:
            while (data := await _read_unless(stopped, call)) is not None:
                request = decoded(data, reflection_pb2.ServerReflectionRequest.FromString)
                await call.write(self.answer(request).SerializeToString())
        finally:
            stopped.cancel()

    def answer(self, request: reflection_pb2.ServerReflectionRequest) -> _Reply:
        """The reply to one request; what is not found is said inside the reply."""
        reply = _Reply(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        try:
            match kind:
                case "list_services":
                    for name in sorted(self._services()):
                        reply.list_services_response.service.add(name=name)
                case "file_by_filename":
                    name = request.file_by_filename
                    self._add_files(reply, self._find(lambda pool: pool.FindFileByName(name)))
                case "file_containing_symbol":
                    self._add_files(reply, self._containing(request.file_containing_symbol))
                case "file_containing_extension":
                    wanted = request.file_containing_extension
                    self._add_files(
                        reply, self._extending(wanted.containing_type, wanted.extension_number)
                    )
                case "all_extension_numbers_of_type":
                    self._add_extension_numbers(reply, request.all_extension_numbers_of_type)
                case _:
                    reply.error_response.error_code = GrpcCode.INVALID_ARGUMENT
                    reply.error_response.error_message = "the request asks for nothing"
        except KeyError:
            reply.error_response.error_code = GrpcCode.NOT_FOUND
            reply.error_response.error_message = f"not found: {_asked(request)}"
        return reply

    def _find(self, look: Callable[[DescriptorPool], FileDescriptor]) -> FileDescriptor:
        for pool in self._pools:
            try:
                return look(pool)
            except KeyError:
                continue
        raise KeyError

    def _containing(self, symbol: str) -> FileDescriptor:
        """The file of ``symbol``; pools do not know methods and fields, but their parents."""
        parts = symbol.removeprefix(".").split(".")
        candidates = [".".join(parts), ".".join(parts[:-1])]

        def look(pool: DescriptorPool) -> FileDescriptor:
            try:
                return pool.FindFileContainingSymbol(candidates[0])
            except KeyError:
                file = pool.FindFileContainingSymbol(candidates[1])
                if not _has_member(pool, candidates[1], parts[-1]):
                    raise
                return file

        return self._find(look)

    def _extending(self, type_name: str, number: int) -> FileDescriptor:
        def look(pool: DescriptorPool) -> FileDescriptor:
            message = pool.FindMessageTypeByName(type_name)
            extension = pool.FindExtensionByNumber(message, number)
            return pool.FindFileContainingSymbol(extension.full_name)

        return self._find(look)

    def _add_extension_numbers(self, reply: _Reply, type_name: str) -> None:
        for pool in self._pools:
            try:
                message = pool.FindMessageTypeByName(type_name)
            except KeyError:
                continue
            found = sorted(extension.number for extension in pool.FindAllExtensions(message))
            reply.all_extension_numbers_response.base_type_name = type_name
            reply.all_extension_numbers_response.extension_number.extend(found)
            return
        raise KeyError

    def _add_files(self, reply: _Reply, file: FileDescriptor) -> None:
        """Add ``file`` and all it imports: tools ask for symbols, not for imports."""
        seen: dict[str, FileDescriptor] = {}
        pending = [file]
        while pending:
            current = pending.pop()
            if current.name not in seen:
                seen[current.name] = current
                pending.extend(current.dependencies)
        for descriptor in seen.values():
            proto = descriptor_pb2.FileDescriptorProto()
            descriptor.CopyToProto(proto)
            reply.file_descriptor_response.file_descriptor_proto.append(proto.SerializeToString())


async def _read_unless(stopped: "asyncio.Task[object]", call: ServerCall) -> bytes | None:
    reading = asyncio.ensure_future(call.read())
    try:
        await asyncio.wait({stopped, reading}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            raise RpcFailed(GrpcCode.UNAVAILABLE, "the server is stopping")
        return await reading
    finally:
        reading.cancel()


def _asked(request: reflection_pb2.ServerReflectionRequest) -> str:
    kind = request.WhichOneof("message_request")
    return str(getattr(request, kind)).strip() if kind else ""


def _has_member(pool: DescriptorPool, parent: str, name: str) -> bool:
    try:
        return name in pool.FindServiceByName(parent).methods_by_name
    except KeyError:
        pass
    try:
        return name in pool.FindMessageTypeByName(parent).fields_by_name
    except KeyError:
        return False


def _v1_pool() -> DescriptorPool:
    """v1 is v1alpha under another package name; the wheel ships only v1alpha."""
    proto = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(proto)
    old, new = proto.package, "grpc.reflection.v1"
    proto.name, proto.package = "grpc/reflection/v1/reflection.proto", new
    for message in proto.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{old}.", f".{new}.")
    for service in proto.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{old}.", f".{new}.")
            method.output_type = method.output_type.replace(f".{old}.", f".{new}.")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return pool
