"""From instances to nodes; kratos-wire §3.3, §5."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kit.registry import ServiceInstance
from kit.selector import Node
from kit.testing import ManualClock
from kit.transport.grpc.resolver import WATCH_AGAIN_S, Resolver, _fnv1a, nodes_of, subset, weight_of


def instance(number: int, *endpoints: str, **metadata: str) -> ServiceInstance:
    return ServiceInstance(
        f"id-{number}", "trans", "v1", metadata, endpoints or (f"grpc://10.0.0.{number}:9000",)
    )


def addresses(nodes: list[Node]) -> list[str]:
    return [node.address for node in nodes]


def test_the_first_endpoint_of_the_scheme_counts() -> None:
    many = instance(1, "http://a:80", "grpcs://a:2", "grpc://a:1?isSecure=true", "grpc://a:3")
    assert addresses(nodes_of([many], "grpc")) == ["a:3"], "what speaks TLS is not dialled without"
    assert addresses(nodes_of([many], "grpcs")) == ["a:2"]
    assert nodes_of([many], "tcp") == []


def test_an_address_is_taken_once() -> None:
    assert addresses(nodes_of([instance(1), instance(1), instance(2)], "grpc")) == [
        "10.0.0.1:9000",
        "10.0.0.2:9000",
    ]


@pytest.mark.parametrize("bad", ["grpc://[::1", "grpc://a:port", "grpc://a", "grpc://:9000"])
def test_an_instance_with_an_endpoint_that_is_no_address_is_left_out_and_logged(
    bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert addresses(nodes_of([instance(1, bad), instance(2)], "grpc")) == ["10.0.0.2:9000"]
    line = capsys.readouterr().err
    assert line.startswith("ERROR msg=[resolver] Failed to parse discovery endpoint: ")
    assert "trans-id-1" in line


@pytest.mark.parametrize(
    ("text", "weight"),
    [("30", 30.0), ("0", 0.0), ("", 100.0), ("-5", 100.0), ("1.5", 100.0), ("٣", 100.0)],
)
def test_the_weight_is_an_integer_or_100(text: str, weight: float) -> None:
    assert weight_of(instance(1, weight=text)) == weight
    assert weight_of(ServiceInstance("a", "trans", metadata=None)) == 100.0


def test_fnv_1a_is_that_of_the_standard() -> None:
    """Test vectors of the FNV reference."""
    assert (_fnv1a(""), _fnv1a("a"), _fnv1a("foobar")) == (0x811C9DC5, 0xE40C292C, 0xBF9CF968)


def test_a_subset_is_stable_distinct_and_of_the_size() -> None:
    nodes = nodes_of([instance(number) for number in range(60)], "grpc")
    chosen = subset(nodes, 25, "client-1")
    assert len({node.address for node in chosen}) == 25
    assert subset(nodes, 25, "client-1") == chosen
    assert set(addresses(subset(list(reversed(nodes)), 25, "client-1"))) == set(addresses(chosen))
    assert subset(nodes, 0, "k") == nodes
    assert subset(nodes[:25], 25, "k") == nodes[:25]


def test_the_choice_is_the_walk_along_the_circle() -> None:
    """The rule as kratos-wire §5 words it, step by step."""
    nodes = nodes_of([instance(number) for number in range(7)], "grpc")
    circle = sorted(
        (_fnv1a(f"{point}trans-{node.instance.id}"), node.address)
        for node in nodes
        for point in range(160)
    )
    for client in ("a", "b", "c", "d"):
        after = [address for place, address in circle if place > _fnv1a(client)]
        before = [address for place, address in circle if place <= _fnv1a(client)]
        walk = list(dict.fromkeys(after + before))
        assert addresses(subset(nodes, 3, client)) == walk[:3]


def test_one_instance_less_moves_few_choices() -> None:
    nodes = nodes_of([instance(number) for number in range(60)], "grpc")
    before = set(addresses(subset(nodes, 25, "client-1")))
    gone = next(node for node in nodes if node.address in before)
    after = set(addresses(subset([node for node in nodes if node is not gone], 25, "client-1")))
    assert len(before & after) == 24


def test_clients_spread_over_the_instances() -> None:
    nodes = nodes_of([instance(number) for number in range(50)], "grpc")
    counted: Counter[str] = Counter()
    for client in range(100):
        counted.update(addresses(subset(nodes, 5, f"client-{client}")))
    assert len(counted) == 50
    assert max(counted.values()) < 40


class Scripted:
    """A discovery whose watches do what the test says: lists, or an exception; then silence."""

    def __init__(self, *watches: list[list[ServiceInstance] | Exception]) -> None:
        self._watches = iter(watches)
        self.over = asyncio.Event()

    async def get_service(self, name: str) -> list[ServiceInstance]:
        raise AssertionError

    @asynccontextmanager
    async def watch(self, name: str) -> AsyncIterator[AsyncIterator[list[ServiceInstance]]]:
        assert name == "trans"
        script = next(self._watches, None)

        async def changes() -> AsyncIterator[list[ServiceInstance]]:
            if script is None:
                self.over.set()
                await asyncio.Event().wait()
            for item in script or ():
                if isinstance(item, Exception):
                    raise item
                yield item

        yield changes()


async def follow(*watches: list[list[ServiceInstance] | Exception]) -> list[list[str]]:
    """What a resolver pushes until the script is at its end."""
    pushed: list[list[str]] = []
    discovery, clock = Scripted(*watches), ManualClock()
    made = Resolver(
        "trans",
        discovery,
        scheme="grpc",
        size=25,
        push=lambda nodes: pushed.append(addresses(list(nodes))),
        clock=clock,
    )
    running = asyncio.create_task(made.run())
    while not discovery.over.is_set():
        await asyncio.sleep(0)
        clock.advance(WATCH_AGAIN_S)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert made.answered.is_set()
    return pushed


async def test_lists_are_pushed_and_logged_as_kratos_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pushed = await follow([[instance(1)], [instance(1), instance(2)]])
    assert pushed == [["10.0.0.1:9000"], ["10.0.0.1:9000", "10.0.0.2:9000"]]
    line = capsys.readouterr().err.splitlines()[0]
    start = "INFO msg=[resolver] update instances: "
    assert line.startswith(start)
    assert json.loads(line.removeprefix(start)) == [
        {
            "id": "id-1",
            "name": "trans",
            "version": "v1",
            "metadata": {},
            "endpoints": ["grpc://10.0.0.1:9000"],
        }
    ]


async def test_an_empty_result_is_not_pushed(capsys: pytest.CaptureFixture[str]) -> None:
    only_http = instance(2, "http://10.0.0.2:80")
    assert await follow([[instance(1)], [], [only_http]]) == [["10.0.0.1:9000"]]
    warnings = [line for line in capsys.readouterr().err.splitlines() if "WARN" in line]
    assert len(warnings) == 2
    start = "WARN msg=[resolver] Zero endpoint found,refused to write, instances: "
    assert all(line.startswith(start) for line in warnings)


async def test_a_watch_that_fails_is_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    pushed = await follow([OSError("etcd is away")], [[instance(1)]], [[instance(2)]])
    assert pushed == [["10.0.0.1:9000"], ["10.0.0.2:9000"]]
    error = capsys.readouterr().err.splitlines()[0]
    assert error == "ERROR msg=[resolver] Failed to watch discovery endpoint: etcd is away"
