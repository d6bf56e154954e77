"""The HTTP API below ``/api/dtmsvr``, as every dtm client calls it.

Source: dtm-labs/dtm dtmsvr/api_http.go, dtmutil/utils.go (WrapHandler2).
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

from kit import __version__
from kit.dtm.core import Answer, Outcome, Reply, Request, Transaction
from kit.dtm.server.http_app import (
    TEXT,
    Failed,
    Handler,
    HttpReply,
    HttpRequest,
    Route,
    json_reply,
    message_reply,
)
from kit.dtm.server.http_bodies import branch_request, transaction_request
from kit.dtm.server.http_json import BadJson, Object, decode_object, text_map_of, text_of
from kit.dtm.server.http_shapes import branch_shape, held_shape, kv_shape, transaction_shape
from kit.dtm.server.requests import MAX_SECONDS, InvalidRequest, check_gid
from kit.dtm.server.service import NOBODY, Service
from kit.dtm.store import Filter
from kit.dtm.wire import Protocol, Result, Status, TransType

BASE = "/api/dtmsvr"
MAX_LIMIT = 1_000
DEFAULT_LIMIT = 100
_INT64 = 1 << 63
_SHOWN = 60
_WHOLE = re.compile("[+-]?[0-9]{1,19}", re.ASCII)

_STRIPPED = str.maketrans("", "", "\r\n;")

_DONE = {"dtm_result": Result.SUCCESS}
_ERRORS = {
    Outcome.FAILURE: (409, Result.FAILURE),
    Outcome.ONGOING: (425, Result.ONGOING),
    Outcome.INVALID: (400, None),
    Outcome.MISSING: (500, None),
    Outcome.UNKNOWN: (500, None),
}


class HttpApi:
    """The routes of the HTTP API."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> tuple[Route, ...]:
        """All of them, for :class:`~kit.dtm.server.http_app.HttpApp`."""
        service = self._service
        served: dict[tuple[str, str], Handler] = {
            ("GET", "version"): self._version,
            ("GET", "newGid"): self._new_gid,
            ("POST", "prepare"): self._transaction(service.prepare),
            ("POST", "submit"): self._transaction(service.submit),
            ("POST", "abort"): self._transaction(service.abort),
            ("POST", "forceStop"): self._force_stop,
            ("POST", "registerBranch"): self._register_branch,
            ("POST", "registerXaBranch"): self._register_branch,
            ("POST", "registerTccBranch"): self._register_branch,
            ("POST", "prepareWorkflow"): self._prepare_workflow,
            ("GET", "query"): self._query,
            ("GET", "all"): self._all,
            ("GET", "resetCronTime"): self._reset_cron_time,
            ("POST", "resetNextCronTime"): self._reset_next_cron_time,
            ("GET", "subscribe"): self._subscribe,
            ("GET", "unsubscribe"): self._unsubscribe,
            ("DELETE", "topic/*"): self._delete_topic,
            ("GET", "scanKV"): self._scan_kv,
            ("GET", "queryKV"): self._query_kv,
        }
        return tuple(
            Route(method, f"{BASE}/{name}", handle, name.removesuffix("/*").lower())
            for (method, name), handle in served.items()
        )

    async def _version(self, _: HttpRequest) -> HttpReply:
        return json_reply({"version": f"v{__version__}"})

    async def _new_gid(self, _: HttpRequest) -> HttpReply:
        return json_reply({"dtm_result": Result.SUCCESS, "gid": self._service.new_gid()})

    def _transaction(self, do: Callable[[Request], Awaitable[Reply | Answer]]) -> Handler:
        async def handle(request: HttpRequest) -> HttpReply:
            return outcome_reply(await do(_asked(request)))

        return handle

    async def _force_stop(self, request: HttpRequest) -> HttpReply:
        body = _body(request)
        gid = check_gid(body.text("gid"), Protocol.HTTP)
        reason = body.text("rollback_reason")
        return outcome_reply(await self._service.force_stop(gid, reason))

    async def _register_branch(self, request: HttpRequest) -> HttpReply:
        try:
            fields = text_map_of("the body", decode_object(request.body))
        except BadJson as error:
            # dtm's framework answers these itself, and calls its JSON plain text
            return replace(message_reply(400, str(error)), content_type=TEXT)
        asked = branch_request(fields, _stripped(fields.get("gid", "")))
        return outcome_reply(await self._service.register(asked))

    async def _prepare_workflow(self, request: HttpRequest) -> HttpReply:
        asked = _asked(request)
        if asked.trans_type is not TransType.WORKFLOW:
            raise InvalidRequest(f"trans_type: {asked.trans_type} is not a workflow; use prepare")
        answer = await self._service.prepare_workflow(asked)
        if answer.outcome is not Outcome.SUCCESS:
            return outcome_reply(answer)
        stored = answer.tx if isinstance(answer, Reply) else None
        tx = stored or Transaction(asked.gid, asked.trans_type, Status.PREPARED)
        return json_reply(
            {
                "progresses": [branch_shape(tx.gid, branch) for branch in tx.branches],
                "transaction": transaction_shape(tx),
            }
        )

    async def _query(self, request: HttpRequest) -> HttpReply:
        gid = _gid(request)
        if not gid:
            raise Failed("no gid specified")
        held = await self._service.query(gid)
        branches = held.tx.branches if held else ()
        return json_reply(
            {
                "branches": [branch_shape(gid, branch) for branch in branches],
                "transaction": held_shape(held) if held else None,
            }
        )

    async def _all(self, request: HttpRequest) -> HttpReply:
        which = Filter(
            status=_text(request, "status"),
            trans_type=_text(request, "transType"),
            created_from=_instant(request, "createTimeStart"),
            created_until=_instant(request, "createTimeEnd"),
        )
        page, position = await self._service.scan(
            _gid(request), _text(request, "position"), _limit(request), which
        )
        return json_reply(
            {
                "next_position": position,
                "transactions": [held_shape(held) for held in page] or None,
            }
        )

    async def _reset_cron_time(self, request: HttpRequest) -> HttpReply:
        timeout = _integer(request, "timeout", 3 * self._service.timeout_to_fail)
        if not 0 <= timeout <= MAX_SECONDS:
            raise InvalidRequest(
                f"timeout: {timeout} is out of range; use a number of seconds up to {MAX_SECONDS}"
            )
        number, more = await self._service.reset_cron_time(timeout, _limit(request))
        return json_reply({"has_remaining": more, "succeed_count": number})

    async def _reset_next_cron_time(self, request: HttpRequest) -> HttpReply:
        gid = check_gid(_body(request).text("gid"), Protocol.HTTP)
        if not await self._service.reset_next_cron_time(gid):
            raise Failed(NOBODY.format(gid=gid))
        return json_reply(_DONE)

    async def _subscribe(self, request: HttpRequest) -> HttpReply:
        await self._service.subscribe(
            _text(request, "topic"), _text(request, "url"), _text(request, "remark")
        )
        return json_reply(_DONE)

    async def _unsubscribe(self, request: HttpRequest) -> HttpReply:
        await self._service.unsubscribe(_text(request, "topic"), _text(request, "url"))
        return json_reply(_DONE)

    async def _delete_topic(self, request: HttpRequest) -> HttpReply:
        await self._service.delete_topic(text_of("topic", request.rest))
        return json_reply(_DONE)

    async def _scan_kv(self, request: HttpRequest) -> HttpReply:
        page, position = await self._service.scan_kv(
            _text(request, "cat"), _text(request, "position"), _limit(request)
        )
        return json_reply({"kv": [kv_shape(row) for row in page], "next_position": position})

    async def _query_kv(self, request: HttpRequest) -> HttpReply:
        rows = await self._service.find_kv(_text(request, "cat"), _text(request, "key"))
        return json_reply({"kv": [kv_shape(row) for row in rows]})


