"""Calls that a workflow makes as one of its branches, over HTTP and gRPC.

Source: dtm-labs/dtm client/workflow/workflow.go (NewRequest, Interceptor), utils.go.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

import grpc

from kit.dtm.barrier import BranchBarrier
from kit.dtm.client.branches import Branches, BranchReply
from kit.dtm.client.grpc import grpc_outcome
from kit.dtm.client.payloads import HTTP_SCHEMES, Payload, payload_for
from kit.dtm.errors import Failure, Ongoing
from kit.dtm.wire import Protocol
from kit.errors import Error
from kit.errors.codes import GrpcCode
from kit.transport.grpc import GrpcClient, RpcError
from kit.transport.grpc.client import Decode, Encode, MetadataArgument

Perform: TypeAlias = Callable[[], Awaitable[bytes]]


class Calls:
    """What a branch of a workflow can call; a step records the answer, a callback does not.

    Attributes:
        barrier: the ids that every call carries.
    """

    def __init__(self, branches: Branches, headers: Mapping[str, str], ids: BranchBarrier) -> None:
        self.barrier = ids
        self._branches = branches
        self._headers = headers

    async def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> BranchReply:
        """GET ``url``; raises as :meth:`call`."""
        return await self.request("GET", url, headers=headers)

    async def post(
        self, url: str, payload: Payload = None, *, headers: Mapping[str, str] | None = None
    ) -> BranchReply:
        """POST ``payload`` as JSON to ``url``; raises as :meth:`call`."""
        body = payload_for(url, payload, Protocol.HTTP, f"payload of {url!r}")
        return await self.request("POST", url, body, headers=headers)

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> BranchReply:
        """Any request over HTTP; raises as :meth:`call`.

        Only 200 is a success, 409 a failure and 425 not done yet, whatever the method.
        """
        sent = {**self._headers, **(headers or {})}

        async def perform() -> bytes:
            reply = await self._branches.request(method, url, self.barrier, body, sent)
            return reply.data

        return BranchReply(await self._through(perform, f"{method} {urlsplit(url).path}"))

    async def call(self, url: str, payload: Payload = None) -> BranchReply:
        """Call a branch by its URL: POST over HTTP, or a gRPC method.

        Raises:
            Failure: the branch says no.
            Ongoing: it is not done yet.
            DtmUnavailable: there was another answer, or none.
            InvalidCall: ``url`` cannot be called.
            PayloadError: ``payload`` cannot be encoded.
        """
        if url.startswith(HTTP_SCHEMES):
            return await self.post(url, payload)
        data = payload_for(url, payload, Protocol.GRPC, f"payload of {url!r}")

        async def perform() -> bytes:
            reply = await self._branches.call(url, self.barrier, data, headers=self._headers)
            return reply.data

        return BranchReply(await self._through(perform, f"call {urlsplit(url).path}"))

    def grpc(self, client: GrpcClient) -> grpc.aio.Channel:
        """``client`` for generated stubs, whose unary calls are calls of this branch.

        ::

            await TransStub(branch.grpc(client)).TransOut(AdjustInfo(Amount=30, UserID=1))

        ABORTED is raised as Failure, FAILED_PRECONDITION as Ongoing. Streams pass unrecorded.
        """
        return cast("grpc.aio.Channel", _Channel(client, self))

    async def through_grpc(
        self,
        client: GrpcClient,
        method: str,
        request: bytes,
        metadata: MetadataArgument,
        limit: float | None,
    ) -> bytes:
        """One unary call of :meth:`grpc`, by bytes."""

        async def perform() -> bytes:
            ids = self._branches.metadata(self.barrier, self._headers)
            sent = [*ids.items(), *(metadata or ())]
            try:
                return await client.unary(method, request, metadata=sent, timeout=limit)
            except Error as exc:
                raise grpc_outcome(exc, f"call of {client.target}{method}") from exc

        return await self._through(perform, f"call {method}")

    def misfit(self, exc: Exception) -> Error:
        """The error for an answer that is not of the type which the code expects."""
        return RpcError(GrpcCode.INTERNAL, f"the reply cannot be decoded: {exc}")

    async def _through(self, perform: Perform, what: str) -> bytes:
        """The answer of ``perform``, which does ``what``."""
        return await perform()


class _Channel:
    """As much of a ``grpc.aio.Channel`` as generated stubs use."""

    def __init__(self, client: GrpcClient, calls: Calls) -> None:
        self._client = client
        self._calls = calls
        self.unary_stream = client.unary_stream
        self.stream_unary = client.stream_unary
        self.stream_stream = client.stream_stream

    def unary_unary(
        self,
        method: str,
        request_serializer: Encode | None = None,
        response_deserializer: Decode | None = None,
        _registered_method: bool | None = None,
    ) -> Callable[..., Awaitable[Any]]:
        """One method of a stub: one message out, one in."""

        async def call(
            request: Any,
            *,
            timeout: float | None = None,  # noqa: ASYNC109  (what stubs are called with)
            metadata: MetadataArgument = None,
            **_ignored: object,
        ) -> Any:
            sent = request if request_serializer is None else request_serializer(request)
            data = await self._calls.through_grpc(self._client, method, sent, metadata, timeout)
            if response_deserializer is None:
                return data
            try:
                return response_deserializer(data)
            except Exception as exc:  # each library has its own
                raise self._calls.misfit(exc) from exc

        return call


def definite(exc: BaseException) -> BaseException:
    """``exc``, or the class of answer that it means.

    A gRPC status may be FAILURE or ONGOING; a group of errors, as ``asyncio.TaskGroup`` raises, is
    a FAILURE when all in it are.
    """
    match exc:
        case RpcError(status=GrpcCode.ABORTED):
            return Failure(exc.message)
        case RpcError(status=GrpcCode.FAILED_PRECONDITION):
            return Ongoing(exc.message)
        case BaseExceptionGroup():
            inside = [definite(each) for each in exc.exceptions]
            return inside[0] if all(isinstance(each, Failure) for each in inside) else exc
        case _:
            return exc
