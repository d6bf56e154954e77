"""Who is announced in etcd, told as it changes."""

from collections.abc import Callable

from kit.etcd import EtcdClient, follow
from kit.registry.etcd import DEFAULT_NAMESPACE
from kit.registry.record import decode


async def tell_announced(etcd: str, tell: Callable[[str, tuple[str, ...]], None]) -> None:
    """Call ``tell`` with each service that is announced and its endpoints, and again at new ones.

    It never ends. A service that goes away is not told: at a reload each of them does.
    """
    told: dict[str, tuple[str, ...]] = {}
    async with EtcdClient(etcd) as client:
        async for state in follow(client, f"{DEFAULT_NAMESPACE}/", prefix=True):
            found: dict[str, set[str]] = {}
            for item in state.values():
                try:
                    instance = decode(item.value)
                except ValueError:
                    continue  # another program's; discovery leaves it out, too
                found.setdefault(instance.name, set()).update(instance.endpoints)
            for name, endpoints in sorted(found.items()):
                now = tuple(sorted(endpoints))
                if told.get(name) != now:
                    told[name] = now
                    tell(name, now)
