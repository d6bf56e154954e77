"""What a watcher sees: the latest list, each state at most once."""

import asyncio
from collections.abc import Sequence
from typing import Self

from kit.registry import ServiceInstance


class Changes:
    """An iterator over lists of instances that others offer.

    Only the latest list is kept: a slow reader skips what came between and a fast one never sees
    the same list twice, so nothing can pile up. Waiting for the next list may be cancelled and
    done again.
    """

    def __init__(self) -> None:
        self._latest: list[ServiceInstance] | None = None
        self._seen: list[ServiceInstance] | None = None
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self._closed = False

    def offer(self, instances: Sequence[ServiceInstance]) -> None:
        """These are the instances now."""
        self._latest = list(instances)
        self._changed.set()

    def close(self, error: BaseException | None = None) -> None:
        """End the iteration, with ``error`` if there is one."""
        self._closed, self._error = True, error
        self._changed.set()

    def __aiter__(self) -> Self:
        """Itself: there is one reader."""
        return self

    async def __anext__(self) -> list[ServiceInstance]:
        """The next list that differs from the last one."""
        while True:
            await self._changed.wait()
            if self._closed:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._changed.clear()
            if self._latest is not None and self._latest != self._seen:
                self._seen = self._latest
                return list(self._seen)