async def ping(_: HttpRequest) -> HttpReply:
    """What liveness probes of dtm ask for."""
    return json_reply({"msg": "pong"})


PING = Route("*", "/api/ping", ping)


def outcome_reply(answer: Reply | Answer) -> HttpReply:
    """The reply that dtm's clients understand as this outcome."""
    if answer.outcome is Outcome.SUCCESS:
        return json_reply(_DONE)
    status, word = _ERRORS[answer.outcome]
    if word is None:
        return message_reply(status, answer.text)
    return json_reply({"dtm_result": word, "message": answer.text}, status)


def _body(request: HttpRequest) -> Object:
    return Object(decode_object(request.body))


def _asked(request: HttpRequest) -> Request:
    body = _body(request)
    return transaction_request(body, _stripped(body.text("gid")))


def _stripped(gid: str) -> str:
    """``gid`` without what dtm takes out of it (dtmsvr/trans_class.go, TransFromContext)."""
    return gid.translate(_STRIPPED)


def _gid(request: HttpRequest) -> str:
    gid = _text(request, "gid")  # as it is stored: one that came over gRPC may have a semicolon
    return check_gid(gid, Protocol.HTTP) if gid else ""


def _text(request: HttpRequest, name: str) -> str:
    return text_of(name, request.query.get(name))


def _integer(request: HttpRequest, name: str, default: int) -> int:
    """A number of the query, in dtm's words where it is none (dtmimp.MustAtoi)."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not _WHOLE.fullmatch(text) or not -_INT64 <= int(text) < _INT64:
        raise Failed(f"convert to int error: {text[:_SHOWN]}")
    return int(text)


def _instant(request: HttpRequest, name: str) -> int | None:
    return _integer(request, name, 0) if request.query.get(name) else None


def _limit(request: HttpRequest) -> int:
    limit = _integer(request, "limit", DEFAULT_LIMIT)
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(
            f"limit: {limit} is out of range; ask for 1 to {MAX_LIMIT} and go on from next_position"
        )
    return limit
