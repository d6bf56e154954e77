"""TCC: every branch is tried, then all are confirmed, or all are cancelled.

Source: dtm-labs/dtm client/dtmcli/tcc.go, client/dtmgrpc/tcc.go.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager

from kit.dtm.barrier import BarrierError, barrier_from_grpc
from kit.dtm.client.branches import BranchReply
from kit.dtm.client.checks import check_url
from kit.dtm.client.client import DtmClient
from kit.dtm.client.messages import BranchRequest
from kit.dtm.client.payloads import Payload, payload_for
from kit.dtm.client.twophase import TwoPhase, running
from kit.dtm.core.model import Options
from kit.dtm.wire import Op, TransType


class Tcc(TwoPhase):
    """A tcc transaction that is prepared; :func:`tcc` makes one."""

    trans_type = TransType.TCC

    async def call_branch(
        self, payload: Payload, try_url: str, confirm: str = "", cancel: str = ""
    ) -> BranchReply:
        """Register a branch, then try it.

        Args:
            payload: what try, confirm and cancel are given; see :mod:`kit.dtm.client.payloads`.
            try_url: called now.
            confirm: called by the coordinator when all branches could be tried; may be empty.
            cancel: called by the coordinator when the transaction is aborted; may be empty.

        Raises:
            Failure: the branch says no; let it leave the block, and everything is cancelled.
            Ongoing: the branch is not done yet.
            DtmUnavailable: whether it was registered or tried is unknown.
            InvalidCall: a URL cannot be called, or there are too many branches.
            PayloadError: ``payload`` cannot be encoded.
        """
        protocol = self.client.protocol
        check_url("try_url", try_url, protocol)
        check_url("confirm", confirm, protocol, empty=True)
        check_url("cancel", cancel, protocol, empty=True)
        data = payload_for(try_url, payload, protocol, f"payload of {try_url!r}")
        branch_id = self._ids.next()
        await self.client.register_branch(
            BranchRequest(
                self.gid,
                self.trans_type,
                branch_id,
                data,
                {"cancel": cancel, "confirm": confirm},
            )
        )
        return await self._ask(try_url, branch_id, Op.TRY, data)


def tcc(
    client: DtmClient, gid: str = "", options: Options | None = None
) -> AbstractAsyncContextManager[Tcc]:
    """A tcc transaction for the length of a block.

    ::

        async with tcc(client) as t:
            await t.call_branch(req, f"{busi}/TryOut", f"{busi}/ConfirmOut", f"{busi}/CancelOut")
            await t.call_branch(req, f"{busi}/TryIn", f"{busi}/ConfirmIn", f"{busi}/CancelIn")

    At its end all branches are confirmed; when it raises, all are cancelled and the error goes on,
    its text being the reason that the coordinator keeps.

    Args:
        client: the coordinator.
        gid: see :class:`~kit.dtm.client.base.GlobalTransaction`.
        options: what is asked of the coordinator.

    Raises:
        DtmError: prepare or submit failed; after a failed prepare the block was not run.

    Source: dtm-labs/dtm client/dtmcli/tcc.go, TccGlobalTransaction2.
    """
    return running(Tcc(client, gid, options), tell=True)


def tcc_from_grpc(client: DtmClient, metadata: Iterable[tuple[str, str | bytes]]) -> Tcc:
    """The transaction that a try is called for: branches called by it are nested below that one.

    Args:
        client: the coordinator that the caller uses as well.
        metadata: of the call, see :func:`kit.dtm.barrier.barrier_from_grpc`.

    Raises:
        BarrierError: ids are missing.

    Source: dtm-labs/dtm client/dtmgrpc/tcc.go, TccFromGrpc.
    """
    ids = barrier_from_grpc(metadata)
    return Tcc(client, ids.gid, parent=ids.branch_id)


def tcc_from_query(client: DtmClient, query: Mapping[str, str]) -> Tcc:
    """The same for a try over HTTP, by the query of its URL.

    Raises:
        BarrierError: ids are missing.

    Source: dtm-labs/dtm client/dtmcli/tcc.go, TccFromQuery.
    """
    missing = [key for key in ("gid", "branch_id") if not query.get(key)]
    if missing:
        raise BarrierError(
            f"query {', '.join(missing)} missing; the call has to come from a dtm client"
        )
    return Tcc(client, query["gid"], parent=query["branch_id"])
