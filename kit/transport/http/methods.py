"""From a request to a service's method and back.

A call goes through: binding, call info, middleware, method, encoding. What fails in binding never
reaches the middleware, as in kratos.

The server's time limit is a deadline that the method can see, not one that cuts it off; the timeout
middleware cuts. A method is cancelled when its client goes away.

Source: go-kratos/kratos transport/http/context.go; cmd/protoc-gen-go-http/httpTemplate.tpl.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from kit import log
from kit.encoding import CodecError, families
from kit.encoding.families import AnyDescriptor
from kit.errors import Error
from kit.metadata import Metadata
from kit.transport import Handler, Kind, Middleware, call_info
from kit.transport.http.asgi import AsgiApp, Receive, Scope, Send
from kit.transport.http.binding import HTTP_BODY, Binder, encode_field
from kit.transport.http.context import HttpContext
from kit.transport.http.exchange import (
    BodyTooLarge,
    Desk,
    Gone,
    HttpCallInfo,
    codec_error,
    end_with_client,
    raw_headers,
    redirect_in,
    respond,
)
from kit.transport.http.replies import Raw, Redirect
from kit.transport.operations import TimeLimits

_log = log.get_logger()

_NOT_WRITTEN = "Method not implemented!"  # what generated base classes say


class Wiring:
    """What an endpoint needs of its server.

    Args:
        desk: codecs and limits.
        wrap: the middleware of an operation; asked on its first call.
        endpoint: the server's own URL, once it is known.
        limits: how long calls may take.
    """

    def __init__(
        self,
        desk: Desk,
        wrap: Callable[[str], Middleware],
        endpoint: Callable[[], str],
        limits: TimeLimits,
    ) -> None:
        self.desk = desk
        self.wrap = wrap
        self.endpoint = endpoint
        self.limits = limits

    def info(self, scope: Scope, operation: str, template: str, *, timed: bool) -> HttpCallInfo:
        """What is known of a call before it runs."""
        timeout = self.limits.of(operation) if timed else None
        client = scope.get("client")
        return HttpCallInfo(
            Kind.HTTP,
            "server",
            operation,
            self.endpoint(),
            request_metadata(scope),
            Metadata(),
            None if timeout is None else time.monotonic() + timeout,
            timeout,
            "" if timeout is None else "server",
            f"{client[0]}:{client[1]}" if client else "",
            scope.get("method", "GET"),
            scope["path"],
            template,
            scope,
        )


def request_metadata(scope: Scope) -> Metadata:
    """The request headers."""
    return Metadata(
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    )


def unary_endpoint(
    wiring: Wiring, method: AnyDescriptor, binder: Binder, servicer: object
) -> AsgiApp:
    """Serve one rule of a method of one request and one reply."""
    operation = f"/{method.containing_service.full_name}/{method.name}"
    behaviour = behaviour_of(servicer, method)
    convert = request_converter(behaviour_named(servicer, method))
    template = binder.template.text
    desk = wiring.desk
    compiled: Handler | None = None
    reply_kind = GetMessageClass(method.output_type)

    async def innermost(request: Any) -> Any:
        info = call_info.get()
        assert isinstance(info, HttpCallInfo), "middleware replaced the call info"
        context = HttpContext(info)
        try:
            reply = await behaviour(request if convert is None else convert(request), context)
        except NotImplementedError as exc:
            raise not_implemented(exc, context, method.name) from exc
        context.raise_for_code()
        return reply

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal compiled
        if compiled is None:
            compiled = wiring.wrap(operation)(innermost)
        end_with_client(scope)
        info = wiring.info(scope, operation, template, timed=True)
        last: Receive | None = None
        try:
            message = await bound(desk, binder, info, receive)
            token = call_info.set(info)
            try:
                value = await compiled(message)
            finally:
                info.deadline = None
                call_info.reset(token)
            reply = answer(desk, binder, value, reply_kind, info)
            more = raw_headers(info.reply_headers.items())
        except Gone:
            return
        except Exception as exc:  # noqa: BLE001  (whatever it is, the client is answered)
            reply, more = failed(desk, exc, info), sendable(info)
            last = receive if isinstance(exc, BodyTooLarge) else None
        await respond(reply, send, more, last=last)

    return serve


async def bound(desk: Desk, binder: Binder, info: HttpCallInfo, receive: Receive) -> Message:
    """The message of a request.

    Raises:
        BadRequest: CODEC; it cannot be read.
        Gone: the client left.
    """
    scope, headers = info.scope, info.request_headers
    body, codec = b"", None
    if binder.reads_body:
        if not binder.takes_any_type:
            codec = desk.body_codec(headers)
        body = await desk.body(scope, receive)
    try:
        return binder.bind(
            body,
            codec,
            scope["query_string"],
            scope.get("path_params", {}),
            headers.get("content-type"),
        )
    except CodecError as exc:
        raise codec_error(exc) from exc


def answer(desk: Desk, binder: Binder, value: Any, kind: type[Message], info: HttpCallInfo) -> Raw:
    """What a method gave, as an answer.

    Raises:
        TypeError: it is not the method's reply type.
        CodecError: the accepted codec has no form for it.
    """
    if value is None:
        return Raw(b"", "")
    if isinstance(value, Raw):
        return sound(value)
    if isinstance(value, Redirect):
        return desk.error(value, info.request_headers, info.verb)
    reply: Any = google_reply(value, kind, info.operation)
    if reply.DESCRIPTOR.full_name == HTTP_BODY:
        return _raw_body(reply)
    codec = desk.reply_codec(info.request_headers)
    part, field = binder.reply_of(reply)
    if field is None:
        return desk.encoded(reply, codec)
    if field.message_type is not None and field.message_type.full_name == HTTP_BODY:
        return _raw_body(part)
    return desk.enveloped(encode_field(field, part, codec), codec)


def _raw_body(body: Any) -> Raw:
    return sound(Raw(body.data, body.content_type or "application/octet-stream"))


def sound(reply: Raw) -> Raw:
    """``reply``, when its headers can be sent.

    Raises:
        ValueError: one of them could end the header.
    """
    raw_headers((("content-type", reply.content_type), *reply.headers))
    return reply


def google_reply(value: Any, kind: type[Message], operation: str) -> Message:
    """``value`` as a message of google.protobuf, which messages of other packages become.

    Raises:
        TypeError: it is not the method's reply type.
    """
    if isinstance(value, Message):
        if value.DESCRIPTOR is kind.DESCRIPTOR:
            return value
    elif families.is_foreign(type(value)):
        converted: Message = families.from_bytes(kind, families.to_bytes(value))
        return converted
    raise TypeError(f"{operation} gave {type(value).__name__}, not {kind.DESCRIPTOR.full_name}")


def failed(desk: Desk, error: Exception, info: HttpCallInfo) -> Raw:
    """The answer that ``error`` is."""
    if not isinstance(error, Error) and redirect_in(error) is None:
        _log.error(f"[HTTP] {info.operation} failed", exc_info=error)
    return desk.error(error, info.request_headers, info.verb)


def sendable(info: HttpCallInfo) -> list[tuple[bytes, bytes]]:
    """The reply headers, or none when one of them cannot be sent."""
    try:
        return raw_headers(info.reply_headers.items())
    except ValueError:
        return []


def behaviour_named(servicer: object, method: AnyDescriptor) -> Callable[[Any, Any], Any]:
    """The method of ``servicer``, as it is.

    Raises:
        TypeError: it has none of the name.
    """
    behaviour = getattr(servicer, method.name, None)
    if behaviour is None:
        raise TypeError(f"{type(servicer).__name__} has no method {method.name}")
    return cast("Callable[[Any, Any], Any]", behaviour)


def request_converter(behaviour: Callable[[Any, Any], Any]) -> Callable[[Message], Any] | None:
    """Makes the message of another package, which a method's annotation asks for; else ``None``."""
    kind = families.annotated(behaviour)
    if kind is None:
        return None
    return lambda message: families.from_bytes(kind, message.SerializeToString())


def behaviour_of(servicer: object, method: AnyDescriptor) -> Callable[[Any, Any], Awaitable[Any]]:
    """The method of ``servicer``, run in a thread when it was written without ``async``.

    Raises:
        TypeError: it has none of the name.
    """
    behaviour = behaviour_named(servicer, method)
    if inspect.iscoroutinefunction(behaviour):
        return cast("Callable[[Any, Any], Awaitable[Any]]", behaviour)

    async def run(request: Any, context: HttpContext) -> Any:
        result = await asyncio.to_thread(behaviour, request, context)
        return await result if inspect.isawaitable(result) else result

    return run


def not_implemented(error: NotImplementedError, context: HttpContext, name: str) -> Exception:
    """What stands for a method that was left to the generated base class."""
    if context.details() == _NOT_WRITTEN:
        return Error(501, "", f"method {name} not implemented")
    return error
