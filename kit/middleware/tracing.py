"""A span a call, in kratos' words, joined across processes by W3C trace context.

The headers ``traceparent``, ``tracestate`` and ``baggage`` carry the context, ``x-md-service-name``
the caller's name. Spans need an SDK (``pip install kit[otel]``) set up by the application; without
one nothing is recorded and the context of a caller still travels on.

Around a stream each message has a span.

Source: go-kratos/kratos middleware/tracing/tracing.go, span.go, metadata.go.
"""

from collections.abc import Mapping
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.util.types import AttributeValue

from kit import errors
from kit.metadata import Metadata, server_metadata
from kit.transport import CallInfo, Handler, Kind, Middleware, current_call

TRACER = "kratos"
SERVICE_HEADER = "x-md-service-name"
_CANCELED = 499


def server(
    *,
    provider: TracerProvider | None = None,
    tracer: str = TRACER,
    propagator: TextMapPropagator | None = None,
) -> Middleware:
    """A span a call that is answered, below the caller's.

    Args:
        provider: makes spans; the process's by default.
        tracer: the name that spans are made under.
        propagator: reads the caller's context; the process's by default, which is W3C trace
            context and baggage.
    """
    return _tracing(SpanKind.SERVER, provider, tracer, propagator, "")


def client(
    *,
    service: str = "",
    provider: TracerProvider | None = None,
    tracer: str = TRACER,
    propagator: TextMapPropagator | None = None,
) -> Middleware:
    """A span a call that is made; see :func:`server`.

    Args:
        service: the name of the caller, which the callee's spans have as ``peer.service``; empty
            sends none.
        provider: as in :func:`server`.
        tracer: as in :func:`server`.
        propagator: writes the context into the request headers.
    """
    return _tracing(SpanKind.CLIENT, provider, tracer, propagator, service)


def _tracing(
    kind: SpanKind,
    provider: TracerProvider | None,
    name: str,
    propagator: TextMapPropagator | None,
    service: str,
) -> Middleware:
    spans: Tracer = trace.get_tracer(name, tracer_provider=provider)
    serving = kind is SpanKind.SERVER

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            info = current_call()
            if info is None:
                return await handler(request)
            carrier = propagator or propagate.get_global_textmap()
            above = _taken(info, carrier) if serving else None
            span = spans.start_span(info.operation, above, kind)
            token = context.attach(trace.set_span_in_context(span, above))
            try:
                if not serving:
                    carrier.inject(info.request_headers, setter=_HEADERS_OUT)
                    info.request_headers.set(SERVICE_HEADER, service)
                try:
                    reply = await handler(request)
                except BaseException as error:
                    if span.is_recording():
                        _describe(span, info, request, None)
                        _fail(span, error)
                    raise
                if span.is_recording():
                    _describe(span, info, request, reply)
                    span.set_status(Status(StatusCode.OK))
                return reply
            finally:
                span.end()
                context.detach(token)

        return call

    return wrap


def _taken(info: CallInfo, carrier: TextMapPropagator) -> context.Context:
    """The caller's context; its name becomes part of the server's metadata."""
    name = info.request_headers.get(SERVICE_HEADER)
    if name:
        metadata = server_metadata.get()
        if metadata is None:
            # Each call is a task of its own, and its context ends with it.
            server_metadata.set(metadata := Metadata())
        metadata.set(SERVICE_HEADER, name)
    return carrier.extract(info.request_headers, getter=_HEADERS_IN)


def _describe(span: Span, info: CallInfo, request: Any, reply: Any) -> None:
    attributes: dict[str, AttributeValue] = {"rpc.system": str(info.kind)}
    service, separator, method = info.operation.lstrip("/").rpartition("/")
    if separator:
        attributes |= {"rpc.service": service, "rpc.method": method}
    else:
        attributes["rpc.operation"] = info.operation
    if info.kind is Kind.HTTP:
        attributes |= _of_http(info)
    host, port = _host_and_port(info.peer)
    if info.peer:
        attributes |= {"net.peer.ip": host or "127.0.0.1", "net.peer.port": port}
    received, sent = (request, reply) if info.side == "server" else (reply, request)
    for name, message in (("recv_msg.size", received), ("send_msg.size", sent)):
        if (size := _size(message)) is not None:
            attributes[name] = size
    if info.side == "server" and (caller := info.request_headers.get(SERVICE_HEADER)):
        attributes["peer.service"] = caller
    span.set_attributes(attributes)


def _of_http(info: CallInfo) -> Mapping[str, AttributeValue]:
    """What an HTTP transport tells beside the rest: verb, route template, path."""
    told = (
        ("http.method", "verb"),
        ("http.route", "path_template"),
        ("http.target", "path"),
    )
    values = ((name, getattr(info, attribute, "")) for name, attribute in told)
    return {name: str(value) for name, value in values if value}


def _fail(span: Span, error: BaseException) -> None:
    canceled = not isinstance(error, Exception)
    span.record_exception(error)
    span.set_attribute("rpc.status_code", _CANCELED if canceled else errors.code(error))
    span.set_status(Status(StatusCode.ERROR, str(error) or type(error).__name__))


def _size(message: Any) -> int | None:
    if isinstance(message, bytes):
        return len(message)
    measure = getattr(message, "ByteSize", None)
    return measure() if callable(measure) else None


def _host_and_port(peer: str) -> tuple[str, str]:
    """Of ``host:port``, the host without the brackets of IPv6.

    >>> _host_and_port("[::1]:50051"), _host_and_port("10.0.0.1:9000")
    (('::1', '50051'), ('10.0.0.1', '9000'))
    """
    host, _, port = peer.rpartition(":")
    return host.strip("[]"), port


class _HeadersIn(Getter[Metadata]):
    def get(self, carrier: Metadata, key: str) -> list[str] | None:
        return carrier.values(key) or None

    def keys(self, carrier: Metadata) -> list[str]:
        return [key for key, _ in carrier.items()]


class _HeadersOut(Setter[Metadata]):
    def set(self, carrier: Metadata, key: str, value: str) -> None:
        carrier.set(key, value)


_HEADERS_IN = _HeadersIn()
_HEADERS_OUT = _HeadersOut()
