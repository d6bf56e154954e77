"""The coordinator's JSON-RPC API.

Source: dtm-labs/dtm client/dtmcli/dtmimp/trans_base.go (transCallDtmJrpc).
"""

from collections.abc import Mapping

from kit.dtm.client.errors import InvalidCall, Refused
from kit.dtm.client.exchange import HttpExchange
from kit.dtm.client.http import code_of, mapping_of, object_of, text_of
from kit.dtm.client.messages import (
    BranchRequest,
    Operation,
    TransRequest,
    json_branch,
    json_protocol,
    json_request,
)
from kit.dtm.client.payloads import check_text
from kit.dtm.client.transport import REPEATABLE, UNREPEATABLE, WorkflowState, outcome
from kit.dtm.wire import Protocol, Result
from kit.errors.codes import GrpcCode

_CODES = {-32901: GrpcCode.ABORTED, -32902: GrpcCode.FAILED_PRECONDITION}
_REFUSALS = frozenset({-32700, -32600, -32601})


class JsonRpcTransport:
    """The JSON-RPC API of a coordinator.

    Args:
        server: its URL, ending in ``/api/json-rpc``.
        exchange: what sends; closed by the caller.
    """

    protocol = Protocol.JSON_RPC

    def __init__(self, server: str, exchange: HttpExchange) -> None:
        self.server = server
        self._exchange = exchange

    async def aclose(self) -> None:
        """Nothing to cut: the exchange is shared."""

    async def new_gid(self) -> str:
        """An id that is unique among those of the coordinator."""
        return text_of(await self._ask("newGid", "{}"), "gid")

    async def send(self, operation: Operation, request: TransRequest) -> None:
        """Prepare, submit or abort."""
        body = json_request(request, json_protocol(request, self.protocol))
        await self._ask(operation, body, REPEATABLE)

    async def register_branch(self, request: BranchRequest) -> None:
        """Add a branch."""
        check_text(request.data, f"data of branch {request.branch_id}")
        await self._ask("registerBranch", json_branch(request), UNREPEATABLE)

    async def prepare_workflow(self, request: TransRequest) -> WorkflowState:
        """JSON-RPC has no workflows.

        Raises:
            InvalidCall: always.
        """
        raise InvalidCall(
            f"workflow {request.gid!r}: dtm's JSON-RPC API has no workflows; give DtmClient the "
            "gRPC address of the coordinator, or http://…/api/dtmsvr"
        )

    async def _ask(self, method: str, params: str, advice: str = "") -> Mapping[str, object]:
        body = f'{{"id":"no-use","jsonrpc":"2.0","method":"{method}","params":{params}}}'
        reply = await self._exchange.send("POST", self.server, body=body.encode(), advice=advice)
        what = f"{method} at {self.server}"
        if reply.status not in (200, 400):
            raise outcome(what, code_of(reply), reply.text, advice)
        answer = object_of(reply, what)
        error = mapping_of(answer, "error")
        if not error:
            return mapping_of(answer, "result")
        code, text = error.get("code"), text_of(error, "message")
        if code in _REFUSALS:
            raise Refused(f"{what}: {text}")
        if text == Result.ONGOING or text.endswith(f" {Result.ONGOING}"):
            code = -32902  # dtm knows the code, but never sends it
        status = _CODES.get(code, GrpcCode.UNKNOWN) if isinstance(code, int) else GrpcCode.UNKNOWN
        raise outcome(what, status, text, advice)
