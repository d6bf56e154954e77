"""Group commit over an awaited connection: what arrives while a batch runs goes with the next.

The SQLite store does the same with a thread (:mod:`kit.dtm.store.batch`). Nothing waits for
company: an idle group runs a single request at once, a busy one shares one commit between many.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from kit.dtm.store import StoreUnavailable

MAX_BATCH = 256
"""Requests in one commit: bounds how long the first of them waits for the last."""

MAX_WAITING = 10_000
"""Requests that are queued or being written; one more is refused."""

R = TypeVar("R")
A = TypeVar("A")


class Group(Generic[R, A]):
    """Hands requests of one kind to ``commit``, many at a time, one batch after the other.

    Args:
        name: what is written to, for messages.
        commit: gives for each request, in order, its answer or the exception that refuses it. When
            it raises, every request of the batch is refused with that exception, unless there are
            several: they are then tried again one by one, so that a bad request costs its
            neighbours time and nothing else. :class:`StoreUnavailable` is never tried again.
        key: what a request writes to. Two requests with the same key never share a batch: the
            second sees what became of the first. By default every request is its own.
    """

    def __init__(
        self,
        name: str,
        commit: Callable[[Sequence[R]], Awaitable[Sequence[A | Exception]]],
        *,
        key: Callable[[R], Hashable] = id,
        max_batch: int = MAX_BATCH,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._name = name
        self._commit = commit
        self._key = key
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: list[tuple[R, asyncio.Future[A]]] = []
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    def submit(self, request: R) -> asyncio.Future[A]:
        """Queue ``request``; the future is done once the commit is durable.

        Cancelling it does not take the request back.

        Raises:
            StoreUnavailable: the group is closed, or too many requests wait already.
        """
        if self._closed:
            raise StoreUnavailable(f"{self._name} is closed")
        if len(self._waiting) >= self._max_waiting:
            raise StoreUnavailable(
                f"{self._name}: {self._max_waiting} requests wait already, try again later"
            )
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())  # awaited in aclose
        return future

    async def aclose(self) -> None:
        """Finish what was accepted."""
        self._closed = True
        while self._running is not None:
            await asyncio.shield(self._running)

    async def _run(self) -> None:
        try:
            while self._waiting:
                number = self._fitting()
                batch = self._waiting[:number]
                del self._waiting[:number]
                await self._attempt(batch)
        finally:
            self._running = None

    def _fitting(self) -> int:
        """How many of those that wait go together, the first ones first."""
        keys: set[Hashable] = set()
        for request, _ in self._waiting[: self._max_batch]:
            key = self._key(request)
            if key in keys:
                break
            keys.add(key)
        return len(keys)

    async def _attempt(self, batch: list[tuple[R, asyncio.Future[A]]]) -> None:
        answers: Sequence[A | Exception]
        try:
            answers = await self._commit([request for request, _ in batch])
        except StoreUnavailable as error:
            answers = [error] * len(batch)
        except Exception as error:  # noqa: BLE001 - whatever it was, whoever waits hears of it
            if len(batch) > 1:
                for single in batch:
                    await self._attempt([single])
                return
            answers = [error]
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue  # its caller was cancelled
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
