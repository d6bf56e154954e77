"""The client for code without an event loop, such as Flask's and Django's: same names, no await.

::

    client = sync.DtmClient("http://localhost:36789/api/dtmsvr")    # one a process, any thread

    def pay(request):
        msg = sync.Msg(client, f"order-{order}").add(f"{busi}/in", {"amount": 30})
        msg.do_and_submit(f"{busi}/query", lambda barrier: barrier.call(connection, business))

        with sync.tcc(client) as t:
            t.call_branch({"amount": 30}, f"{busi}/try", f"{busi}/confirm", f"{busi}/cancel")

Functions that are handed over run in the thread that calls, see :mod:`kit.dtm.client.portal`.
Arguments, results and errors are those of :mod:`kit.dtm.client`.
"""

import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Generic, Self, TypeAlias, TypeVar

from kit.dtm import client as awaited
from kit.dtm.barrier import BranchBarrier
from kit.dtm.barrier.xa import finish, prepare
from kit.dtm.client import workflow as awaited_workflow
from kit.dtm.client.branches import BranchReply
from kit.dtm.client.client import CALL_TIMEOUT_S, Retry
from kit.dtm.client.errors import InvalidCall
from kit.dtm.client.outcome import TransactionState
from kit.dtm.client.payloads import Payload
from kit.dtm.client.portal import Here, Portal
from kit.dtm.client.twophase import TwoPhase
from kit.dtm.client.workflow import HttpResult
from kit.dtm.client.workflow.xa import check_done
from kit.dtm.client.xa import register_xa
from kit.dtm.core.model import Options
from kit.dtm.driver import Driver
from kit.dtm.wire import Op
from kit.registry import Discovery
from kit.transport.grpc import ClientTls
from kit.transport.grpc.client import DiscoveryFactory
from kit.transport.grpc.engines import EngineName

_caller: ContextVar[Here] = ContextVar("kit_dtm_caller")
"""Where the thread waits that called this facade."""

C = TypeVar("C")
T = TypeVar("T")
X = TypeVar("X", bound=TwoPhase)


