"""An HTTP server with kratos' defaults, in the same loop as gRPC.

::

    server = HttpServer(address="0.0.0.0:8000", middleware=[recovery()])
    server.add_service(shop_pb2.DESCRIPTOR.services_by_name["Shop"], ShopService())

    async def hello(request: HttpRequest) -> dict[str, str]:
        return {"hello": request.path_params["name"]}

    server.get("/hello/{name}", hello)

From the outside in: filters see every request, 404 included; then the router; the filters of a
group and of a route; binding; the middleware; the method.

Source: go-kratos/kratos transport/http/server.go.
"""

import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

from kit.compat import Compat, chosen
from kit.encoding import CodecTable
from kit.encoding.families import AnyDescriptor
from kit.encoding.standard import codecs as standard_codecs
from kit.errors import ServiceUnavailable
from kit.transport import Handler, Middleware, chain
from kit.transport.http.asgi import AsgiApp, AsgiServer, Receive, Scope, Send, busy_json
from kit.transport.http.binding import Binder, rules_of
from kit.transport.http.exchange import Desk, Limits, respond
from kit.transport.http.methods import Wiring, request_metadata, unary_endpoint
from kit.transport.http.openapi import Document, docs_page
from kit.transport.http.replies import NOT_FOUND, Envelope, Raw, redirection
from kit.transport.http.router import ANY_VERB, Found, Moved, Route, Router
from kit.transport.http.routes import RouteHandler, handwritten_endpoint, static_handler
from kit.transport.http.streams import sse_endpoint, websocket_endpoint, websocket_wanted
from kit.transport.http.template import clean, join, parse_template
from kit.transport.operations import ByOperation, TimeLimits
from kit.transport.tls import ServerTls

_SLASH = re.compile("%2f", re.IGNORECASE)
_INSIDE = "\udc2f"
"""Stands for a slash inside a value; decoding never gives a lone surrogate."""

Filter: TypeAlias = Callable[[AsgiApp], AsgiApp]
"""Wraps an ASGI application; any ASGI middleware is one."""


