"""What the coordinator says about a stored transaction.

Source: dtm-labs/dtm dtmsvr/storage/trans.go (TransGlobalStore, TransBranchStore), the JSON of
``query``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kit.dtm.client.http import bytes_of, mapping_of, rows_of, text_of
from kit.dtm.wire import Status


@dataclass(frozen=True, slots=True)
class BranchState:
    """One operation of one branch.

    Attributes:
        status: ``prepared``, ``succeed`` or ``failed``.
        data: its payload, or what a step of a workflow gave.
    """

    branch_id: str
    op: str
    status: str
    url: str
    data: bytes


@dataclass(frozen=True, slots=True)
class TransactionState:
    """A transaction as it is stored.

    Attributes:
        status: ``prepared``, ``submitted``, ``aborting``, ``succeed`` or ``failed``.
        rollback_reason: why it failed or is being rolled back.
        result: what a workflow gave.
        branches: in creation order.
    """

    gid: str
    trans_type: str
    status: str
    rollback_reason: str = ""
    result: bytes = b""
    branches: tuple[BranchState, ...] = ()

    @property
    def terminal(self) -> bool:
        """Whether nothing can change any more."""
        return self.status in (Status.SUCCEED, Status.FAILED)

    @property
    def succeeded(self) -> bool:
        """Whether everything has happened."""
        return self.status == Status.SUCCEED


def state_of(reply: Mapping[str, object]) -> TransactionState | None:
    """The transaction that a ``query`` found; ``None`` when there is none."""
    tx = mapping_of(reply, "transaction")
    if not tx:
        return None
    return TransactionState(
        text_of(tx, "gid"),
        text_of(tx, "trans_type"),
        text_of(tx, "status"),
        text_of(tx, "rollback_reason"),
        bytes_of(tx, "result"),
        tuple(
            BranchState(
                text_of(row, "branch_id"),
                text_of(row, "op"),
                text_of(row, "status"),
                text_of(row, "url"),
                bytes_of(row, "bin_data"),
            )
            for row in rows_of(reply, "branches")
        ),
    )
