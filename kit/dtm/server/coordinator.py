"""The coordinator as a server of an application: listens, serves, drains."""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from functools import partial

from kit import log
from kit.clock import Clock, SkippingClock, SystemClock
from kit.compat import Compat
from kit.dtm.core import Alert, Policy, Transaction
from kit.dtm.server import config
from kit.dtm.server.api_grpc import DtmGrpcApi, reflection_pool
from kit.dtm.server.caller import Caller
from kit.dtm.server.claims import Claims
from kit.dtm.server.dev import PREFIX, DevRoutes
from kit.dtm.server.engine import Engine
from kit.dtm.server.gid import new_gid
from kit.dtm.server.http_app import AsgiApp
from kit.dtm.server.http_server import HttpServer
from kit.dtm.server.metrics import Metrics
from kit.dtm.server.retention import purge_for_ever
from kit.dtm.server.service import Service
from kit.dtm.server.web import web_app
from kit.dtm.store import Store
from kit.transport.grpc import GrpcServer
from kit.transport.grpc.engines import EngineName

logger = log.get_logger()


class Coordinator:
    """A :class:`kit.transport.Server` that coordinates transactions.

    Args:
        store: open; whoever opened it closes it after ``serve`` has returned.
        caller: how branches are asked; opened and closed by whoever made it.
        grpc_address: where the gRPC API listens.
        http_address: where the HTTP and JSON-RPC APIs listen; ``None`` serves none.
        policy: when transactions are retried and timed out.
        request_timeout: seconds for a branch call.
        poll_s: the longest time between two looks for due transactions.
        keep_s: seconds that finished transactions are kept.
        archive: path of the file that finished transactions go to before they are deleted.
        lease_s: seconds that another coordinator waits before it takes over from a dead one.
        coalesce: the success of a middle branch may be written with what follows it.
        grpc_engine: what speaks HTTP/2 below the gRPC API, ``lean`` (the default) or
            ``grpcio``.
        on_alert: told of branches that give no usable answer; must not block.
        metrics: what is counted.
        check_target: raises ValueError for the URL of a branch that must not be called.
        clock: a :class:`~kit.clock.SkippingClock` brings the routes of :mod:`kit.dtm.server.dev`.
        mounts: other ASGI applications beside the APIs, by the prefix of their paths.
    """

    def __init__(
        self,
        store: Store,
        caller: Caller,
        *,
        grpc_address: str,
        http_address: str | None = None,
        policy: Policy | None = None,
        request_timeout: float = 3.0,
        poll_s: float = 3.0,
        keep_s: int = 7 * 86_400,
        archive: str = "",
        lease_s: float = 10.0,
        coalesce: bool = True,
        grpc_engine: EngineName | None = None,
        on_alert: Callable[[Transaction, Alert], None] = lambda _, __: None,
        metrics: Metrics | None = None,
        check_target: Callable[[str], None] = lambda _: None,
        clock: Clock | None = None,
        mounts: Mapping[str, AsgiApp] | None = None,
    ) -> None:
        clock = clock or SystemClock()
        policy = policy or Policy()
        owner = uuid.uuid4().hex
        self._clock = clock
        self.metrics = metrics or Metrics()
        self.engine = Engine(
            store,
            caller,
            clock,
            policy,
            owner=owner,
            request_timeout=request_timeout,
            lease_s=lease_s,
            coalesce=coalesce,
            on_alert=on_alert,
            on_round=self._observe_round,
        )
        self.metrics.watch(
            "kit_dtm_transactions_in_memory",
            "Transactions that something is happening to right now.",
            lambda: self.engine.live,
        )
        self.service = Service(
            self.engine,
            store,
            clock,
            new_gid=lambda: new_gid(clock.now_ms()),
            check_target=check_target,
            timeout_to_fail=policy.timeout_to_fail,
        )
        self._claims = Claims(
            store, self.engine, clock, owner=owner, poll_s=poll_s, lease_s=lease_s
        )
        self._purge = partial(purge_for_ever, store, clock, keep_s=keep_s, archive=archive)
        self._grpc = GrpcServer(
            address=grpc_address,
            custom_health=True,  # dtm has no health service; kratos clients take that for healthy
            descriptor_pools=(reflection_pool(),),
            engine=grpc_engine or config.GRPC_ENGINE,
            compat=Compat.V3,  # dtm has no kratos.api.Metadata
        )
        DtmGrpcApi(self.service, self.metrics.observe_request).register(self._grpc)
        self._http: HttpServer | None = None
        if http_address is not None:
            mounted = dict(mounts or {})
            if isinstance(clock, SkippingClock):
                mounted[PREFIX] = DevRoutes(self.engine, clock)
            app = web_app(self.service, self.metrics, mounts=mounted)
            self._http = HttpServer(app, address=http_address)

    @property
    def endpoint(self) -> str | None:
        """``grpc://host:port`` of the gRPC API."""
        return self._grpc.endpoint

    @property
    def http_endpoint(self) -> str | None:
        """``http://host:port`` of the HTTP API."""
        return self._http.endpoint if self._http else None

    async def listen(self) -> None:
        """Bind the sockets of the APIs."""
        if self._http is not None:
            await self._http.listen()
        await self._grpc.listen()

    async def serve(self) -> None:
        """Answer clients and bring due transactions forward until ``stop``."""
        try:
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(self._claims.run()),
                    group.create_task(self._purge()),
                ]
                if self._http is not None:
                    group.create_task(self._http.serve())
                await self._grpc.serve()
                for task in background:
                    task.cancel()
        finally:
            await self.engine.aclose()

    async def stop(self, grace: float | None = None) -> None:
        """Refuse new requests, let running ones end; ``serve`` then keeps what rounds brought."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._grpc.stop(grace))
            if self._http is not None:
                group.create_task(self._http.stop(grace))

    def _observe_round(self, tx: Transaction, ok: bool) -> None:
        age_s = (self._clock.now_ms() - tx.create_time) / 1000
        self.metrics.observe_round(tx.trans_type, ok, age_s)
