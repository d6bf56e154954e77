"""Calls JSON-RPC branches.

The URL is called as it is; its parameter ``method`` names the method. The params are the payload,
a JSON object, with gid, trans_type, branch_id and op.

An ``error`` with code -32901 is FAILURE, -32902 ONGOING, every other one unknown; in dtm the
comparison of numbers never matches, so that only the words count there. They count here as in
:mod:`kit.dtm.server.callers.classify`, unless a code has decided.

Source: dtm-labs/dtm dtmsvr/trans_status.go (getJSONRPCResult), client/dtmcli/utils.go.
"""

import json
import uuid
from collections.abc import Callable
from typing import Any, NoReturn

from kit.dtm.core import Branch, Transaction
from kit.dtm.server.callers import BranchAnswer
from kit.dtm.server.callers.classify import answer_of, classify_http, words_in
from kit.dtm.server.callers.exchange import HttpReply, http_url
from kit.dtm.server.callers.http import HttpCaller
from kit.dtm.wire import Result

FAILURE_CODE = -32901
ONGOING_CODE = -32902


class JsonRpcCaller:
    """Calls JSON-RPC branches.

    Args:
        http: what sends.
        legacy: words in the body of a 200 count.
        new_id: makes the ``id`` of a request.
    """

    def __init__(
        self,
        http: HttpCaller,
        *,
        legacy: bool = True,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._http = http
        self._legacy = legacy
        self._new_id = new_id

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        """Ask one branch over JSON-RPC."""
        try:
            url = http_url(self._http.located(branch.url))
            body = self._request(url.query.get("method", ""), tx, branch)
        except ValueError as error:
            return answer_of(Result.UNKNOWN, str(error))
        reply = await self._http.send("POST", url, tx, body, limit)
        return reply if isinstance(reply, BranchAnswer) else self._classified(reply)

    def _request(self, method: str, tx: Transaction, branch: Branch) -> bytes:
        request = {
            "id": self._new_id(),
            "jsonrpc": "2.0",
            "method": method,
            "params": {
                **_object(branch),
                "gid": tx.gid,
                "trans_type": tx.trans_type.value,
                "branch_id": branch.branch_id,
                "op": branch.op,
            },
        }
        return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()

    def _classified(self, reply: HttpReply) -> BranchAnswer:
        by_status = classify_http(reply.status, b"", legacy=False)
        if by_status is not Result.SUCCESS or reply.cut:
            return answer_of(by_status, reply.text)
        try:
            said: Any = json.loads(reply.body)
        except (ValueError, RecursionError):
            said = None
        error = said.get("error") if isinstance(said, dict) else None
        code = error.get("code") if isinstance(error, dict) else None
        if code == FAILURE_CODE:
            return answer_of(Result.FAILURE, reply.text)
        if code == ONGOING_CODE:
            return answer_of(Result.ONGOING, reply.text)
        by_words = words_in(reply.body) if self._legacy else Result.SUCCESS
        if by_words is not Result.SUCCESS:
            return answer_of(by_words, reply.text)
        if not isinstance(said, dict):
            return answer_of(Result.UNKNOWN, f"not an answer of JSON-RPC: {reply.text}")
        return answer_of(Result.SUCCESS if error is None else Result.UNKNOWN, reply.text)


def _object(branch: Branch) -> dict[str, Any]:
    """The payload of ``branch``; an empty one is an empty object.

    Raises:
        ValueError: it is not a JSON object.
    """
    try:
        payload: Any = json.loads(branch.payload or b"{}", parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"{_bad(branch)} ({exc})") from exc
    if not isinstance(payload, dict):
        raise ValueError(_bad(branch))  # noqa: TRY004  (a value that came over the wire)
    return payload


def _bad(branch: Branch) -> str:
    return (
        f"the payload of branch {branch.branch_id} {branch.op} of '{branch.url}' is not a JSON "
        "object, which the params of JSON-RPC have to be"
    )


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
