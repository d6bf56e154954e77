"""Plain clients of a coordinator's three APIs: no client of the kit, no client of dtm.

All three take the same :class:`Tx` and give the same :class:`Reply`, so that one test can ask each.
"""

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import aiohttp
import grpc
import grpc.aio
from google.protobuf.message import Message

from kit.dtm.pb import dtm_pb2
from tests.conformance.dtm.business import Business

ANSWERED_WITHIN = 90.0

SUCCESS, FAILURE, ONGOING = "SUCCESS", "FAILURE", "ONGOING"
INVALID = "INVALID"
"""The caller's mistake: HTTP 400, gRPC INVALID_ARGUMENT. dtm says ERROR."""
ERROR = "ERROR"

PAYLOAD = b'{"amount":30}'


@dataclass(frozen=True)
class Tx:
    """A transaction as its client sees it.

    Attributes:
        steps: ``{"action": url, "compensate": url}``.
        payloads: one a step; ``None``: :data:`PAYLOAD` for each.
        options: ``wait_result``, ``timeout_to_fail``, ``retry_interval``, ``request_timeout``,
            ``retry_limit``, ``branch_headers``, and over HTTP ``concurrent``.
    """

    gid: str
    trans_type: str
    steps: Sequence[Mapping[str, str]] = ()
    payloads: Sequence[bytes] | None = None
    query_prepared: str = ""
    custom_data: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    rollback_reason: str = ""
    req_extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def bodies(self) -> list[bytes]:
        """The payloads to send."""
        if self.payloads is None:
            return [PAYLOAD for _ in self.steps]
        return list(self.payloads)


@dataclass(frozen=True)
class Reply:
    """What a coordinator said.

    Attributes:
        word: SUCCESS, FAILURE, ONGOING, INVALID or ERROR.
        text: the message of an error.
        code: of HTTP, gRPC or JSON-RPC.
        body: decoded JSON or the serialized message.
    """

    word: str
    text: str = ""
    code: int = 0
    body: Any = None


class Api(Protocol):
    """One way to talk to a coordinator."""

    name: ClassVar[str]

    def url(self, name: str) -> str:
        """Of a branch that transactions of this API can call."""
        ...

    async def new_gid(self) -> str: ...

    async def submit(self, tx: Tx) -> Reply: ...

    async def prepare(self, tx: Tx) -> Reply: ...

    async def abort(self, tx: Tx) -> Reply: ...

    async def register(
        self, gid: str, trans_type: str, branch_id: str, data: bytes = PAYLOAD, **fields: str
    ) -> Reply: ...


def body_of(tx: Tx) -> dict[str, Any]:
    """The HTTP body of ``tx``."""
    body: dict[str, Any] = {"gid": tx.gid, "trans_type": tx.trans_type, **tx.options}
    if tx.steps:
        body["steps"] = list(tx.steps)
    if tx.bodies:
        body["payloads"] = [data.decode() for data in tx.bodies]
    for key in ("query_prepared", "custom_data", "rollback_reason", "req_extra"):
        if value := getattr(tx, key):
            body[key] = value
    return body


_HTTP_WORDS = {200: SUCCESS, 400: INVALID, 409: FAILURE, 425: ONGOING}


