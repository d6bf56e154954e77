"""Everything that is served over HTTP, put together: dtm's port 36789."""

from collections.abc import Mapping

from kit.dtm.server.api_http import PING, HttpApi
from kit.dtm.server.api_jsonrpc import JsonRpcApi
from kit.dtm.server.http_app import AsgiApp, HttpApp, HttpReply, HttpRequest, Route
from kit.dtm.server.metrics import CONTENT_TYPE, Metrics
from kit.dtm.server.service import Service


def web_app(
    service: Service, metrics: Metrics, *, mounts: Mapping[str, AsgiApp] | None = None
) -> HttpApp:
    """The HTTP API, the JSON-RPC API, ping and metrics.

    Args:
        service: what they ask.
        metrics: shown, and told of each request.
        mounts: other applications; see :class:`~kit.dtm.server.http_app.HttpApp`.
    """

    async def show_metrics(_: HttpRequest) -> HttpReply:
        return HttpReply(200, metrics.exposition(), CONTENT_TYPE)

    routes = (
        PING,
        Route("GET", "/api/metrics", show_metrics),
        *HttpApi(service).routes(),
        JsonRpcApi(service).route(),
    )
    return HttpApp(routes, mounts=mounts, observe=metrics.observe_request)
