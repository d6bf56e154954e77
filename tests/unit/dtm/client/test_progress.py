"""Replay of recorded progress, without a coordinator."""

import pytest

from kit.dtm.client import WorkflowChanged
from kit.dtm.client.transport import Step
from kit.dtm.client.workflow.progress import Progress


def progress(*steps: tuple[str, str]) -> Progress:
    """Of a workflow with these (branch id, op) recorded as succeeded."""
    return Progress("transfer", "g-1", [Step(b, op, "succeed", b.encode()) for b, op in steps])


def test_a_recorded_step_is_answered_and_another_is_not() -> None:
    """§14.2, step 4."""
    recorded = progress(("01", "action"))
    assert recorded.step("01", "action") == Step("01", "action", "succeed", b"01")
    assert recorded.step("02", "action") is None
    recorded.check_code_ended()


def test_a_recorded_step_that_is_not_asked_for_is_named() -> None:
    """With workflow, gid, branch and the way out."""
    recorded = progress(("01", "action"), ("02", "action"))
    recorded.step("01", "action")
    with pytest.raises(WorkflowChanged) as raised:
        recorded.check_code_ended()
    assert raised.value.message == (
        "workflow 'transfer' gid g-1: step 02 action is recorded, but the code does not ask for "
        "it: the code was changed, or decides by what is not recorded; run the code that it was "
        "begun with until it has ended, or stop it by force"
    )


@pytest.mark.parametrize(("op", "other"), [("commit", "rollback"), ("rollback", "commit")])
def test_the_other_outcome_must_not_have_begun(op: str, other: str) -> None:
    """Half committed and half rolled back is what a transaction is there to prevent."""
    progress(("01", op)).check_outcome(op)
    with pytest.raises(WorkflowChanged, match=f"01 {other} is recorded, but .* leads to {op}"):
        progress(("01", other)).check_outcome(op)


def test_a_recorded_callback_that_is_gone_is_named() -> None:
    """It was run, and the code has it no more."""
    recorded = progress(("01", "commit"))
    with pytest.raises(WorkflowChanged, match="01 commit is recorded, but the code has no such"):
        recorded.check_callbacks_ended()
    recorded.step("01", "commit")
    recorded.check_callbacks_ended()


def test_a_plain_step_where_xa_is_recorded_is_named() -> None:
    """The row of the business is only written by do_xa."""
    recorded = progress(("01", "business"))
    with pytest.raises(WorkflowChanged, match="01 action is recorded as do_xa"):
        recorded.step("01", "action")


def test_an_xa_step_asks_for_both_its_rows() -> None:
    """§14.3: only the first is there when a run ended before prepare."""
    recorded = progress(("01", "business"))
    assert recorded.step("01", "action", xa=True) is None
    assert recorded.began_xa("01")
    assert not recorded.began_xa("02")
    recorded.check_code_ended()
