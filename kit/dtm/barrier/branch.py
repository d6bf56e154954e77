"""Which branch of which global transaction a call belongs to, and what guards it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

from kit.dtm.barrier.errors import BarrierError, CommitsApart
from kit.dtm.barrier.flow import Flow, arun, run
from kit.dtm.barrier.guard import Guard
from kit.dtm.barrier.links import Link, decide_on, link_of
from kit.dtm.barrier.rule import Outcome, Row, settle
from kit.dtm.errors import Failure
from kit.dtm.wire import QUERY_BRANCH_ID, Op

_LONGEST = {"trans_type": 45, "gid": 128, "branch_id": 128, "op": 45}
"""Characters that the columns of dtm's table have."""

_OPS = tuple(op.value for op in Op if op is not Op.BUSINESS)
"""Those of calls. A mistyped undo would be taken for an action, and undo what never happened."""

FIRST_CALL = "01"


@dataclass(frozen=True, slots=True)
class BranchBarrier:
    """The identity of one branch call.

    Each use of a barrier within the call counts: the first is ``01``. Uses have to come in the same
    order when the call is repeated.

    Attributes:
        trans_type: ``msg``, ``saga``, ``tcc``, ``xa`` or ``workflow``.
        gid: the global transaction.
        branch_id: the branch in it.
        op: what the branch is asked to do.
        table: of the barrier's rows; ``dtm_barrier.barrier`` by default, in SQLite ``dtm_barrier``.
    """

    trans_type: str
    gid: str
    branch_id: str
    op: str
    table: str = field(default="", kw_only=True, compare=False)
    _uses: "count[int]" = field(
        default_factory=lambda: count(1), init=False, repr=False, compare=False
    )

    def next_row(self) -> Row:
        """The row of the next use.

        Raises:
            BarrierError: an id is longer than the column that keeps it, or the op is unknown.
        """
        if self.op not in _OPS:
            raise BarrierError(f"op {self.op!r} is none; use one of {', '.join(_OPS)}")
        for name, longest in _LONGEST.items():
            if len(getattr(self, name)) > longest:
                raise BarrierError(f"{name} has more than {longest} characters")
        return self._row(f"{next(self._uses):02d}")

    def guard(self, connection: object) -> Guard:
        """A block in which the business runs on ``connection``, at most once.

        Args:
            connection: of sqlite3, aiosqlite, psycopg, asyncpg, PyMySQL, aiomysql, asyncmy,
                SQLAlchemy (Connection, Session, Async…) or Django.

        Raises:
            BarrierError: the connection is of none of them.
            CommitsApart: on entering or leaving: the rows would not commit together.
            Duplicated: on entering: the local transaction of a message comes too late.
        """
        link = link_of(connection, self.table)
        return Guard(link, self.next_row())

    def call(self, connection: object, business: Callable[[], object]) -> Outcome:
        """Run ``business`` at most once, in one transaction with the barrier's row.

        An open transaction of ``connection`` is joined, and committed by who began it. Otherwise
        the call is a transaction of its own. An error of ``business`` rolls back and is raised.

        Returns:
            DONE, or why ``business`` was not run; to the coordinator each is a success.

        Raises:
            BarrierError: the connection is of no known kind.
            CommitsApart: the rows would not commit together.
            Duplicated: the local transaction of a message comes too late.

        Source: dtm-labs/dtm client/dtmcli/barrier.go, Call and CallWithDB.
        """
        return self.guard(connection).call(business)

    async def acall(self, connection: object, business: Callable[[], Awaitable[object]]) -> Outcome:
        """As :meth:`call`, for drivers that are awaited."""
        return await self.guard(connection).acall(business)

    def query_prepared(self, connection: object) -> None:
        """Answer the coordinator that asks whether a message's local transaction committed.

        Waits while it is open. After a no it cannot commit any more.

        Args:
            connection: without an open transaction: the answer has to be kept.

        Raises:
            Failure: it did not commit.
            CommitsApart: a transaction is open.

        Source: dtm-labs/dtm client/dtmcli/barrier.go, QueryPrepared.
        """
        link = link_of(connection, self.table)
        if link.awaited:
            raise TypeError("this driver is awaited: write `await barrier.aquery_prepared(...)`")
        run(_query(link, self._query_row()))

    async def aquery_prepared(self, connection: object) -> None:
        """As :meth:`query_prepared`, for drivers that are awaited."""
        link = link_of(connection, self.table)
        if not link.awaited:
            raise TypeError("this driver is not awaited: write `barrier.query_prepared(...)`")
        await arun(_query(link, self._query_row()))

    def _row(self, barrier_id: str) -> Row:
        return Row(self.trans_type, self.gid, self.branch_id, self.op, barrier_id, self.op)

    def _query_row(self) -> Row:
        return Row(self.trans_type, self.gid, QUERY_BRANCH_ID, Op.MSG, FIRST_CALL, Op.ROLLBACK)


def _query(link: Link, row: Row) -> Flow[None]:
    try:
        yield from link.begin()
        if link.joined:
            raise CommitsApart(
                "the query of a message needs a connection without an open transaction: its no is "
                "kept even though it is raised (Django: transaction.non_atomic_requests)"
            )
        outcome = yield from decide_on(link, settle(row))
        if not (yield from link.still_open()):
            raise CommitsApart("the transaction of the query ended under it")
        yield from link.commit()
    except BaseException:
        yield from link.abandon()
        raise
    if outcome is Outcome.DONE:
        raise Failure("the local transaction of the message did not commit")
