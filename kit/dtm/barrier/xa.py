"""The resource manager's side of XA: a branch that is prepared now and committed later.

Theory of operation. Phase 1 opens a transaction, leaves the barrier's row in it, runs the business,
has the branch registered at the coordinator, and prepares. Registered comes before prepared: so
whatever is prepared will be asked for, by the coordinator that knows of it, until it has ended.
Phase 2 ends it, and counts a transaction that is gone as ended. A rollback also writes the row of
the barrier, from outside: a phase 1 that is still on its way holds that row, and one that comes
late finds it taken; neither can prepare after the rollback was answered.

The one leftover that this does not reach is a coordinator that has forgotten the transaction, or
lost its database. :class:`Recovery` lists what is prepared and asks.

::

    await aprepare(barrier, connection, transfer, register=register)   # op action
    await afinish(barrier, connection)                                 # op commit or rollback

Source: dtm-labs/dtm client/dtmcli/dtmimp/trans_xa_base.go, db_special.go.
"""

import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

from kit.dtm.barrier.branch import FIRST_CALL, BranchBarrier
from kit.dtm.barrier.errors import BarrierError, CommitsApart
from kit.dtm.barrier.flow import Flow, arun, run
from kit.dtm.barrier.links import SqlLink, decide_on, link_of
from kit.dtm.barrier.rule import InsertAbsent, Outcome, Row, decide
from kit.dtm.barrier.sql import Family
from kit.dtm.errors import Failure, Ongoing
from kit.dtm.wire import Op, TransType

_SAFE = re.compile(r"[A-Za-z0-9._:@/+=-]+", re.ASCII)
_OURS = re.compile(r"(?P<gid>[A-Za-z0-9._:@/+=-]+)-(?P<branch_id>[0-9]{2,})", re.ASCII)

_LONGEST = {Family.POSTGRES: 199, Family.MYSQL: 64, Family.MARIADB: 64}
"""Bytes that an xid may have."""

_GONE = ("XAER_NOTA", "does not exist")
_PAUSES_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""A server hears some milliseconds late that the connection of phase 1 is closed; a coordinator
that is told ONGOING asks again in ten seconds."""

_LOCK_WAIT_S = 2
"""Seconds that a rollback waits for a phase 1 on its way, before the coordinator asks again."""

_MYSQL = (Family.MYSQL, Family.MARIADB)


class Decision(StrEnum):
    """What a coordinator says about a transaction whose branch is found prepared."""

    COMMIT = "commit"
    ROLLBACK = "rollback"
    WAIT = "wait"
    """Not decided, or not known to it: another's, perhaps."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared transaction named as ours are; ``age`` in seconds, at least."""

    gid: str
    branch_id: str
    age: float


def prepare(
    barrier: BranchBarrier,
    connection: object,
    business: Callable[[], object],
    *,
    register: Callable[[], object],
) -> Outcome:
    """Phase 1: run ``business`` on ``connection`` and prepare what it did.

    Args:
        barrier: of op ``action``.
        connection: of psycopg, asyncpg, PyMySQL, aiomysql or asyncmy, without an open transaction;
            close it afterwards, and answer only then: before that, MySQL and MariaDB may keep the
            prepared transaction to themselves.
        business: must neither commit nor roll back.
        register: has the branch registered at the coordinator, with the ``phase2_url`` of the call;
            may be called again for a branch that is registered.

    Returns:
        DONE, or REPEATED: it was prepared before and has ended since.

    Raises:
        Failure: it was rolled back before it came.
        BarrierError: the ids cannot be an xid, or the connection is of another kind.
        CommitsApart: a transaction is open, or was ended by ``business``.
    """
    return run(
        _prepare(barrier, _link(connection, barrier.table, awaited=False), business, register)
    )


async def aprepare(
    barrier: BranchBarrier,
    connection: object,
    business: Callable[[], Awaitable[object]],
    *,
    register: Callable[[], Awaitable[object]],
) -> Outcome:
    """As :func:`prepare`, for drivers that are awaited."""
    link = _link(connection, barrier.table, awaited=True)
    return await arun(_prepare(barrier, link, business, register))


def finish(barrier: BranchBarrier, connection: object) -> None:
    """Phase 2: commit or roll back what phase 1 prepared, as the op of ``barrier`` says.

    Args:
        barrier: of op ``commit`` or ``rollback``.
        connection: without an open transaction; not that of phase 1.

    Raises:
        Ongoing: phase 1 is on its way, or its connection is open yet; to be called again.
        BarrierError: another op, or the ids cannot be an xid.
    """
    run(_finish(barrier, _link(connection, barrier.table, awaited=False)))


