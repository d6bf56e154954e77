"""What Prometheus may know about a coordinator: dtm's names and labels, with bounded values.

Every label value comes from a fixed set, whatever peers send: dtm makes a series of each query
string and of each branch id.

Source: dtm-labs/dtm dtmsvr/metrics.go.
"""

from collections.abc import Callable, Iterator
from importlib.metadata import version

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


class Metrics:
    """The metrics of one coordinator; those of the process come along.

    The ``observe`` methods cost a microsecond: they find the counters they made before.
    """

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
        self._request_counts = Counter(
            "dtm_server_process_total",
            "Requests answered.",
            ("type", "api", "status"),
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "dtm_server_response_duration",
            "Seconds until a request was answered.",
            ("type", "api"),
            registry=self._registry,
        )
        self._round_counts = Counter(
            "dtm_transaction_process_total",
            "Processing rounds of transactions.",
            ("model", "status"),
            registry=self._registry,
        )
        self._round_ages = Histogram(
            "dtm_transaction_handled_duration",
            "Seconds from the creation of a transaction to the end of a round.",
            ("model",),
            registry=self._registry,
        )
        self._branch_counts = Counter(
            "dtm_branch_process_total",
            "Calls of branches, without query-prepared and workflow callbacks.",
            ("model", "branchid", "branchtype", "status"),
            registry=self._registry,
        )
        self._requests: dict[tuple[str, str, bool], tuple[Counter, Histogram]] = {}
        self._rounds: dict[tuple[str, bool], tuple[Counter, Histogram]] = {}
        self._branches: dict[tuple[str, str, str, bool], Counter] = {}

    def observe_request(self, kind: str, api: str, ok: bool, seconds: float) -> None:
        """Count a request that was answered.

        Args:
            kind: ``http`` or ``grpc``.
            api: the method or the last part of the route, in lower case; ``other`` when it is none
                of :data:`APIS`.
            ok: whether it went well: a status below 400, gRPC OK.
            seconds: from its arrival to its answer.
        """
        key = (_known(kind, _KINDS), _known(api, APIS), ok)
        found = self._requests.get(key)
        if found is None:
            found = self._requests[key] = (
                self._request_counts.labels(key[0], key[1], _word(ok)),
                self._request_seconds.labels(key[0], key[1]),
            )
        found[0].inc()
        found[1].observe(seconds)

    def observe_round(self, model: str, ok: bool, age_s: float) -> None:
        """Count a processing round.

        Args:
            model: the type of the transaction.
            ok: whether the round ended without an error.
            age_s: seconds since the transaction was created.
        """
        key = (_known(model, _MODELS), ok)
        found = self._rounds.get(key)
        if found is None:
            found = self._rounds[key] = (
                self._round_counts.labels(key[0], _word(ok)),
                self._round_ages.labels(key[0]),
            )
        found[0].inc()
        found[1].observe(age_s)

    def observe_branch(self, model: str, branch_id: str, op: str, ok: bool) -> None:
        """Count a branch call.

        Args:
            model: the type of the transaction.
            branch_id: ``01`` to ``99`` are told apart, all others are ``other``.
            op: what the branch was asked to do.
            ok: whether it answered SUCCESS.
        """
        key = (_known(model, _MODELS), _known(branch_id, _BRANCH_IDS), _known(op, _OPS), ok)
        found = self._branches.get(key)
        if found is None:
            found = self._branches[key] = self._branch_counts.labels(*key[:3], _word(ok))
        found.inc()

    def watch(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Show what ``read`` gives at each scrape as a gauge; it must not block.

        Raises:
            ValueError: the name is taken, or cannot be one of a metric.
        """
        Gauge(name, documentation, registry=self._registry).set_function(read)

    def exposition(self) -> bytes:
        """All of it as text; goes with :data:`CONTENT_TYPE`."""
        return generate_latest(_WithoutBirthdays(self._registry))


class _WithoutBirthdays(Collector):
    """A registry without the ``_created`` series, which double what dtm shows."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


def _known(value: str, names: frozenset[str]) -> str:
    return value if value in names else OTHER


def _word(ok: bool) -> str:
    return _OK if ok else _FAIL