class HttpApi:
    """``/api/dtmsvr`` of a coordinator.

    Args:
        base: the URL up to there.
    """

    name: ClassVar[str] = "http"

    def __init__(self, session: aiohttp.ClientSession, base: str, business: Business) -> None:
        self.session = session
        self.base = base
        self._business = business

    def url(self, name: str) -> str:
        return self._business.http(name)

    async def send(self, method: str, path: str, **how: Any) -> Reply:
        """Any request; ``path`` is appended to the base unless it begins with a slash."""
        root = self.base.removesuffix("/api/dtmsvr")
        url = f"{root}{path}" if path.startswith("/") else f"{self.base}/{path}"
        limit = aiohttp.ClientTimeout(total=ANSWERED_WITHIN)
        async with self.session.request(
            method, url, timeout=limit, allow_redirects=False, **how
        ) as response:
            text = await response.text()
            code = response.status
        try:
            body: Any = json.loads(text)
        except ValueError:
            body = text
        message = body.get("message", "") if isinstance(body, dict) else text
        return Reply(_HTTP_WORDS.get(code, ERROR), message, code, body)

    async def get(self, path: str, **query: Any) -> Reply:
        return await self.send("GET", path, params={k: str(v) for k, v in query.items()})

    async def post(self, path: str, body: Any) -> Reply:
        return await self.send("POST", path, json=body)

    async def new_gid(self) -> str:
        reply = await self.get("newGid")
        assert reply.code == 200, reply
        return str(reply.body["gid"])

    async def submit(self, tx: Tx) -> Reply:
        return await self.post("submit", body_of(tx))

    async def prepare(self, tx: Tx) -> Reply:
        return await self.post("prepare", body_of(tx))

    async def abort(self, tx: Tx) -> Reply:
        return await self.post("abort", body_of(tx))

    async def prepare_workflow(self, tx: Tx) -> Reply:
        return await self.post("prepareWorkflow", body_of(tx))

    async def register(
        self, gid: str, trans_type: str, branch_id: str, data: bytes = PAYLOAD, **fields: str
    ) -> Reply:
        return await self.post(
            "registerBranch", registration(gid, trans_type, branch_id, data, fields)
        )


def registration(
    gid: str, trans_type: str, branch_id: str, data: bytes, fields: Mapping[str, str]
) -> dict[str, str]:
    """The flat body of a registerBranch."""
    return {
        "gid": gid,
        "trans_type": trans_type,
        "branch_id": branch_id,
        "data": data.decode(),
        **fields,
    }


class JsonRpcApi:
    """``/api/json-rpc`` of a coordinator."""

    name: ClassVar[str] = "json-rpc"

    def __init__(self, http: HttpApi) -> None:
        self._http = http

    def url(self, name: str) -> str:
        return self._http.url(name)

    async def call(self, method: str, params: Any) -> Reply:
        """One request."""
        return await self.send(
            {"jsonrpc": "2.0", "id": "no-use", "method": method, "params": params}
        )

    async def send(self, body: Any) -> Reply:
        """Whatever ``body`` is, text as it stands."""
        data = body if isinstance(body, str) else json.dumps(body)
        reply = await self._http.send(
            "POST",
            "/api/json-rpc",
            data=data.encode(),
            headers={"Content-Type": "application/json"},
        )
        error = reply.body.get("error") if isinstance(reply.body, dict) else None
        if error is None:
            return Reply(reply.word, "", reply.code, reply.body)
        word = {-32901: FAILURE, -32902: ONGOING, -32602: INVALID}.get(error["code"], ERROR)
        return Reply(word, error["message"], error["code"], reply.body)

    async def new_gid(self) -> str:
        reply = await self.call("newGid", {})
        assert reply.word == SUCCESS, reply
        return str(reply.body["result"]["gid"])

    async def submit(self, tx: Tx) -> Reply:
        return await self.call("submit", body_of(tx))

    async def prepare(self, tx: Tx) -> Reply:
        return await self.call("prepare", body_of(tx))

    async def abort(self, tx: Tx) -> Reply:
        return await self.call("abort", body_of(tx))

    async def register(
        self, gid: str, trans_type: str, branch_id: str, data: bytes = PAYLOAD, **fields: str
    ) -> Reply:
        return await self.call(
            "registerBranch", registration(gid, trans_type, branch_id, data, fields)
        )


_GRPC_WORDS = {
    grpc.StatusCode.OK: SUCCESS,
    grpc.StatusCode.ABORTED: FAILURE,
    grpc.StatusCode.FAILED_PRECONDITION: ONGOING,
    grpc.StatusCode.INVALID_ARGUMENT: INVALID,
}


