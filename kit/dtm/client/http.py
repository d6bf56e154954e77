"""The coordinator's HTTP API below ``/api/dtmsvr``.

Source: dtm-labs/dtm client/dtmcli/dtmimp/trans_base.go (TransCallDtmExt),
client/workflow/rpc.go.
"""

import base64
import json
import re
from collections.abc import Mapping

from kit.dtm.client.errors import DtmUnavailable
from kit.dtm.client.exchange import HttpExchange, HttpReply
from kit.dtm.client.messages import (
    BranchRequest,
    Operation,
    TransRequest,
    json_branch,
    json_protocol,
    json_request,
)
from kit.dtm.client.payloads import check_text
from kit.dtm.client.transport import REPEATABLE, UNREPEATABLE, Step, WorkflowState, outcome
from kit.dtm.wire import Protocol
from kit.errors.codes import GrpcCode

_CODES = {
    400: GrpcCode.INVALID_ARGUMENT,
    409: GrpcCode.ABORTED,
    425: GrpcCode.FAILED_PRECONDITION,
    502: GrpcCode.UNAVAILABLE,
    503: GrpcCode.UNAVAILABLE,
    504: GrpcCode.DEADLINE_EXCEEDED,
}
_ONGOING = re.compile(rb"\bONGOING\b")
_FAILURE = re.compile(rb"\bFAILURE\b")


class HttpTransport:
    """The HTTP API of a coordinator.

    Args:
        server: its URL up to ``/api/dtmsvr``.
        exchange: what sends; closed by the caller.
    """

    protocol = Protocol.HTTP

    def __init__(self, server: str, exchange: HttpExchange) -> None:
        self.server = server
        self._exchange = exchange

    async def aclose(self) -> None:
        """Nothing to cut: the exchange is shared."""

    async def new_gid(self) -> str:
        """An id that is unique among those of the coordinator."""
        return text_of(await self._ask("GET", "newGid"), "gid")

    async def send(self, operation: Operation, request: TransRequest) -> None:
        """Prepare, submit or abort."""
        body = json_request(request, json_protocol(request, self.protocol))
        await self._ask("POST", operation, body, REPEATABLE, words=True)

    async def register_branch(self, request: BranchRequest) -> None:
        """Add a branch."""
        check_text(request.data, f"data of branch {request.branch_id}")
        body = json_branch(request)
        await self._ask("POST", "registerBranch", body, UNREPEATABLE, words=True)

    async def prepare_workflow(self, request: TransRequest) -> WorkflowState:
        """Create a workflow, or find the one that is there."""
        body = json_request(request, json_protocol(request, self.protocol))
        reply = await self._ask("POST", "prepareWorkflow", body, REPEATABLE)
        tx = mapping_of(reply, "transaction")
        return WorkflowState(
            text_of(tx, "status"),
            text_of(tx, "rollback_reason"),
            text_of(tx, "result"),
            tuple(_step(row) for row in rows_of(reply, "progresses")),
        )

    async def query(self, gid: str) -> Mapping[str, object]:
        """The transaction and its branches, as the coordinator's JSON says."""
        return await self._ask("GET", "query", query={"gid": gid})

    async def _ask(
        self,
        method: str,
        name: str,
        body: str | None = None,
        advice: str = "",
        *,
        query: Mapping[str, str] | None = None,
        words: bool = False,
    ) -> Mapping[str, object]:
        reply = await self._exchange.send(
            method,
            f"{self.server}/{name}",
            query=query,
            body=None if body is None else body.encode(),
            advice=advice,
        )
        what = f"{name} at {self.server}"
        if (code := code_of(reply, words=words)) is not GrpcCode.OK:
            raise outcome(what, code, _message(reply), advice)
        return object_of(reply, what)


def code_of(reply: HttpReply, *, words: bool = True) -> GrpcCode:
    """The gRPC code that comes nearest to ``reply``.

    Args:
        reply: of the coordinator or a branch.
        words: the words of dtm below 1.10 count in the body of a 200, and only there: an error page
            that mentions a failure is none.
    """
    if reply.status != 200:
        return _CODES.get(reply.status, GrpcCode.UNKNOWN)
    if words and _ONGOING.search(reply.body):
        return GrpcCode.FAILED_PRECONDITION
    if words and _FAILURE.search(reply.body):
        return GrpcCode.ABORTED
    return GrpcCode.OK


def object_of(reply: HttpReply, what: str) -> dict[str, object]:
    """The JSON object that ``reply`` is.

    Raises:
        DtmUnavailable: it is none.
    """
    try:
        value = json.loads(reply.body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DtmUnavailable(
            f"{what}: the answer is no JSON object; is this the address of a coordinator?",
            GrpcCode.UNKNOWN,
        )
    return value


def mapping_of(value: Mapping[str, object], key: str) -> Mapping[str, object]:
    """The object below ``key``; empty when there is none."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def rows_of(value: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    """The objects in the list below ``key``."""
    found = value.get(key)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def text_of(value: Mapping[str, object], key: str) -> str:
    """The text below ``key``; empty when there is none."""
    found = value.get(key)
    return found if isinstance(found, str) else ""


def bytes_of(value: Mapping[str, object], key: str) -> bytes:
    """What is in base64 below ``key``; empty when there is nothing.

    Raises:
        DtmUnavailable: it is no base64.
    """
    try:
        return base64.b64decode(text_of(value, key), validate=True)
    except ValueError as exc:
        raise DtmUnavailable(
            f"{key} in the coordinator's answer is no base64: {exc}", GrpcCode.UNKNOWN
        ) from exc


def _step(row: Mapping[str, object]) -> Step:
    return Step(
        text_of(row, "branch_id"),
        text_of(row, "op"),
        text_of(row, "status"),
        bytes_of(row, "bin_data"),
    )


def _message(reply: HttpReply) -> str:
    try:
        value = json.loads(reply.body)
    except ValueError:
        return reply.text
    message = value.get("message") if isinstance(value, dict) else None
    return message if isinstance(message, str) and message else reply.text
