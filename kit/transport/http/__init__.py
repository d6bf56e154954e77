"""HTTP as kratos speaks it: a server on Starlette and uvicorn, and a client.

What is here is imported when it is asked for: :mod:`kit.transport.http.asgi` alone serves the
coordinator, which needs neither routes nor codecs.

Source: go-kratos/kratos transport/http.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.transport.http.client import HttpClient
    from kit.transport.http.crossorigin import cors
    from kit.transport.http.exchange import HttpCallInfo, Limits
    from kit.transport.http.replies import Envelope, Raw, Redirect
    from kit.transport.http.routes import HttpRequest
    from kit.transport.http.server import Filter, Group, HttpServer
    from kit.transport.http.upload import Part, parts

_HOMES = {
    "Envelope": "replies",
    "Filter": "server",
    "Group": "server",
    "HttpCallInfo": "exchange",
    "HttpClient": "client",
    "HttpRequest": "routes",
    "HttpServer": "server",
    "Limits": "exchange",
    "Part": "upload",
    "Raw": "replies",
    "Redirect": "replies",
    "cors": "crossorigin",
    "parts": "upload",
}


def __getattr__(name: str) -> object:
    if home := _HOMES.get(name):
        return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Envelope",
    "Filter",
    "Group",
    "HttpCallInfo",
    "HttpClient",
    "HttpRequest",
    "HttpServer",
    "Limits",
    "Part",
    "Raw",
    "Redirect",
    "cors",
    "parts",
]
