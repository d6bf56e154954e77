"""One line a call, with kratos' keys in kratos' order.

v2: kind, component, operation, args, code, reason, stack, latency. v3: a message, kind, component,
operation, args, code, reason, latency, and on an error: error, stack. INFO when the call succeeded,
ERROR when it failed, also for a 404. Around a stream each message is a call.

Source: go-kratos/kratos middleware/logging/logging.go.
"""

import asyncio
import time
import traceback
from typing import Any

from google.protobuf.message import Message

from kit import errors, log
from kit.compat import Compat, chosen
from kit.middleware.redaction import redacted
from kit.transport import Handler, Middleware, current_call

_CANCELED = 499


def server(
    logger: log.Logger | None = None, *, payloads: bool = False, compat: Compat | None = None
) -> Middleware:
    """Logs the calls a server answers.

    Args:
        logger: where lines go; one without fields by default.
        payloads: write requests in full, as kratos does, except for the fields that are marked
            ``debug_redact`` in the proto file. By default the type of a request stands for it: what
            callers send may hold what no log should. A request with a ``redact()`` is always
            written as that gives it.
        compat: whose keys.
    """
    return _logging("server", logger, payloads=payloads, compat=chosen(compat))


def client(
    logger: log.Logger | None = None, *, payloads: bool = False, compat: Compat | None = None
) -> Middleware:
    """Logs the calls a client makes; see :func:`server`."""
    return _logging("client", logger, payloads=payloads, compat=chosen(compat))


def _logging(kind: str, logger: log.Logger | None, *, payloads: bool, compat: Compat) -> Middleware:
    lines = logger or log.get_logger()
    message = None if compat is Compat.V2 else f"{kind} request"

    def write(request: Any, started: float, error: BaseException | None) -> None:
        info = current_call()
        level = lines.info if error is None else lines.error
        canceled = isinstance(error, asyncio.CancelledError)
        latency = round(time.perf_counter() - started, 9)
        text = "" if error is None else str(error) or type(error).__name__
        fields: dict[str, object] = {
            "kind": kind,
            "component": "" if info is None else info.kind,
            "operation": "" if info is None else info.operation,
            "args": _args(request, payloads=payloads),
            "code": _CANCELED if canceled else errors.code(error),
            "reason": "" if canceled else errors.reason(error),
        }
        if compat is Compat.V2:
            fields |= {"stack": text, "latency": latency}
        elif error is None:
            fields["latency"] = latency
        else:
            fields |= {"latency": latency, "error": text, "stack": _stack(error)}
        level(message, **fields)

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
        return redacted(request) if isinstance(request, Message) else str(request).strip()
    descriptor = getattr(request, "DESCRIPTOR", None)
    return str(getattr(descriptor, "full_name", type(request).__name__))


def _stack(error: BaseException) -> str:
    """Where it was raised: files, lines and names, no values."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()
