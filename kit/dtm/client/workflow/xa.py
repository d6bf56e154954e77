"""A database of the barrier's drivers as part of a workflow's XA step.

Source: dtm-labs/dtm client/workflow/workflow.go (DoXa).
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, Protocol, TypeVar

from kit.dtm.barrier import BranchBarrier, Outcome
from kit.dtm.barrier.xa import afinish, aprepare
from kit.dtm.client.errors import WorkflowChanged
from kit.dtm.client.workflow.progress import WAY_OUT

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)


class XaResource(Protocol[C_co]):
    """A database that takes part in XA; ``C_co`` is the connection that the business works on."""

    async def local(
        self,
        barrier: BranchBarrier,
        business: Callable[[C_co], Awaitable[object]],
        register: Callable[[], Awaitable[object]],
    ) -> None:
        """In an XA transaction: run ``business``, then ``register``, and prepare.

        Roll back when one of them raises.
        """
        ...

    async def finish(self, barrier: BranchBarrier) -> None:
        """Commit or roll back, as ``barrier.op`` says; what is not there any more is done."""
        ...


class XaDatabase(Generic[C]):
    """A PostgreSQL, MySQL or MariaDB, by a driver that is awaited.

    ::

        bank = XaDatabase(lambda: aclosing_connection(dsn))
        await wf.new_branch().do_xa(bank, transfer)

    Args:
        connect: gives a connection of psycopg, asyncpg, aiomysql or asyncmy without an open
            transaction, as a block at whose end it is closed.
    """

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[C]]) -> None:
        self._connect = connect

    async def local(
        self,
        barrier: BranchBarrier,
        business: Callable[[C], Awaitable[object]],
        register: Callable[[], Awaitable[object]],
    ) -> None:
        """See :class:`XaResource`; raises as :func:`kit.dtm.barrier.xa.aprepare`."""
        async with self._connect() as connection:
            check_done(
                await aprepare(
                    barrier, connection, lambda: business(connection), register=register
                ),
                barrier,
            )

    async def finish(self, barrier: BranchBarrier) -> None:
        """See :class:`XaResource`; raises as :func:`kit.dtm.barrier.xa.afinish`."""
        async with self._connect() as connection:
            await afinish(barrier, connection)


def check_done(outcome: Outcome, barrier: BranchBarrier) -> None:
    """The step was prepared in this run.

    Raises:
        WorkflowChanged: the database has ended it before, and the coordinator knows nothing of it.
    """
    if outcome is not Outcome.DONE:
        raise WorkflowChanged(
            f"gid {barrier.gid}: step {barrier.branch_id} has ended in the database, but is not "
            f"recorded: the gid was used before, or the coordinator lost its store; {WAY_OUT}"
        )
