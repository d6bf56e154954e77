"""One run of a workflow: its branches, their recorded steps, and the callbacks that end it.

Source: dtm-labs/dtm client/workflow/workflow.go, imp.go.
"""

from collections.abc import Awaitable, Callable
from typing import Self, TypeAlias, TypeVar

from kit.dtm.barrier import BranchBarrier
from kit.dtm.client.base import BranchIds
from kit.dtm.client.client import DtmClient
from kit.dtm.client.errors import CallbackFailed, InvalidCall
from kit.dtm.client.messages import BranchRequest
from kit.dtm.client.payloads import Payload, check_text, data_bytes
from kit.dtm.client.transport import Step
from kit.dtm.client.workflow.calls import Calls, Perform
from kit.dtm.client.workflow.progress import Progress, labelled
from kit.dtm.client.workflow.xa import XaResource
from kit.dtm.core.model import Options
from kit.dtm.errors import Failure
from kit.dtm.wire import BranchStatus, Op, TransType
from kit.dtm.wire import Protocol as Api
from kit.errors import Error

NOT_RESUMABLE = "error occur at prepare, not resumable, to rollback. FAILURE"
"""dtm's words for an XA step whose run ended between its business and its prepare."""


class Phase(Calls):
    """What a commit or rollback callback is given: it calls as its branch, unrecorded one by one.

    Attributes:
        barrier: op ``commit`` or ``rollback``; ``barrier.acall`` makes its effect happen once.
    """


Callback: TypeAlias = Callable[[Phase], Awaitable[object]]
C = TypeVar("C")


class Branch(Calls):
    """One branch: one action, recorded, and at most one callback for each way it can end.

    ::

        branch = wf.new_branch().on_rollback(undo)
        await branch.post(f"{busi}/TransOut", {"amount": 30})
    """

    def __init__(self, flow: "Workflow", branch_id: str) -> None:
        ids = BranchBarrier(TransType.WORKFLOW, flow.gid, branch_id, Op.ACTION)
        super().__init__(flow.client.branches, flow.options.branch_headers, ids)
        self.branch_id = branch_id
        self._flow = flow
        self._acted = False
        self._ends: set[Op] = set()

    def on_commit(self, callback: Callback) -> Self:
        """Have ``callback`` called once the workflow's code has succeeded; tcc's confirm.

        Raises:
            InvalidCall: the branch has such a callback.
        """
        return self._on(Op.COMMIT, callback)

    def on_rollback(self, callback: Callback) -> Self:
        """Have ``callback`` called once the workflow's code has failed; a saga's compensation.

        It is not called when this branch's own action, asked for afterwards, says no, unless the
        workflow was registered with ``compensate_error_branch``.

        Raises:
            InvalidCall: the branch has such a callback.
        """
        return self._on(Op.ROLLBACK, callback)

    def on_finish(self, callback: Callable[[Phase, bool], Awaitable[object]]) -> Self:
        """Have ``callback`` called either way; it is told whether to roll back.

        Raises:
            InvalidCall: the branch has a callback.
        """
        return self.on_commit(lambda phase: callback(phase, False)).on_rollback(
            lambda phase: callback(phase, True)
        )

    async def do(self, action: Callable[[BranchBarrier], Awaitable[Payload]]) -> bytes:
        """Do ``action`` unless that is recorded; give what it gave.

        Args:
            action: takes the barrier in which it has to run. What it returns is recorded as bytes:
                a message encoded, ``None`` empty, all else as JSON. Failure is recorded as well.

        Raises:
            Failure: the action says no, now or when it was done.
            Exception: whatever else ``action`` raised; it is done again when the workflow resumes.
        """

        async def perform() -> bytes:
            return data_bytes(await action(self.barrier), f"result of step {self.branch_id}")

        return await self._through(perform, f"do {_named(action)}")

    async def do_xa(
        self, resource: XaResource[C], action: Callable[[C], Awaitable[Payload]]
    ) -> bytes:
        """Do ``action`` in an XA transaction, which is committed or rolled back at the end.

        Args:
            resource: the database, such as :class:`~kit.dtm.client.workflow.XaDatabase`.
            action: takes the connection; returns as in :meth:`do`.

        Raises:
            Failure: the action says no, or a crash left it between its business and its prepare.
            Exception: whatever else ``action`` raised.

        Source: dtm-labs/dtm client/workflow/workflow.go, DoXa.
        """
        flow = self._flow

        given = b""

        async def business(connection: C) -> None:
            nonlocal given
            given = data_bytes(await action(connection), f"result of step {self.branch_id}")

        async def register() -> None:
            await flow.record(Step(self.branch_id, Op.BUSINESS, BranchStatus.SUCCEED, b""))

        async def perform() -> bytes:
            await resource.local(self.barrier, business, register)
            return given

        try:
            return await self._recorded(perform, f"do_xa {_named(action)}", xa=True)
        finally:
            for op in (Op.COMMIT, Op.ROLLBACK):
                flow.at_end(op, self.branch_id, lambda phase: resource.finish(phase.barrier))

    def misfit(self, exc: Exception) -> Error:
        """A recorded reply of another type was that of another step."""
        if self._flow.replayed(self.branch_id):
            return self._flow.progress.changed(
                self.branch_id, Op.ACTION, f"is recorded with a reply of another type ({exc})"
            )
        return super().misfit(exc)

    def _on(self, op: Op, callback: Callback) -> Self:
        if op in self._ends:
            raise InvalidCall(
                f"branch {self.branch_id}: one branch can only add one {op} callback; "
                "use new_branch() for the next"
            )
        self._ends.add(op)
        self._flow.at_end(op, self.branch_id, callback)
        return self

    async def _through(self, perform: Perform, what: str) -> bytes:
        return await self._recorded(perform, what)

    async def _recorded(self, perform: Perform, what: str, *, xa: bool = False) -> bytes:
        if self._acted:
            raise InvalidCall(
                f"branch {self.branch_id}: one branch can have only one action; "
                "use new_branch() for the next"
            )
        self._acted = True
        flow = self._flow
        step = flow.progress.step(self.branch_id, Op.ACTION, xa=xa)
        if step is None:
            if xa and flow.progress.began_xa(self.branch_id):
                raise Failure(NOT_RESUMABLE)
            step = await self._perform(perform)
            await flow.record(labelled(step, what) if flow.labels else step)
        else:
            flow.replay(self.branch_id)
            step = flow.progress.without_label(step, what) if flow.labels else step
        if step.status == BranchStatus.FAILED:
            flow.failed(self.branch_id)
            raise Failure(step.data.decode(errors="replace"))
        return step.data

    async def _perform(self, perform: Perform) -> Step:
        try:
            data = await perform()
        except Failure as exc:
            return Step(self.branch_id, Op.ACTION, BranchStatus.FAILED, exc.message.encode())
        return Step(self.branch_id, Op.ACTION, BranchStatus.SUCCEED, data)


