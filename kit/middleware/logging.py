"""One line a call: kind, component, operation, args, code, reason, stack, latency, in this order.

INFO when the call succeeded, ERROR when it failed, also for a 404.

Source: go-kratos/kratos middleware/logging/logging.go, the keys of v2.
"""

import asyncio
import time
from typing import Any

from kit import errors, log
from kit.transport import Handler, Middleware, current_call


def server(logger: log.Logger | None = None, *, payloads: bool = False) -> Middleware:
    """Logs the calls a server answers.

    Args:
        logger: where lines go; one without fields by default.
        payloads: write requests that have no ``redact()`` in full, as kratos does. By default
            their type stands for them: what callers send may hold what no log should.
    """
    return _logging("server", logger, payloads=payloads)


def client(logger: log.Logger | None = None, *, payloads: bool = False) -> Middleware:
    """Logs the calls a client makes; see :func:`server`."""
    return _logging("client", logger, payloads=payloads)


def _logging(kind: str, logger: log.Logger | None, *, payloads: bool) -> Middleware:
    lines = logger or log.get_logger()

    def write(request: Any, started: float, error: BaseException | None) -> None:
        info = current_call()
        level = lines.info if error is None else lines.error
        canceled = isinstance(error, asyncio.CancelledError)
        level(
            kind=kind,
            component="" if info is None else info.kind,
            operation="" if info is None else info.operation,
            args=_args(request, payloads=payloads),
            code=499 if canceled else errors.code(error),
            reason="" if canceled else errors.reason(error),
            stack="" if error is None else str(error) or type(error).__name__,
            latency=round(time.perf_counter() - started, 9),
        )

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            started = time.perf_counter()
            try:
                reply = await handler(request)
            except BaseException as error:
                write(request, started, error)
                raise
            write(request, started, None)
            return reply

        return call

    return wrap


def _args(request: Any, *, payloads: bool) -> str:
    """What stands for the request in the log."""
    redact = getattr(request, "redact", None)
    if callable(redact):
        return str(redact())
    if payloads:
        return str(request).strip()
    descriptor = getattr(request, "DESCRIPTOR", None)
    return str(getattr(descriptor, "full_name", type(request).__name__))
