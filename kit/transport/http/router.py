"""Finds the route of a request, in the way of kratos' router.

The first route registered wins. A path that is not clean is answered 301 with the clean one; a
path with a slash too many or too few with the other one. An unknown path and a known path with
another verb are both 404.

Source: gorilla/mux mux.go, route.go; go-kratos/kratos transport/http/server.go, router.go.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from kit.transport.http.asgi import AsgiApp
from kit.transport.http.template import Template, clean

ANY_VERB = "*"


@dataclass(frozen=True, slots=True)
class Route:
    """What serves one verb and template.

    Attributes:
        verb: in capitals; ``*`` for every one.
        template: the paths it serves.
        endpoint: an ASGI application; the scope's ``path_params`` have the variables.
        websocket: serves WebSockets rather than requests.
    """

    verb: str
    template: Template
    endpoint: AsgiApp
    websocket: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A route and the variables of its template."""

    route: Route
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Moved:
    """The path to ask instead, percent-encoded, and whether kratos explains that in HTML."""

    location: str
    explained: bool


class Router:
    """Routes in their order.

    Args:
        strict_slash: redirect between ``/a`` and ``/a/``; else they are two paths.
    """

    def __init__(self, *, strict_slash: bool = True) -> None:
        self._strict_slash = strict_slash
        self._routes: list[Route] = []
        self._slashes = False
        self._exact: dict[tuple[bool, str], list[tuple[int, Route]]] = {}
        self._open: list[tuple[int, Route]] = []
        self._by_segments: dict[int, list[tuple[int, Route]]] = {}

    def __iter__(self) -> Any:
        return iter(self._routes)

    def add(self, route: Route) -> None:
        """Serve ``route`` after those that were added before."""
        entry = (len(self._routes), route)
        self._routes.append(route)
        self._slashes = self._slashes or route.template.slash
        template = route.template
        if template.literal is not None:
            self._exact.setdefault((route.websocket, template.literal), []).append(entry)
            return
        if template.segments is None:
            self._open.append(entry)
            for entries in self._by_segments.values():
                entries.append(entry)
        else:
            default = list(self._open)
            self._by_segments.setdefault(template.segments, default).append(entry)

    def find(self, verb: str, path: str, *, websocket: bool = False) -> Found | Moved | None:
        """What serves ``path``, which is decoded; ``None`` for nothing.

        Source: gorilla/mux mux.go, Router.ServeHTTP.
        """
        cleaned = clean(path)
        if cleaned != path:
            return Moved(_quoted(cleaned), explained=False)
        found = self._match(verb, path, websocket)
        ends = path.endswith("/")
        if not self._strict_slash or path == "/" or not (ends or self._slashes):
            return None if found is None else found[1]
        other = path[:-1] if ends else f"{path}/"
        beside = self._match(verb, other, websocket)
        if found is None or (beside is not None and beside[0] < found[0]):
            if beside is None:
                return None
            return Moved(_quoted(other), explained=True)
        return found[1]

    def serves(self, path: str) -> bool:
        """Whether ``path`` is served for any verb."""
        return any(
            route.template.pattern.fullmatch(path) for route in self._routes if not route.websocket
        )

    def _match(self, verb: str, path: str, websocket: bool) -> tuple[int, Found] | None:
        best: tuple[int, Found] | None = None
        for order, route in self._exact.get((websocket, path), ()):
            if route.verb in {verb, ANY_VERB}:
                best = (order, Found(route, {}))
                break
        for order, route in self._by_segments.get(path.count("/"), self._open):
            if best is not None and order > best[0]:
                break
            if route.verb not in {verb, ANY_VERB} or route.websocket != websocket:
                continue
            matched = route.template.pattern.fullmatch(path)
            if matched is not None:
                return order, Found(
                    route, dict(zip(route.template.names, matched.groups(), strict=True))
                )
        return best


def _quoted(path: str) -> str:
    return quote(path, safe="/:@!$&'()*+,;=~", errors="replace")
