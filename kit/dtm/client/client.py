"""The client of a coordinator, whichever of its APIs the address names.

Source: dtm-labs/dtm client/dtmcli, client/dtmgrpc.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from kit.dtm.client.branches import Branches
from kit.dtm.client.errors import DtmUnavailable, InvalidCall, UnknownTransaction
from kit.dtm.client.exchange import HttpExchange, http_url
from kit.dtm.client.grpc import GrpcTransport
from kit.dtm.client.http import HttpTransport
from kit.dtm.client.jsonrpc import JsonRpcTransport
from kit.dtm.client.messages import BranchRequest, Operation, TransRequest
from kit.dtm.client.outcome import TransactionState, state_of
from kit.dtm.client.payloads import HTTP_SCHEMES
from kit.dtm.client.transport import Transport, WorkflowState
from kit.dtm.driver import Driver
from kit.dtm.driver.kratos import KratosDriver
from kit.dtm.errors import Failure
from kit.dtm.wire import Protocol
from kit.errors.codes import GrpcCode
from kit.registry import Discovery
from kit.selector import Balancer
from kit.transport.grpc import ClientTls, GrpcClient
from kit.transport.grpc.client import DiscoveryFactory
from kit.transport.grpc.engines import EngineName, client_engine

CALL_TIMEOUT_S = 10.0
"""A submit that waits for its branches takes as long as they do, 3 s each by default."""

FIRST_LOOK_S = 0.05
LAST_LOOK_S = 1.0
"""Between two looks of :meth:`DtmClient.watch`, which doubles the first up to the last."""

HTTP_PATH = "/api/dtmsvr"
JSON_RPC_PATH = "/api/json-rpc"

# What a repeated request is told that was carried out the first time, when its answer was lost.
_DONE_BEFORE = {
    Operation.SUBMIT: ("current status 'submitted'", "current status 'succeed'"),
    Operation.ABORT: ("current status 'aborting'", "current status 'failed'"),
    Operation.PREPARE: (),
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request is made when the coordinator cannot be reached.

    Only what can be repeated is: new gids, Prepare, Submit and Abort with their gid, and reading;
    never the registration of a branch, nor a Submit that waits for the result, whose UNAVAILABLE
    may be that of a branch.

    Attributes:
        attempts: in all; 1 repeats nothing, as Go's clients.
        pause: seconds before the second, doubled before each further one, half of it random.

    Source: dtm-labs/dtm leaves it to the caller; dtm-protocol §13.1 says what is safe.
    """

    attempts: int = 3
    pause: float = 0.1