async def afinish(barrier: BranchBarrier, connection: object) -> None:
    """As :func:`finish`, for drivers that are awaited."""
    await arun(_finish(barrier, _link(connection, barrier.table, awaited=True)))


class Recovery:
    """Ends prepared transactions that nobody came back for.

    Run :meth:`aresolve` now and then, every minute, say. Databases of MySQL's family do not tell
    how old a prepared transaction is, so its age is counted from when this object first saw it.

    Args:
        older_than: seconds that a transaction must have been prepared before it is asked about.
        table: of the barrier.
        now: a monotonic clock, in seconds.
    """

    def __init__(
        self, *, older_than: float, table: str = "", now: Callable[[], float] = time.monotonic
    ) -> None:
        self._older_than = older_than
        self._table = table
        self._now = now
        self._seen: dict[str, float] = {}

    def resolve(self, connection: object, decide: Callable[[Prepared], Decision]) -> list[Prepared]:
        """Ask about each old one and do what ``decide`` says.

        Args:
            connection: as for :func:`finish`.
            decide: asks the coordinator; WAIT for a gid that it does not know, which may be
                another program's.

        Returns:
            Those that ended; one that is busy is left for the next time.
        """
        return run(self._resolve(connection, lambda one: partial(decide, one), awaited=False))

    async def aresolve(
        self, connection: object, decide: Callable[[Prepared], Awaitable[Decision]]
    ) -> list[Prepared]:
        """As :meth:`resolve`, for drivers that are awaited."""
        return await arun(self._resolve(connection, lambda one: partial(decide, one), awaited=True))

    def _resolve(
        self,
        connection: object,
        asking: Callable[[Prepared], Callable[[], Any]],
        *,
        awaited: bool,
    ) -> Flow[list[Prepared]]:
        link = _link(connection, self._table, awaited=awaited)
        ended = []
        for one in self._old(dict((yield from _listed(link)))):
            decision = yield asking(one)
            if decision is Decision.WAIT:
                continue
            op = Op.COMMIT if decision is Decision.COMMIT else Op.ROLLBACK
            barrier = BranchBarrier(TransType.XA, one.gid, one.branch_id, op, table=self._table)
            try:
                yield from _finish(barrier, _link(connection, self._table, awaited=awaited))
            except Ongoing:
                continue
            ended.append(one)
        return ended

    def _old(self, listed: dict[str, float]) -> list[Prepared]:
        """Those of ours that are old enough; what is not listed any more is forgotten."""
        now = self._now()
        self._seen = {xid: self._seen.get(xid, now) for xid in listed}
        old = []
        for xid, age in listed.items():
            known = max(age, now - self._seen[xid])
            if known >= self._older_than and (ours := _OURS.fullmatch(xid)):
                old.append(Prepared(ours["gid"], ours["branch_id"], known))
        return old


def _link(connection: object, table: str, *, awaited: bool) -> SqlLink:
    link = link_of(connection, table)
    if not isinstance(link, SqlLink) or not link.speaks_xa:
        raise BarrierError(
            f"{type(connection).__module__}.{type(connection).__qualname__} prepares nothing; XA "
            "needs a connection of psycopg, asyncpg, PyMySQL, aiomysql or asyncmy"
        )
    if link.awaited is not awaited:
        raise TypeError(
            "this driver is awaited: call aprepare, afinish, aresolve"
            if link.awaited
            else "this driver is not awaited: call prepare, finish, resolve"
        )
    return link


def _xid(barrier: BranchBarrier, family: Family) -> str:
    """The name of the prepared transaction; it stands in the SQL, where nothing can be bound."""
    xid = f"{barrier.gid}-{barrier.branch_id}"
    if not _SAFE.fullmatch(xid):
        raise BarrierError(
            f"gid {barrier.gid!r}, branch_id {barrier.branch_id!r}: the name of an XA transaction "
            "takes letters, digits and . _ : @ / + = - only"
        )
    if len(xid) > _LONGEST[family]:
        raise BarrierError(
            f"gid {barrier.gid!r}: with the branch's id it has more than {_LONGEST[family]} "
            "characters, the most that an XA transaction's name has here; use a shorter gid"
        )
    return xid


