"""Calls to the coordinator, and to branches in its place.

Source: dtm-labs/dtm client/dtmgrpc/type.go, dtmgimp/grpc_clients.go, dtmgimp/types.go.
"""

from collections.abc import Mapping
from typing import Self

from google.protobuf.empty_pb2 import Empty

from kit.dtm.driver import Driver
from kit.dtm.driver.kratos import KratosDriver
from kit.dtm.errors import DtmError, Failure, Ongoing
from kit.dtm.pb.dtm_pb2 import DtmGidReply, DtmRequest
from kit.dtm.wire import GRPC_SERVICE, MetadataKey, TransType
from kit.errors import Error
from kit.errors.codes import GrpcCode
from kit.registry import Discovery
from kit.selector import Balancer
from kit.transport.grpc import ClientTls, GrpcClient, RpcError, status_of
from kit.transport.grpc.client import DiscoveryFactory

CALL_TIMEOUT_S = 10.0
"""A submit that waits for its branches takes as long as they do, 3 s each by default."""


REPEATABLE = "; the result is unknown, and the same may be asked again with the same gid"


class DtmUnavailable(DtmError):
    """What became of the request is unknown: 503 DTM_UNAVAILABLE.

    The coordinator could not be asked, did not answer in time, or had an unexpected answer from a
    branch while it was waited for.

    Attributes:
        status: the gRPC code of the answer; UNAVAILABLE when there was none.
    """

    def __init__(self, message: str, status: GrpcCode = GrpcCode.UNAVAILABLE) -> None:
        super().__init__(503, "DTM_UNAVAILABLE", message)
        self.status = status


class DtmClient:
    """A connection to a coordinator, shared by any number of transactions.

    Args:
        server: its target, such as ``discovery:///dtmservice`` or ``localhost:36790``; see
            :mod:`kit.transport.grpc.target`.
        discovery: the registry of ``discovery:`` and ``etcd:`` targets.
        discovery_factory: makes the registry that a target names when ``discovery`` is not given.
        timeout: seconds for one call to the coordinator.
        tls: ``None`` for plain text.
        balancer: picks among coordinators; weighted round robin by default.
        driver: how the URLs of branches are read; kratos' way by default.

    Raises:
        ValueError: ``server`` cannot be understood, or needs a registry and none was given.
    """

    def __init__(
        self,
        server: str,
        *,
        discovery: Discovery | None = None,
        discovery_factory: DiscoveryFactory | None = None,
        timeout: float = CALL_TIMEOUT_S,
        tls: ClientTls | None = None,
        balancer: Balancer | None = None,
        driver: Driver | None = None,
    ) -> None:
        self.server = server
        self._driver = driver or KratosDriver()
        self._discovery = discovery
        self._discovery_factory = discovery_factory
        self._timeout = timeout
        self._coordinator = GrpcClient(
            server,
            discovery=discovery,
            discovery_factory=discovery_factory,
            timeout=timeout,
            tls=tls,
            balancer=balancer,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cut the connection; may be called twice."""
        await self._coordinator.aclose()

    async def new_gid(self) -> str:
        """An id for a global transaction, unique among those of the coordinator.

        Raises:
            DtmUnavailable: there was no answer.
        """
        reply = DtmGidReply.FromString(await self.call("NewGid", Empty()))
        return reply.Gid

    async def call(self, method: str, request: DtmRequest | Empty) -> bytes:
        """Call a method of ``dtmgimp.Dtm``; gives the encoded reply.

        Raises:
            Failure: the answer was ABORTED.
            Ongoing: the answer was FAILED_PRECONDITION.
            DtmUnavailable: there was another answer, or none.
        """
        try:
            return await self._coordinator.unary(
                f"/{GRPC_SERVICE}/{method}", request.SerializeToString()
            )
        except Error as exc:
            # A gid that was lost is no loss; all else may have been done.
            advice = "" if method == "NewGid" else REPEATABLE
            raise _outcome(exc, f"{method} at {self.server}", advice) from exc

    async def query(
        self, url: str, *, gid: str, branch_id: str, op: str, headers: Mapping[str, str]
    ) -> None:
        """Call a query-prepared URL as the coordinator would; return when it says yes.

        Raises:
            Failure: it says no.
            Ongoing: it does not know yet.
            DtmUnavailable: there was another answer, or none.
            ValueError: ``url`` cannot be understood.

        Source: dtm-labs/dtm client/dtmgrpc/dtmgimp/types.go, InvokeBranch.
        """
        target, method = self._driver.parse(url)
        metadata = {
            MetadataKey.GID: gid,
            MetadataKey.TRANS_TYPE: TransType.MSG,
            MetadataKey.BRANCH_ID: branch_id,
            MetadataKey.OP: op,
            MetadataKey.DTM: self.server,
        } | {key.lower(): value for key, value in headers.items()}
        branch = GrpcClient(
            target,
            discovery=self._discovery,
            discovery_factory=self._discovery_factory,
            timeout=self._timeout,
        )
        try:
            async with branch:
                await branch.unary(method, b"", metadata=metadata.items())
        except Error as exc:
            raise _outcome(exc, f"query {url}") from exc


def _outcome(exc: Error, what: str, advice: str = "") -> DtmError:
    """What ``exc``, the end of the call ``what``, means; only an answer can be definite."""
    text = exc.message or exc.reason or type(exc).__name__
    status = status_of(exc) if isinstance(exc, RpcError) else GrpcCode.UNAVAILABLE
    match status:
        case GrpcCode.ABORTED if text == "ONGOING":  # dtm before 1.10
            return Ongoing(text)
        case GrpcCode.ABORTED:
            return Failure(text)
        case GrpcCode.FAILED_PRECONDITION:
            return Ongoing(text)
        case _:
            return DtmUnavailable(f"{what}: {status.name}: {text}{advice}", status)
