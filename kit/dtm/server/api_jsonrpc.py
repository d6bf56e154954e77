"""The JSON-RPC API: one request a call, parameters as the bodies of the HTTP API.

Every reply has the four keys ``error``, ``id``, ``jsonrpc`` and ``result``.

Source: dtm-labs/dtm dtmsvr/api_json_rpc.go.
"""

from collections.abc import Awaitable, Callable

from kit import log
from kit.dtm.core import Answer, Outcome, Reply, Request
from kit.dtm.server.http_app import HttpReply, HttpRequest, Route, json_reply
from kit.dtm.server.http_bodies import branch_request, transaction_request
from kit.dtm.server.http_json import BadJson, Object, as_object, decode, text_map_of
from kit.dtm.server.requests import InvalidRequest
from kit.dtm.server.service import Service
from kit.dtm.store import StoreUnavailable

logger = log.get_logger()

PATH = "/api/json-rpc"
VERSION = "2.0"
_SHOWN = 60

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603
FAILURE = -32901


class _RpcError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class JsonRpcApi:
    """The methods of the JSON-RPC API."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._methods: dict[str, Callable[[object], Awaitable[object]]] = {
            "newGid": self._new_gid,
            "prepare": self._transaction(service.prepare),
            "submit": self._transaction(service.submit),
            "abort": self._transaction(service.abort),
            "registerBranch": self._register_branch,
        }

    def route(self) -> Route:
        """Its one route, for :class:`~kit.dtm.server.http_app.HttpApp`."""
        return Route("POST", PATH, self._serve, "json-rpc")

    async def _serve(self, request: HttpRequest) -> HttpReply:
        try:
            call = Object(as_object("the request", decode(request.body)))
            call_id, version = call.text("id"), call.text("jsonrpc")
            method, params = call.text("method"), call.value("params")
        except BadJson as error:
            return _reply(None, error=_RpcError(PARSE_ERROR, f"Parse json error: {error}"))
        try:
            return _reply(call_id, await self._call(call_id, version, method, params))
        except _RpcError as error:
            return _reply(call_id, error=error)

    async def _call(self, call_id: str, version: str, method: str, params: object) -> object:
        if version != VERSION:
            raise _RpcError(
                INVALID_REQUEST,
                f"Bad json request: jsonrpc: {version[:_SHOWN]!r} is no version; use {VERSION!r}",
            )
        if not call_id:
            raise _RpcError(INVALID_REQUEST, "Bad json request: id: it is empty; send a text")
        found = self._methods.get(method)
        if found is None:
            raise _RpcError(METHOD_NOT_FOUND, f"Method not found: {method[:_SHOWN]}")
        try:
            return await found(params)
        except (InvalidRequest, BadJson) as error:
            logger.warning("request refused", call=f"json-rpc {method}", reason=str(error))
            raise _RpcError(INTERNAL_ERROR, str(error)) from None
        except StoreUnavailable as error:
            logger.warning("store unavailable", call=f"json-rpc {method}", reason=error.message)
            raise _RpcError(INTERNAL_ERROR, error.message) from None
        except _RpcError:
            raise
        except Exception as error:
            logger.exception("request failed", call=f"json-rpc {method}")
            text = "internal error; the coordinator's log has its cause"
            raise _RpcError(INTERNAL_ERROR, text) from error

    async def _new_gid(self, _: object) -> object:
        return {"gid": self._service.new_gid()}

    def _transaction(
        self, do: Callable[[Request], Awaitable[Reply | Answer]]
    ) -> Callable[[object], Awaitable[object]]:
        async def handle(params: object) -> object:
            body = Object(as_object("params", params))
            return _result(await do(transaction_request(body, body.text("gid"))))

        return handle

    async def _register_branch(self, params: object) -> object:
        fields = text_map_of("params", params)
        return _result(await self._service.register(branch_request(fields, fields.get("gid", ""))))


def _result(answer: Reply | Answer) -> object:
    match answer.outcome:
        case Outcome.SUCCESS:
            return None
        case Outcome.FAILURE:
            raise _RpcError(FAILURE, answer.text)
        case _:
            raise _RpcError(INTERNAL_ERROR, answer.text)


def _reply(
    call_id: str | None, result: object = None, *, error: _RpcError | None = None
) -> HttpReply:
    shape = {"code": error.code, "message": error.message} if error else None
    status = 400 if error and error.code == PARSE_ERROR else 200
    return json_reply({"error": shape, "id": call_id, "jsonrpc": VERSION, "result": result}, status)
