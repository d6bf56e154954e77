"""``api.trans.v1.Trans``: from messages to the business and back."""

import grpc.aio

from api.trans.v1.trans_pb2 import AdjustInfo, Response
from api.trans.v1.trans_pb2_grpc import TransServicer
from apps.trans.biz import Accounts


class TransService(TransServicer):
    """Each method is a branch of a global transaction; its gRPC status is its answer."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def TransOut(  # noqa: N802  (the proto's name)
        self, request: AdjustInfo, context: grpc.aio.ServicerContext[AdjustInfo, Response]
    ) -> Response:
        """Take the amount from the account."""
        await self._accounts.transfer_out(request.Amount, request.UserID)
        return Response()

    async def TransIn(  # noqa: N802
        self, request: AdjustInfo, context: grpc.aio.ServicerContext[AdjustInfo, Response]
    ) -> Response:
        """Put the amount into the account."""
        await self._accounts.transfer_in(request.Amount, request.UserID)
        return Response()
