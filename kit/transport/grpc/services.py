"""What a server serves: finds the route of a method, and the middleware that goes around it.

Source: go-kratos/kratos internal/matcher/middleware.go, grpc-go server.go handleStream.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import grpc

from kit.errors.codes import GrpcCode
from kit.transport import Handler, Middleware, chain
from kit.transport.grpc.engine import Route, RpcFailed, StreamRoute, UnaryRoute
from kit.transport.grpc.method import MethodHandler, stream_method, unary_method
from kit.transport.operations import ByOperation, TimeLimits


@dataclass(slots=True)
class _Question:
    """What a generic handler is asked."""

    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...] = ()


class Services:
    """Methods by path.

    Args:
        limits: how long unary calls may take.
        middleware: around every unary method, first listed outermost.
        stream_middleware: around every message of a stream.
        endpoint: tells the server's own URL, once it is known.
    """

    def __init__(
        self,
        *,
        limits: TimeLimits,
        middleware: Sequence[Middleware],
        stream_middleware: Sequence[Middleware],
        endpoint: Callable[[], str],
    ) -> None:
        self._limits = limits
        self._middleware = tuple(middleware)
        self._stream_middleware = tuple(stream_middleware)
        self._endpoint = endpoint
        self._selected: ByOperation[tuple[Middleware, ...]] = ByOperation()
        self._routes: dict[str, Route] = {}
        self._generic: list[grpc.GenericRpcHandler] = []
        self._names: set[str] = set()

    def use(self, selector: str, middleware: Sequence[Middleware]) -> None:
        """Add middleware, inside the defaults, for operations that ``selector`` matches.

        An exact operation wins over prefixes, the longest prefix over shorter ones; only one group
        is added to the defaults.

        Raises:
            ValueError: ``selector`` is neither an operation nor a prefix that ends in ``*``.
        """
        self._selected.add(selector, tuple(middleware))

    def names(self) -> list[str]:
        """Full names of all services, sorted."""
        return sorted(self._names)

    def methods(self) -> list[str]:
        """``/package.Service/Method`` of all that is registered by name, sorted."""
        return sorted(self._routes)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Serve what ``handlers`` know and was not registered by name."""
        for handler in handlers:
            self._generic.append(handler)
            if isinstance(handler, grpc.ServiceRpcHandler):
                self._names.add(handler.service_name())

    def add_registered_method_handlers(
        self, service: str, handlers: Mapping[str, MethodHandler]
    ) -> None:
        """Serve the methods of a generated service."""
        self._names.add(service)
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            self._routes[method] = self._route(method, handler)

    def add_routes(self, service: str, routes: Mapping[str, Route]) -> None:
        """Serve ``routes``, by method name, without middleware."""
        self._names.add(service)
        self._routes.update({f"/{service}/{name}": route for name, route in routes.items()})

    def find(self, method: str) -> Route | RpcFailed:
        """The route of ``method``, or how the call fails, in the words of grpc-go."""
        route = self._routes.get(method)
        if route is not None:
            return route
        for generic in self._generic:
            handler = generic.service(_Question(method))
            if handler is not None:
                return self._route(method, handler)
        service, separator, name = method.removeprefix("/").rpartition("/")
        if not separator:
            text = f'malformed method name: "{method}"'
        elif service in self._names:
            text = f"unknown method {name} for service {service}"
        else:
            text = f"unknown service {service}"
        return RpcFailed(GrpcCode.UNIMPLEMENTED, text)

    def _route(self, method: str, handler: MethodHandler) -> Route:
        if handler.request_streaming or handler.response_streaming:
            wrap = self._wrapper(method, self._stream_middleware)
            return StreamRoute(stream_method(method, handler, wrap, self._endpoint))
        wrap = self._wrapper(method, self._middleware)
        limit = self._limits.of(method)
        return UnaryRoute(unary_method(method, handler, wrap, self._endpoint, limit))

    def _wrapper(self, method: str, defaults: Sequence[Middleware]) -> Middleware:
        """Puts the method's middleware around a handler; asked on its first call, not before."""

        def wrap(handler: Handler) -> Handler:
            return chain((*defaults, *(self._selected.find(method) or ())))(handler)

        return wrap
