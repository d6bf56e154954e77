"""The gRPC API: ``dtmgimp.Dtm`` as every dtm client calls it.

Source: dtm-labs/dtm dtmsvr/api_grpc.go, client/dtmgrpc/type.go (DtmError2GrpcError).
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from google.protobuf import empty_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from kit import log
from kit.clock import Clock
from kit.dtm.core import Aborted, Answer, Outcome, Prepared, Reply, Request, Submitted
from kit.dtm.pb import dtm_pb2
from kit.dtm.server.engine import Engine
from kit.dtm.server.requests import InvalidRequest, check_options, msg_request
from kit.dtm.store import StoreUnavailable
from kit.dtm.wire import GRPC_SERVICE
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

ApiEvent: TypeAlias = type[Prepared] | type[Submitted] | type[Aborted]


class DtmGrpcApi:
    """Serves the methods of ``dtmgimp.Dtm``.

    Args:
        new_gid: makes an id that nobody else makes.
    """

    def __init__(self, engine: Engine, clock: Clock, new_gid: Callable[[], str]) -> None:
        self._engine = engine
        self._clock = clock
        self._new_gid = new_gid

    def register(self, server: GrpcServer) -> None:
        """Put the methods on ``server``."""
        methods: dict[str, Callable[[bytes, ServerCall], Awaitable[bytes]]] = {
            "NewGid": self.new_gid,
            "Prepare": self._handler(Prepared),
            "Submit": self._handler(Submitted),
            "Abort": self._handler(Aborted),
        }
        for name, method in methods.items():
            server.register_unary(f"/{GRPC_SERVICE}/{name}", method)

    async def new_gid(self, _: bytes, __: ServerCall) -> bytes:
        """An id for a new transaction."""
        return dtm_pb2.DtmGidReply(Gid=self._new_gid()).SerializeToString()

    def _handler(self, event: ApiEvent) -> Callable[[bytes, ServerCall], Awaitable[bytes]]:
        name = event.__name__

        async def handle(data: bytes, call: ServerCall) -> bytes:
            try:
                request = to_request(dtm_pb2.DtmRequest.FromString(data))
            except DecodeError as error:
                raise RpcFailed(
                    GrpcCode.INTERNAL, f"grpc: error unmarshalling request: {error}"
                ) from None
            except InvalidRequest as error:
                logger.warning("request refused", call=name, peer=call.peer, reason=str(error))
                raise RpcFailed(GrpcCode.INVALID_ARGUMENT, str(error)) from None
            try:
                answer = await self._engine.handle(event(self._clock.now_ms(), request))
            except StoreUnavailable as error:
                raise RpcFailed(GrpcCode.UNAVAILABLE, error.message) from error
            if answer.outcome is Outcome.SUCCESS:
                return _EMPTY
            raise failed(answer)

        return handle


def to_request(message: dtm_pb2.DtmRequest) -> Request:
    """The checked form of ``message``.

    Raises:
        InvalidRequest: it can never work.
    """
    given = message.TransOptions
    return msg_request(
        gid=message.Gid,
        trans_type=message.TransType,
        steps=message.Steps,
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
    for name, takes, gives in (
        ("NewGid", empty, f".{public.package}.DtmGidReply"),
        ("Submit", request, empty),
        ("Prepare", request, empty),
        ("Abort", request, empty),
    ):
        service.method.add(name=name, input_type=takes, output_type=gives)
    pool = DescriptorPool()
    imported = FileDescriptorProto()
    empty_pb2.DESCRIPTOR.CopyToProto(imported)
    pool.Add(imported)
    pool.Add(public)
    return pool
