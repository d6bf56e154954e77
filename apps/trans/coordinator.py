"""Tells coordinators of the branches that were made here: the resource manager's part of XA."""

from collections import OrderedDict
from typing import Self

from kit.dtm.barrier import BarrierError, BranchBarrier
from kit.dtm.client import DtmClient
from kit.dtm.client.xa import register_xa
from kit.registry import Discovery
from kit.transport.grpc.engines import EngineName

MAX_COORDINATORS = 16
"""Whose connections are kept; the one asked longest ago makes room."""


class Coordinators:
    """The coordinators that calls name, each with a connection.

    Args:
        discovery: the registry of addresses such as ``discovery:///dtmservice``.
        engine: what speaks HTTP/2 to them.
    """

    def __init__(self, discovery: Discovery | None, engine: EngineName) -> None:
        self._discovery = discovery
        self._engine = engine
        self._clients: OrderedDict[str, DtmClient] = OrderedDict()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        while self._clients:
            await self._clients.popitem()[1].aclose()

    async def register(self, dtm: str, branch: BranchBarrier, phase2_url: str) -> None:
        """Have ``branch`` called at ``phase2_url`` when its transaction ends.

        A branch that is registered already is registered.

        Raises:
            BarrierError: the call did not say where the coordinator is, or where to call back.
            DtmUnavailable: the coordinator did not answer.
            Failure: the transaction is over.
        """
        if not dtm or not phase2_url:
            raise BarrierError(
                "metadata dtm-dtm or dtm-phase2_url missing; the call has to come from a client of "
                "an xa transaction"
            )
        await register_xa(await self._client(dtm), branch, phase2_url)

    async def _client(self, dtm: str) -> DtmClient:
        client = self._clients.get(dtm)
        if client is None:
            client = DtmClient(dtm, discovery=self._discovery, engine=self._engine)
            self._clients[dtm] = client
        self._clients.move_to_end(dtm)
        if len(self._clients) > MAX_COORDINATORS:
            await self._clients.popitem(last=False)[1].aclose()
        return client
