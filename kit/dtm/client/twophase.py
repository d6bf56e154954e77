"""What tcc and xa have in common: a block, at whose end they are submitted or aborted.

Source: dtm-labs/dtm client/dtmcli/tcc.go and xa.go (GlobalTransaction2), client/dtmgrpc/tcc.go.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from kit import log
from kit.dtm.barrier import BranchBarrier
from kit.dtm.client.base import BranchIds, GlobalTransaction
from kit.dtm.client.branches import BranchReply
from kit.dtm.client.client import DtmClient
from kit.dtm.client.messages import Operation
from kit.dtm.core.model import Options
from kit.dtm.errors import DtmError
from kit.errors import Error

_log = log.get_logger()

ABORT_WITHIN_S = 5.0
"""How long a cancelled block waits for its abort."""


class TwoPhase(GlobalTransaction):
    """A transaction whose branches are called one by one by whoever began it.

    Args:
        client: the coordinator.
        gid: see :class:`~kit.dtm.client.base.GlobalTransaction`.
        options: what is asked of the coordinator.
        parent: the branch that this one's are nested in; empty at the top.
    """

    def __init__(
        self,
        client: DtmClient,
        gid: str = "",
        options: Options | None = None,
        *,
        parent: str = "",
    ) -> None:
        super().__init__(client, gid, options)
        self.branch_id = parent
        self._ids = BranchIds(parent)

    async def _ask(
        self, url: str, branch_id: str, op: str, payload: bytes, phase2_url: str = ""
    ) -> BranchReply:
        return await self.client.branches.call(
            url,
            BranchBarrier(self.trans_type, self.gid, branch_id, op),
            payload,
            headers=self.options.branch_headers,
            phase2_url=phase2_url,
        )


P = TypeVar("P", bound=TwoPhase)


@asynccontextmanager
async def running(tx: P, *, tell: bool) -> AsyncIterator[P]:
    """Prepare ``tx``; submit it when the block ends, abort it when the block raises.

    Args:
        tx: not prepared yet.
        tell: whether the coordinator is told why it was aborted.

    Raises:
        BaseException: whatever the block raised.
        DtmError: prepare or submit failed.
    """
    await tx.send(Operation.PREPARE)
    try:
        yield tx
    except BaseException as exc:
        await _abort(tx, exc, _reason(exc) if tell else "")
        raise
    await tx.send(Operation.SUBMIT)


async def _abort(tx: TwoPhase, cause: BaseException, reason: str) -> None:
    """Abort where another error is on its way; a lost one is made up for by the timeout."""
    aborting = asyncio.ensure_future(tx.send(Operation.ABORT, rollback_reason=reason))
    try:
        limit = None if isinstance(cause, Exception) else ABORT_WITHIN_S
        async with asyncio.timeout(limit):
            await asyncio.shield(aborting)
    except (DtmError, TimeoutError) as exc:
        text = exc.message if isinstance(exc, DtmError) else f"no answer in {ABORT_WITHIN_S} s"
        _log.warning("[dtm] %s %s is left to its timeout: %s", tx.trans_type, tx.gid, text)
    finally:
        aborting.cancel()


def _reason(exc: BaseException) -> str:
    if isinstance(exc, Error):
        return exc.message or exc.reason
    return str(exc) or type(exc).__name__
