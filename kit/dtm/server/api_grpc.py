"""The gRPC API: ``dtmgimp.Dtm`` as every dtm client calls it.

Source: dtm-labs/dtm dtmsvr/api_grpc.go, client/dtmgrpc/type.go (DtmError2GrpcError).
"""

import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from google.protobuf import empty_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from kit import log
from kit.dtm.core import Answer, Outcome, Reply, Request
from kit.dtm.pb import dtm_pb2
from kit.dtm.server.requests import (
    InvalidRequest,
    check_options,
    parse_steps,
    registration_from,
    request_from,
)
from kit.dtm.server.service import Service
from kit.dtm.server.topics import TopicError
from kit.dtm.store import StoreUnavailable
from kit.dtm.wire import GRPC_SERVICE, Protocol, TransType
from kit.errors.codes import GrpcCode
from kit.transport.grpc import GrpcServer, RpcFailed, ServerCall

logger = log.get_logger()

_EMPTY = b""

_CODES = {
    Outcome.FAILURE: GrpcCode.ABORTED,
    Outcome.ONGOING: GrpcCode.FAILED_PRECONDITION,
    Outcome.INVALID: GrpcCode.INVALID_ARGUMENT,
    Outcome.MISSING: GrpcCode.INTERNAL,
    Outcome.UNKNOWN: GrpcCode.UNKNOWN,
}

Observe: TypeAlias = Callable[[str, str, bool, float], None]
"""Told of each call: ``grpc``, the method in lower case, whether it went well, seconds."""

M = TypeVar("M", bound=Message)


class DtmGrpcApi:
    """Serves the methods of ``dtmgimp.Dtm``."""

    def __init__(self, service: Service, observe: Observe = lambda _, __, ___, ____: None) -> None:
        self._service = service
        self._observe = observe

    def register(self, server: GrpcServer) -> None:
        """Put the methods on ``server``."""
        service = self._service
        methods: dict[str, Callable[[bytes], Awaitable[bytes]]] = {
            "NewGid": self._new_gid,
            "Prepare": self._transaction(service.prepare),
            "Submit": self._transaction(service.submit),
            "Abort": self._transaction(service.abort),
            "RegisterBranch": self._register_branch,
            "PrepareWorkflow": self._prepare_workflow,
            "Subscribe": self._topic(lambda t: service.subscribe(t.Topic, t.URL, t.Remark)),
            "Unsubscribe": self._topic(lambda t: service.unsubscribe(t.Topic, t.URL)),
            "DeleteTopic": self._topic(lambda t: service.delete_topic(t.Topic)),
        }
        for name, method in methods.items():
            server.register_unary(f"/{GRPC_SERVICE}/{name}", self._served(name, method))

    def _served(
        self, name: str, method: Callable[[bytes], Awaitable[bytes]]
    ) -> Callable[[bytes, ServerCall], Awaitable[bytes]]:
        api = name.lower()

        async def serve(data: bytes, call: ServerCall) -> bytes:
            began = time.perf_counter()
            well = False
            try:
                reply = await method(data)
                well = True
                return reply
            except DecodeError as error:
                raise RpcFailed(
                    GrpcCode.INTERNAL, f"grpc: error unmarshalling request: {error}"
                ) from None
            except InvalidRequest as error:
                logger.warning("request refused", call=name, peer=call.peer, reason=str(error))
                raise RpcFailed(GrpcCode.INVALID_ARGUMENT, str(error)) from None
            except TopicError as error:
                raise RpcFailed(GrpcCode.UNKNOWN, str(error)) from None
            except StoreUnavailable as error:
                raise RpcFailed(GrpcCode.UNAVAILABLE, error.message) from error
            finally:
                self._observe("grpc", api, well, time.perf_counter() - began)

        return serve

    async def _new_gid(self, _: bytes) -> bytes:
        return dtm_pb2.DtmGidReply(Gid=self._service.new_gid()).SerializeToString()

    def _transaction(
        self, do: Callable[[Request], Awaitable[Reply | Answer]]
    ) -> Callable[[bytes], Awaitable[bytes]]:
        async def handle(data: bytes) -> bytes:
            answer = await do(to_request(dtm_pb2.DtmRequest.FromString(data)))
            if answer.outcome is Outcome.SUCCESS:
                return _EMPTY
            raise failed(answer)

        return handle

    async def _register_branch(self, data: bytes) -> bytes:
        message = dtm_pb2.DtmBranchRequest.FromString(data)
        request = registration_from(
            gid=message.Gid,
            trans_type=message.TransType,
            branch_id=message.BranchID,
            data=message.BusiPayload,
            fields=message.Data,
            protocol=Protocol.GRPC,
        )
        answer = await self._service.register(request)
        if answer.outcome is Outcome.SUCCESS:
            return _EMPTY
        raise failed(answer)

    async def _prepare_workflow(self, data: bytes) -> bytes:
        message = dtm_pb2.DtmRequest.FromString(data)
        if message.TransType != TransType.WORKFLOW:
            raise InvalidRequest(
                f"TransType: {message.TransType[:60]!r} is not a workflow; use Prepare"
            )
        answer = await self._service.prepare_workflow(to_request(message))
        if not isinstance(answer, Reply) or answer.tx is None:
            raise failed(answer)
        tx = answer.tx
        return dtm_pb2.DtmProgressesReply(
            Transaction=dtm_pb2.DtmTransaction(
                Gid=tx.gid,
                Status=tx.status,
                RollbackReason=tx.rollback_reason,
                Result=tx.result,
            ),
            Progresses=[
                dtm_pb2.DtmProgress(
                    Status=branch.status,
                    BinData=branch.payload,
                    BranchID=branch.branch_id,
                    Op=branch.op,
                )
                for branch in tx.branches
            ],
        ).SerializeToString()

    def _topic(
        self, do: Callable[[dtm_pb2.DtmTopicRequest], Awaitable[None]]
    ) -> Callable[[bytes], Awaitable[bytes]]:
        async def handle(data: bytes) -> bytes:
            await do(dtm_pb2.DtmTopicRequest.FromString(data))
            return _EMPTY

        return handle


