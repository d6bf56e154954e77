"""Refuses calls that would only make the others late: 429 ``RATELIMIT``.

Source: go-kratos/kratos middleware/ratelimit/ratelimit.go.
"""

from typing import Any

from kit.compat import Compat, chosen
from kit.errors import TooManyRequests
from kit.resilience import BbrLimiter, CpuMeter, Limiter, container_cpu, process_cpu
from kit.transport import Handler, Middleware

REASON = "RATELIMIT"
MESSAGE = "service unavailable due to rate limit exceeded"


def ratelimit(limiter: Limiter | None = None, *, compat: Compat | None = None) -> Middleware:
    """Asks ``limiter`` about each call of a server.

    Around a stream each message is a call.

    Args:
        limiter: for all operations together; by default a :class:`~kit.resilience.BbrLimiter`.
            A :class:`~kit.resilience.TokenBucket` keeps a fixed rate.
        compat: how the default limiter measures the processor: the share of the container or
            machine under ``v2``, of one core by this process under ``v3``.
    """
    if limiter is None:
        used = container_cpu if chosen(compat) is Compat.V2 else process_cpu
        limiter = BbrLimiter(cpu=CpuMeter(used))
    allow = limiter.allow

    def wrap(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            done = allow()
            if done is None:
                raise TooManyRequests(REASON, MESSAGE)
            try:
                return await handler(request)
            finally:
                done()

        return call

    return wrap
