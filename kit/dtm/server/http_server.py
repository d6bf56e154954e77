"""The coordinator's HTTP server: that of the kit, in the words of the coordinator."""

from kit.dtm.server.http_app import AsgiApp
from kit.transport.http.asgi import AsgiServer, HttpLimits, busy_json


class HttpServer(AsgiServer):
    """Serves an ASGI application; a :class:`kit.transport.Server`.

    Args:
        app: what answers; it has to answer its own exceptions.
        address: ``host:port``; a wildcard host takes IPv4 and IPv6, port 0 lets the system choose.
        limits: what a client may take.

    Raises:
        ValueError: ``address`` cannot be understood.
    """

    def __init__(self, app: AsgiApp, *, address: str, limits: HttpLimits | None = None) -> None:
        super().__init__(app, address=address, limits=limits, busy=busy_json("the coordinator"))


__all__ = ["HttpLimits", "HttpServer"]