class DtmClient:
    """A connection to a coordinator, shared by any number of transactions.

    Args:
        server: ``localhost:36790`` or ``discovery:///dtmservice`` for gRPC (see
            :mod:`kit.transport.grpc.target`), ``http://localhost:36789/api/dtmsvr`` for HTTP,
            ``http://localhost:36789/api/json-rpc`` for JSON-RPC.
        http: the coordinator's HTTP address, for :meth:`query` and its kin beside gRPC.
        discovery: the registry of ``discovery:`` and ``etcd:`` targets.
        discovery_factory: makes the registry that a target names when ``discovery`` is not given.
        timeout: seconds for one call, to the coordinator or to a branch.
        tls: of gRPC to the coordinator; ``None`` for plain text.
        balancer: picks among coordinators; weighted round robin by default.
        driver: how the URLs of gRPC branches are read; kratos' way by default.
        retry: how often what can be repeated is asked.
        engine: what speaks HTTP/2 for gRPC, to the coordinator and to branches: ``grpcio`` (the
            default) or ``lean``; see :mod:`kit.transport.grpc.engines`.

    Raises:
        ValueError: ``server`` or ``engine`` cannot be understood, or ``server`` needs a registry
            and none was given.
    """

    def __init__(
        self,
        server: str,
        *,
        http: str | None = None,
        discovery: Discovery | None = None,
        discovery_factory: DiscoveryFactory | None = None,
        timeout: float = CALL_TIMEOUT_S,
        tls: ClientTls | None = None,
        balancer: Balancer | None = None,
        driver: Driver | None = None,
        retry: Retry | None = None,
        engine: EngineName | None = None,
    ) -> None:
        speaks = client_engine(engine)  # refused here, not by the first branch over gRPC

        def connect(target: str) -> GrpcClient:
            return GrpcClient(
                target,
                discovery=discovery,
                discovery_factory=discovery_factory,
                timeout=timeout,
                engine=speaks,
            )

        self._exchange = HttpExchange(timeout)
        self._transport: Transport
        if not server.startswith(HTTP_SCHEMES):
            grpc = GrpcClient(
                server,
                discovery=discovery,
                discovery_factory=discovery_factory,
                timeout=timeout,
                tls=tls,
                balancer=balancer,
                engine=speaks,
            )
            self._transport = GrpcTransport(grpc)
        elif (url := _base(server)).endswith(JSON_RPC_PATH):
            self._transport = JsonRpcTransport(url, self._exchange)
            http = http or f"{url.removesuffix(JSON_RPC_PATH)}{HTTP_PATH}"
        else:
            self._transport = HttpTransport(url, self._exchange)
            http = http or url
        self._http = HttpTransport(_base(http), self._exchange) if http else None
        self._retry = retry or Retry()
        self.server = self._transport.server
        self.protocol: Protocol = self._transport.protocol
        self.branches = Branches(self.server, self._exchange, driver or KratosDriver(), connect)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cut the connections; may be called twice."""
        await self.branches.aclose()
        await self._transport.aclose()
        await self._exchange.aclose()

    async def new_gid(self) -> str:
        """An id for a global transaction, unique among those of the coordinator.

        Raises:
            DtmUnavailable: there was no answer, or none with a gid.
        """
        gid = await self._repeated(self._transport.new_gid)
        if not gid:
            raise DtmUnavailable(
                f"newGid at {self.server}: the answer has no gid; is this the address of a "
                "coordinator?",
                GrpcCode.UNKNOWN,
            )
        return gid

    async def send(self, operation: Operation, request: TransRequest) -> None:
        """Prepare, submit or abort a transaction.

        Raises:
            Failure: the coordinator says no.
            Ongoing: it was waited for and is not done yet.
            Refused: the request can never work.
            DtmUnavailable: what became of it is unknown.
        """
        if request.options.wait_result or request.bare:
            await self._transport.send(operation, request)
            return
        asked = 0

        async def ask() -> None:
            nonlocal asked
            asked += 1
            try:
                await self._transport.send(operation, request)
            except Failure as exc:
                if asked == 1 or not any(w in exc.message for w in _DONE_BEFORE[operation]):
                    raise

        await self._repeated(ask)

    async def register_branch(self, request: BranchRequest) -> None:
        """Add a branch to a prepared transaction; raises as :meth:`send`, never repeats."""
        await self._transport.register_branch(request)

    async def prepare_workflow(self, request: TransRequest) -> WorkflowState:
        """Create a workflow, or find how far it is; raises as :meth:`send`."""
        return await self._repeated(lambda: self._transport.prepare_workflow(request))

    async def query(self, gid: str) -> TransactionState:
        """The transaction as the coordinator has it now.

        Raises:
            UnknownTransaction: it has none.
            InvalidCall: this client has no HTTP address, and dtm's gRPC API cannot be queried.
            DtmUnavailable: there was no answer.
        """
        http = self._http
        if http is None:
            raise InvalidCall(
                f"query of {gid!r}: dtm's gRPC API cannot be queried; give the HTTP address as "
                'well: DtmClient("localhost:36790", http="http://localhost:36789/api/dtmsvr")'
            )
        state = state_of(await self._repeated(lambda: http.query(gid)))
        if state is None:
            raise UnknownTransaction(gid)
        return state

    async def watch(self, gid: str) -> AsyncIterator[TransactionState]:
        """The transaction now and after every change, until it has ended; raises as :meth:`query`.

        The coordinator is asked again after :data:`FIRST_LOOK_S`, and ever more slowly up to
        :data:`LAST_LOOK_S`.
        """
        seen: TransactionState | None = None
        pause = FIRST_LOOK_S
        while True:
            state = await self.query(gid)
            if state != seen:
                seen, pause = state, FIRST_LOOK_S
                yield state
            if state.terminal:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK_S)

    async def wait(self, gid: str) -> TransactionState:
        """The transaction once it has succeeded; bound it with ``asyncio.timeout``.

        Raises:
            Failure: it failed; the message is the reason.
            UnknownTransaction: the coordinator has none.
            InvalidCall: this client has no HTTP address.
            DtmUnavailable: there was no answer.
        """
        state = [state async for state in self.watch(gid)][-1]
        if not state.succeeded:
            raise Failure(state.rollback_reason or f"transaction {gid} {state.status}")
        return state

    async def _repeated(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What ``ask`` gives, asked again while the coordinator cannot be reached."""
        pause = self._retry.pause
        for _ in range(self._retry.attempts - 1):
            try:
                return await ask()
            except DtmUnavailable as exc:
                if exc.status is not GrpcCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)
            pause *= 2
        return await ask()


def _base(url: str) -> str:
    """The address of an API; dtm's path when it has none."""
    plain = url.rstrip("/")
    parsed = http_url(plain)
    return plain if parsed.raw_path not in ("", "/") else f"{plain}{HTTP_PATH}"
