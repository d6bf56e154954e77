"""A coordinator inside a test, whose time the test moves: a night of retries in a second.

::

    async with kit.testing.Coordinator() as dtm:
        client = DtmClient(dtm.grpc_address)
        ...                        # submit; a branch is down
        await dtm.advance(180)     # three minutes pass, and whatever is due by then has been tried
        assert (await dtm.transaction(gid)).status == "succeed"
"""

import asyncio
from typing import Self

from kit.clock import SkippingClock
from kit.dtm.core import Policy, Transaction
from kit.dtm.driver.kratos import KratosDriver
from kit.dtm.server import config
from kit.dtm.server.caller import BranchCaller
from kit.dtm.server.coordinator import Coordinator as Server
from kit.dtm.store import Store
from kit.dtm.store.memory import MemoryStore
from kit.registry import Discovery
from kit.transport.grpc import GrpcClient
from kit.transport.grpc.engines import EngineName

SETTLES_WITHIN_S = 60.0
"""Real seconds after which :meth:`Coordinator.advance` gives up waiting for rounds to end."""

_POLL_S = 0.002


class Coordinator:
    """The real coordinator with its gRPC and HTTP APIs on free ports of loopback.

    Args:
        store: where transactions live; in memory by default. One that is given is opened and closed
            here, and has to tell the time by ``clock``.
        clock: moved by :meth:`advance`.
        policy: intervals and timeouts; dtm's defaults.
        request_timeout: real seconds for a branch call.
        discovery: finds branches named ``discovery:///…``.
        engine: what speaks HTTP/2 for its gRPC API and to branches over gRPC: ``lean`` (the
            default, as in production) or ``grpcio``; see :mod:`kit.transport.grpc.engines`.

    Raises:
        ValueError: ``engine`` cannot be understood.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        clock: SkippingClock | None = None,
        policy: Policy | None = None,
        request_timeout: float = 3.0,
        discovery: Discovery | None = None,
        engine: EngineName | None = None,
    ) -> None:
        engine = engine or config.GRPC_ENGINE
        self._clock = clock or SkippingClock()
        self._store = store if store is not None else MemoryStore(self._clock)
        self._caller = BranchCaller(
            KratosDriver(),
            lambda target: GrpcClient(target, discovery=discovery, engine=engine),
            clock=self._clock,
        )
        self._server = Server(
            self._store,
            self._caller,
            grpc_address="127.0.0.1:0",
            http_address="127.0.0.1:0",
            policy=policy,
            request_timeout=request_timeout,
            poll_s=60.0,
            grpc_engine=engine,
            clock=self._clock,
        )
        self._serving: asyncio.Task[None] | None = None

    @property
    def grpc_address(self) -> str:
        """``host:port`` for gRPC clients."""
        return (self._server.endpoint or "").removeprefix("grpc://")

    @property
    def http_url(self) -> str:
        """The base URL for HTTP clients, up to ``/api/dtmsvr``."""
        return f"{self._server.http_endpoint}/api/dtmsvr"

    async def __aenter__(self) -> Self:
        """Listen and serve."""
        await self._store.__aenter__()
        await self._server.listen()
        self._serving = asyncio.create_task(self._server.serve())  # awaited in __aexit__
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Let running rounds end, then stop."""
        await self._server.stop(1.0)
        if self._serving is not None:
            await self._serving
        await self._caller.aclose()
        await self._store.__aexit__(*exc)

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; return when everything that was due by then has been tried.

        Raises:
            TimeoutError: a branch takes longer than :data:`SETTLES_WITHIN_S` to answer.
        """
        self._clock.advance(seconds)
        self._server.engine.on_wake(0)
        await self.settle()

    async def settle(self) -> None:
        """Return when no round is running and nothing is due.

        Raises:
            TimeoutError: that takes longer than :data:`SETTLES_WITHIN_S`.
        """
        async with asyncio.timeout(SETTLES_WITHIN_S):
            while await self._busy():  # noqa: ASYNC110 - rounds make no event of their own
                await asyncio.sleep(_POLL_S)

    async def round(self, gid: str) -> None:
        """Run a round of one transaction now, due or not, until it has ended.

        Raises:
            LookupError: it is not stored.
        """
        if not await self._server.engine.round(gid):
            raise LookupError(f"gid {gid!r} is not stored")

    async def transaction(self, gid: str) -> Transaction:
        """A transaction as it is stored, with its branches.

        Raises:
            LookupError: it is not.
        """
        held = await self._store.load(gid)
        if held is None:
            raise LookupError(f"gid {gid!r} is not stored")
        return held.tx

    async def _busy(self) -> bool:
        if self._server.engine.busy:
            return True
        due = await self._store.next_due()
        return due is not None and due <= await self._store.now_ms()
