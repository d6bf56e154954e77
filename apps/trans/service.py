"""``api.trans.v1.Trans``: from messages to the business and back."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import grpc.aio

from api.trans.v1.trans_pb2 import AdjustInfo, Response
from api.trans.v1.trans_pb2_grpc import TransServicer
from apps.trans.biz import Accounts, Register
from apps.trans.coordinator import Coordinators
from kit.dtm.barrier import BranchBarrier, barrier_from_grpc
from kit.dtm.wire import MetadataKey

Context: TypeAlias = grpc.aio.ServicerContext[AdjustInfo, Response]
Work: TypeAlias = Callable[[int, int, BranchBarrier | None], Awaitable[None]]
XaWork: TypeAlias = Callable[[int, int, BranchBarrier, Register], Awaitable[None]]


class TransService(TransServicer):
    """Each method is a branch of a global transaction; its gRPC status is its answer.

    Called without the metadata of a coordinator it does the same once, unguarded.
    """

    def __init__(self, accounts: Accounts, coordinators: Coordinators) -> None:
        self._accounts = accounts
        self._coordinators = coordinators

    async def TransOut(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Take the amount from the account."""
        return await _done(self._accounts.transfer_out, request, context)

    async def TransIn(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Put the amount into the account."""
        return await _done(self._accounts.transfer_in, request, context)

    async def TransOutRevert(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Undo TransOut."""
        return await _done(self._accounts.revert_out, request, context)

    async def TransInRevert(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Undo TransIn."""
        return await _done(self._accounts.revert_in, request, context)

    async def TransOutTry(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Promise the amount."""
        return await _done(self._accounts.try_out, request, context)

    async def TransOutConfirm(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Take what was promised."""
        return await _done(self._accounts.confirm_out, request, context)

    async def TransOutCancel(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Take the promise back."""
        return await _done(self._accounts.cancel_out, request, context)

    async def TransInTry(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Look whether the amount can be put into the account."""
        return await _done(self._accounts.try_in, request, context)

    async def TransInConfirm(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Put it into the account."""
        return await _done(self._accounts.confirm_in, request, context)

    async def TransInCancel(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Give it up."""
        return await _done(self._accounts.cancel_in, request, context)

    async def TransOutXa(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Take the amount, for good once the coordinator says so."""
        return await self._xa_done(self._accounts.xa_out, request, context)

    async def TransInXa(self, request: AdjustInfo, context: Context) -> Response:  # noqa: N802
        """Put the amount into the account, for good once the coordinator says so."""
        return await self._xa_done(self._accounts.xa_in, request, context)

    async def _xa_done(self, work: XaWork, request: AdjustInfo, context: Context) -> Response:
        metadata = tuple(context.invocation_metadata() or ())
        branch = barrier_from_grpc(metadata)
        sent = {key: str(value) for key, value in metadata}
        register = partial(
            self._coordinators.register,
            sent.get(MetadataKey.DTM, ""),
            branch,
            sent.get(MetadataKey.PHASE2_URL, ""),
        )
        await work(request.Amount, request.UserID, branch, register)
        return Response()


async def _done(work: Work, request: AdjustInfo, context: Context) -> Response:
    metadata = tuple(context.invocation_metadata() or ())
    called_by_dtm = any(key == MetadataKey.GID for key, _ in metadata)
    branch = barrier_from_grpc(metadata) if called_by_dtm else None
    await work(request.Amount, request.UserID, branch)
    return Response()
