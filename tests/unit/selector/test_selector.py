"""Filters and balancers; kratos-wire §6."""

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from kit import errors
from kit.registry import ServiceInstance
from kit.selector import NoAvailableNode, Node, Selector
from kit.selector.filter import version
from kit.selector.random import RandomBalancer
from kit.selector.wrr import WeightedRoundRobin


def nodes(**weights: float) -> tuple[Node, ...]:
    return tuple(Node(address, weight=weight) for address, weight in weights.items())


def picks(balancer: WeightedRoundRobin, among: Sequence[Node], count: int) -> str:
    return "".join(balancer.pick(among)[0].address for _ in range(count))


def test_heavy_nodes_take_turns_with_light_ones() -> None:
    """nginx' own example: 5, 1, 1."""
    assert picks(WeightedRoundRobin(), nodes(a=5, b=1, c=1), 14) == "aabacaa" * 2


def test_the_first_of_equals_goes_first() -> None:
    assert picks(WeightedRoundRobin(), nodes(a=100, b=100, c=100), 6) == "abcabc"


def test_turns_outlive_a_change_of_the_nodes_and_vanished_ones_are_forgotten() -> None:
    balancer = WeightedRoundRobin()
    assert picks(balancer, nodes(a=1, b=1), 1) == "a"
    assert picks(balancer, nodes(a=1, b=1, c=1), 1) == "b", "a has had its turn"
    assert picks(balancer, nodes(c=1), 1) == "c"
    assert picks(balancer, nodes(a=1, b=1), 1) == "a", "a starts anew"


def test_a_list_that_is_changed_in_place_is_followed() -> None:
    balancer, among = WeightedRoundRobin(), list(nodes(a=1, b=1))
    picks(balancer, among, 2)
    among.append(Node("c", weight=10))
    assert picks(balancer, among, 1) == "c"


def test_random_is_uniform_and_ignores_weights() -> None:
    balancer = RandomBalancer(random.Random(7))
    counted = Counter(balancer.pick(nodes(a=1, b=1000))[0].address for _ in range(10_000))
    assert abs(counted["a"] - 5000) < 300


def test_the_version_filter_keeps_equal_texts() -> None:
    among = [Node(v, ServiceInstance(v, "s", v)) for v in ("v1", "v2", "v1.0")]
    assert [node.address for node in version("v1")(among)] == ["v1"]


def test_filters_run_in_order_before_the_pick() -> None:
    seen: list[int] = []

    def drop_first(among: Sequence[Node]) -> Sequence[Node]:
        seen.append(len(among))
        return among[1:]

    selector = Selector(WeightedRoundRobin(), [drop_first, drop_first])
    assert selector.select(nodes(a=1, b=1, c=1))[0].address == "c"
    assert seen == [3, 2]


def test_no_node_left_is_503_no_available_node_with_an_empty_message() -> None:
    selector = Selector(WeightedRoundRobin(), [version("v9")])
    with pytest.raises(NoAvailableNode) as caught:
        selector.select(nodes(a=1))
    error = caught.value
    assert (error.code, error.reason, error.message) == (503, "no_available_node", "")
    assert error == errors.ServiceUnavailable("no_available_node")
