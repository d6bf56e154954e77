"""Calls gRPC branches: bytes in, bytes out, whatever the service's messages are.

:class:`kit.transport.grpc.GrpcClient` finds the instance. Where the coordinator is called over gRPC
itself, the deadline of that call does not bind its branches: who stops waiting must not make a
healthy target look dead, and the round goes on anyway. (In dtm it binds those of msg, tcc and xa.)

Source: dtm-labs/dtm dtmsvr/trans_status.go (getBranchResult), dtmsvr/trans_type_workflow.go,
client/dtmgrpc/dtmgimp/utils.go (TransInfo2Ctx).
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache

from kit import log
from kit.clock import Clock, SystemClock
from kit.dtm.core import Branch, Transaction
from kit.dtm.driver import BranchUrl, Driver
from kit.dtm.pb import dtm_pb2
from kit.dtm.server.callers import BranchAnswer
from kit.dtm.server.callers.classify import answer_of, classify
from kit.dtm.server.callers.names import NameCheck, Unresolved
from kit.dtm.server.targets import TargetRefused
from kit.dtm.wire import QUERY_BRANCH_ID, MetadataKey, Result, TransType
from kit.errors import Error
from kit.errors.codes import GrpcCode
from kit.transport import call_info
from kit.transport.grpc import GrpcClient, status_of

logger = log.get_logger()

MAX_CLIENTS = 1_000
"""Targets whose connections are kept; the one called longest ago makes room."""

CHECKED_S = 30.0
"""How long it is believed that the addresses of a name are allowed."""

_URLS_KEPT = 10_000

# Members of an enum and their values are looked up slowly, and these for each call.
_GID, _TRANS_TYPE, _BRANCH_ID, _OP = (
    key.value
    for key in (MetadataKey.GID, MetadataKey.TRANS_TYPE, MetadataKey.BRANCH_ID, MetadataKey.OP)
)
_DTM = (MetadataKey.DTM.value, "")
_WORKFLOW = TransType.WORKFLOW
_DONE = BranchAnswer(Result.SUCCESS)

_RESERVED = frozenset({"connection", "content-length", "content-type", "host", "te", "user-agent"})
"""Headers of HTTP/2 that a caller does not set; grpc-go leaves them out as well."""


class _Connected:
    """The client of one target.

    Attributes:
        active: calls that use it.
        retired: it has made room; the last of those calls closes it.
        names: hosts whose addresses have to be checked.
        checked_until: instant until which they are good.
    """

    __slots__ = ("active", "checked_until", "client", "names", "retired")

    def __init__(self, client: GrpcClient, names: tuple[str, ...]) -> None:
        self.client = client
        self.names = names
        self.active = 0
        self.retired = False
        self.checked_until = -math.inf if names else math.inf


class GrpcCaller:
    """Calls gRPC branches.

    Args:
        driver: what splits branch URLs.
        connect: makes the client of a target; raises ValueError for one that cannot be reached.
        names: says which targets may be called; anything by default.
        clock: tells when the addresses of a name have to be looked at again.
        docker: the process runs in a container, and ``localhost`` means the machine around it.
    """

    def __init__(
        self,
        driver: Driver,
        connect: Callable[[str], GrpcClient],
        *,
        names: NameCheck | None = None,
        clock: Clock | None = None,
        docker: bool = False,
    ) -> None:
        self._driver = driver
        self._connect = connect
        self._names = names
        self._clock = clock or SystemClock()
        self._docker = docker
        self._clients: OrderedDict[str, _Connected] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self.parse: Callable[[str], BranchUrl] = lru_cache(_URLS_KEPT)(self._parse)
        """Splits a branch URL into target and method; raises ValueError."""

    async def aclose(self) -> None:
        """Cut every connection."""
        clients, self._clients = list(self._clients.values()), OrderedDict()
        for connected in clients:
            await connected.client.aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        """Ask one branch over gRPC."""
        try:
            target, method = self.parse(branch.url)
            connected = self._connected(target)
        except TargetRefused as error:
            return answer_of(Result.UNKNOWN, str(error), GrpcCode.PERMISSION_DENIED)
        except ValueError as error:
            return answer_of(Result.UNKNOWN, str(error))
        metadata: list[tuple[str, str | bytes]] = [
            (_GID, tx.gid),
            (_TRANS_TYPE, str(tx.trans_type)),
            (_BRANCH_ID, branch.branch_id),
            (_OP, str(branch.op)),
            _DTM,
        ]
        if tx.options.branch_headers:
            metadata += _pairs(tx.options.branch_headers)
        payload = branch.payload
        if tx.trans_type is _WORKFLOW and branch.branch_id == QUERY_BRANCH_ID:
            payload = dtm_pb2.WorkflowData(Data=payload).SerializeToString()
        connected.active += 1
        outer = call_info.set(None) if call_info.get() is not None else None
        try:
            if connected.checked_until < math.inf:
                limit = await self._checked(branch.url, connected, limit)
            await connected.client.unary(method, payload, metadata=metadata, timeout=limit)
        except Error as error:
            code = status_of(error)
            return answer_of(classify(code, error.message), error.message, code)
        except TargetRefused as error:
            return answer_of(Result.UNKNOWN, str(error), GrpcCode.PERMISSION_DENIED)
        except Unresolved as error:
            return answer_of(Result.UNKNOWN, str(error), GrpcCode.UNAVAILABLE)
        except Exception as error:
            logger.exception("branch call failed unexpectedly", gid=tx.gid, url=branch.url)
            return answer_of(Result.UNKNOWN, str(error))
        finally:
            if outer is not None:
                call_info.reset(outer)
            connected.active -= 1
            if connected.retired and not connected.active:
                self._close(connected)
        return _DONE

    def _parse(self, url: str) -> BranchUrl:
        return self._driver.parse(in_docker(url) if self._docker else url)

    async def _checked(self, url: str, connected: _Connected, limit: float) -> float:
        """Look at the addresses of names again when it is time; give the seconds that are left."""
        assert self._names is not None
        now = self._clock.monotonic()
        if now < connected.checked_until:
            return limit
        try:
            await self._names.check(url, connected.names, limit / 2)
        except Unresolved:
            if connected.checked_until == -math.inf:
                raise
            # the names were fine and a connection may stand: calls go on while DNS is away
        after = self._clock.monotonic()
        connected.checked_until = after + CHECKED_S
        return max(limit - (after - now), 0.001)

    def _connected(self, target: str) -> _Connected:
        connected = self._clients.get(target)
        if connected is not None:
            self._clients.move_to_end(target)
            return connected
        names = self._names.targets.names_in(target) if self._names else ()
        connected = self._clients[target] = _Connected(self._connect(target), names)
        if len(self._clients) > MAX_CLIENTS:
            _, oldest = self._clients.popitem(last=False)
            oldest.retired = True
            if not oldest.active:
                self._close(oldest)
        return connected

    def _close(self, connected: _Connected) -> None:
        closing = asyncio.create_task(connected.client.aclose())  # awaited in aclose
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def in_docker(url: str) -> str:
    """``url`` as seen from inside a container.

    Source: dtm-labs/dtm client/dtmcli/dtmimp/utils.go, MayReplaceLocalhost.

    >>> in_docker("http://localhost:8081/api")
    'http://host.docker.internal:8081/api'
    """
    there = "host.docker.internal"
    return url.replace("localhost", there, 1).replace("127.0.0.1", there, 1)


def _pairs(headers: Mapping[str, str]) -> list[tuple[str, str | bytes]]:
    """Branch headers as metadata, without those that belong to the protocol."""
    lower = ((key.lower(), value) for key, value in headers.items())
    return [
        (key, value.encode() if key.endswith("-bin") else value)
        for key, value in lower
        if key not in _RESERVED and not key.startswith(("grpc-", ":"))
    ]
