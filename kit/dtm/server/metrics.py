"""What Prometheus may know about a coordinator: dtm's names and labels, with bounded values.

Every label value comes from a fixed set, whatever peers send: dtm makes a series of each query
string and of each branch id.

Source: dtm-labs/dtm dtmsvr/metrics.go.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from kit.dtm.wire import Op, TransType

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
OTHER = "other"
"""The label value of all that is not known by name."""

APIS = frozenset(
    [
        "abort",
        "all",
        "deletetopic",
        "forcestop",
        "json-rpc",
        "newgid",
        "prepare",
        "prepareworkflow",
        "query",
        "querykv",
        "registerbranch",
        "registertccbranch",
        "registerxabranch",
        "resetcrontime",
        "resetnextcrontime",
        "scankv",
        "submit",
        "subscribe",
        "topic",
        "unsubscribe",
        "version",
    ]
)
"""Every method and route, in lower case, as the ``api`` label has it."""

_OK, _FAIL = "ok", "fail"
_KINDS = frozenset({"http", "grpc"})
_MODELS = frozenset(TransType)
_OPS = frozenset(Op)
_BRANCH_IDS = frozenset(f"{number:02d}" for number in range(1, 100))


_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Of the buckets in seconds, the defaults of the Prometheus clients."""


class _Counts(Collector):
    """A counter with labels.

    Everything is counted on the event loop and shown there, so plain numbers do: the counters of
    the client library are safe among threads, and eight of them a transaction cost 5 % of its time.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        self._about = (name, documentation, None, labels)
        self._counts: dict[tuple[str, ...], int] = {}

    def count(self, labels: tuple[str, ...]) -> None:
        self._counts[labels] = self._counts.get(labels, 0) + 1

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(*self._about)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        yield family


class _Seconds(Collector):
    """A histogram of seconds with labels; see :class:`_Counts`."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        self._about = (name, documentation, None, None, labels)
        self._buckets: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        buckets = self._buckets.get(labels)
        if buckets is None:
            buckets = self._buckets[labels] = [0] * (len(_BOUNDS) + 1)
            self._sums[labels] = 0.0
        buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._sums[labels] += seconds

    def collect(self) -> Iterator[Metric]:
        names = [*map(floatToGoString, _BOUNDS), "+Inf"]
        family = HistogramMetricFamily(*self._about)
        for labels, buckets in self._buckets.items():
            shown = list(zip(names, map(float, accumulate(buckets)), strict=True))
            family.add_metric(labels, shown, self._sums[labels])
        yield family


class Metrics:
    """The metrics of one coordinator; those of the process come along."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        info = Gauge(
            "dtm_server_info",
            "What serves; dtm's label names, our servers.",
            ("gin_version", "grpc_version"),
            registry=self._registry,
        )
        info.labels(f"uvicorn {version('uvicorn')}", version("grpcio")).set(1)
        self._request_counts = _Counts(
            "dtm_server_process_total",
            "Requests answered.",
            ("type", "api", "status"),
        )
        self._request_seconds = _Seconds(
            "dtm_server_response_duration",
            "Seconds until a request was answered.",
            ("type", "api"),
        )
        self._round_counts = _Counts(
            "dtm_transaction_process_total",
            "Processing rounds of transactions.",
            ("model", "status"),
        )
        self._round_ages = _Seconds(
            "dtm_transaction_handled_duration",
            "Seconds from the creation of a transaction to the end of a round.",
            ("model",),
        )
        self._branch_counts = _Counts(
            "dtm_branch_process_total",
            "Calls of branches, without query-prepared and workflow callbacks.",
            ("model", "branchid", "branchtype", "status"),
        )
        for collector in (
            self._request_counts,
            self._request_seconds,
            self._round_counts,
            self._round_ages,
            self._branch_counts,
        ):
            self._registry.register(collector)

    def observe_request(self, kind: str, api: str, ok: bool, seconds: float) -> None:
        """Count a request that was answered.

        Args:
            kind: ``http`` or ``grpc``.
            api: the method or the last part of the route, in lower case; ``other`` when it is none
                of :data:`APIS`.
            ok: whether it went well: a status below 400, gRPC OK.
            seconds: from its arrival to its answer.
        """
        kind, api = _known(kind, _KINDS), _known(api, APIS)
        self._request_counts.count((kind, api, _word(ok)))
        self._request_seconds.observe((kind, api), seconds)

    def observe_round(self, model: str, ok: bool, age_s: float) -> None:
        """Count a processing round.

        Args:
            model: the type of the transaction.
            ok: whether the round ended without an error.
            age_s: seconds since the transaction was created.
        """
        model = _known(model, _MODELS)
        self._round_counts.count((model, _word(ok)))
        self._round_ages.observe((model,), age_s)

    def observe_branch(self, model: str, branch_id: str, op: str, ok: bool) -> None:
        """Count a branch call.

        Args:
            model: the type of the transaction.
            branch_id: ``01`` to ``99`` are told apart, all others are ``other``.
            op: what the branch was asked to do.
            ok: whether it answered SUCCESS.
        """
        labels = (_known(model, _MODELS), _known(branch_id, _BRANCH_IDS), _known(op, _OPS))
        self._branch_counts.count((*labels, _word(ok)))

    def watch(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show what ``read`` gives at each scrape as a gauge; it must not block.

        Raises:
            ValueError: the name is taken, or cannot be one of a metric.
        """
        Gauge(name, documentation, registry=self._registry).set_function(read)

    def exposition(self) -> bytes:
        """All of it as text; goes with :data:`CONTENT_TYPE`."""
        return generate_latest(self._registry)


def _known(value: str, names: frozenset[str]) -> str:
    return value if value in names else OTHER


def _word(ok: bool) -> str:
    return _OK if ok else _FAIL
