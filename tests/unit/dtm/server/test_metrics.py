"""What Prometheus reads: dtm's names, and label values that peers cannot multiply."""

import re
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kit.dtm.server.metrics import APIS, Metrics
from tests.unit.dtm.server.http_side import Side, http_side, msg


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    async with http_side() as made:
        yield made


def samples(exposition: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """By name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
    }


def counted(exposition: bytes, name: str, **labels: str) -> float:
    return samples(exposition).get((name, tuple(sorted(labels.items()))), 0.0)


async def test_requests_are_counted_by_route_and_outcome_without_their_query(side: Side) -> None:
    """Spec §17.2; dtm has a series for each query string, this has one for each route."""
    for number in range(5):
        await side.get(f"query?gid=g{number}")
        await side.get(f"nowhere{number}")
    await side.post("submit", msg(trans_type="soga"))
    await side.ask("DELETE", "/api/dtmsvr/topic/t1")
    await side.rpc("newGid")
    answer = await side.ask("GET", "/api/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    total = "dtm_server_process_total"
    assert counted(answer.data, total, type="http", api="query", status="ok") == 5
    assert counted(answer.data, total, type="http", api="other", status="fail") == 5
    assert counted(answer.data, total, type="http", api="submit", status="fail") == 1
    assert counted(answer.data, total, type="http", api="topic", status="fail") == 1
    assert counted(answer.data, total, type="http", api="json-rpc", status="ok") == 1
    seconds = "dtm_server_response_duration_count"
    assert counted(answer.data, seconds, type="http", api="query") == 5


async def test_ping_and_metrics_are_not_counted(side: Side) -> None:
    """Spec §3.2: probes would drown the rest."""
    for _ in range(3):
        await side.ask("GET", "/api/ping")
        await side.ask("GET", "/api/metrics")
    assert b"dtm_server_process_total{" not in (await side.ask("GET", "/api/metrics")).data


async def test_every_route_has_a_name_in_metrics(side: Side) -> None:
    """A route that was added and not named would hide under "other"."""
    routes = [
        "version", "newGid", "query?gid=x", "all", "resetCronTime", "subscribe", "unsubscribe",
        "scanKV", "queryKV",
    ]  # fmt: skip
    posts = [
        "prepare", "submit", "abort", "forceStop", "registerBranch", "registerXaBranch",
        "registerTccBranch", "prepareWorkflow", "resetNextCronTime",
    ]  # fmt: skip
    for name in routes:
        await side.get(name)
    for name in posts:
        await side.post(name, {})
    await side.ask("DELETE", "/api/dtmsvr/topic/t")
    await side.rpc("newGid")
    text = (await side.ask("GET", "/api/metrics")).text
    seen = set(re.findall(r'dtm_server_process_total\{api="([^"]+)"', text))
    assert seen == APIS - {"deletetopic"}  # that is a method of gRPC


def test_label_values_come_from_fixed_sets() -> None:
    """Whatever peers send, the number of series stays below a limit."""
    metrics = Metrics()
    for number in range(2_000):
        metrics.observe_branch("msg", f"{number:02d}", "action", ok=True)
        metrics.observe_branch(f"m{number}", f"01-{number}", f"op{number}", ok=False)
        metrics.observe_round(f"m{number}", ok=False, age_s=1.0)
        metrics.observe_request("grpc", f"api{number}", ok=True, seconds=0.1)
        metrics.observe_request(f"kind{number}", "submit", ok=True, seconds=0.1)
    text = metrics.exposition()
    found = [name for name, _ in samples(text) if name == "dtm_branch_process_total"]
    assert len(found) == 99 + 1 + 1
    labels = {"model": "other", "branchid": "other", "branchtype": "other", "status": "fail"}
    assert counted(text, "dtm_branch_process_total", **labels) == 2_000
    assert counted(text, "dtm_transaction_process_total", model="other", status="fail") == 2_000
    assert len(samples(text)) < 300


def test_rounds_and_branch_calls_have_dtm_names_and_labels() -> None:
    """Spec §17.2."""
    metrics = Metrics()
    metrics.observe_round("saga", ok=True, age_s=0.2)
    metrics.observe_round("saga", ok=False, age_s=0.2)
    metrics.observe_branch("saga", "02", "compensate", ok=True)
    text = metrics.exposition()
    assert counted(text, "dtm_transaction_process_total", model="saga", status="ok") == 1
    assert counted(text, "dtm_transaction_process_total", model="saga", status="fail") == 1
    assert counted(text, "dtm_transaction_handled_duration_count", model="saga") == 2
    labels = {"model": "saga", "branchid": "02", "branchtype": "compensate", "status": "ok"}
    assert counted(text, "dtm_branch_process_total", **labels) == 1
    names = {name for name, _ in samples(text)}
    assert {"dtm_server_info", "process_open_fds", "python_gc_collections_total"} < names
    assert not [name for name in names if name.endswith("_created")]


def test_coordinators_in_one_process_have_metrics_of_their_own() -> None:
    """Nothing is shared, and a gauge shows what its function gives at each look."""
    one, other = Metrics(), Metrics()
    one.observe_request("grpc", "submit", ok=True, seconds=0.1)
    live = [3.0]
    one.watch("kit_live_transactions", "Being processed.", lambda: live[0])
    assert counted(one.exposition(), "kit_live_transactions") == 3
    live[0] = 5
    assert counted(one.exposition(), "kit_live_transactions") == 5
    assert b"kit_live" not in other.exposition()
    assert b"submit" not in other.exposition()
