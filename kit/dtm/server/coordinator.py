"""The coordinator as a server of an application: listens, serves, drains."""

import asyncio
import uuid
from collections.abc import Callable
from functools import partial

from kit import log
from kit.clock import Clock, SystemClock
from kit.dtm.core import Policy
from kit.dtm.driver import Driver
from kit.dtm.server.api_grpc import DtmGrpcApi, reflection_pool
from kit.dtm.server.caller import GrpcCaller
from kit.dtm.server.claims import Claims
from kit.dtm.server.engine import Engine
from kit.dtm.server.gid import new_gid
from kit.dtm.server.retention import purge_for_ever
from kit.dtm.server.service import Service
from kit.dtm.store import Store
from kit.transport.grpc import GrpcClient, GrpcServer

logger = log.get_logger()


class Coordinator:
    """A :class:`kit.transport.Server` that coordinates transactions.

    Args:
        store: open; whoever opened it closes it after ``serve`` has returned.
        driver: how branch URLs are understood.
        connect: makes the client of a branch target.
        address: where the gRPC API listens.
        policy: when transactions are retried and timed out.
        request_timeout: seconds for a branch call.
        poll_s: the longest time between two looks for due transactions.
        keep_s: seconds that finished transactions are kept.
        lease_s: seconds that another coordinator waits before it takes over from a dead one.
    """

    def __init__(
        self,
        store: Store,
        driver: Driver,
        connect: Callable[[str], GrpcClient],
        *,
        address: str,
        policy: Policy | None = None,
        request_timeout: float = 3.0,
        poll_s: float = 3.0,
        keep_s: int = 7 * 86_400,
        lease_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        owner = uuid.uuid4().hex
        self._caller = GrpcCaller(driver, connect)
        self.engine = Engine(
            store,
            self._caller,
            clock,
            policy or Policy(),
            owner=owner,
            request_timeout=request_timeout,
            lease_s=lease_s,
        )
        self._claims = Claims(
            store, self.engine, clock, owner=owner, poll_s=poll_s, lease_s=lease_s
        )
        self._purge = partial(purge_for_ever, store, clock, keep_s=keep_s)
        self._grpc = GrpcServer(
            address=address,
            custom_health=True,  # dtm has no health service; kratos clients take that for healthy
            descriptor_pools=(reflection_pool(),),
        )
        self.service = Service(
            self.engine,
            store,
            clock,
            new_gid=new_gid,
            timeout_to_fail=(policy or Policy()).timeout_to_fail,
        )
        DtmGrpcApi(self.service).register(self._grpc)

    @property
    def endpoint(self) -> str | None:
        """``grpc://host:port`` of the API."""
        return self._grpc.endpoint

    async def listen(self) -> None:
        """Bind the socket of the API."""
        await self._grpc.listen()

    async def serve(self) -> None:
        """Answer clients and bring due transactions forward until ``stop``."""
        try:
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(self._claims.run()),
                    group.create_task(self._purge()),
                ]
                await self._grpc.serve()
                for task in background:
                    task.cancel()
        finally:
            await self.engine.aclose()
            await self._caller.aclose()

    async def stop(self, grace: float | None = None) -> None:
        """Refuse new requests, let running ones end; ``serve`` then keeps what rounds brought."""
        await self._grpc.stop(grace)
