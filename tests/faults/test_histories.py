"""The checks see what they are there for: each sabotage of a good history is named."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.histories import Asked, History, Stored, Told, complaints

Sabotage = Callable[[History], None]


def good() -> History:
    """A saga that was undone, a tcc that was confirmed, a msg and a workflow that went well."""
    told = [
        Told("s", "saga", "failed", stored=True, decided=True, acknowledged=True),
        Told("t", "tcc", "succeed", stored=True, decided=True, acknowledged=True),
        Told("m", "msg", "succeed", stored=True, decided=True, acknowledged=True),
        Told("w", "workflow", "succeed", stored=True, decided=True, acknowledged=True),
    ]
    told[1].rows = {("01", "cancel"), ("01", "confirm")}
    return History(
        {one.gid: one for one in told},
        [
            Asked("s", "01", "action"),
            Asked("s", "02", "action", success=False),
            Asked("s", "02", "compensate"),
            Asked("s", "01", "compensate"),
            Asked("t", "01", "confirm"),
            Asked("t", "01", "confirm"),  # a repeat is no second effect
            Asked("m", "01", "action"),
            Asked("w", "01", "action"),
        ],
        {
            "s": Stored(
                "failed",
                (
                    (("01", "compensate"), "succeed"),
                    (("01", "action"), "succeed"),
                    (("02", "compensate"), "succeed"),
                    (("02", "action"), "failed"),
                ),
            ),
            "t": Stored(
                "succeed", ((("01", "cancel"), "prepared"), (("01", "confirm"), "succeed"))
            ),
            "m": Stored("succeed", ((("01", "action"), "succeed"),)),
            "w": Stored("succeed", ((("01", "action"), "succeed"),)),
        },
    )


def lose(history: History) -> None:
    del history.stored["m"]


def lose_a_row(history: History) -> None:
    history.stored["t"] = replace(history.stored["t"], rows=history.stored["t"].rows[1:])


def store_a_row_twice(history: History) -> None:
    history.stored["w"] = replace(history.stored["w"], rows=history.stored["w"].rows * 2)


def go_on_for_ever(history: History) -> None:
    history.stored["s"] = replace(history.stored["s"], status="aborting")


def end_otherwise(history: History) -> None:
    history.stored["w"] = replace(history.stored["w"], status="failed")


def decide_twice(history: History) -> None:
    history.asked.append(Asked("t", "01", "cancel"))


def act_after_compensating(history: History) -> None:
    history.asked.append(Asked("s", "01", "action"))


def skip_an_effect(history: History) -> None:
    history.asked = [call for call in history.asked if call.gid != "m"]
    history.stored["m"] = Stored("succeed", ((("01", "action"), "prepared"),))


def leave_an_effect(history: History) -> None:
    history.asked.remove(Asked("s", "01", "compensate"))
    rows = tuple(row for row in history.stored["s"].rows if row[0] != ("01", "compensate"))
    history.stored["s"] = replace(history.stored["s"], rows=rows)


def undo_a_success(history: History) -> None:
    told = history.told["s"]
    history.told["s"] = replace(told, end="succeed")
    history.stored["s"] = replace(history.stored["s"], status="succeed")


def keep_what_failed(history: History) -> None:
    history.told["m"] = replace(history.told["m"], end="failed")
    history.stored["m"] = replace(history.stored["m"], status="failed")


def claim_an_effect(history: History) -> None:
    rows = ((("01", "cancel"), "succeed"), (("01", "confirm"), "succeed"))
    history.stored["t"] = Stored("succeed", rows)


def refuse(history: History) -> None:
    history.told["m"].refused = "current status"


def test_a_good_history_has_no_complaints() -> None:
    assert complaints(good()) == []


@pytest.mark.parametrize(
    ("sabotage", "check"),
    [
        (lose, "nothing_acknowledged_is_lost"),
        (lose_a_row, "nothing_acknowledged_is_lost"),
        (store_a_row_twice, "nothing_acknowledged_is_lost"),
        (go_on_for_ever, "everything_ended"),
        (end_otherwise, "everything_ended"),
        (decide_twice, "one_decision"),
        (act_after_compensating, "one_decision"),
        (skip_an_effect, "all_or_nothing"),
        (leave_an_effect, "all_or_nothing"),
        (undo_a_success, "all_or_nothing"),
        (keep_what_failed, "all_or_nothing"),
        (claim_an_effect, "rows_tell_the_truth"),
        (refuse, "nobody_was_refused"),
    ],
)
def test_a_sabotaged_history_is_seen_by_its_check(sabotage: Sabotage, check: str) -> None:
    history = good()
    sabotage(history)
    assert any(text.startswith(f"{check}: ") for text in complaints(history)), complaints(history)


def test_what_was_not_acknowledged_may_be_missing() -> None:
    """Its client has to ask again; what is stored by halves is judged all the same."""
    history = good()
    history.told["x"] = Told("x", "msg", "succeed", decided=True)
    assert complaints(history) == []
