"""Which branch of which global transaction a call belongs to.

The barrier keeps a branch from acting twice, or after its undo; it recognizes calls by the four
ids here.

Source: dtm-labs/dtm client/dtmcli/barrier.go, client/dtmgrpc/barrier.go.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from kit.dtm.wire import MetadataKey
from kit.errors import BadRequest


class BarrierError(BadRequest):
    """The call does not say which branch it is: 400 BARRIER."""

    def __init__(self, message: str) -> None:
        super().__init__("BARRIER", message)


@dataclass(frozen=True, slots=True)
class BranchBarrier:
    """The identity of one branch call.

    Attributes:
        trans_type: ``msg``, ``saga``, ``tcc``, ``xa`` or ``workflow``.
        gid: the global transaction.
        branch_id: the branch in it.
        op: what the branch is asked to do.
    """

    trans_type: str
    gid: str
    branch_id: str
    op: str


def barrier_from_grpc(metadata: Iterable[tuple[str, str | bytes]]) -> BranchBarrier:
    """The branch that a gRPC call is for, from what the caller sent along.

    ``current_call().request_headers.items()`` is that, and so is ``ServerCall.metadata``.

    Raises:
        BarrierError: ids are missing or empty; the message names them.

    Source: dtm-labs/dtm client/dtmgrpc/barrier.go, BarrierFromGrpc.
    """
    sent = dict(metadata)
    keys = (MetadataKey.TRANS_TYPE, MetadataKey.GID, MetadataKey.BRANCH_ID, MetadataKey.OP)
    values = [_text(sent.get(key, "")) for key in keys]
    if missing := [key for key, value in zip(keys, values, strict=True) if not value]:
        raise BarrierError(
            f"metadata {', '.join(missing)} missing; the call has to come from a dtm coordinator "
            "or client"
        )
    return BranchBarrier(*values)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


__all__ = ["BarrierError", "BranchBarrier", "barrier_from_grpc"]
