"""One transfer in each mode: which branches are called, and in which order."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from api.trans.v1.trans_pb2 import AdjustInfo
from kit.dtm.client import DtmClient, Msg, Saga, tcc, xa
from kit.dtm.client.workflow import Workflow, Workflows
from kit.dtm.core.model import Options
from kit.dtm.errors import DtmError
from kit.dtm.wire import TransType
from kit.transport.grpc import GrpcServer
from kit.transport.grpc.engines import EngineName

SERVICE = "api.trans.v1.Trans"
WORKFLOW = "transfer"


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is to be moved.

    Attributes:
        gid: of the global transaction.
        busi: the transfer service as the coordinator is to call it.
        amount: in cents.
        source: the user it comes from.
        target: the user it goes to.
        engine: what speaks HTTP/2 where a workflow is called back.
    """

    gid: str
    busi: str
    amount: int
    source: int
    target: int
    engine: EngineName

    @property
    def out(self) -> AdjustInfo:
        """What the paying side is told."""
        return AdjustInfo(Amount=self.amount, UserID=self.source)

    @property
    def into(self) -> AdjustInfo:
        """What the receiving side is told."""
        return AdjustInfo(Amount=self.amount, UserID=self.target)

    def url(self, method: str) -> str:
        """Of a method of the transfer service."""
        return f"{self.busi}/{SERVICE}/{method}"


Mode: TypeAlias = Callable[[DtmClient, Transfer], Awaitable[object]]

_WAIT = Options(wait_result=True)


async def by_msg(client: DtmClient, transfer: Transfer) -> None:
    """Both sides happen, sooner or later; nothing is ever undone."""
    msg = Msg(client, transfer.gid, _WAIT)
    msg.add(transfer.url("TransOut"), transfer.out)
    msg.add(transfer.url("TransIn"), transfer.into)
    await msg.submit()


async def by_saga(client: DtmClient, transfer: Transfer) -> None:
    """One side after the other; what was done is undone when a side says no."""
    saga = Saga(client, transfer.gid, _WAIT)
    saga.add(transfer.url("TransOut"), transfer.url("TransOutRevert"), transfer.out)
    saga.add(transfer.url("TransIn"), transfer.url("TransInRevert"), transfer.into)
    await saga.submit()


async def by_tcc(client: DtmClient, transfer: Transfer) -> None:
    """Both sides are tried, then both confirmed, or both cancelled."""
    async with tcc(client, transfer.gid, _WAIT) as t:
        for side, payload in (("TransOut", transfer.out), ("TransIn", transfer.into)):
            names = (f"{side}Try", f"{side}Confirm", f"{side}Cancel")
            await t.call_branch(payload, *map(transfer.url, names))


async def by_xa(client: DtmClient, transfer: Transfer) -> None:
    """Both databases hold a prepared transaction, then both commit, or both roll back."""
    async with xa(client, transfer.gid, _WAIT) as x:
        await x.call_branch(transfer.out, transfer.url("TransOutXa"))
        await x.call_branch(transfer.into, transfer.url("TransInXa"))


async def by_workflow(client: DtmClient, transfer: Transfer) -> None:
    """A program whose steps are recorded; its undo is registered beside each step."""
    # A coordinator that takes the workflow up again calls this process back, while it lives.
    server = GrpcServer(address="127.0.0.1:0", engine=transfer.engine)
    await server.listen()
    callback = (server.endpoint or "").removeprefix("grpc://")
    workflows = Workflows(client, callback, options=Options(request_timeout=10))
    workflows.serve_on(server)

    @workflows.register(WORKFLOW)
    async def moved(wf: Workflow, _: bytes) -> None:
        out = wf.new_branch().on_rollback(
            lambda phase: phase.call(transfer.url("TransOutRevert"), transfer.out)
        )
        await out.call(transfer.url("TransOut"), transfer.out)
        into = wf.new_branch().on_rollback(
            lambda phase: phase.call(transfer.url("TransInRevert"), transfer.into)
        )
        await into.call(transfer.url("TransIn"), transfer.into)

    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        try:
            await workflows.execute(WORKFLOW, transfer.gid, transfer.out)
        except DtmError as error:
            failed: DtmError | None = error
        else:
            failed = None
        await server.stop(1.0)
    if failed is not None:  # raised out here: a group would wrap it
        raise failed


MODES: Mapping[TransType, Mode] = {
    TransType.MSG: by_msg,
    TransType.SAGA: by_saga,
    TransType.TCC: by_tcc,
    TransType.XA: by_xa,
    TransType.WORKFLOW: by_workflow,
}
