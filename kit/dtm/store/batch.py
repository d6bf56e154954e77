"""Group commit: one thread that owns the connection and writes for everybody.

Theory of operation
    Requests queue while a commit runs; the next commit takes what has gathered, up to
    :data:`MAX_BATCH`. Nothing waits for company: an idle writer commits a single request at once, a
    busy one shares an fsync between many.

    A refusal, such as a gid that exists, is found before anything is written and leaves the others
    alone. When a request fails half-way, or the disk does, the group is undone and tried again
    in two halves, and those in halves: whatever can succeed does, and one bad request costs its 511
    neighbours about 18 commits. (A savepoint around each request does the same and was measured at
    a fifth of all the CPU: SQLite copies every page that a savepoint is the first to touch.)

    A failed fsync is different: what the disk holds is unknown from then on. Nothing is tried
    again; the writer reports it and stops for ever.

    Answers are handed to the event loop once for each commit, never before it: a read that shared a
    transaction with a write does not tell of it until it is durable.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, TypeVarTuple

from kit.dtm.store import StoreUnavailable
from kit.dtm.store.connection import Connection, busy, sync_failed, translated
from kit.errors import Error

MAX_BATCH = 512
"""Requests in one commit: bounds how long the first of them waits for the last."""

MAX_WAITING = 10_000
"""Requests that are queued or being written; one more is refused."""

T = TypeVar("T")
Args = TypeVarTuple("Args")


class _Request(NamedTuple):
    operation: Callable[..., object]
    args: tuple[object, ...]
    future: asyncio.Future[Any]


class _Outcome(NamedTuple):
    future: asyncio.Future[Any]
    value: object
    error: Exception | None


class Writer:
    """Runs operations on a connection in one thread, many to a commit.

    Args:
        path: of the database, for messages.
        open_: makes the connection ready; runs in the thread.
        close: gives it back; runs in the thread, not after a fatal error.
        on_fatal: told once, in the thread, why the writer stopped for ever; what is waiting hears
            of it afterwards.
    """

    def __init__(
        self,
        path: str,
        open_: Callable[[], Connection],
        close: Callable[[Connection], None],
        on_fatal: Callable[[str], None],
    ) -> None:
        self._path = path
        self._open = open_
        self._close = close
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._unanswered: set[asyncio.Future[Any]] = set()
        self._abandoned: Connection | None = None
        self._refusal = ""  # why nothing more is accepted
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        # A daemon: a program that forgets to close the store can still end. What it was told is
        # durable either way.
        self._thread = threading.Thread(target=self._main, name=f"store {path}", daemon=True)

    async def start(self) -> None:
        """Open the connection; raises what opening raised."""
        self._thread.start()
        try:
            await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            await self.close()  # the thread may have opened it by now
            raise

    def submit(
        self, operation: Callable[[Connection, *Args], T], *args: *Args
    ) -> asyncio.Future[T]:
        """Run ``operation(connection, *args)`` in the thread.

        An operation that raises a :class:`kit.errors.Error` has written nothing; after any other
        exception, what it wrote is undone, and it may be run again.

        The future is done once the commit is durable. Cancelling it does not take the request back.

        Raises:
            StoreUnavailable: the writer is closed or dead, or :data:`MAX_WAITING` requests wait
                already.
        """
        if self._refusal:
            raise StoreUnavailable(self._refusal)
        if len(self._unanswered) >= MAX_WAITING:
            raise StoreUnavailable(
                f"{self._path}: {MAX_WAITING} requests wait for the disk already, try again later"
            )
        future: asyncio.Future[T] = self._loop.create_future()
        self._unanswered.add(future)
        self._requests.put(_Request(operation, args, future))
        return future

    async def close(self) -> None:
        """Finish what was accepted, then end; a second call waits for the first."""
        if not self._refusal:
            self._refusal = f"{self._path} is closed"
            self._requests.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()  # that was the last thing it did

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        for future, value, error in outcomes:
            self._unanswered.discard(future)
            if future.done():
                continue  # its caller was cancelled
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _die(self, message: str) -> None:
        self._refusal = message
        self._deliver(
            [
                _Outcome(future, None, StoreUnavailable(f"{message}; it may have been written"))
                for future in tuple(self._unanswered)
            ]
        )

    # Everything below runs in the thread.

    def _main(self) -> None:
        try:
            connection = self._open()
        except Exception as exc:  # noqa: BLE001 - raised by start()
            self._tell(_end, self._opened, translated(exc, self._path))
        else:
            self._tell(_end, self._opened, None)
            try:
                self._serve(connection)
                self._close(connection)
            except Exception as exc:  # noqa: BLE001 - whatever it was, nobody writes any more
                self._abandoned = connection  # never closed: closing it would write once more
                message = (
                    f"{self._path}: {exc}; what the disk holds is unknown, start the process again"
                )
                self._on_fatal(message)
                self._tell(self._die, message)
        self._tell(_end, self._ended, None)

    def _tell(self, callback: Callable[[*Args], None], *args: *Args) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            pass  # the loop was closed without closing the store: nobody listens any more

    def _serve(self, connection: Connection) -> None:
        while batch := self._gather():
            self._tell(self._deliver, self._commit(connection, batch))

    def _gather(self) -> list[_Request]:
        """What waits, at least one request; nothing once the writer was closed and emptied."""
        batch: list[_Request] = []
        while len(batch) < MAX_BATCH:
            try:
                request = self._requests.get(block=not batch)
            except queue.Empty:
                break
            if request is None:
                if batch:  # nothing is behind it: put back, it is met again alone
                    self._requests.put(None)
                break
            batch.append(request)
        return batch

    def _commit(self, connection: Connection, batch: list[_Request]) -> list[_Outcome]:
        try:
            return self._attempt(connection, batch)
        except Exception as exc:
            if sync_failed(exc):
                raise
            error = exc
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        # While another program holds the file, each part would wait as long as all together.
        if len(batch) == 1 or busy(error):
            return [
                _Outcome(request.future, None, translated(error, self._path)) for request in batch
            ]
        half = len(batch) // 2
        return [*self._commit(connection, batch[:half]), *self._commit(connection, batch[half:])]

    def _attempt(self, connection: Connection, batch: list[_Request]) -> list[_Outcome]:
        outcomes = []
        connection.execute("BEGIN IMMEDIATE")
        for operation, args, future in batch:
            try:
                outcome = _Outcome(future, operation(connection, *args), None)
            except Error as refusal:
                outcome = _Outcome(future, None, refusal)
            outcomes.append(outcome)
        connection.execute("COMMIT")
        return outcomes


def _end(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