class DtmClient:
    """A connection to a coordinator, shared by all threads; see :class:`kit.dtm.client.DtmClient`.

    It connects when it is first used. Over HTTP and JSON-RPC it does so again in a process that was
    forked from one that had; over gRPC, whose library does not survive that, use it after the fork.
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
        driver: Driver | None = None,
        retry: Retry | None = None,
        engine: EngineName | None = None,
    ) -> None:
        async def connect() -> awaited.DtmClient:
            return awaited.DtmClient(
                server,
                http=http,
                discovery=discovery,
                discovery_factory=discovery_factory,
                timeout=timeout,
                tls=tls,
                driver=driver,
                retry=retry,
                engine=engine,
            )

        self.portal = Portal()
        self.server = server
        self._connect = connect
        self._connecting = threading.Lock()
        self._connected: tuple[int, awaited.DtmClient] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def awaited(self) -> awaited.DtmClient:
        """The client whose facade this is; it lives in the loop of :attr:`portal`."""
        with self._connecting:
            if self._connected is None or self._connected[0] != os.getpid():
                self._connected = os.getpid(), self.portal.run(lambda _: self._connect())
            return self._connected[1]

    def close(self) -> None:
        """Cut the connections and end the thread; may be called twice."""
        if self._connected is not None and self._connected[0] == os.getpid():
            connected = self._connected[1]
            self._connected = None
            self.portal.run(lambda _: connected.aclose())
        self.portal.close()

    def run(self, make: Callable[[Here], Coroutine[Any, Any, T]]) -> T:
        """What a coroutine gives, see :meth:`kit.dtm.client.portal.Portal.run`."""
        return self.portal.run(make)

    def new_gid(self) -> str:
        """See :meth:`kit.dtm.client.DtmClient.new_gid`."""
        client = self.awaited
        return self.run(lambda _: client.new_gid())

    def query(self, gid: str) -> TransactionState:
        """See :meth:`kit.dtm.client.DtmClient.query`."""
        client = self.awaited
        return self.run(lambda _: client.query(gid))

    def wait(self, gid: str) -> TransactionState:
        """See :meth:`kit.dtm.client.DtmClient.wait`."""
        client = self.awaited
        return self.run(lambda _: client.wait(gid))

    def watch(self, gid: str) -> Iterator[TransactionState]:
        """See :meth:`kit.dtm.client.DtmClient.watch`."""
        states = self.awaited.watch(gid)

        async def following() -> TransactionState | None:
            return await anext(states, None)

        while (state := self.run(lambda _: following())) is not None:
            yield state


class Msg:
    """One message; see :class:`kit.dtm.client.Msg`."""

    def __init__(self, client: DtmClient, gid: str = "", options: Options | None = None) -> None:
        self._client = client
        self._msg = awaited.Msg(client.awaited, gid, options)

    @property
    def gid(self) -> str:
        """Identity of the transaction; empty until it is known."""
        return self._msg.gid

    def add(self, action: str, payload: Payload = None) -> Self:
        """See :meth:`kit.dtm.client.Msg.add`."""
        self._msg.add(action, payload)
        return self

    def add_topic(self, topic: str, payload: Payload = None) -> Self:
        """See :meth:`kit.dtm.client.Msg.add_topic`."""
        self._msg.add_topic(topic, payload)
        return self

    def delay(self, seconds: int) -> Self:
        """See :meth:`kit.dtm.client.Msg.delay`."""
        self._msg.delay(seconds)
        return self

    def prepare(self, query_url: str = "") -> None:
        """See :meth:`kit.dtm.client.Msg.prepare`."""
        self._client.run(lambda _: self._msg.prepare(query_url))

    def submit(self) -> None:
        """See :meth:`kit.dtm.client.Msg.submit`."""
        self._client.run(lambda _: self._msg.submit())

    def abort(self) -> None:
        """See :meth:`kit.dtm.client.Msg.abort`."""
        self._client.run(lambda _: self._msg.abort())

    def do_and_submit(self, query_url: str, fn: Callable[[BranchBarrier], object]) -> None:
        """See :meth:`kit.dtm.client.Msg.do_and_submit`; ``fn`` runs in this thread."""

        async def make(here: Here) -> None:
            await self._msg.do_and_submit(query_url, lambda barrier: here(fn, barrier))

        self._client.run(make)

    def do_and_submit_db(
        self, query_url: str, connection: object, business: Callable[[], object]
    ) -> None:
        """As :meth:`do_and_submit`, in one transaction of ``connection`` with the barrier's row.

        Args:
            query_url: a method that answers by ``barrier.query_prepared``.
            connection: of a driver that is not awaited, see :mod:`kit.dtm.barrier`.
            business: runs in this thread; an error rolls back.
        """
        self.do_and_submit(query_url, lambda barrier: barrier.call(connection, business))


class Saga:
    """One saga; see :class:`kit.dtm.client.Saga`."""

    def __init__(self, client: DtmClient, gid: str = "", options: Options | None = None) -> None:
        self._client = client
        self._saga = awaited.Saga(client.awaited, gid, options)

    @property
    def gid(self) -> str:
        """Identity of the transaction; empty until it is known."""
        return self._saga.gid

    def add(self, action: str, compensate: str = "", payload: Payload = None) -> Self:
        """See :meth:`kit.dtm.client.Saga.add`."""
        self._saga.add(action, compensate, payload)
        return self

    def add_branch_order(self, step: int, predecessors: Iterable[int]) -> Self:
        """See :meth:`kit.dtm.client.Saga.add_branch_order`."""
        self._saga.add_branch_order(step, predecessors)
        return self

    def concurrent(self) -> Self:
        """See :meth:`kit.dtm.client.Saga.concurrent`."""
        self._saga.concurrent()
        return self

    def submit(self) -> None:
        """See :meth:`kit.dtm.client.Saga.submit`."""
        self._client.run(lambda _: self._saga.submit())


class Tcc:
    """A tcc transaction that is prepared; :func:`tcc` makes one."""

    def __init__(self, client: DtmClient, inner: awaited.Tcc) -> None:
        self._client = client
        self._tcc = inner
        self.gid = inner.gid

    def call_branch(
        self, payload: Payload, try_url: str, confirm: str = "", cancel: str = ""
    ) -> BranchReply:
        """See :meth:`kit.dtm.client.Tcc.call_branch`."""
        return self._client.run(lambda _: self._tcc.call_branch(payload, try_url, confirm, cancel))


class Xa:
    """An xa transaction that is prepared; :func:`xa` makes one."""

    def __init__(self, client: DtmClient, inner: awaited.Xa) -> None:
        self._client = client
        self._xa = inner
        self.gid = inner.gid

    def call_branch(self, payload: Payload, url: str) -> BranchReply:
        """See :meth:`kit.dtm.client.Xa.call_branch`."""
        return self._client.run(lambda _: self._xa.call_branch(payload, url))


@contextmanager
def tcc(client: DtmClient, gid: str = "", options: Options | None = None) -> Iterator[Tcc]:
    """A tcc transaction for the length of a block; see :func:`kit.dtm.client.tcc`."""
    with _entered(client, awaited.tcc(client.awaited, gid, options)) as inner:
        yield Tcc(client, inner)


@contextmanager
def xa(client: DtmClient, gid: str = "", options: Options | None = None) -> Iterator[Xa]:
    """An xa transaction for the length of a block; see :func:`kit.dtm.client.xa`."""
    with _entered(client, awaited.xa(client.awaited, gid, options)) as inner:
        yield Xa(client, inner)


def xa_local_transaction(
    client: DtmClient,
    barrier: BranchBarrier,
    connect: Callable[[], AbstractContextManager[C]],
    business: Callable[[C], object],
    *,
    phase2_url: str,
) -> None:
    """See :func:`kit.dtm.client.xa_local_transaction`; for drivers that are not awaited."""
    connected = client.awaited

    with connect() as connection:
        if barrier.op in (Op.COMMIT, Op.ROLLBACK):
            finish(barrier, connection)
            return
        prepare(
            barrier,
            connection,
            lambda: business(connection),
            register=lambda: client.run(lambda _: register_xa(connected, barrier, phase2_url)),
        )


def tcc_from_query(client: DtmClient, query: Mapping[str, str]) -> Tcc:
    """See :func:`kit.dtm.client.tcc_from_query`."""
    return Tcc(client, awaited.tcc_from_query(client.awaited, query))


def tcc_from_grpc(client: DtmClient, metadata: Iterable[tuple[str, str | bytes]]) -> Tcc:
    """See :func:`kit.dtm.client.tcc_from_grpc`."""
    return Tcc(client, awaited.tcc_from_grpc(client.awaited, metadata))


@contextmanager
def _entered(client: DtmClient, block: AbstractAsyncContextManager[X]) -> Iterator[X]:
    async def enter(_: Here) -> X:
        return await block.__aenter__()

    async def leave(exc: BaseException | None) -> None:
        await block.__aexit__(type(exc) if exc else None, exc, exc.__traceback__ if exc else None)

    inner = client.run(enter)
    try:
        yield inner
    except BaseException as exc:
        raised = exc
        client.run(lambda _: leave(raised))
        raise
    client.run(lambda _: leave(None))


class _Calls:
    """What a branch of a workflow, or its callback, can call."""

    def __init__(self, client: DtmClient, inner: awaited_workflow.Branch | awaited_workflow.Phase):
        self._client = client
        self._calls = inner
        self.barrier = inner.barrier

    def get(self, url: str, *, headers: Mapping[str, str] | None = None) -> BranchReply:
        """GET ``url``."""
        return self._client.run(lambda _: self._calls.get(url, headers=headers))

    def post(
        self, url: str, payload: Payload = None, *, headers: Mapping[str, str] | None = None
    ) -> BranchReply:
        """POST ``payload`` as JSON to ``url``."""
        return self._client.run(lambda _: self._calls.post(url, payload, headers=headers))

    def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> BranchReply:
        """Any request over HTTP."""
        return self._client.run(lambda _: self._calls.request(method, url, body, headers=headers))

    def call(self, url: str, payload: Payload = None) -> BranchReply:
        """Call a branch by its URL, over HTTP or gRPC."""
        return self._client.run(lambda _: self._calls.call(url, payload))


class Phase(_Calls):
    """What a callback is given; see :class:`kit.dtm.client.workflow.Phase`."""


class Branch(_Calls):
    """One branch; see :class:`kit.dtm.client.workflow.Branch`."""

    def __init__(self, client: DtmClient, inner: awaited_workflow.Branch, here: Here) -> None:
        super().__init__(client, inner)
        self._branch = inner
        self._here = here
        self.branch_id = inner.branch_id

    def on_commit(self, callback: Callable[[Phase], object]) -> Self:
        """See :meth:`kit.dtm.client.workflow.Branch.on_commit`."""
        self._branch.on_commit(lambda phase: self._here(callback, Phase(self._client, phase)))
        return self

    def on_rollback(self, callback: Callable[[Phase], object]) -> Self:
        """See :meth:`kit.dtm.client.workflow.Branch.on_rollback`."""
        self._branch.on_rollback(lambda phase: self._here(callback, Phase(self._client, phase)))
        return self

    def on_finish(self, callback: Callable[[Phase, bool], object]) -> Self:
        """See :meth:`kit.dtm.client.workflow.Branch.on_finish`."""
        self._branch.on_finish(
            lambda phase, rollback: self._here(callback, Phase(self._client, phase), rollback)
        )
        return self

    def do(self, action: Callable[[BranchBarrier], Payload]) -> bytes:
        """See :meth:`kit.dtm.client.workflow.Branch.do`; ``action`` runs in this thread."""

        async def make(here: Here) -> bytes:
            @wraps(action)  # whose name labels the record
            async def act(barrier: BranchBarrier) -> Payload:
                return await here(action, barrier)

            return await self._branch.do(act)

        return self._client.run(make)

    def do_xa(
        self, connect: Callable[[], AbstractContextManager[C]], action: Callable[[C], Payload]
    ) -> bytes:
        """See :meth:`kit.dtm.client.workflow.Branch.do_xa`; all of it runs in this thread.

        Args:
            connect: gives a connection of psycopg or PyMySQL without an open transaction, as a
                block at whose end it is closed.
            action: takes the connection.
        """

        async def make(here: Here) -> bytes:
            database = _XaDatabase(self._client, connect, here, self._here)

            @wraps(action)
            async def act(connection: C) -> Payload:
                return await _caller.get()(action, connection)

            return await self._branch.do_xa(database, act)

        return self._client.run(make)


class _XaDatabase(Generic[C]):
    """A database by a driver that is not awaited.

    Args:
        client: has the portal.
        connect: gives a connection.
        here: where the step is done.
        there: where the workflow's code runs, and its callbacks.
    """

    def __init__(
        self,
        client: DtmClient,
        connect: Callable[[], AbstractContextManager[C]],
        here: Here,
        there: Here,
    ) -> None:
        self._client = client
        self._connect = connect
        self._here = here
        self._there = there

    async def local(
        self,
        barrier: BranchBarrier,
        business: Callable[[C], Awaitable[object]],
        register: Callable[[], Awaitable[object]],
    ) -> None:
        await self._here(self._prepare, barrier, business, register)

    async def finish(self, barrier: BranchBarrier) -> None:
        await self._there(self._finish, barrier)

    def _prepare(
        self,
        barrier: BranchBarrier,
        business: Callable[[C], Awaitable[object]],
        register: Callable[[], Awaitable[object]],
    ) -> None:
        async def work(here: Here, connection: C) -> None:
            _caller.set(here)  # this thread waits here now, no longer where the step began
            await business(connection)

        async def tell(_: Here) -> None:
            await register()

        with self._connect() as connection:
            outcome = prepare(
                barrier,
                connection,
                lambda: self._client.run(lambda here: work(here, connection)),
                register=lambda: self._client.run(tell),
            )
            check_done(outcome, barrier)

    def _finish(self, barrier: BranchBarrier) -> None:
        with self._connect() as connection:
            finish(barrier, connection)


class Workflow:
    """What a workflow's code is given; see :class:`kit.dtm.client.workflow.Workflow`."""

    def __init__(self, client: DtmClient, inner: awaited_workflow.Workflow, here: Here) -> None:
        self._client = client
        self._flow = inner
        self._here = here
        self.name = inner.name
        self.gid = inner.gid

    def new_branch(self) -> Branch:
        """See :meth:`kit.dtm.client.workflow.Workflow.new_branch`."""
        return Branch(self._client, self._flow.new_branch(), self._here)