class Workflow:
    """What a workflow's code is given; one for each run.

    The code has to ask for the same steps in the same order whenever it is run with the same data:
    time, chance and what other systems say belong into steps.

    Attributes:
        name: it is registered under.
        gid: of its transaction.
        labels: whether a record says which step it is of.
    """

    def __init__(
        self,
        client: DtmClient,
        name: str,
        gid: str,
        progress: Progress,
        options: Options,
        *,
        compensate_error_branch: bool,
        labels: bool = False,
    ) -> None:
        self.client = client
        self.name = name
        self.gid = gid
        self.options = options
        self.progress = progress
        self.labels = labels
        self._compensate_error_branch = compensate_error_branch
        self._ids = BranchIds()
        self._ended = False
        self._callbacks: dict[Op, list[tuple[str, Callback]]] = {Op.COMMIT: [], Op.ROLLBACK: []}
        self._replayed: set[str] = set()

    def new_branch(self) -> Branch:
        """The next branch, ``01``, ``02`` and so on.

        Raises:
            InvalidCall: the workflow's code has ended, or there are 99 branches.
        """
        if self._ended:
            raise InvalidCall(
                f"workflow '{self.name}': new_branch() in a callback; call by the phase it is given"
            )
        return Branch(self, self._ids.next())

    def at_end(self, op: Op, branch_id: str, callback: Callback) -> None:
        """Have ``callback`` called in phase 2, before those that are known already."""
        self._callbacks[op].append((branch_id, callback))

    def failed(self, branch_id: str) -> None:
        """Drop the rollback callback of a branch that said no: it has nothing to undo."""
        if not self._compensate_error_branch:
            kept = [entry for entry in self._callbacks[Op.ROLLBACK] if entry[0] != branch_id]
            self._callbacks[Op.ROLLBACK] = kept

    def replay(self, branch_id: str) -> None:
        """Note that the step of a branch was answered from the record."""
        self._replayed.add(branch_id)

    def replayed(self, branch_id: str) -> bool:
        """Whether it was."""
        return branch_id in self._replayed

    async def record(self, step: Step) -> None:
        """Have the coordinator keep ``step``.

        Raises:
            DtmUnavailable: whether it was kept is unknown, or another run has been faster.
            PayloadError: over HTTP, what it gave is no text.
        """
        what = f"result of step {step.branch_id} of workflow '{self.name}'"
        if self.client.protocol is not Api.GRPC:
            check_text(step.data, what)
        await self.client.register_branch(
            BranchRequest(
                self.gid,
                TransType.WORKFLOW,
                step.branch_id,
                step.data,
                {"op": step.op, "status": step.status},
            )
        )

    async def end(self, op: Op) -> None:
        """Phase 2: run the callbacks of ``op`` that are not recorded, the last one first.

        Raises:
            WorkflowChanged: what is recorded does not fit the code.
            CallbackFailed: a callback raised Failure.
            Exception: whatever else one raised; it is run again when the workflow resumes.
        """
        self._ended = True
        self.progress.check_code_ended()
        self.progress.check_outcome(op)
        for branch_id, callback in reversed(self._callbacks[op]):
            if self.progress.step(branch_id, op) is None:
                await self._call_back(branch_id, op, callback)
                await self.record(Step(branch_id, op, BranchStatus.SUCCEED, b""))
        self.progress.check_callbacks_ended()

    async def _call_back(self, branch_id: str, op: Op, callback: Callback) -> None:
        ids = BranchBarrier(TransType.WORKFLOW, self.gid, branch_id, op)
        try:
            await callback(Phase(self.client.branches, self.options.branch_headers, ids))
        except Failure as exc:
            raise CallbackFailed(
                f"workflow '{self.name}' gid {self.gid}: the {op} callback of branch {branch_id} "
                f"raised Failure ({exc.message}); it has to succeed in the end: raise another "
                "error to be called again"
            ) from exc


def _named(action: object) -> str:
    return getattr(action, "__qualname__", type(action).__qualname__)
