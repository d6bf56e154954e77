"""Messages of a queue, a stream or a log, handled side by side within the lifecycle of an app."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing, nullcontext
from typing import Generic, TypeVar

from kit import log
from kit.resilience import BackOff

_log = log.get_logger()

T = TypeVar("T")


class Consumer(Generic[T]):
    """Takes messages from a source and handles them; a :class:`kit.transport.Server`.

    A message whose handling fails is logged and left: whether it comes again is between the handler
    and the queue, whose acknowledgement belongs into the handler. A source that fails is opened
    again after a pause; one that ends is opened again as well.

    Args:
        name: for the log.
        source: opens the source: an asynchronous iterable of messages.
        handle: does the work; what it gives is not looked at.
        concurrency: messages that are handled at the same time. No more is taken from the source
            than can be handled, so the queue keeps what waits.
        backoff: pauses before the source is opened again, 50 ms doubling up to 10 s by default.

    Raises:
        ValueError: ``concurrency`` is below 1.
    """

    endpoint: str | None = None
    """Always ``None``: nobody calls it."""

    def __init__(
        self,
        name: str,
        source: Callable[[], AsyncIterable[T]],
        handle: Callable[[T], Awaitable[object]],
        *,
        concurrency: int = 16,
        backoff: BackOff | None = None,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"consumer {name}: concurrency {concurrency} is below 1")
        self.name = name
        self._source = source
        self._handle = handle
        self._room = asyncio.Semaphore(concurrency)
        self._backoff = backoff or BackOff(ceiling=10.0)
        self._running: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def listen(self) -> None:
        """Nothing to bind."""

    async def serve(self) -> None:
        """Take and handle messages until :meth:`stop`; return when the last one is handled."""
        self._reading = asyncio.create_task(self._read_for_ever(), name=f"consumer {self.name}")
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({self._reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not self._stopping.is_set():
                self._reading.result()  # it reads for ever: this raises
            self._reading.cancel()
            await asyncio.wait({self._reading})
            if self._running:
                await asyncio.wait(self._running)
        finally:
            stopping.cancel()
            await self._cut()

    async def stop(self, grace: float | None = None) -> None:
        """Take no more; what is being handled has ``grace`` seconds, then it is cancelled."""
        self._stopping.set()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
            await self._cut()

    async def _cut(self) -> None:
        tasks = [*self._running, *([self._reading] if self._reading else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_for_ever(self) -> None:
        failures = 0
        while True:
            try:
                taken = await self._read()
                failures = 0 if taken else failures + 1
            except Exception as error:  # noqa: BLE001  (told, and opened again)
                failures += 1
                if failures == 1:  # one line an outage
                    _log.error(f"[consumer] {self.name}: its source failed", exc_info=error)
            await asyncio.sleep(self._backoff.pause(max(failures, 1)))

    async def _read(self) -> int:
        """Handle what one opening of the source gives; how many messages that were."""
        taken = 0
        source = aiter(self._source())
        async with aclosing(source) if isinstance(source, AsyncGenerator) else nullcontext():
            while True:
                await self._room.acquire()
                try:
                    message = await anext(source)
                except BaseException as error:
                    self._room.release()
                    if isinstance(error, StopAsyncIteration):
                        return taken
                    raise
                taken += 1
                # Awaited by serve and by stop.
                task = asyncio.create_task(self._one(message))
                self._running.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.release()

    async def _one(self, message: T) -> None:
        try:
            await self._handle(message)
        except Exception as error:  # noqa: BLE001  (one message must not end the others)
            _log.error(f"[consumer] {self.name}: a message failed", exc_info=error)
