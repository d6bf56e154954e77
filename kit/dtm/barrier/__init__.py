"""Which branch a call is for, and that it has its effect once: never twice, never after its undo.

::

    barrier = barrier_from_grpc(metadata)          # or barrier_from_request(request)
    outcome = await barrier.acall(connection, transfer)   # `call` for drivers that are not awaited

    async with barrier.guard(connection) as branch:       # the same as a block
        if not branch.outcome.suppressed:
            await connection.execute("UPDATE account …")

One rule (:mod:`kit.dtm.barrier.rule`) over two primitives that every database has; the drivers are
in :mod:`kit.dtm.barrier.links`.

Source: dtm-labs/dtm client/dtmcli/barrier.go, client/dtmgrpc/barrier.go.
"""

from kit.dtm.barrier.branch import BranchBarrier
from kit.dtm.barrier.errors import BarrierError, CommitsApart
from kit.dtm.barrier.guard import Guard
from kit.dtm.barrier.results import DtmResult, dtm_result, install_results
from kit.dtm.barrier.rule import Outcome
from kit.dtm.barrier.sources import (
    barrier_from_grpc,
    barrier_from_query,
    barrier_from_request,
    current_barrier,
)

__all__ = [
    "BarrierError",
    "BranchBarrier",
    "CommitsApart",
    "DtmResult",
    "Guard",
    "Outcome",
    "barrier_from_grpc",
    "barrier_from_query",
    "barrier_from_request",
    "current_barrier",
    "dtm_result",
    "install_results",
]
