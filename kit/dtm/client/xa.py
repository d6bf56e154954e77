"""XA: every branch does its work in an open transaction of its database, then all commit, or none.

Source: dtm-labs/dtm client/dtmcli/xa.go, client/dtmgrpc/xa.go.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from kit.dtm.barrier import BranchBarrier
from kit.dtm.barrier.xa import afinish, aprepare
from kit.dtm.client.branches import BranchReply
from kit.dtm.client.checks import check_url
from kit.dtm.client.client import DtmClient
from kit.dtm.client.errors import DtmUnavailable, InvalidCall
from kit.dtm.client.messages import BranchRequest
from kit.dtm.client.payloads import Payload, payload_for
from kit.dtm.client.twophase import TwoPhase, running
from kit.dtm.core.model import Options
from kit.dtm.wire import Op, TransType

C = TypeVar("C")

_CONFLICTS = ("UniqueKeyConflict", "Duplicate entry", "duplicate key")
"""How coordinators say that a branch is registered: dtm's word, and those of its databases."""


class Xa(TwoPhase):
    """An xa transaction that is prepared; :func:`xa` makes one."""

    trans_type = TransType.XA

    async def call_branch(self, payload: Payload, url: str) -> BranchReply:
        """Have the branch at ``url`` do its work; it registers itself.

        Args:
            payload: what it is given; see :mod:`kit.dtm.client.payloads`.
            url: called now, and by the coordinator to commit or roll back.

        Raises:
            Failure: the branch says no; let it leave the block, and everything is rolled back.
            Ongoing: the branch is not done yet.
            DtmUnavailable: whether it did its work is unknown.
            InvalidCall: ``url`` cannot be called, or there are too many branches.
            PayloadError: ``payload`` cannot be encoded.
        """
        protocol = self.client.protocol
        check_url("url", url, protocol)
        data = payload_for(url, payload, protocol, f"payload of {url!r}")
        return await self._ask(url, self._ids.next(), Op.ACTION, data, phase2_url=url)


def xa(
    client: DtmClient, gid: str = "", options: Options | None = None
) -> AbstractAsyncContextManager[Xa]:
    """An xa transaction for the length of a block.

    ::

        async with xa(client) as x:
            await x.call_branch(req, f"{busi}/TransOut")
            await x.call_branch(req, f"{busi}/TransIn")

    At its end all branches commit; when it raises, all roll back and the error goes on.

    Args:
        client: the coordinator.
        gid: see :class:`~kit.dtm.client.base.GlobalTransaction`.
        options: what is asked of the coordinator.

    Raises:
        DtmError: prepare or submit failed; after a failed prepare the block was not run.

    Source: dtm-labs/dtm client/dtmcli/xa.go, XaGlobalTransaction2.
    """
    return running(Xa(client, gid, options), tell=False)


async def xa_local_transaction(
    client: DtmClient,
    barrier: BranchBarrier,
    connect: Callable[[], AbstractAsyncContextManager[C]],
    business: Callable[[C], Awaitable[object]],
    *,
    phase2_url: str,
) -> None:
    """The whole of an xa branch: its work when it is called first, its end when it is called again.

    ::

        @app.post("/TransOut")
        async def trans_out(request: Request) -> None:
            url = request.query_params.get("phase2_url", "")
            barrier = barrier_from_request(request)
            await xa_local_transaction(client, barrier, connect, debit, phase2_url=url)

    Args:
        client: the coordinator at which the branch is registered.
        barrier: of the call: op ``action`` runs ``business`` and prepares, ``commit`` and
            ``rollback`` end it.
        connect: gives a connection without an open transaction, as a block at whose end it is
            closed; see :func:`kit.dtm.barrier.xa.aprepare`.
        business: takes the connection; Failure says no.
        phase2_url: as the call brought it, ``phase2_url`` of the query or ``dtm-phase2_url`` of the
            metadata; phase 2 brings none.

    Raises:
        Failure: ``business`` says no, or the branch was rolled back before it came.
        Ongoing: phase 1 is on its way yet.
        InvalidCall: ``phase2_url`` is missing.
        DtmUnavailable: whether the branch was registered is unknown; it is not prepared.

    Source: dtm-labs/dtm client/dtmcli/xa.go, XaLocalTransaction.
    """
    async with connect() as connection:
        if barrier.op in (Op.COMMIT, Op.ROLLBACK):
            await afinish(barrier, connection)
            return
        await aprepare(
            barrier,
            connection,
            lambda: business(connection),
            register=lambda: register_xa(client, barrier, phase2_url),
        )


async def register_xa(client: DtmClient, barrier: BranchBarrier, phase2_url: str) -> None:
    """Have the coordinator call ``phase2_url`` to end this branch; may be repeated.

    Raises:
        Failure: the transaction is not prepared any more.
        InvalidCall: ``phase2_url`` is missing.
        DtmUnavailable: whether it was registered is unknown.
    """
    if not phase2_url:
        raise InvalidCall(
            f"phase2_url of gid {barrier.gid}: it is empty; pass phase2_url of the query, or "
            "dtm-phase2_url of the metadata"
        )
    request = BranchRequest(barrier.gid, TransType.XA, barrier.branch_id, b"", {"url": phase2_url})
    try:
        await client.register_branch(request)
    except DtmUnavailable as exc:
        if not any(word in exc.message for word in _CONFLICTS):
            raise
