"""Asks branches and says which of the four classes their answer is.

The engine below is bytes in, bytes out: :class:`kit.transport.grpc.GrpcClient` finds the instance.

Source: dtm-labs/dtm dtmsvr/trans_status.go (getBranchResult), client/dtmgrpc/type.go.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kit import log
from kit.dtm.core import Branch, Transaction
from kit.dtm.driver import Driver
from kit.dtm.wire import MetadataKey, Result
from kit.errors import Error
from kit.errors.codes import GrpcCode
from kit.transport.grpc import GrpcClient, status_of

logger = log.get_logger()

MAX_CLIENTS = 1_000
"""Targets whose connections are kept; the one called longest ago makes room."""


@dataclass(frozen=True, slots=True)
class BranchAnswer:
    """What became of a call.

    Attributes:
        text: what the branch said, or why it could not be asked.
        code: the gRPC code of the answer.
    """

    result: Result
    text: str = ""
    code: int | None = None


class Caller(Protocol):
    """Asks branches."""

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        """Ask ``branch``, ``limit`` seconds at most; raises nothing but ``CancelledError``."""
        ...


def classify(code: GrpcCode, message: str) -> Result:
    """The class of a branch's gRPC answer.

    ABORTED with exactly ``ONGOING`` as its message is how dtm below 1.10 said ONGOING.
    """
    match code:
        case GrpcCode.OK:
            return Result.SUCCESS
        case GrpcCode.ABORTED:
            return Result.ONGOING if message == Result.ONGOING else Result.FAILURE
        case GrpcCode.FAILED_PRECONDITION:
            return Result.ONGOING
        case _:
            return Result.UNKNOWN


class GrpcCaller:
    """Calls gRPC branches.

    Args:
        driver: what splits branch URLs.
        connect: makes the client of a target; raises ValueError for one that cannot be reached.
    """

    def __init__(self, driver: Driver, connect: Callable[[str], GrpcClient]) -> None:
        self._driver = driver
        self._connect = connect
        self._clients: OrderedDict[str, GrpcClient] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Cut every connection."""
        clients, self._clients = list(self._clients.values()), OrderedDict()
        for client in clients:
            await client.aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        """Ask one branch over gRPC."""
        try:
            target, method = self._driver.parse(branch.url)
            client = self._client(target)
        except ValueError as error:
            return BranchAnswer(Result.UNKNOWN, str(error), GrpcCode.UNKNOWN)
        metadata = [
            (MetadataKey.GID.value, tx.gid),
            (MetadataKey.TRANS_TYPE.value, tx.trans_type.value),
            (MetadataKey.BRANCH_ID.value, branch.branch_id),
            (MetadataKey.OP.value, branch.op),
            (MetadataKey.DTM.value, ""),
            *tx.options.branch_headers.items(),
        ]
        try:
            await client.unary(method, branch.payload, metadata=metadata, timeout=limit)
        except Error as error:
            code = status_of(error)
            return BranchAnswer(classify(code, error.message), error.message, code)
        except Exception as error:
            logger.exception("branch call failed unexpectedly", gid=tx.gid, url=branch.url)
            return BranchAnswer(Result.UNKNOWN, str(error), GrpcCode.UNKNOWN)
        return BranchAnswer(Result.SUCCESS)

    def _client(self, target: str) -> GrpcClient:
        client = self._clients.get(target)
        if client is not None:
            self._clients.move_to_end(target)
            return client
        client = self._clients[target] = self._connect(target)
        if len(self._clients) > MAX_CLIENTS:
            _, oldest = self._clients.popitem(last=False)
            closing = asyncio.create_task(oldest.aclose())  # awaited in aclose
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        return client
