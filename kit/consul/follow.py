"""A part of Consul, kept up to date across outages.

Source: https://developer.hashicorp.com/consul/api-docs/features/blocking: an index that went back,
as after a restore, starts over.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from kit.clock import Clock, SystemClock
from kit.consul.client import ConsulClient
from kit.consul.errors import ConsulError
from kit.resilience import BackOff

_PAUSES = BackOff(0.1, 2.0)
_WITHOUT_INDEX = 1.0


async def follow(
    client: ConsulClient,
    *path: str,
    query: Mapping[str, str] | None = None,
    report: Callable[[ConsulError | None], None] = lambda _: None,
    clock: Clock | None = None,
) -> AsyncGenerator[Any]:
    """What stands at ``path``: now, and again after each change.

    Elements may repeat; ``None`` is one where nothing stands there. It never ends: while Consul is
    away it says nothing, then it reads anew.

    Args:
        client: whom to ask; stays open.
        path: as of :meth:`ConsulClient.get`.
        query: as of :meth:`ConsulClient.get`.
        report: told of each failure, and ``None`` each time there was an answer.
        clock: measures the pauses, at most 2 s each.
    """
    clock = clock or SystemClock()
    index = tries = 0
    while True:
        try:
            listing = await client.get(*path, query=query, index=index)
        except ConsulError as error:
            report(error)
            index, tries = 0, tries + 1
            await clock.sleep(_PAUSES.pause(tries))
            continue
        tries = 0
        report(None)
        yield listing.value
        index = listing.index if listing.index >= index else 0
        if not listing.index:  # nothing to wait with
            await clock.sleep(_WITHOUT_INDEX)
