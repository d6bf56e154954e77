"""A barrier around business that runs in a database: as a block, or as a call."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from kit import log
from kit.dtm.barrier.errors import CommitsApart
from kit.dtm.barrier.flow import Flow, arun, run
from kit.dtm.barrier.links import Link, decide_on
from kit.dtm.barrier.rule import Outcome, Row, decide

_log = log.get_logger()


class Guard:
    """One call of a barrier, as a block.

    ::

        with barrier.guard(connection) as branch:
            if branch.outcome.suppressed:
                return
            connection.execute(...)

    ``async with`` where the driver is awaited. An open transaction is joined and left open: who
    began it commits it. Without one the block is a transaction.

    Attributes:
        outcome: what the barrier decided; DONE lets the business run.
        joined: whether the transaction is the caller's.
    """

    def __init__(self, link: Link, row: Row) -> None:
        self.outcome = Outcome.DONE
        self._link = link
        self._row = row

    @property
    def joined(self) -> bool:
        """Whether the transaction is the caller's; known inside the block."""
        return self._link.joined

    def __enter__(self) -> Self:
        _expect(self._link, awaited=False)
        run(self._enter())
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        run(self._exit(error))

    async def __aenter__(self) -> Self:
        _expect(self._link, awaited=True)
        await arun(self._enter())
        return self

    async def __aexit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await arun(self._exit(error))

    def call(self, business: Callable[[], object]) -> Outcome:
        """Run ``business`` unless it is suppressed."""
        _expect(self._link, awaited=False)
        return run(self._around(business))

    async def acall(self, business: Callable[[], Any]) -> Outcome:
        """Run and await ``business`` unless it is suppressed."""
        _expect(self._link, awaited=True)
        return await arun(self._around(business))

    def _around(self, business: Callable[[], object]) -> Flow[Outcome]:
        yield from self._enter()
        try:
            if not self.outcome.suppressed:
                yield business
        except BaseException as exc:
            yield from self._exit(exc)
            raise
        yield from self._exit(None)
        return self.outcome

    def _enter(self) -> Flow[None]:
        try:
            yield from self._link.begin()
            self.outcome = yield from decide_on(self._link, decide(self._row))
        except BaseException as exc:
            yield from self._undo(exc)
            raise
        if self.outcome.suppressed:
            row = self._row
            _log.info(
                "[barrier] %s %s/%s/%s: %s, the business is not run",
                row.trans_type,
                row.gid,
                row.branch_id,
                row.op,
                self.outcome,
            )

    def _exit(self, error: BaseException | None) -> Flow[None]:
        if error is not None:
            yield from self._undo(error)
            return
        try:
            if not (yield from self._link.still_open()):
                raise CommitsApart(
                    "the transaction of the barrier ended, or failed, inside of the business; let "
                    "it raise its errors and neither commit nor roll back"
                )
            if not self._link.joined:
                yield from self._link.commit()
        except BaseException as exc:
            yield from self._undo(exc)
            raise

    def _undo(self, error: BaseException) -> Flow[None]:
        """Roll back; ``error`` is what the caller hears, also when that fails."""
        try:
            yield from self._link.abandon()
        except Exception as exc:  # noqa: BLE001 - the connection is broken: the server rolls back
            error.add_note(f"and rolling back failed: {exc!r}")


def _expect(link: Link, *, awaited: bool) -> None:
    if link.awaited is not awaited:
        raise TypeError(
            "this driver is awaited: write `async with barrier.guard()` or `await barrier.acall()`"
            if link.awaited
            else "this driver is not awaited: write `with barrier.guard()` or `barrier.call()`"
        )
