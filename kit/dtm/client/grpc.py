"""The coordinator's gRPC API.

Source: dtm-labs/dtm client/dtmgrpc/type.go, dtmgimp/types.go.
"""

from typing import TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError

from kit.dtm.client.errors import DtmUnavailable
from kit.dtm.client.messages import (
    BranchRequest,
    Operation,
    TransRequest,
    grpc_branch,
    grpc_request,
)
from kit.dtm.client.tracing import trace_headers
from kit.dtm.client.transport import REPEATABLE, UNREPEATABLE, Step, WorkflowState, outcome
from kit.dtm.errors import DtmError
from kit.dtm.pb.dtm_pb2 import DtmBranchRequest, DtmGidReply, DtmProgressesReply, DtmRequest
from kit.dtm.wire import GRPC_SERVICE, Protocol
from kit.errors import Error
from kit.errors.codes import GrpcCode
from kit.transport.grpc import GrpcClient, RpcError, status_of

M = TypeVar("M", DtmGidReply, DtmProgressesReply)


class GrpcTransport:
    """``dtmgimp.Dtm`` of a coordinator.

    Args:
        client: leads there; closed with this.
    """

    protocol = Protocol.GRPC

    def __init__(self, client: GrpcClient) -> None:
        self._client = client
        self.server = client.target

    async def aclose(self) -> None:
        """Cut the connection; may be called twice."""
        await self._client.aclose()

    async def new_gid(self) -> str:
        """An id that is unique among those of the coordinator."""
        return _decoded(DtmGidReply, await self._call("NewGid", Empty()), "NewGid").Gid

    async def send(self, operation: Operation, request: TransRequest) -> None:
        """Prepare, submit or abort."""
        await self._call(operation.grpc_name, grpc_request(request), REPEATABLE)

    async def register_branch(self, request: BranchRequest) -> None:
        """Add a branch."""
        await self._call("RegisterBranch", grpc_branch(request), UNREPEATABLE)

    async def prepare_workflow(self, request: TransRequest) -> WorkflowState:
        """Create a workflow, or find the one that is there."""
        raw = await self._call("PrepareWorkflow", grpc_request(request), REPEATABLE)
        reply = _decoded(DtmProgressesReply, raw, "PrepareWorkflow")
        tx = reply.Transaction
        return WorkflowState(
            tx.Status,
            tx.RollbackReason,
            tx.Result,
            tuple(Step(p.BranchID, p.Op, p.Status, p.BinData) for p in reply.Progresses),
        )

    async def _call(
        self, method: str, request: DtmRequest | DtmBranchRequest | Empty, advice: str = ""
    ) -> bytes:
        try:
            return await self._client.unary(
                f"/{GRPC_SERVICE}/{method}",
                request.SerializeToString(),
                metadata=trace_headers().items(),
            )
        except Error as exc:
            raise grpc_outcome(exc, f"{method} at {self.server}", advice) from exc


def _decoded(kind: type[M], data: bytes, method: str) -> M:
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise DtmUnavailable(
            f"{method}: the answer cannot be decoded: {exc}; is this a coordinator's address?",
            GrpcCode.INTERNAL,
        ) from exc


def grpc_outcome(exc: Error, what: str, advice: str = "") -> DtmError:
    """What ``exc``, the end of the gRPC call ``what``, means; only an answer can be definite."""
    text = exc.message or exc.reason or type(exc).__name__
    if isinstance(exc, RpcError):
        return outcome(what, status_of(exc), text, advice)
    return DtmUnavailable(f"{what}: {GrpcCode.UNAVAILABLE.name}: {text}{advice}")
