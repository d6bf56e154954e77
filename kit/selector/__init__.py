"""Picks one node out of many for a call.

Chain per call: node filters, then the balancer's pick, then the done callback with what became of
the call.

Source: go-kratos/kratos selector/selector.go, selector/balancer.go.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from kit.errors import ServiceUnavailable
from kit.registry import ServiceInstance

DEFAULT_WEIGHT = 100.0


class NoAvailableNode(ServiceUnavailable):
    """No instance is left to call; as in kratos, the reason says so and the message is empty."""

    def __init__(self, message: str = "") -> None:
        super().__init__("no_available_node", message)


@dataclass(frozen=True, slots=True)
class Node:
    """An address that calls can go to, and what its announcement said.

    Attributes:
        address: ``host:port``.
        weight: metadata ``weight`` as a number, else 100.
    """

    address: str
    instance: ServiceInstance = field(default=ServiceInstance("", ""), compare=False)
    weight: float = DEFAULT_WEIGHT

    @property
    def version(self) -> str:
        """The version text of the instance."""
        return self.instance.version


Done: TypeAlias = Callable[[BaseException | None], None]
"""Called once with the error of the call, or ``None``."""

NodeFilter: TypeAlias = Callable[[Sequence[Node]], Sequence[Node]]
"""Keeps the nodes that may be picked."""


class Balancer(Protocol):
    """Chooses among nodes. Balancers keep state per address and forget nodes that vanish."""

    def pick(self, nodes: Sequence[Node]) -> tuple[Node, Done]:
        """One of ``nodes``, which is never empty, and what to call when the call has ended."""
        ...


class Selector:
    """Filters, then a balancer."""

    def __init__(self, balancer: Balancer, filters: Sequence[NodeFilter] = ()) -> None:
        self._balancer = balancer
        self._filters = tuple(filters)

    def select(self, nodes: Sequence[Node]) -> tuple[Node, Done]:
        """The node for the next call.

        Raises:
            NoAvailableNode: there is none, or the filters left none.
        """
        for keep in self._filters:
            nodes = keep(nodes)
        if not nodes:
            raise NoAvailableNode
        return self._balancer.pick(nodes)
