"""The trace that the caller is in, as headers."""

from opentelemetry import propagate, trace


def trace_headers() -> dict[str, str]:
    """``traceparent`` and its kin of the current span; empty outside of one."""
    headers: dict[str, str] = {}
    if trace.get_current_span() is not trace.INVALID_SPAN:
        propagate.inject(headers)
    return headers
