"""Carries metadata from call to call.

``x-md-global-*`` travels the whole tree of calls, ``x-md-local-*`` one hop. Nothing travels unless
both ends have this middleware.

Source: go-kratos/kratos middleware/metadata/metadata.go.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from kit.metadata import Metadata, client_metadata, server_metadata
from kit.transport import Handler, Middleware, current_call

SERVER_PREFIXES = ("x-md-",)
CLIENT_PREFIXES = ("x-md-global-",)


def server(
    constants: Mapping[str, str] | None = None, prefixes: Iterable[str] = SERVER_PREFIXES
) -> Middleware:
    """Puts request headers into :data:`kit.metadata.server_metadata`.

    Args:
        constants: what it holds before that.
        prefixes: which headers are taken, in any case.
    """
    taken = _lowered(prefixes)
    fixed = tuple((constants or {}).items())

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            metadata = Metadata(fixed)
            info = current_call()
            if info is not None:
                for key, value in info.request_headers.items():
                    if key.startswith(taken):
                        metadata.add(key, value)
            token = server_metadata.set(metadata)
            try:
                return await handler(request)
            finally:
                server_metadata.reset(token)

        return call

    return wrap


def client(
    constants: Mapping[str, str] | None = None, prefixes: Iterable[str] = CLIENT_PREFIXES
) -> Middleware:
    """Adds metadata to the request headers.

    These are, in this order: ``constants``, :data:`kit.metadata.client_metadata`, and what the call
    being served brought under ``prefixes``.
    """
    passed_on = _lowered(prefixes)
    fixed = tuple((constants or {}).items())

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            info = current_call()
            if info is not None:
                headers = info.request_headers
                for key, value in fixed:
                    headers.add(key, value)
                own = client_metadata.get()
                if own is not None:
                    for key, value in own.items():
                        headers.add(key, value)
                served = server_metadata.get()
                if served is not None:
                    for key, value in served.items():
                        if key.startswith(passed_on):
                            headers.add(key, value)
            return await handler(request)

        return call

    return wrap


def _lowered(prefixes: Iterable[str]) -> tuple[str, ...]:
    return tuple(prefix.lower() for prefix in prefixes)
