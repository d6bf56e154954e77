"""From the instances of a registry to the nodes of a client.

Per instance the first endpoint of the wanted scheme counts; instances without one, and further
ones at the same address, are skipped. Of more than ``subset`` instances each client keeps that
many, chosen by consistent hash: the choice of a client is stable, and clients choose differently.

An empty result is never taken over: a registry that lost its data must not stop the calls.

Source: go-kratos/kratos transport/grpc/resolver/discovery/resolver.go; go-kratos/aegis
subset/subset.go.
"""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from kit import log
from kit.clock import Clock, SystemClock
from kit.registry import Discovery, ServiceInstance
from kit.selector import DEFAULT_WEIGHT, Node
from kit.transport.lines import say

_log = log.get_logger()

SUBSET = 25
POINTS_PER_INSTANCE = 160
WATCH_AGAIN_S = 1.0
_CIRCLE = 2**32
_SECURE_QUERY = "isSecure=true"
"""How kratos up to 2.2 says that an endpoint speaks TLS."""


def nodes_of(instances: Iterable[ServiceInstance], scheme: str) -> list[Node]:
    """The nodes that ``instances`` announce for ``scheme``, such as ``grpc``."""
    nodes: dict[str, Node] = {}
    for instance in instances:
        try:
            address = _address(instance.endpoints, scheme)
        except ValueError as exc:
            reason = f"{exc} of {instance.name}-{instance.id}"
            say(
                _log.error,
                f"[resolver] Failed to parse discovery endpoint: {reason}",
                "[resolver] failed to parse discovery endpoint",
                error=reason,
            )
            continue
        if address is not None and address not in nodes:
            nodes[address] = Node(address, instance, weight_of(instance))
    return list(nodes.values())


def weight_of(instance: ServiceInstance) -> float:
    """Metadata ``weight`` when it is an integer that is not negative, else 100."""
    text = (instance.metadata or {}).get("weight", "")
    return float(text) if text.isascii() and text.isdigit() else DEFAULT_WEIGHT


def subset(nodes: Sequence[Node], size: int, key: str) -> list[Node]:
    """At most ``size`` of ``nodes``, those that follow ``key`` on the circle of their hashes.

    Args:
        nodes: one per instance.
        size: 0 keeps all.
        key: what sets this client apart from others.
    """
    if size <= 0 or len(nodes) <= size:
        return list(nodes)
    start = _fnv1a(key) + 1  # the walk begins behind the key

    def distance(node: Node) -> int:
        points = _points(f"{node.instance.name}-{node.instance.id}")
        return min((point - start) % _CIRCLE for point in points)

    return sorted(nodes, key=distance)[:size]


class Resolver:
    """Keeps a client's nodes in step with the registry.

    Args:
        service: the name to watch.
        discovery: the registry.
        scheme: ``grpc`` or ``grpcs``.
        size: how many instances to keep; 0 for all.
        push: takes each new set of nodes, never an empty one.
        key: what sets this client apart; random by default.
        clock: how the pause after a failed watch passes.
    """

    def __init__(
        self,
        service: str,
        discovery: Discovery,
        *,
        scheme: str,
        size: int,
        push: Callable[[tuple[Node, ...]], None],
        key: str = "",
        clock: Clock | None = None,
    ) -> None:
        self._service = service
        self._discovery = discovery
        self._scheme = scheme
        self._size = size
        self._push = push
        self._key = key or str(uuid.uuid4())
        self._clock = clock or SystemClock()
        self.answered = asyncio.Event()
        """Set once the registry has said anything, even that there are no instances."""

    @property
    def described(self) -> str:
        """The registry, in words."""
        kind = type(self._discovery)
        return str(self._discovery) if kind.__str__ is not object.__str__ else kind.__name__

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        while True:
            try:
                async with self._discovery.watch(self._service) as changes:
                    async for instances in changes:
                        self._take(instances)
                reason = "the watch ended"
            except Exception as exc:  # noqa: BLE001  (whatever a registry raises, calls go on)
                reason = str(exc) or type(exc).__name__
            say(
                _log.error,
                f"[resolver] Failed to watch discovery endpoint: {reason}",
                "[resolver] failed to watch discovery endpoint",
                error=reason,
            )
            await self._clock.sleep(WATCH_AGAIN_S)

    def _take(self, instances: Sequence[ServiceInstance]) -> None:
        nodes = subset(nodes_of(instances, self._scheme), self._size, self._key)
        if nodes:
            self._push(tuple(nodes))
            text = _json(node.instance for node in nodes)
            say(
                _log.info,
                f"[resolver] update instances: {text}",
                "[resolver] update instances",
                instances=text,
            )
        else:
            text = f"{_json(instances)} of {self._service}"
            say(
                _log.warning,
                f"[resolver] Zero endpoint found,refused to write, instances: {text}",
                "[resolver] zero endpoint found, refused to write",
                instances=text,
            )
        self.answered.set()


def _address(endpoints: Iterable[str], scheme: str) -> str | None:
    """``host:port`` of the first endpoint of ``scheme``.

    Raises:
        ValueError: one of the endpoints is not a URL, or the address has no port.
    """
    found = None
    for endpoint in endpoints:
        url = urlsplit(endpoint)
        port = url.port
        secure = f"{url.scheme}s" if url.query == _SECURE_QUERY else url.scheme
        if found is None and secure == scheme:
            if not url.hostname or not port:
                raise ValueError(f"{endpoint!r} has no host and port")
            found = url.netloc
    return found


@lru_cache(maxsize=4096)
def _points(name: str) -> tuple[int, ...]:
    """Where an instance stands on the circle."""
    return tuple(_fnv1a(f"{point}{name}") for point in range(POINTS_PER_INSTANCE))


def _fnv1a(text: str) -> int:
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 % _CIRCLE
    return value


def _json(instances: Iterable[ServiceInstance]) -> str:
    listed = [
        {
            "id": instance.id,
            "name": instance.name,
            "version": instance.version,
            "metadata": None if instance.metadata is None else dict(instance.metadata),
            "endpoints": list(instance.endpoints),
        }
        for instance in instances
    ]
    return json.dumps(listed, separators=(",", ":"), ensure_ascii=False)
