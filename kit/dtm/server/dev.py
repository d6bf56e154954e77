"""Routes that only a coordinator started with ``--dev`` has: time is skipped, rounds are asked for.

::

    POST /api/dev/clock {"advance_s": 180}   moves its clock ahead; whatever is due by then starts
    POST /api/dev/round {"gid": "…"}         runs a round of one transaction, answers when it ended
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from kit.clock import SkippingClock
from kit.dtm.server.engine import Engine
from kit.dtm.server.requests import InvalidRequest

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

PREFIX = "/api/dev"
MAX_ADVANCE_S = 10 * 365 * 86_400
MAX_BODY = 4_096


class DevRoutes:
    """An ASGI application for the paths under :data:`PREFIX`."""

    def __init__(self, engine: Engine, clock: SkippingClock) -> None:
        self._engine = engine
        self._clock = clock

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        routes = {f"{PREFIX}/clock": self._advance, f"{PREFIX}/round": self._round}
        route = routes.get(scope["path"])
        if route is None or scope["method"] != "POST":
            return await _reply(send, 404, {"message": f"POST one of {', '.join(routes)}"})
        try:
            status, body = await route(await _body(receive))
        except ValueError as error:
            status, body = 400, {"message": str(error)}
        return await _reply(send, status, body)

    async def _advance(self, body: dict[str, object]) -> tuple[int, dict[str, object]]:
        seconds = body.get("advance_s")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise InvalidRequest('advance_s: not a number of seconds; write {"advance_s": 180}')
        if not 0 <= seconds <= MAX_ADVANCE_S:
            raise InvalidRequest(f"advance_s: {seconds} is not between 0 and {MAX_ADVANCE_S}")
        self._clock.advance(seconds)
        self._engine.on_wake(0)
        return 200, {"now_ms": self._clock.now_ms()}

    async def _round(self, body: dict[str, object]) -> tuple[int, dict[str, object]]:
        gid = body.get("gid")
        if not isinstance(gid, str) or not gid:
            raise InvalidRequest('gid: not a text; write {"gid": "…"}')
        if not await self._engine.round(gid):
            return 404, {"message": f"gid: {gid!r} is not stored"}
        return 200, {"dtm_result": "SUCCESS"}


async def _body(receive: Receive) -> dict[str, object]:
    data = b""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise InvalidRequest("the connection was closed")
        data += message.get("body", b"")
        more = message.get("more_body", False)
        if len(data) > MAX_BODY:
            raise InvalidRequest(f"body: at most {MAX_BODY} bytes")
    try:
        decoded = json.loads(data or b"{}")
    except RecursionError:
        raise InvalidRequest("body: nested too deeply") from None
    if not isinstance(decoded, dict):
        raise InvalidRequest("body: not a JSON object")
    return decoded


async def _reply(send: Send, status: int, body: dict[str, object]) -> None:
    data = json.dumps(body).encode()
    headers = [
        (b"content-type", b"application/json; charset=utf-8"),
        (b"content-length", str(len(data)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
