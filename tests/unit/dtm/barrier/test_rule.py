"""dtm-labs/dtm client/dtmcli/barrier.go, Call: the rule, over a table in memory."""

import itertools

import pytest

from kit.dtm.barrier.rule import InsertAbsent, Outcome, Primitive, Row, Steps, decide, settle
from kit.dtm.errors import Duplicated
from kit.dtm.wire import Op


class Table:
    """The two primitives over a dictionary."""

    def __init__(self) -> None:
        self.reasons: dict[tuple[str, ...], str] = {}

    def run(self, steps: Steps) -> Outcome:
        try:
            primitive = next(steps)
            while True:
                primitive = steps.send(self._answer(primitive))
        except StopIteration as end:
            return end.value

    def call(self, op: str, barrier_id: str = "01") -> Outcome:
        return self.run(decide(Row("saga", "g", "01", op, barrier_id, op)))

    def _answer(self, primitive: Primitive) -> frozenset[str] | str | None:
        if not isinstance(primitive, InsertAbsent):
            return self.reasons.get(key(primitive.row))
        new = set()
        for row in primitive.rows:
            if key(row) not in self.reasons:
                self.reasons[key(row)] = row.reason
                new.add(row.op)
        return frozenset(new)


def key(row: Row) -> tuple[str, ...]:
    return (row.gid, row.branch_id, row.op, row.barrier_id)


@pytest.mark.parametrize(
    ("op", "undo"), [("action", "compensate"), ("try", "cancel"), ("action", "rollback")]
)
def test_every_short_order_has_each_effect_at_most_once_and_no_action_after_its_undo(
    op: str, undo: str
) -> None:
    """All orders of up to six calls."""
    for calls in itertools.chain.from_iterable(
        itertools.product((op, undo), repeat=length) for length in range(1, 7)
    ):
        table = Table()
        done = [called for called in calls if table.call(called) is Outcome.DONE]
        assert done in ([], [op], [op, undo]), calls
        assert (undo in done) == (calls[0] == op and undo in calls), calls


def test_an_undo_writes_the_row_of_what_it_undoes_first() -> None:
    table = Table()
    assert table.call("cancel") is Outcome.NULL_COMPENSATION
    assert table.reasons == {
        ("g", "01", "try", "01"): "cancel",
        ("g", "01", "cancel", "01"): "cancel",
    }
    assert table.call("try") is Outcome.HANGING


def test_an_op_that_nobody_undoes_is_only_ever_a_repeat() -> None:
    table = Table()
    assert [table.call("confirm") for _ in range(2)] == [Outcome.DONE, Outcome.REPEATED]
    assert [table.call("of my own") for _ in range(2)] == [Outcome.DONE, Outcome.REPEATED]


def test_uses_of_one_handler_are_apart() -> None:
    table = Table()
    assert table.call("action", "01") is table.call("action", "02") is Outcome.DONE


def test_a_message_commits_once_and_never_after_a_no() -> None:
    row = Row("msg", "g", "00", Op.MSG, "01", Op.MSG)
    committed, asked = Table(), Table()
    assert committed.run(decide(row)) is Outcome.DONE
    assert committed.run(settle(row)) is Outcome.REPEATED
    with pytest.raises(Duplicated):
        committed.run(decide(row))
    assert asked.run(settle(row)) is asked.run(settle(row)) is Outcome.DONE
    with pytest.raises(Duplicated):
        asked.run(decide(row))


def test_all_but_done_are_suppressed() -> None:
    assert [outcome for outcome in Outcome if not outcome.suppressed] == [Outcome.DONE]
