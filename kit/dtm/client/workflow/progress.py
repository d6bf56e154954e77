"""What is recorded of one workflow, and whether its code still asks for it: no I/O.

A workflow is resumed by running its code again: every step that is recorded is answered from the
record, the first one that is not is done. That holds only while the code asks for the same steps.
What a record can tell is checked: a recorded step that the code no longer asks for, a plain step
where an XA one is recorded, a commit callback recorded where the code now rolls back, a reply that
is not of the step's type.

Two steps of one kind that changed places look alike in dtm's records. A workflow registered with
``labels`` tells them apart: what a step gave is recorded behind a line that says which step it was.

Source: dtm-labs/dtm client/workflow/imp.go (loadProgresses, getStepResult), which checks nothing.
"""

from collections.abc import Iterable
from dataclasses import replace

from kit.dtm.client.errors import WorkflowChanged
from kit.dtm.client.transport import Step
from kit.dtm.wire import BranchStatus, Op

WAY_OUT = "run the code that it was begun with until it has ended, or stop it by force"

_MARK = b"\x1e"
"""Begins a label; neither JSON nor protobuf can begin so."""


def labelled(step: Step, what: str) -> Step:
    r"""``step``, whose data say that it did ``what``.

    >>> labelled(Step("01", "action", "succeed", b"ok"), "POST /out").data
    b'\x1ePOST /out\nok'
    """
    return replace(step, data=_MARK + what.encode() + b"\n" + step.data)


class Progress:
    """The record of one workflow, and what its code asked for in this run.

    Args:
        name: of the workflow.
        gid: of its transaction.
        steps: as the coordinator has them.
    """

    def __init__(self, name: str, gid: str, steps: Iterable[Step]) -> None:
        self._what = f"workflow '{name}' gid {gid}"
        self._steps = {(step.branch_id, step.op): step for step in steps}
        self._asked: set[tuple[str, str]] = set()

    def step(self, branch_id: str, op: str, *, xa: bool = False) -> Step | None:
        """What is recorded of a step that the code asks for; ``None`` when it is to be done.

        Raises:
            WorkflowChanged: an XA step is recorded and the code asks for another kind.
        """
        self._asked.add((branch_id, op))
        if xa:
            self._asked.add((branch_id, Op.BUSINESS))
        elif op == Op.ACTION and (branch_id, Op.BUSINESS) in self._steps:
            raise self.changed(branch_id, op, "is recorded as do_xa, but the code asks for another")
        return self._steps.get((branch_id, op))

    def began_xa(self, branch_id: str) -> bool:
        """Whether the business of an XA step was done by a run that ended before its prepare."""
        step = self._steps.get((branch_id, Op.BUSINESS))
        return step is not None and step.status == BranchStatus.SUCCEED

    def without_label(self, step: Step, what: str) -> Step:
        """``step`` as it was before :func:`labelled`; one without a label is as it was.

        Raises:
            WorkflowChanged: it did something else than ``what``, which the code asks for.
        """
        if not step.data.startswith(_MARK):
            return step
        label, _, data = step.data[1:].partition(b"\n")
        did = label.decode(errors="replace")
        if did != what:
            why = f"is recorded as '{did}', but the code asks for '{what}'"
            raise self.changed(step.branch_id, step.op, why)
        return replace(step, data=data)

    def check_code_ended(self) -> None:
        """All recorded steps were asked for again.

        Raises:
            WorkflowChanged: one was not.
        """
        self._check({Op.ACTION, Op.BUSINESS}, "is recorded, but the code does not ask for it")

    def check_outcome(self, op: str) -> None:
        """Nothing of the other outcome was begun.

        Args:
            op: ``commit`` or ``rollback``, which the code leads to now.

        Raises:
            WorkflowChanged: it was.
        """
        other = Op.ROLLBACK if op == Op.COMMIT else Op.COMMIT
        self._check({other}, f"is recorded, but the code now leads to {op}")

    def check_callbacks_ended(self) -> None:
        """All recorded callbacks were asked for again.

        Raises:
            WorkflowChanged: one was not.
        """
        self._check({Op.COMMIT, Op.ROLLBACK}, "is recorded, but the code has no such callback")

    def changed(self, branch_id: str, op: str, why: str) -> WorkflowChanged:
        """The error for one step; ``why`` follows its name."""
        return WorkflowChanged(
            f"{self._what}: step {branch_id} {op} {why}: the code was changed, or decides by what "
            f"is not recorded; {WAY_OUT}"
        )

    def _check(self, ops: set[Op], why: str) -> None:
        for branch_id, op in self._steps:
            if op in ops and (branch_id, op) not in self._asked:
                raise self.changed(branch_id, op, why)