Code: TypeAlias = Callable[[Workflow, bytes], Payload]
"""What a workflow is."""

F = TypeVar("F", bound=Code)


class Workflows:
    """Workflows by name; see :class:`kit.dtm.client.workflow.Workflows`.

    The coordinator calls them back over HTTP, also one that is spoken to over gRPC: a route of the
    application answers what :meth:`execute_by_query` gives.

    Args:
        client: over gRPC or HTTP; it connects when the first workflow is executed.
        callback: the URL of that route.
        options: what is asked of the coordinator for every workflow.
    """

    def __init__(self, client: DtmClient, callback: str, *, options: Options | None = None) -> None:
        self._client = client
        self._callback = callback
        self._options = options
        self._registered: dict[str, Callable[[awaited_workflow.Workflows], object]] = {}
        self._made: tuple[int, awaited_workflow.Workflows] | None = None
        self._lock = threading.Lock()

    def register(
        self,
        name: str,
        *,
        options: Options | None = None,
        compensate_error_branch: bool = False,
        labels: bool = False,
    ) -> Callable[[F], F]:
        """See :meth:`kit.dtm.client.workflow.Workflows.register`."""
        if name in self._registered:
            raise InvalidCall(f"name: a workflow '{name}' exists already; choose another name")

        def keep(code: F) -> F:
            async def run(flow: awaited_workflow.Workflow, data: bytes) -> Payload:
                here = _caller.get()
                return await here(code, Workflow(self._client, flow, here), data)

            def register(workflows: awaited_workflow.Workflows) -> None:
                workflows.register(
                    name,
                    options=options,
                    compensate_error_branch=compensate_error_branch,
                    labels=labels,
                )(run)

            self._registered[name] = register
            self._made = None
            return code

        return keep

    def execute(self, name: str, gid: str, data: Payload = None) -> bytes:
        """See :meth:`kit.dtm.client.workflow.Workflows.execute`; it runs in this thread."""
        workflows = self._workflows()

        async def make(here: Here) -> bytes:
            _caller.set(here)
            return await workflows.execute(name, gid, data)

        return self._client.run(make)

    def execute_by_query(self, query: Mapping[str, str], body: bytes) -> HttpResult:
        """See :meth:`kit.dtm.client.workflow.Workflows.execute_by_query`."""
        workflows = self._workflows()

        async def make(here: Here) -> HttpResult:
            _caller.set(here)
            return await workflows.execute_by_query(query, body)

        return self._client.run(make)

    def _workflows(self) -> awaited_workflow.Workflows:
        """Those of this process."""
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                made = awaited_workflow.Workflows(
                    self._client.awaited, self._callback, options=self._options
                )
                for register in self._registered.values():
                    register(made)
                self._made = os.getpid(), made
            return self._made[1]
