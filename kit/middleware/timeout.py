"""Cuts off what takes longer than it was given, and says whose limit it was.

Transports only note a deadline (as Go's contexts do); a method that does not look runs to its end.
With this middleware it is cancelled, and the caller is told 504 ``TIMEOUT``, for example
``server timeout of 1s for /api.trans.v1.Trans/TransOut``.
"""

import asyncio
import time
from typing import Any

from kit.duration import format_duration
from kit.errors import GatewayTimeout
from kit.transport import CallInfo, Handler, Middleware, current_call


def timeout(limit: float | None = None) -> Middleware:
    """Cancels the rest of the chain at the call's deadline.

    Args:
        limit: seconds; an own limit for when the call was given more, or has none.
    """

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            info = current_call()
            if info is None:
                return await handler(request)
            if limit is not None:
                _tighten(info, limit)
            if info.deadline is None:
                return await handler(request)
            # The deadline is on time.monotonic's clock, timeout_at on the loop's.
            left = info.deadline - time.monotonic()
            scope = asyncio.timeout_at(asyncio.get_running_loop().time() + left)
            try:
                async with scope:
                    return await handler(request)
            except TimeoutError as exc:
                if not scope.expired():
                    raise
                given = "" if info.limit is None else f" of {format_duration(info.limit)}"
                message = f"{info.limit_side} timeout{given} for {info.operation}"
                raise GatewayTimeout("TIMEOUT", message) from exc

        return call

    return wrap


def _tighten(info: CallInfo, limit: float) -> None:
    deadline = time.monotonic() + limit
    if info.deadline is None or deadline < info.deadline:
        info.deadline, info.limit, info.limit_side = deadline, limit, info.side