class HttpServer(AsgiServer):
    """Serves generated services, routes and ASGI applications; a :class:`kit.transport.Server`.

    A method may raise a :class:`kit.errors.Error`; any other exception is answered 500 with its
    text. A method is cancelled when its client goes away or the server is cut short.

    Args:
        network: only ``tcp``.
        address: ``host:port``; a wildcard host takes IPv4 and IPv6, port 0 lets the system choose.
        timeout: seconds a call is given, as the deadline of its ``CallInfo``; it does not cut the
            method off. 0 or less for no limit. Streams have none.
        timeouts: in place of ``timeout`` for operations, or prefixes that end in ``*``.
        tls: the server's identity; without it plain text.
        endpoint: the URL to announce in place of the one found out.
        middleware: around every method and every handwritten route, first listed outermost.
        filters: around everything, first listed outermost.
        prefix: goes before every path.
        strict_slash: redirect between ``/a`` and ``/a/``.
        compat: with ``v2`` json is written by the protobuf mapping, with ``v3`` by struct rules;
            that of the process by default.
        codecs: in place of the table for ``compat``.
        envelope: around JSON answers; none by default.
        limits: what clients may take.
        not_found: answers paths that are not served, in place of kratos' text.
        method_not_allowed: answers paths that are served for another verb only; else these are
            answered like unknown ones, as in kratos.
        openapi: serve the document of all services at ``/openapi.json`` and a page at ``/docs``.

    Raises:
        ValueError: ``network``, ``address`` or a selector cannot be understood.
    """

    def __init__(
        self,
        *,
        network: str = "tcp",
        address: str = ":0",
        timeout: float = 1.0,
        timeouts: Mapping[str, float] | None = None,
        tls: ServerTls | ssl.SSLContext | None = None,
        endpoint: str | None = None,
        middleware: Sequence[Middleware] = (),
        filters: Sequence[Filter] = (),
        prefix: str = "",
        strict_slash: bool = True,
        compat: Compat | None = None,
        codecs: CodecTable | None = None,
        envelope: Envelope | None = None,
        limits: Limits | None = None,
        not_found: AsgiApp | None = None,
        method_not_allowed: AsgiApp | None = None,
        openapi: bool = False,
    ) -> None:
        if network != "tcp":
            raise ValueError(f"network {network!r} is not supported; write tcp")
        limits, compat = limits or Limits(), chosen(compat)
        self._desk = Desk(codecs or standard_codecs(compat), limits, envelope)
        self._router = Router(strict_slash=strict_slash)
        self._middleware = tuple(middleware)
        self._selected: ByOperation[tuple[Middleware, ...]] = ByOperation()
        self._mounts: list[tuple[str, AsgiApp]] = []
        self._prefix = prefix
        self._not_found = not_found
        self._method_not_allowed = method_not_allowed
        self._wiring = Wiring(
            self._desk, self._wrapper, lambda: self.endpoint or "", TimeLimits(timeout, timeouts)
        )
        self.document = Document(compat=compat, envelope=envelope)
        self.app: AsgiApp = self._serve
        for layer in reversed(filters):
            self.app = layer(self.app)
        super().__init__(
            self._guard,
            address=address,
            limits=limits,
            tls=tls,
            endpoint=endpoint,
            websockets=True,
            busy=busy_json("the server"),
        )
        if openapi:
            self.get("/openapi.json", self._openapi)
            self.get("/docs", _docs)

    def use(self, selector: str, *middleware: Middleware) -> None:
        """Add middleware, inside the defaults, for operations that ``selector`` matches.

        An exact operation wins over prefixes, the longest prefix over shorter ones; only one group
        is added to the defaults.

        Raises:
            ValueError: ``selector`` is neither an operation nor a prefix that ends in ``*``.

        Source: go-kratos/kratos internal/matcher/middleware.go.
        """
        self._selected.add(selector, middleware)

    def add_service(
        self,
        service: AnyDescriptor,
        servicer: object,
        *,
        unannotated: str | None = None,
        filters: Sequence[Filter] = (),
        comments: Mapping[str, str] | None = None,
    ) -> None:
        """Serve the methods of a service that have a ``google.api.http`` rule.

        Server streams are answered as Server-Sent Events; streams of the client become WebSockets.

        Args:
            service: its descriptor, ``…_pb2.DESCRIPTOR.services_by_name["Name"]``.
            servicer: has a method of each name, as for gRPC.
            unannotated: serve methods without a rule, too, at ``POST <this prefix>/pkg.Service/
                Method``; ``None`` leaves them out.
            filters: around these routes only.
            comments: of the proto file by full name, for the document; generated code brings them.

        Raises:
            ValueError: a rule names a field that does not exist, or has a path that cannot be read.
            TypeError: ``servicer`` lacks a method.
        """
        self.document.add(
            service,
            prefix=self._prefix,
            unannotated=unannotated,
            comments=lambda name: (comments or {}).get(name, ""),
        )
        for method in service.methods:
            for rule in rules_of(method, unannotated=unannotated):
                binder = Binder(rule, method, self._prefix)
                if method.client_streaming:
                    endpoint = websocket_endpoint(self._wiring, method, binder, servicer)
                    self._route("GET", binder.template.text, endpoint, filters, websocket=True)
                    self._route("GET", binder.template.text, websocket_wanted(self._desk), filters)
                    continue
                make = sse_endpoint if method.server_streaming else unary_endpoint
                endpoint = make(self._wiring, method, binder, servicer)
                self._route(rule.verb, binder.template.text, endpoint, filters)

    def route(
        self,
        verb: str,
        path: str,
        handler: RouteHandler,
        *filters: Filter,
        body_bytes: int | None = None,
    ) -> None:
        """Serve ``handler`` for a verb, ``*`` for every one, and a path template.

        Args:
            verb: in any case.
            path: after the server's prefix.
            handler: takes a :class:`HttpRequest`; runs inside the middleware.
            filters: around this route only.
            body_bytes: the most that a request may have, in place of the server's limit.

        Raises:
            ValueError: ``path`` cannot be read.
        """
        path = join(self._prefix, path)
        endpoint = handwritten_endpoint(self._wiring, path, handler, body_bytes=body_bytes)
        self._route(verb.upper(), path, endpoint, filters)

    def get(self, path: str, handler: RouteHandler, *filters: Filter) -> None:
        """Serve ``handler`` for GET."""
        self.route("GET", path, handler, *filters)

    def post(self, path: str, handler: RouteHandler, *filters: Filter) -> None:
        """Serve ``handler`` for POST."""
        self.route("POST", path, handler, *filters)

    def group(self, prefix: str, *filters: Filter) -> "Group":
        """Routes below a prefix with filters of their own."""
        return Group(self, prefix, filters)

    def static(self, path: str, folder: str | Path, *filters: Filter) -> None:
        """Serve the files below ``folder`` at ``path``, for GET and HEAD, inside the middleware.

        Raises:
            RuntimeError: there is no such folder.
        """
        handler = static_handler(folder)
        for verb in ("GET", "HEAD"):
            self.route(verb, f"{path.rstrip('/')}/{{path=**}}", handler, *filters)

    def websocket(self, path: str, app: AsgiApp, *filters: Filter) -> None:
        """Serve WebSockets with an ASGI application, such as one over Starlette's WebSocket."""
        self._route("GET", join(self._prefix, path), app, filters, websocket=True)

    def mount(self, path: str, app: AsgiApp) -> None:
        """Pass everything at ``path`` and below it, that no route serves, to an ASGI application.

        The application sees whole paths. It has the filters, but no middleware.
        """
        self._mounts.append((join(self._prefix, path).rstrip("/"), app))

    def _route(
        self,
        verb: str,
        path: str,
        endpoint: AsgiApp,
        filters: Sequence[Filter],
        *,
        websocket: bool = False,
    ) -> None:
        for layer in reversed(filters):
            endpoint = layer(endpoint)
        self._router.add(Route(verb, parse_template(path), endpoint, websocket))

    def _wrapper(self, operation: str) -> Middleware:
        """Puts an operation's middleware around a handler; asked on its first call, not before."""

        def wrap(handler: Handler) -> Handler:
            return chain((*self._middleware, *(self._selected.find(operation) or ())))(handler)

        return wrap

    async def _guard(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Everything, behind the cap on requests."""
        desk = self._desk
        if desk.handling >= desk.limits.requests and scope["type"] == "http":
            error = ServiceUnavailable("BUSY", f"{desk.handling} requests are being handled")
            reply = desk.error(error, request_metadata(scope), scope["method"])
            await respond(reply, send, last=receive)
            return
        desk.handling += 1
        try:
            await self.app(scope, receive, send)
        finally:
            desk.handling -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The router, inside the filters."""
        websocket = scope["type"] == "websocket"
        verb = "GET" if websocket else scope["method"]
        match self._find(verb, scope, websocket=websocket):
            case Found(route, variables):
                scope["path_params"] = variables
                await route.endpoint(scope, receive, send)
            case _ if (mounted := self._mounted(scope["path"])) is not None:
                await mounted(scope, receive, send)
            case _ if websocket:
                await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
                body = NOT_FOUND.body
                await send({"type": "websocket.http.response.body", "body": body})
            case Moved(location, explained):
                query = scope["query_string"].decode("latin-1")
                url = f"{location}?{query}" if query else location
                plain = Raw(b"", "", 301, (("location", url),))
                await respond(redirection(url, 301, verb) if explained else plain, send)
            case _:
                await self._elsewhere(scope, receive, send)

    def _find(self, verb: str, scope: Scope, *, websocket: bool) -> Found | Moved | None:
        """What serves a request: by its decoded path as in kratos, else with ``%2F`` inside values.

        So a client that encodes a slash in a variable is understood, where Go answers 404.
        """
        found = self._router.find(verb, scope["path"], websocket=websocket)
        raw = scope["raw_path"]
        if isinstance(found, Found) or b"%2" not in raw:
            return found
        path = unquote(_SLASH.sub(_INSIDE, raw.decode("ascii", "replace")))
        if _INSIDE in path and clean(path) == path:
            second = self._router.find(verb, path, websocket=websocket)
            if isinstance(second, Found):
                values = {
                    name: value.replace(_INSIDE, "/") for name, value in second.variables.items()
                }
                return Found(second.route, values)
        return found

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._method_not_allowed is not None and self._router.serves(scope["path"]):
            await self._method_not_allowed(scope, receive, send)
        elif self._not_found is not None:
            await self._not_found(scope, receive, send)
        else:
            await respond(NOT_FOUND, send)

    def _mounted(self, path: str) -> AsgiApp | None:
        for prefix, app in self._mounts:
            if path == prefix or path.startswith(f"{prefix}/"):
                return app
        return None

    async def _openapi(self, _request: Any) -> Raw:
        return Raw(self.document.to_json(), "application/json")


class Group:
    """Routes below a prefix.

    Args:
        server: serves them.
        prefix: goes before their paths.
        filters: around each of them.
    """

    def __init__(self, server: HttpServer, prefix: str, filters: Sequence[Filter]) -> None:
        self._server = server
        self._prefix = prefix
        self._filters = tuple(filters)

    def route(self, verb: str, path: str, handler: RouteHandler, *filters: Filter) -> None:
        """Serve ``handler``; see :meth:`HttpServer.route`."""
        path = join(self._prefix, path)
        self._server.route(verb, path, handler, *self._filters, *filters)

    def get(self, path: str, handler: RouteHandler, *filters: Filter) -> None:
        """Serve ``handler`` for GET."""
        self.route("GET", path, handler, *filters)

    def post(self, path: str, handler: RouteHandler, *filters: Filter) -> None:
        """Serve ``handler`` for POST."""
        self.route("POST", path, handler, *filters)

    def group(self, prefix: str, *filters: Filter) -> "Group":
        """A group inside this one."""
        return Group(self._server, join(self._prefix, prefix), (*self._filters, *filters))


async def _docs(_request: Any) -> Raw:
    return docs_page()


__all__ = ["ANY_VERB", "Filter", "Group", "HttpServer"]