class GrpcApi:
    """``dtmgimp.Dtm`` of a coordinator."""

    name: ClassVar[str] = "grpc"

    def __init__(self, channel: grpc.aio.Channel, business: Business) -> None:
        self.channel = channel
        self._business = business

    def url(self, name: str) -> str:
        return self._business.grpc(name)

    async def call(
        self,
        method: str,
        request: Message | bytes = b"",
        metadata: Sequence[tuple[str, str]] = (),
        timeout: float = ANSWERED_WITHIN,
    ) -> Reply:
        """Any method of the service, or one with its full name."""
        data = request if isinstance(request, bytes) else request.SerializeToString()
        path = method if method.startswith("/") else f"/dtmgimp.Dtm/{method}"
        try:
            invoke: Any = self.channel.unary_unary(path)
            body = await invoke(data, timeout=timeout, metadata=tuple(metadata))
        except grpc.aio.AioRpcError as error:
            code = error.code()
            word = _GRPC_WORDS.get(code, ERROR)
            return Reply(word, error.details() or "", code.value[0])
        return Reply(SUCCESS, "", 0, body)

    async def new_gid(self) -> str:
        reply = await self.call("NewGid")
        assert reply.word == SUCCESS, reply
        return dtm_pb2.DtmGidReply.FromString(reply.body).Gid

    async def submit(self, tx: Tx) -> Reply:
        return await self.call("Submit", message_of(tx))

    async def prepare(self, tx: Tx) -> Reply:
        return await self.call("Prepare", message_of(tx))

    async def abort(self, tx: Tx) -> Reply:
        return await self.call("Abort", message_of(tx))

    async def prepare_workflow(self, tx: Tx) -> Reply:
        reply = await self.call("PrepareWorkflow", message_of(tx))
        if reply.word != SUCCESS:
            return reply
        return Reply(SUCCESS, "", 0, dtm_pb2.DtmProgressesReply.FromString(reply.body))

    async def register(
        self, gid: str, trans_type: str, branch_id: str, data: bytes = PAYLOAD, **fields: str
    ) -> Reply:
        return await self.call(
            "RegisterBranch",
            dtm_pb2.DtmBranchRequest(
                Gid=gid, TransType=trans_type, BranchID=branch_id, Data=fields, BusiPayload=data
            ),
        )

    async def topic(self, method: str, topic: str, url: str = "", remark: str = "") -> Reply:
        """Subscribe, Unsubscribe or DeleteTopic."""
        return await self.call(method, dtm_pb2.DtmTopicRequest(Topic=topic, URL=url, Remark=remark))


def message_of(tx: Tx) -> dtm_pb2.DtmRequest:
    """The gRPC message of ``tx``."""
    given = tx.options
    return dtm_pb2.DtmRequest(
        Gid=tx.gid,
        TransType=tx.trans_type,
        TransOptions=dtm_pb2.DtmTransOptions(
            WaitResult=given.get("wait_result", False),
            TimeoutToFail=given.get("timeout_to_fail", 0),
            RetryInterval=given.get("retry_interval", 0),
            RequestTimeout=given.get("request_timeout", 0),
            RetryLimit=given.get("retry_limit", 0),
            BranchHeaders=given.get("branch_headers", {}),
        ),
        CustomedData=tx.custom_data,
        BinPayloads=tx.bodies,
        QueryPrepared=tx.query_prepared,
        Steps=json.dumps([dict(step) for step in tx.steps]) if tx.steps else "",
        ReqExtra=dict(tx.req_extra),
        RollbackReason=tx.rollback_reason,
    )


def unique(stem: str) -> str:
    """A gid that nobody else uses."""
    return f"{stem}-{uuid.uuid4().hex[:16]}"


def text64(data: bytes) -> str:
    """``data`` as workflows send it."""
    return base64.b64encode(data).decode()
