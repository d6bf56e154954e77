"""Routes written by hand: they run inside the middleware, too.

A handler takes a :class:`HttpRequest` and gives a message, a plain value, a :class:`Raw`, a
:class:`Redirect` or a response of Starlette. Errors are answered as everywhere.

Source: go-kratos/kratos transport/http/router.go, context.go; there such a route has no middleware
unless it asks for it.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from kit.encoding import CodecError, form
from kit.errors import NotFound
from kit.transport import Handler, call_info
from kit.transport.http.asgi import AsgiApp, Receive, Scope, Send
from kit.transport.http.exchange import (
    BodyTooLarge,
    Desk,
    HttpCallInfo,
    codec_error,
    end_with_client,
    raw_headers,
    respond,
)
from kit.transport.http.methods import Wiring, failed, sendable, sound
from kit.transport.http.replies import NOT_FOUND, Raw, Redirect

_DESK = "kit.desk"


class HttpRequest(Request):
    """A request of Starlette that can fill messages."""

    async def bind(self, kind: Any) -> Any:
        """The body as a ``kind``, by its content type.

        Raises:
            BadRequest: CODEC; it cannot be read.
        """
        desk: Desk = self.scope[_DESK]
        info = call_info.get()
        assert isinstance(info, HttpCallInfo), "called outside of its handler"
        codec = desk.body_codec(info.request_headers)
        try:
            return codec.decode(await self.body(), kind)
        except CodecError as exc:
            raise codec_error(CodecError(f"body unmarshal {exc}")) from exc

    def bind_query(self, kind: Any) -> Any:
        """The query as a message of google.protobuf.

        Raises:
            BadRequest: CODEC; a value does not fit.
        """
        return self._filled(kind, form.parse, self.scope["query_string"])

    def bind_vars(self, kind: Any) -> Any:
        """The variables of the path as a message of google.protobuf.

        Raises:
            BadRequest: CODEC; a value does not fit.
        """
        variables = {name: [value] for name, value in self.path_params.items()}
        return self._filled(kind, lambda given: given, variables)

    def _filled(self, kind: Any, read: Callable[[Any], dict[str, list[str]]], given: Any) -> Any:
        message = kind()
        try:
            form.bind(message, read(given))
        except CodecError as exc:
            raise codec_error(exc) from exc
        return message


RouteHandler: TypeAlias = Callable[[HttpRequest], Awaitable[Any]]


def handwritten_endpoint(
    wiring: Wiring, template: str, handler: RouteHandler, *, body_bytes: int | None
) -> AsgiApp:
    """Serve ``handler``.

    Args:
        wiring: of the server.
        template: the path, which is the operation as well.
        handler: see above.
        body_bytes: the most that a request may have, in place of the server's limit.
    """
    desk = wiring.desk
    most = desk.limits.body_bytes if body_bytes is None else body_bytes
    compiled: Handler | None = None

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal compiled
        if compiled is None:
            compiled = wiring.wrap(template)(handler)
        end_with_client(scope)
        info = wiring.info(scope, template, template, timed=True)
        scope[_DESK] = desk
        limited = _Limited(receive, most)
        last: Receive | None = None
        token = call_info.set(info)
        try:
            value = await compiled(HttpRequest(scope, limited))
            if isinstance(value, Response):
                value.raw_headers.extend(raw_headers(info.reply_headers.items()))
                await value(scope, receive, send)
                return
            reply = _answer(desk, value, info)
            raw_headers(info.reply_headers.items())
        except ClientDisconnect:
            return
        except Exception as exc:  # noqa: BLE001  (whatever it is, the client is answered)
            reply = NOT_FOUND if isinstance(exc, _NoSuchFile) else failed(desk, exc, info)
            last = receive if limited.exceeded or isinstance(exc, BodyTooLarge) else None
        finally:
            info.deadline = None
            call_info.reset(token)
        await respond(reply, send, sendable(info), last=last)

    return serve


def _answer(desk: Desk, value: Any, info: HttpCallInfo) -> Raw:
    if value is None:
        return Raw(b"", "")
    if isinstance(value, Raw):
        return sound(value)
    if isinstance(value, Redirect):
        return desk.error(value, info.request_headers, info.verb)
    return desk.encoded(value, desk.reply_codec(info.request_headers))


class _Limited:
    """A ``receive`` that counts."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._left = most
        self._most = most
        self.exceeded = False

    async def __call__(self) -> Any:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.exceeded = True
            raise BodyTooLarge(self._most)
        return message


class _NoSuchFile(NotFound):
    """Answered in the words for paths that are not served."""


def static_handler(folder: str | Path) -> RouteHandler:
    """Serves the files below ``folder``; links that lead out of it are not followed.

    Raises:
        RuntimeError: there is no such folder.
    """
    files = StaticFiles(directory=folder, html=False)

    async def serve(request: HttpRequest) -> Response:
        try:
            return await files.get_response(request.path_params["path"], request.scope)
        except HTTPException as exc:
            raise _NoSuchFile("NOT_FOUND", "no such file") from exc

    return serve