def _prepare(
    barrier: BranchBarrier,
    link: SqlLink,
    business: Callable[[], object],
    register: Callable[[], object],
) -> Flow[Outcome]:
    if barrier.op != Op.ACTION:
        raise BarrierError(f"op {barrier.op!r}: phase 1 is for {Op.ACTION}, phase 2 is finish()")
    xid = _xid(barrier, link.sql.family)
    mysql = link.sql.family in _MYSQL
    if mysql:
        yield from link.execute((f"XA START '{xid}'", ()))
    try:
        if not mysql:
            yield from link.begin()
            if link.joined:
                raise CommitsApart("a transaction is open on this connection; XA needs its own")
        outcome = yield from decide_on(link, decide(barrier.next_row()))
        if not outcome.suppressed:
            yield business
            if not mysql and not (yield from link.still_open()):
                raise CommitsApart("the transaction ended, or failed, inside of the business")
            yield register
        if mysql:
            yield from link.execute((f"XA END '{xid}'", ()))
        if not outcome.suppressed:
            word = "XA PREPARE" if mysql else "PREPARE TRANSACTION"
            yield from link.execute((f"{word} '{xid}'", ()))
    except BaseException:
        yield from _abort(link, xid)
        raise
    if outcome.suppressed or not mysql:
        yield from _abort(link, xid)  # for PostgreSQL's drivers, which think that it is still open
    if outcome is Outcome.HANGING:
        raise Failure("the branch was rolled back before it came")
    return outcome


def _abort(link: SqlLink, xid: str) -> Flow[None]:
    """Drop what is not prepared; a connection that is broken has dropped it."""
    if link.sql.family not in _MYSQL:
        with suppress(Exception):
            yield from link.abandon()
        return
    for word in ("XA END", "XA ROLLBACK"):
        with suppress(Exception):  # it may have ended already
            yield from link.execute((f"{word} '{xid}'", ()))


def _finish(barrier: BranchBarrier, link: SqlLink) -> Flow[None]:
    if barrier.op not in (Op.COMMIT, Op.ROLLBACK):
        raise BarrierError(f"op {barrier.op!r}: phase 2 is for {Op.COMMIT} and {Op.ROLLBACK}")
    xid = _xid(barrier, link.sql.family)
    word = barrier.op.upper()
    text = f"XA {word} '{xid}'" if link.sql.family in _MYSQL else f"{word} PREPARED '{xid}'"
    for pause in (*_PAUSES_S, None):
        try:
            yield from link.alone((text, ()))
            break
        except Exception as exc:
            if not any(mark in str(exc) for mark in _GONE):
                raise
            # MySQL's family says so as well until it has let go of the connection of phase 1.
            if xid not in dict((yield from _listed(link))):
                break
            if pause is None:
                raise Ongoing("the connection of phase 1 is still open") from exc
        if link.sql.family in _MYSQL:
            yield from link.alone((f"DO SLEEP({pause})", ()))
    if barrier.op == Op.ROLLBACK:
        yield from _keep_out(barrier, link)


def _keep_out(barrier: BranchBarrier, link: SqlLink) -> Flow[None]:
    """Take the row that a phase 1 needs; wait a little for one that has it."""
    gid, branch_id = barrier.gid, barrier.branch_id
    row = Row(TransType.XA, gid, branch_id, Op.ACTION, FIRST_CALL, Op.ROLLBACK)
    ((insert, values), _), *_ = link.sql.inserts(InsertAbsent((row,)))
    mysql = link.sql.family is Family.MYSQL
    try:
        yield from link.begin()
        if link.sql.family is Family.MARIADB:
            insert = f"SET STATEMENT innodb_lock_wait_timeout = {_LOCK_WAIT_S} FOR {insert}"
        elif mysql:
            wait = f"SET SESSION innodb_lock_wait_timeout = {_LOCK_WAIT_S}"
            yield from link.execute((wait, ()))
        else:
            yield from link.execute((f"SET LOCAL lock_timeout = '{_LOCK_WAIT_S}s'", ()))
        yield from link.execute((insert, values))
        yield from link.still_open()
        yield from link.commit()
    except Exception as exc:
        yield from link.abandon()
        if "lock" in str(exc).lower() and "timeout" in str(exc).lower():
            raise Ongoing("phase 1 is still on its way") from exc
        raise
    finally:
        if mysql:
            back = "SET SESSION innodb_lock_wait_timeout = @@GLOBAL.innodb_lock_wait_timeout"
            yield from link.alone((back, ()))


def _listed(link: SqlLink) -> Flow[list[tuple[str, float]]]:
    """What is prepared in this database, with its age in seconds where that is known, else 0."""
    if link.sql.family in _MYSQL:
        answer = yield from link.alone(("XA RECOVER", ()))
        return [(_text(row[3]), 0.0) for row in answer.rows]
    query = (
        "SELECT gid, CAST(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP - prepared) AS FLOAT) "
        "FROM pg_prepared_xacts WHERE database = current_database()"
    )
    answer = yield from link.alone((query, ()))
    return [(row[0], row[1]) for row in answer.rows]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
