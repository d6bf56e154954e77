"""Makes a failed call again, within its deadline and within a budget.

A call is made again when its target could not take it, which by default is a 503; never when a
circuit breaker refused it, never when the pause would end after the deadline, and never when the
budget is spent. Each try starts from the request headers as they were, so that middleware further
in may add to them each time.

Only for unary calls of a client, and only for methods that may be done twice: a 503 may come from
a target that did the work and lost the connection. Narrow it with
:func:`kit.middleware.selector.select`. A failed message of a stream is not sent again.
"""

import asyncio
import time
from collections.abc import Collection
from typing import Any

from kit import errors
from kit.resilience import BackOff, RetryBudget
from kit.transport import CallInfo, Handler, Middleware, current_call

AGAIN = frozenset({503})
_NEVER = frozenset({"CIRCUITBREAKER"})


def retry(
    tries: int = 3,
    *,
    codes: Collection[int] = AGAIN,
    budget: RetryBudget | None = None,
    backoff: BackOff | None = None,
) -> Middleware:
    """Makes a call up to ``tries`` times.

    Args:
        tries: the first one included.
        codes: of errors after which another try may help.
        budget: shared by all calls through this middleware, one retry for ten calls by default.
        backoff: pauses before the second and later tries, 50 ms doubling up to 1 s by default.

    Raises:
        ValueError: ``tries`` is below 1.
    """
    if tries < 1:
        raise ValueError(f"retry tries: {tries} is below 1; the first call counts as one")
    spend = budget or RetryBudget()
    pauses = backoff or BackOff()
    wanted = frozenset(codes)

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            info = current_call()
            spend.call()
            headers = None if info is None else info.request_headers.clone()
            made = 0
            while True:
                made += 1
                try:
                    return await handler(request)
                except Exception as error:
                    said = errors.from_error(error)
                    if made >= tries or said.code not in wanted or said.reason in _NEVER:
                        raise
                    pause = pauses.pause(made)
                    if not _in_time(info, pause) or not spend.retry():
                        raise
                await asyncio.sleep(pause)
                if info is not None and headers is not None:
                    info.request_headers = headers.clone()
                    info.reply_headers = type(headers)()

        return call

    return wrap


def _in_time(info: CallInfo | None, pause: float) -> bool:
    """Whether there is time left after ``pause`` seconds."""
    return info is None or info.deadline is None or time.monotonic() + pause < info.deadline
