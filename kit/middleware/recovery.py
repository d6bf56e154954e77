"""Turns what nobody expected into an answer that gives nothing away.

Python does not tell a panic from an error that is returned: every exception that is not a
:class:`kit.errors.Error` is taken for one.

Source: go-kratos/kratos middleware/recovery/recovery.go.
"""

from collections.abc import Callable
from typing import Any

from kit import log
from kit.compat import Compat, chosen
from kit.errors import Error, InternalServer
from kit.transport import Handler, Middleware, current_call

_log = log.get_logger()


def recovery(
    handle: Callable[[Any, Exception], Exception] | None = None, *, compat: Compat | None = None
) -> Middleware:
    """Answers 500 ``UNKNOWN``, "unknown request error", and logs the exception with its stack.

    Unlike kratos it does not log the request, which may hold what no log should.

    Args:
        handle: takes the request and the exception, gives what to raise in its place.
        compat: ``v3`` logs ``panic recovered`` with the exception as ``panic``.
    """
    version = chosen(compat)

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            try:
                return await handler(request)
            except Error:
                raise
            except Exception as exc:
                info = current_call()
                operation = "" if info is None else info.operation
                said = f"{type(exc).__name__}: {exc}"
                if version is Compat.V3:
                    _log.error("panic recovered", operation=operation, panic=said, exc_info=exc)
                else:
                    _log.error("%s", said, operation=operation, exc_info=exc)
                if handle is not None:
                    raise handle(request, exc) from exc
                raise InternalServer("UNKNOWN", "unknown request error") from exc

        return call

    return wrap
