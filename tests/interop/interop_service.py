"""The interoperability service of gRPC on the kit, and a server of it for the length of a test.

Source: the published interop-test-descriptions.md of gRPC, "Server".
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kit.errors import Error
from kit.errors.codes import GrpcCode
from kit.testing.grpc import running
from kit.transport.grpc import GrpcServer
from kit.transport.grpc.engine import ServerTls
from kit.transport.grpc.engines import EngineName
from tests.interop import testing_pb2 as pb
from tests.interop import testing_pb2_grpc as pb_grpc

ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
REASON = "x-test-reason"
"""Fail with an error of this reason; of this folder, not of the published cases."""


class InteropService(pb_grpc.TestServiceServicer):
    """Answers with as many bytes, of the status, and with the metadata that it is asked for."""

    async def EmptyCall(self, _request: pb.Empty, context: Any) -> pb.Empty:  # noqa: N802
        await _echo(context)
        return pb.Empty()

    async def UnaryCall(self, request: pb.SimpleRequest, context: Any) -> pb.SimpleResponse:  # noqa: N802
        await _echo(context)
        await _fail(request.response_status, context)
        return pb.SimpleResponse(payload=_payload(request.response_size))

    async def StreamingInputCall(  # noqa: N802
        self, requests: AsyncIterator[pb.StreamingInputCallRequest], _context: Any
    ) -> pb.StreamingInputCallResponse:
        size = 0
        async for request in requests:
            size += len(request.payload.body)
        return pb.StreamingInputCallResponse(aggregated_payload_size=size)

    async def StreamingOutputCall(  # noqa: N802
        self, request: pb.StreamingOutputCallRequest, context: Any
    ) -> AsyncIterator[pb.StreamingOutputCallResponse]:
        await _echo(context)
        await _fail(request.response_status, context)
        async for answer in _answers(request):
            yield answer

    async def FullDuplexCall(  # noqa: N802
        self, requests: AsyncIterator[pb.StreamingOutputCallRequest], context: Any
    ) -> AsyncIterator[pb.StreamingOutputCallResponse]:
        await _echo(context)
        async for request in requests:
            await _fail(request.response_status, context)
            async for answer in _answers(request):
                yield answer


async def _answers(
    request: pb.StreamingOutputCallRequest,
) -> AsyncIterator[pb.StreamingOutputCallResponse]:
    for wanted in request.response_parameters:
        if wanted.interval_us:
            await asyncio.sleep(wanted.interval_us / 1e6)
        yield pb.StreamingOutputCallResponse(payload=_payload(wanted.size))


def _payload(size: int) -> pb.Payload:
    return pb.Payload(body=bytes(size))


async def _echo(context: Any) -> None:
    sent = dict(context.invocation_metadata())
    if ECHO_TRAILING in sent:
        context.set_trailing_metadata(((ECHO_TRAILING, sent[ECHO_TRAILING]),))
    if ECHO_INITIAL in sent:
        await context.send_initial_metadata(((ECHO_INITIAL, sent[ECHO_INITIAL]),))
    if REASON in sent:
        raise Error(409, sent[REASON], "not now", {"shelf": "7"})


async def _fail(status: pb.EchoStatus, context: Any) -> None:
    if status.code:
        await context.abort(GrpcCode(status.code), status.message)


@asynccontextmanager
async def serving(engine: EngineName, tls: ServerTls | None = None) -> AsyncIterator[str]:
    """A server of the kit; gives its address."""
    # The cases call for answers that take longer than the kit's second.
    server = GrpcServer(address="127.0.0.1:0", engine=engine, timeout=0, tls=tls)
    pb_grpc.add_TestServiceServicer_to_server(InteropService(), server.services)
    async with running(server) as address:
        yield address
