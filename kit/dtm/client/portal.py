"""An event loop in a thread of its own, for code that has none.

Theory of operation: whoever calls :meth:`Portal.run` waits, and while it waits it does what the
coroutine in the loop asks it to do by :class:`Here`. So a callback of the caller's (a local
transaction, a step of a workflow) runs in the caller's thread, with the caller's connections and
thread-local state, although the algorithm around it runs in the loop. Such a callback may call
:meth:`Portal.run` again: the calls nest.

The thread is started by the first call and belongs to one process: after a fork, as in servers that
load the application before they make their workers, the child starts its own.
"""

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from kit.dtm.client.errors import DtmUnavailable, InvalidCall

T = TypeVar("T")

CLOSES_WITHIN_S = 5.0


class Here:
    """Runs functions in the thread that waits in :meth:`Portal.run`."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    async def __call__(self, fn: Callable[..., T], *args: object) -> T:
        """What ``fn(*args)`` gives there; its errors are raised here."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = fn(*args)
            except Exception as exc:  # noqa: BLE001 - it is raised where it is awaited
                loop.call_soon_threadsafe(_fail, answer, exc)
            else:
                loop.call_soon_threadsafe(_give, answer, result)

        self._work.put(work)
        return await answer

    def end(self) -> None:
        """Let :meth:`work` return."""
        self._work.put(None)

    def work(self) -> None:
        """Run what is asked for until :meth:`end`."""
        while (work := self._work.get()) is not None:
            work()


class Portal:
    """The way into the loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    def run(self, make: Callable[[Here], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine gives that ``make`` makes; the caller's context is the coroutine's.

        Raises:
            InvalidCall: the caller runs an event loop, which would stand still meanwhile.
            DtmUnavailable: another thread closed the portal meanwhile.
            BaseException: what the coroutine raises, or what interrupts the caller while it waits:
                then the coroutine is cancelled first.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise InvalidCall(
                "a synchronous client was called in an event loop, which it would block; use the "
                "classes of kit.dtm.client"
            )
        here = Here()
        future: Future[T] = asyncio.run_coroutine_threadsafe(make(here), self._running())
        future.add_done_callback(lambda _: here.end())
        try:
            here.work()
        except BaseException:  # Ctrl-C, or a callback that ends the thread
            future.cancel()
            raise
        try:
            return future.result()
        except CancelledError:
            raise DtmUnavailable(
                "the client was closed during this call; what became of it is unknown"
            ) from None

    def close(self) -> None:
        """End the loop and its thread; may be called twice."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or self._pid != os.getpid():
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSES_WITHIN_S)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop,), name="dtm-client", daemon=True
                )
                self._thread.start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        if open_calls := asyncio.all_tasks(loop):  # their callers wait, and would for ever
            for call in open_calls:
                call.cancel()
            loop.run_until_complete(asyncio.wait(open_calls))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _give(answer: "asyncio.Future[T]", result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: "asyncio.Future[T]", exc: Exception) -> None:
    if not answer.done():
        answer.set_exception(exc)
