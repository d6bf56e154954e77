"""``grpc.channelz.v1.Channelz``: what grpcio knows of its servers, channels and sockets.

It tells addresses and traffic of the whole process, so a server has it only when asked to.

Source: grpc-go channelz/service/service.go; go-kratos/kratos transport/grpc/server.go registers it.
"""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from kit.errors.codes import GrpcCode
from kit.transport.grpc.context import decoded
from kit.transport.grpc.engine import (
    Route,
    RpcFailed,
    ServerCall,
    ServerEngineFactory,
    UnaryHandler,
    UnaryRoute,
)
from kit.transport.grpc.grpcio import GrpcioServer

SERVICE = "grpc.channelz.v1.Channelz"


def routes(engine: ServerEngineFactory) -> dict[str, Route]:
    """The methods by name.

    Raises:
        ModuleNotFoundError: grpcio-channelz is not installed.
        ValueError: ``engine`` is not grpcio's, which alone keeps these figures.
    """
    if engine is not GrpcioServer:
        raise ValueError("channelz shows what grpcio does; use engine='grpcio' or channelz=False")
    try:
        from grpc_channelz.v1 import channelz, channelz_pb2  # an extra
    except ModuleNotFoundError as exc:
        text = "channelz needs a package that is not installed; pip install kit[channelz]"
        raise ModuleNotFoundError(text, name=exc.name) from exc
    service = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]
    servicer = channelz.ChannelzServicer
    return {
        method.name: UnaryRoute(
            _handler(getattr(servicer, method.name), GetMessageClass(method.input_type))
        )
        for method in service.methods
    }


class _Context:
    """What the servicer of the package tells its failures to."""

    def __init__(self) -> None:
        self.code: grpc.StatusCode | None = None
        self.details = ""

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details


def _handler(behaviour: Callable[[Any, Any], Any], kind: Any) -> UnaryHandler:
    async def serve(request: bytes, _call: ServerCall) -> bytes:
        context = _Context()
        reply = behaviour(decoded(request, kind.FromString), context)
        if context.code is not None:
            raise RpcFailed(GrpcCode(context.code.value[0]), context.details)
        return bytes(reply.SerializeToString())

    return serve
