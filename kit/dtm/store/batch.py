"""Group commit: statements on the event loop, commits in one thread.

Theory of operation
    Requests queue while a commit runs; the next commit takes what has gathered, up to
    :data:`MAX_BATCH`. Nothing waits for company: an idle writer commits a single request at once, a
    busy one shares an fsync between many.

    The thread waits for the disk, so that the loop need not. The statements of quick requests are
    not left to it: between any two of them it would give the interpreter away and wait for the loop
    to give it back, which on a busy loop is as long as all that the loop has to do. They run on the
    loop, some 15 µs each, and the thread gets the commit alone. All of a batch runs in the thread
    when one request of it is not quick, when another program has locked the database, and for
    :data:`REST` seconds after the disk was slow to read. The connection is used by one of them at a
    time: nothing runs on the loop while the thread has a batch.

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
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar, TypeVarTuple

from kit.dtm.store import StoreUnavailable
from kit.dtm.store.connection import Connection, busy, sync_failed, translated
from kit.errors import Error

MAX_BATCH = 512
"""Requests in one commit: bounds how long the first of them waits for the last."""

MAX_AHEAD = 64
"""Requests whose statements run on the loop at once: bounds how long it does nothing else."""

MAX_WAITING = 10_000
"""Requests that are queued or being written; one more is refused."""

SLOW = 0.05
"""Seconds for the statements of one batch: more is a disk that was read from."""

REST = 10.0
"""Seconds in which the loop leaves a slow disk to the thread."""

T = TypeVar("T")
Args = TypeVarTuple("Args")


class _Request(NamedTuple):
    operation: Callable[..., object]
    args: tuple[object, ...]
    future: asyncio.Future[Any]
    quick: bool


class _Outcome(NamedTuple):
    future: asyncio.Future[Any]
    value: object
    error: Exception | None


_Ran: TypeAlias = list[_Outcome] | Exception
"""What came of statements whose commit is left, or why they have to be undone."""


class _Job(NamedTuple):
    batch: list[_Request]
    ran: _Ran | None


class Writer:
    """Runs operations on a connection, many to a commit.

    Args:
        path: of the database, for messages.
        open_: makes the connection ready; runs in the thread.
        close: gives it back; runs in the thread, not after a fatal error.
        on_fatal: told once, in the thread, why the writer stopped for ever; what is waiting hears
            of it afterwards.
        patience_ms: how long another program may hold the database before requests fail.
    """

    def __init__(
        self,
        path: str,
        open_: Callable[[], Connection],
        close: Callable[[Connection], None],
        on_fatal: Callable[[str], None],
        *,
        patience_ms: int,
    ) -> None:
        self._path = path
        self._open = open_
        self._close = close
        self._on_fatal = on_fatal
        self._patience_ms = patience_ms
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._waiting: list[_Request] = []
        self._writing: list[_Request] = []
        self._busy = False  # a batch is on its way, or will be in this turn of the loop
        self._rests_until = 0.0
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
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
        self,
        operation: Callable[[Connection, *Args], T],
        *args: *Args,
        quick: bool = False,
    ) -> asyncio.Future[T]:
        """Run ``operation(connection, *args)``.

        An operation that raises a :class:`kit.errors.Error` has written nothing; after any other
        exception, what it wrote is undone, and it may be run again.

        The future is done once the commit is durable. Cancelling it does not take the request back.

        Args:
            operation: what is run.
            *args: given to it.
            quick: it takes microseconds, and may keep the loop waiting for them.

        Raises:
            StoreUnavailable: the writer is closed or dead, or :data:`MAX_WAITING` requests wait
                already.
        """
        if self._refusal:
            raise StoreUnavailable(self._refusal)
        if len(self._waiting) + len(self._writing) >= MAX_WAITING:
            raise StoreUnavailable(
                f"{self._path}: {MAX_WAITING} requests wait for the disk already, try again later"
            )
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(_Request(operation, args, future, quick))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._next)
        return future

    async def close(self) -> None:
        """Finish what was accepted, then end; a second call waits for the first."""
        if not self._refusal:
            self._refusal = f"{self._path} is closed"
            if not self._busy:
                self._jobs.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()  # that was the last thing it did

    def _next(self) -> None:
        """Give the thread what has gathered; that nothing is left, when the writer was closed."""
        batch = self._waiting[:MAX_BATCH]
        ahead = all(request.quick for request in batch) and self._loop.time() >= self._rests_until
        if ahead:
            batch = batch[:MAX_AHEAD]
        self._writing = batch
        del self._waiting[: len(batch)]
        if batch:
            self._jobs.put(_Job(batch, self._ahead(batch) if ahead else None))
            return
        self._busy = False
        if self._refusal:
            self._jobs.put(None)

    def _ahead(self, batch: list[_Request]) -> _Ran:
        connection = self._connection
        assert connection is not None
        began = time.perf_counter()
        ran: _Ran
        try:
            connection.set_busy_timeout(0)
            try:
                connection.execute("BEGIN IMMEDIATE")
            finally:
                connection.set_busy_timeout(self._patience_ms)
            ran = _run(connection, batch)
        except Exception as exc:  # noqa: BLE001 - the thread undoes it, and tells
            ran = exc
        if time.perf_counter() - began > SLOW:
            self._rests_until = self._loop.time() + REST
        return ran

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        for future, value, error in outcomes:
            if future.done():
                continue  # its caller was cancelled
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _written(self, outcomes: list[_Outcome]) -> None:
        self._deliver(outcomes)
        self._next()

    def _die(self, message: str) -> None:
        self._refusal = message
        unknown = StoreUnavailable(f"{message}; it may have been written")
        unanswered = [*self._writing, *self._waiting]
        self._waiting.clear()
        self._deliver([_Outcome(request.future, None, unknown) for request in unanswered])

    # Everything below runs in the thread.

    def _main(self) -> None:
        try:
            connection = self._connection = self._open()
        except Exception as exc:  # noqa: BLE001 - raised by start()
            self._tell(_end, self._opened, translated(exc, self._path))
        else:
            self._tell(_end, self._opened, None)
            try:
                self._serve(connection)
                self._close(connection)
            except Exception as exc:  # noqa: BLE001 - whatever it was, nobody writes any more
                # The connection is never closed: closing it would write once more.
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
        while job := self._jobs.get():
            self._tell(self._written, self._commit(connection, *job))

    def _commit(
        self, connection: Connection, batch: list[_Request], ran: _Ran | None = None
    ) -> list[_Outcome]:
        try:
            if isinstance(ran, Exception) and not busy(ran):
                raise ran
            if not isinstance(ran, list):
                connection.execute("BEGIN IMMEDIATE")
                ran = _run(connection, batch)
            connection.execute("COMMIT")
        except Exception as exc:
            if sync_failed(exc):
                raise
            error = exc
        else:
            return ran
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        # While another program holds the file, each part would wait as long as all together.
        if len(batch) == 1 or busy(error):
            return [
                _Outcome(request.future, None, translated(error, self._path)) for request in batch
            ]
        half = len(batch) // 2
        return [*self._commit(connection, batch[:half]), *self._commit(connection, batch[half:])]


def _run(connection: Connection, batch: list[_Request]) -> list[_Outcome]:
    """What comes of each request, once what it wrote is committed."""
    outcomes = []
    for operation, args, future, _ in batch:
        try:
            outcome = _Outcome(future, operation(connection, *args), None)
        except Error as refusal:
            outcome = _Outcome(future, None, refusal)
        outcomes.append(outcome)
    return outcomes


def _end(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
