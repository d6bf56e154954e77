"""Weighted round robin that spreads a heavy node's turns between those of the others.

Each pick raises every node by its weight, the highest wins and pays the sum of all. Weights 5, 1, 1
give a a b a c a a, not a a a a a b c.

Source: go-kratos/kratos selector/wrr/wrr.go, which follows nginx' smooth weighting.
"""

from collections.abc import Sequence

from kit.selector import Done, Node


class WeightedRoundRobin:
    """Smooth weighting by each node's own weight; the first of equals wins."""

    def __init__(self) -> None:
        self._nodes: Sequence[Node] = ()
        self._current: dict[str, float] = {}

    def pick(self, nodes: Sequence[Node]) -> tuple[Node, Done]:
        """The node whose turn it is."""
        if len(nodes) == 1:
            return nodes[0], _nothing
        if nodes is not self._nodes or not isinstance(nodes, tuple):
            self._follow(nodes)
        current = self._current
        best, highest, total = nodes[0], float("-inf"), 0.0
        for node in nodes:
            weight = node.weight
            total += weight
            value = current[node.address] = current[node.address] + weight
            if value > highest:
                best, highest = node, value
        current[best.address] = highest - total
        return best, _nothing

    def _follow(self, nodes: Sequence[Node]) -> None:
        """Keep the turns of the nodes that stay, forget those that went."""
        current = self._current
        self._current = {node.address: current.get(node.address, 0.0) for node in nodes}
        self._nodes = nodes


def _nothing(error: BaseException | None) -> None:
    """What became of the call changes nothing."""
