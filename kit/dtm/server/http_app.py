"""The coordinator's HTTP side as an ASGI application: finds routes, keeps limits, answers errors.

What a route does is in :mod:`kit.dtm.server.api_http` and :mod:`kit.dtm.server.api_jsonrpc`; here
its body is read within limits, and whatever it gives or raises becomes a reply.

Source: dtm-labs/dtm dtmutil/utils.go (WrapHandler2), gin's router.
"""

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote

from kit import log
from kit.dtm.server.http_json import BadJson, encode
from kit.dtm.server.requests import InvalidRequest
from kit.dtm.server.topics import TopicError
from kit.dtm.store import StoreUnavailable

logger = log.get_logger()

MAX_BODY_BYTES = 4 << 20
MAX_BUFFERED_BYTES = 64 << 20
"""Of the bodies of all requests together."""
MAX_REQUESTS = 800
"""That are answered at the same time; ping and metrics come beside them."""
LINGER_S = 2.0
"""How long a client that sends too much is listened to, so that it reads why it was refused."""

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

Observe: TypeAlias = Callable[[str, str, bool, float], None]
"""Told of each request: ``http``, the route, whether it went well, seconds."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What a route may look at.

    Attributes:
        query: the first value of each name.
        body: of POST; other bodies are not read.
        rest: of the path, where the route ends with ``/*``.
    """

    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    rest: str = ""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What a client is answered.

    Attributes:
        headers: beside Content-Type and Content-Length.
        last: the connection ends with it: what the client still sends was not read.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    last: bool = False


