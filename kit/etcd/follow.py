"""The keys under a prefix, kept up to date across outages.

List, then watch from the revision of the list. Whatever ends the watch - a cut connection, a hung
server, a compaction, a token that died - the answer is the same: list again. So nothing has to be
decided about what was missed, and a server that came back empty or restored is followed too.
"""

from collections.abc import AsyncGenerator, Callable, Mapping

from kit.clock import Clock, SystemClock
from kit.etcd.backoff import Backoff
from kit.etcd.client import EtcdClient
from kit.etcd.errors import EtcdCompacted, EtcdError
from kit.etcd.model import Event, KeyValue, Text

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_STEADY = 5.0
"""Seconds after which a watch that ends is an accident and not a habit."""


async def follow(
    client: EtcdClient,
    key: Text,
    *,
    prefix: bool = False,
    report: Callable[[EtcdError | None], None] = lambda _: None,
    clock: Clock | None = None,
) -> AsyncGenerator[Mapping[bytes, KeyValue]]:
    """What is stored under ``key``, or all keys that begin with it: now and after each change.

    The first element comes at once, even when it is empty; elements may repeat. It never ends:
    while etcd is away it says nothing, then it lists again.

    Args:
        client: whom to ask; stays open.
        key: a key, or a prefix.
        prefix: take ``key`` for a prefix.
        report: told of each failure, and ``None`` each time a watch stands.
        clock: measures the pauses, at most 2 s each.
    """
    clock = clock or SystemClock()
    backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        started = clock.monotonic()
        try:
            listing = await client.listing(key, prefix=prefix)
            state = {item.key: item for item in listing.items}
            yield dict(state)
            watch = client.watch(key, prefix=prefix, start_revision=listing.revision + 1)
            async with watch as batches:
                report(None)
                async for events in batches:
                    _apply(state, events)
                    yield dict(state)
        except EtcdCompacted:
            pass  # history is gone, etcd is not: list again
        except EtcdError as error:
            report(error)
        if clock.monotonic() - started > _STEADY:
            backoff.reset()
        await clock.sleep(backoff.pause())


def _apply(state: dict[bytes, KeyValue], events: tuple[Event, ...]) -> None:
    for event in events:
        if event.deleted:
            state.pop(event.item.key, None)
        else:
            state[event.item.key] = event.item
