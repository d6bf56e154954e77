"""``grpc.health.v1.Health`` with Check, List and Watch.

The one known service is the empty name, the server as a whole: SERVING until the server stops.
kratos registers no business service by name, so a Check on one is NOT_FOUND and a Watch says
SERVICE_UNKNOWN and stays open.

Source: grpc-go health/server.go as go-kratos/kratos transport/grpc/server.go uses it.
"""

import asyncio

from grpc_health.v1 import health_pb2

from kit.errors.codes import GrpcCode
from kit.transport.grpc.context import decoded
from kit.transport.grpc.engine import Route, RpcFailed, ServerCall, StreamRoute, UnaryRoute

SERVICE = "grpc.health.v1.Health"

_Reply = health_pb2.HealthCheckResponse


class Health:
    """The state of one server and those who watch it."""

    def __init__(self) -> None:
        self._serving = True
        self._stopped = asyncio.Event()

    def shutdown(self) -> None:
        """Say NOT_SERVING to everybody, for good, and end the watches.

        In Go a watch stays open until its connection closes, and so can hold up a graceful stop.
        """
        self._serving = False
        self._stopped.set()

    def routes(self) -> dict[str, Route]:
        """The methods by name."""
        return {
            "Check": UnaryRoute(self._check),
            "List": UnaryRoute(self._list),
            "Watch": StreamRoute(self._watch),
        }

    def _status(self) -> int:
        return int(_Reply.SERVING if self._serving else _Reply.NOT_SERVING)

    async def _check(self, request: bytes, _call: ServerCall) -> bytes:
        service = decoded(request, health_pb2.HealthCheckRequest.FromString).service
        if service:
            raise RpcFailed(GrpcCode.NOT_FOUND, "unknown service")
        return bytes(_Reply(status=self._status()).SerializeToString())

    async def _list(self, _request: bytes, _call: ServerCall) -> bytes:
        reply = health_pb2.HealthListResponse(statuses={"": _Reply(status=self._status())})
        return bytes(reply.SerializeToString())

    async def _watch(self, call: ServerCall) -> None:
        request = await call.read() or b""
        service = decoded(request, health_pb2.HealthCheckRequest.FromString).service
        first = _Reply.SERVICE_UNKNOWN if service else self._status()
        await call.write(_Reply(status=first).SerializeToString())
        await self._stopped.wait()
        if not service and first != _Reply.NOT_SERVING:
            await call.write(_Reply(status=_Reply.NOT_SERVING).SerializeToString())
        raise RpcFailed(GrpcCode.UNAVAILABLE, "the server is stopping")