Handler: TypeAlias = Callable[[HttpRequest], Awaitable[HttpReply]]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, and what happens there.

    Attributes:
        method: ``*`` for any.
        path: exact; one more part has to stand where it ends with ``/*``.
        handle: answers; what it may raise is what :class:`HttpApp` makes replies of.
        api: the name in metrics; a route without one is not counted, and is served on a busy server
            as well.
    """

    method: str
    path: str
    handle: Handler
    api: str = ""


def json_reply(value: object, status: int = 200) -> HttpReply:
    """``value`` as JSON."""
    return HttpReply(status, encode(value))


def message_reply(status: int, text: str) -> HttpReply:
    """``{"message": text}``, as an error without a result word is answered."""
    return json_reply({"message": text}, status)


class Failed(Exception):
    """Answered with 500 and this text, which dtm's clients may look for."""


class HttpApp:
    """Finds the route of a request and answers it; an ASGI application.

    ``InvalidRequest`` and ``BadJson`` are answered with 400, ``StoreUnavailable`` with 503,
    ``Failed`` and ``TopicError`` with 500 and their text, anything else with 500 and no text of its
    own.

    Args:
        routes: exact paths win over those with ``/*``.
        mounts: path prefixes to other ASGI applications, asked when no route fits; the longest
            prefix wins, and ``/`` takes all but what begins with ``/api/``. They are given the
            whole path, and a body within the limits.
        observe: told of each request but those to mounts; what no route fits is ``other``.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        *,
        mounts: Mapping[str, AsgiApp] | None = None,
        observe: Observe = lambda _, __, ___, ____: None,
    ) -> None:
        self._routes = {(route.method, route.path): route for route in routes}
        self._mounts = sorted(
            ((prefix.rstrip("/"), app) for prefix, app in (mounts or {}).items()),
            key=lambda mount: -len(mount[0]),
        )
        self._observe = observe
        self._answering = 0
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"scope {scope['type']!r} is not served; only http is")
        began = time.perf_counter()
        route, rest = self._find(scope["method"], scope["path"], scope["raw_path"])
        mounted = self._mounted(scope["path"]) if route is None else None
        if mounted is not None:
            reply = await self._pass_on(mounted, scope, receive, send)
        elif route is not None:
            reply = await self._answer(route, rest, scope, receive)
        else:
            reply = self._elsewhere(scope)
        if reply is None:
            return
        api = "other" if route is None else route.api
        if api and mounted is None:
            self._observe("http", api, reply.status < 400, time.perf_counter() - began)
        await _send(reply, receive, send)

    def _find(self, method: str, path: str, raw_path: bytes) -> tuple[Route | None, str]:
        """The route, and the part that stands for its ``*``.

        That part is taken from the path as sent: ``%2F`` in it is no separator.
        """
        for key in ((method, path), ("*", path)):
            if key in self._routes:
                return self._routes[key], ""
        parent, _, rest = raw_path.decode("ascii").rpartition("/")
        return (self._routes.get((method, f"{parent}/*")) if rest else None), unquote(rest)

    def _mounted(self, path: str) -> AsgiApp | None:
        for prefix, app in self._mounts:
            if prefix and (path == prefix or path.startswith(f"{prefix}/")):
                return app
            if not prefix and not path.startswith("/api/"):
                return app
        return None

    def _elsewhere(self, scope: Scope) -> HttpReply:
        """Where a path with a slash too many belongs; or nowhere."""
        path, raw_path = scope["path"], scope["raw_path"].removesuffix(b"/")
        if path.endswith("/") and self._find(scope["method"], path[:-1], raw_path)[0] is not None:
            query = scope["query_string"]
            location = raw_path + b"?" + query if query else raw_path
            status = 301 if scope["method"] == "GET" else 307
            return HttpReply(status, b"", TEXT, ((b"location", location),))
        return HttpReply(404, b"404 page not found", TEXT)

    async def _answer(
        self, route: Route, rest: str, scope: Scope, receive: Receive
    ) -> HttpReply | None:
        """What ``route`` gives or raises, as a reply; ``None`` when the client has left."""
        if route.api and self._answering >= MAX_REQUESTS:
            return _busy(f"{MAX_REQUESTS} requests are being answered")
        self._answering += 1
        try:
            if scope["method"] != "POST":
                return await route.handle(HttpRequest(_query(scope), b"", rest))
            async with self._body(scope, receive) as body:
                return await route.handle(HttpRequest(_query(scope), body, rest))
        except _Refused as refused:
            return refused.reply
        except (InvalidRequest, BadJson) as error:
            logger.warning("request refused", call=scope["path"], reason=str(error))
            return message_reply(400, str(error))
        except (Failed, TopicError) as error:
            return message_reply(500, str(error))
        except StoreUnavailable as error:
            logger.warning("store unavailable", call=scope["path"], reason=error.message)
            return message_reply(503, error.message)
        except _Gone:
            return None
        except Exception as error:  # noqa: BLE001  (one request must not end the server)
            return _internal(scope, error)
        finally:
            self._answering -= 1

    async def _pass_on(
        self, app: AsgiApp, scope: Scope, receive: Receive, send: Send
    ) -> HttpReply | None:
        """Let a mounted application answer; ``None`` once it has begun to."""
        if self._answering >= MAX_REQUESTS:
            return _busy(f"{MAX_REQUESTS} requests are being answered")
        began = False

        async def sending(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        self._answering += 1
        try:
            async with self._body(scope, receive) as body:
                await app(scope, _replayed(body, receive), sending)
        except _Refused as refused:
            return refused.reply
        except _Gone:
            return None
        except Exception as error:
            reply = _internal(scope, error)
            if began:
                raise  # too late for a reply: the server closes the connection
            return reply
        finally:
            self._answering -= 1
        return None

    @asynccontextmanager
    async def _body(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """The body of a request, counted among those of all for as long as it is needed."""
        taken, body, more = 0, bytearray(), True
        if _declared_length(scope) > MAX_BODY_BYTES:
            raise _Refused(_too_large())
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                chunk = message.get("body", b"")
                taken += len(chunk)
                self._buffered += len(chunk)
                if taken > MAX_BODY_BYTES:
                    raise _Refused(_too_large())
                if self._buffered > MAX_BUFFERED_BYTES:
                    raise _Refused(_busy(f"{MAX_BUFFERED_BYTES} bytes of bodies are waiting"))
                body += chunk
                more = message.get("more_body", False)
            yield bytes(body)
        finally:
            self._buffered -= taken


class _Gone(Exception):
    """The client left before its body was complete."""


class _Refused(Exception):
    """The request goes over a limit."""

    def __init__(self, reply: HttpReply) -> None:
        super().__init__()
        self.reply = reply


def _too_large() -> HttpReply:
    text = f"the body is too large; at most {MAX_BODY_BYTES} bytes are taken"
    return replace(message_reply(413, text), last=True)


def _busy(why: str) -> HttpReply:
    text = f"the coordinator is busy: {why}; try again later"
    return replace(message_reply(503, text), last=True)


def _internal(scope: Scope, error: Exception) -> HttpReply:
    logger.error("request failed", call=scope["path"], exc_info=error)
    return message_reply(500, "internal error; the coordinator's log has its cause")


def _query(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    text = scope["query_string"].decode("utf-8", "replace")
    for name, value in parse_qsl(text, keep_blank_values=True):
        found.setdefault(name, value)
    return found


def _declared_length(scope: Scope) -> int:
    """What Content-Length says; the server has seen to it that it is a number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


def _replayed(body: bytes, receive: Receive) -> Receive:
    """``receive`` for a body that was read already."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay


async def _send(reply: HttpReply, receive: Receive, send: Send) -> None:
    headers = [
        (b"content-type", reply.content_type.encode()),
        (b"content-length", b"%d" % len(reply.body)),
        *reply.headers,
    ]
    if reply.last:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if not reply.last:
        await send({"type": "http.response.body", "body": reply.body})
        return
    # Closing on a client that still sends would reset the connection, and the reply with it.
    await send({"type": "http.response.body", "body": reply.body, "more_body": True})
    try:
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})
