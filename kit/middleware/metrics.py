"""Counts calls and measures how long they take, under kratos' names.

::

    metrics = Metrics()
    GrpcServer(middleware=[recovery(), metrics.server()])
    AdminServer(metrics=metrics)  # shows them on /metrics

========================================  ====================================
``server_requests_code_total``            kind, operation, code, reason
``server_requests_seconds``               kind, operation; buckets to 1 s
``client_requests_code_total``, ``…``     the same of calls that are made
========================================  ====================================

Around a stream each message is a call.

Source: go-kratos/kratos contrib/middleware/metrics, middleware/metrics/metrics.go.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from kit import errors
from kit.compat import Compat
from kit.transport import Handler, Middleware, current_call

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
MOST_SERIES = 10_000
"""Combinations of labels that are kept; those that come later are counted as :data:`OTHER`."""
OTHER = "other"

_CANCELED = 499


class Metrics:
    """The metrics of one process.

    Operations are those of declared methods, but codes and reasons are what peers make them:
    above :data:`MOST_SERIES` combinations new ones share one series, so that no peer can fill the
    memory.

    Args:
        compat: under ``v2`` the histograms are named ``…_seconds_bucket``, as dashboards of
            kratos v2 with OpenTelemetry expect it.
    """

    def __init__(self, *, compat: Compat = Compat.V3) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._suffix = "_bucket" if compat is Compat.V2 else ""
        self._sides: dict[str, _Side] = {}

    def server(self) -> Middleware:
        """Counts the calls a server answers."""
        return self._measuring("server")

    def client(self) -> Middleware:
        """Counts the calls a client makes."""
        return self._measuring("client")

    def watch(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show what ``read`` gives at each scrape as a gauge; it must not block.

        Raises:
            ValueError: the name is taken, or cannot be one of a metric.
        """
        Gauge(name, documentation, registry=self._registry).set_function(read)

    @property
    def registry(self) -> CollectorRegistry:
        """Where the service's own counters and gauges go."""
        return self._registry

    def exposition(self) -> bytes:
        """All of it as text; goes with :data:`CONTENT_TYPE`. Takes milliseconds."""
        return generate_latest(_WithoutBirthdays(self._registry))

    def _measuring(self, name: str) -> Middleware:
        side = self._sides.get(name)
        if side is None:
            side = self._sides[name] = _Side(name, self._suffix, self._registry)
        observe = side.observe

        def wrap(handler: Handler) -> Handler:
            async def call(request: Any) -> Any:
                started = time.perf_counter()
                try:
                    reply = await handler(request)
                except asyncio.CancelledError:
                    observe(_CANCELED, "", time.perf_counter() - started)
                    raise
                except BaseException as error:
                    said = errors.from_error(error)
                    observe(said.code, said.reason, time.perf_counter() - started)
                    raise
                observe(200, "", time.perf_counter() - started)
                return reply

            return call

        return wrap


class _Side:
    """The metrics of calls answered, or of calls made."""

    def __init__(self, side: str, suffix: str, registry: CollectorRegistry) -> None:
        done = "answered" if side == "server" else "made"
        self._counts = Counter(
            f"{side}_requests_code_total",
            f"Calls {done}.",
            ("kind", "operation", "code", "reason"),
            registry=registry,
        )
        self._seconds = Histogram(
            f"{side}_requests_seconds{suffix}",
            f"Seconds that calls took that were {done}.",
            ("kind", "operation"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._known: dict[tuple[str, str, int, str], tuple[Counter, Histogram]] = {}

    def observe(self, code: int, reason: str, seconds: float) -> None:
        info = current_call()
        key = ("", "", code, reason) if info is None else (info.kind, info.operation, code, reason)
        found = self._known.get(key) or self._new(key)
        found[0].inc()
        found[1].observe(seconds)

    def _new(self, key: tuple[str, str, int, str]) -> tuple[Counter, Histogram]:
        kind, operation, code, reason = key
        full = len(self._known) >= MOST_SERIES
        if full:
            operation, code, reason = OTHER, 0, OTHER
        found = (
            self._counts.labels(kind, operation, str(code), reason),
            self._seconds.labels(kind, operation),
        )
        if not full:
            self._known[key] = found
        return found


class _WithoutBirthdays(Collector):
    """A registry without the ``_created`` series, which kratos does not have."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric
