"""Stops calling an operation in proportion to how often it fails: 503 ``CIRCUITBREAKER``.

Only 500, 503 and 504 are failures of the target. Everything else is an answer, a 429 and a call
that its own caller gave up included.

Source: go-kratos/kratos middleware/circuitbreaker/circuitbreaker.go.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from kit import errors
from kit.compat import Compat, chosen
from kit.resilience import BREAKER_V2, BREAKER_V3, SreBreaker
from kit.transport import CallInfo, Handler, Middleware, current_call

REASON = "CIRCUITBREAKER"
MESSAGE = "request failed due to circuit breaker triggered"
FAILURES = frozenset({500, 503, 504})
MOST_OPERATIONS = 10_000
"""Operations with a breaker of their own; those that come later share one."""


def circuitbreaker(
    make: Callable[[], SreBreaker] | None = None, *, compat: Compat | None = None
) -> Middleware:
    """Keeps a breaker an operation, for the calls of a client.

    Args:
        make: a new breaker; by default one with the parameters of ``compat``.
        compat: that of the process by default; ``v2`` begins to refuse after 100 calls in 3 s and
            below 60 % success, ``v3`` after 20 and below 50 %.
    """
    rule = BREAKER_V2 if chosen(compat) is Compat.V2 else BREAKER_V3
    made = make or (lambda: SreBreaker(rule))
    breakers: dict[str, SreBreaker] = {}

    def breaker_of(operation: str) -> SreBreaker:
        found = breakers.get(operation)
        if found is None:
            key = operation if len(breakers) < MOST_OPERATIONS else ""
            found = breakers.get(key) or breakers.setdefault(key, made())
        return found

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            info = current_call()
            breaker = breaker_of("" if info is None else info.operation)
            if not breaker.allow():
                breaker.failed()
                raise errors.ServiceUnavailable(REASON, MESSAGE)
            try:
                reply = await handler(request)
            except asyncio.CancelledError:
                # A timeout around us cuts by cancelling: then it was the target that was slow.
                if info is not None and _late(info):
                    breaker.failed()
                else:
                    breaker.succeeded()
                raise
            except BaseException as error:
                if errors.code(error) in FAILURES:
                    breaker.failed()
                else:
                    breaker.succeeded()
                raise
            breaker.succeeded()
            return reply

        return call

    return wrap


def _late(info: CallInfo) -> bool:
    return info.deadline is not None and time.monotonic() >= info.deadline