def to_request(message: dtm_pb2.DtmRequest) -> Request:
    """The checked form of ``message``.

    Raises:
        InvalidRequest: it can never work.
    """
    given = message.TransOptions
    return request_from(
        gid=message.Gid,
        trans_type=message.TransType,
        protocol=Protocol.GRPC,
        steps=parse_steps(message.Steps),
        payloads=message.BinPayloads,
        query_prepared=message.QueryPrepared,
        custom_data=message.CustomedData,
        options=check_options(
            wait_result=given.WaitResult,
            timeout_to_fail=given.TimeoutToFail,
            request_timeout=given.RequestTimeout,
            retry_interval=given.RetryInterval,
            retry_limit=given.RetryLimit,
            branch_headers=given.BranchHeaders,
        ),
        rollback_reason=message.RollbackReason,
        req_extra=message.ReqExtra,
    )


def failed(answer: Reply | Answer) -> RpcFailed:
    """The status of an answer other than success; a branch's own code is passed on."""
    code = _CODES[answer.outcome]
    if answer.outcome is Outcome.UNKNOWN and isinstance(answer, Answer) and answer.code:
        code = GrpcCode(answer.code)
    return RpcFailed(code, answer.text)


def reflection_pool() -> DescriptorPool:
    """The service under dtm's own names, for reflection.

    The messages that this process uses live in a private package, so that a user's copy of dtm's
    protos does not collide with them; grpcurl and its kin are shown the public names.
    """
    public = FileDescriptorProto()
    dtm_pb2.DESCRIPTOR.CopyToProto(public)
    package = public.package
    public.name, public.package = "dtmgimp.proto", GRPC_SERVICE.partition(".")[0]
    public.dependency.append("google/protobuf/empty.proto")
    for message in public.message_type:
        for field in message.field:
            if field.type_name:
                public_name = field.type_name.replace(f".{package}.", f".{public.package}.")
                field.type_name = public_name
    service = public.service.add(name=GRPC_SERVICE.partition(".")[2])
    empty = ".google.protobuf.Empty"
    request = f".{public.package}.DtmRequest"
    topic = f".{public.package}.DtmTopicRequest"
    for name, takes, gives in (
        ("NewGid", empty, f".{public.package}.DtmGidReply"),
        ("Submit", request, empty),
        ("Prepare", request, empty),
        ("Abort", request, empty),
        ("RegisterBranch", f".{public.package}.DtmBranchRequest", empty),
        ("PrepareWorkflow", request, f".{public.package}.DtmProgressesReply"),
        ("Subscribe", topic, empty),
        ("Unsubscribe", topic, empty),
        ("DeleteTopic", topic, empty),
    ):
        service.method.add(name=name, input_type=takes, output_type=gives)
    pool = DescriptorPool()
    imported = FileDescriptorProto()
    empty_pb2.DESCRIPTOR.CopyToProto(imported)
    pool.Add(imported)
    pool.Add(public)
    return pool
