"""Every state that a two-step message can reach, by every event, in every order.

The search closes over states instead of event sequences, so there is no bound on the length of a
story: time is either early (before any timeout) or late, and the back-off ends at its ceiling.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kit.dtm.core import (
    Aborted,
    Answer,
    Answered,
    Branch,
    Call,
    Command,
    Event,
    Options,
    Outcome,
    Policy,
    Prepared,
    Reply,
    Request,
    Save,
    Submitted,
    Transaction,
    Wake,
    Woken,
    step,
)
from kit.dtm.wire import BranchStatus, Op, Result, Status, TransType

EARLY, LATE = 1_000_000, 1_100_000
POLICY = Policy()
STEPS = (Branch("01", Op.ACTION, "h:1/s/Out", b"1"), Branch("02", Op.ACTION, "h:1/s/In", b"2"))
QUERY = ("00", Op.MSG)

PUBLISHED = {
    (None, "Prepared"): {None, Status.PREPARED},
    (None, "Submitted"): {None, Status.SUBMITTED, Status.SUCCEED},
    (None, "Aborted"): {None},
    (None, "Woken"): {None},
    (None, "Answered"): {None},
    (Status.PREPARED, "Prepared"): {Status.PREPARED},
    (Status.PREPARED, "Submitted"): {Status.PREPARED, Status.SUBMITTED, Status.SUCCEED},
    (Status.PREPARED, "Aborted"): {Status.FAILED},
    (Status.PREPARED, "Woken"): {Status.PREPARED, Status.SUBMITTED, Status.SUCCEED},
    (Status.PREPARED, "Answered"): {
        Status.PREPARED,
        Status.SUBMITTED,
        Status.FAILED,
        Status.SUCCEED,
    },
    (Status.SUBMITTED, "Prepared"): {Status.SUBMITTED},
    (Status.SUBMITTED, "Submitted"): {Status.SUBMITTED, Status.SUCCEED},
    (Status.SUBMITTED, "Aborted"): {Status.SUBMITTED},
    (Status.SUBMITTED, "Woken"): {Status.SUBMITTED, Status.SUCCEED},
    (Status.SUBMITTED, "Answered"): {Status.SUBMITTED, Status.SUCCEED},
} | {
    (end, event): {end}
    for end in (Status.SUCCEED, Status.FAILED)
    for event in ("Prepared", "Submitted", "Aborted", "Woken", "Answered")
}


def requests(variant: str) -> Iterator[Request]:
    steps = tuple(replace(b, url="") for b in STEPS) if variant == "empty" else STEPS
    base = Request(
        "g1",
        TransType.MSG,
        branches=steps,
        query_prepared="" if variant == "unasked" else "h:1/s/Query",
        custom_data='{"delay":60}' if variant == "delayed" else "",
        options=Options(concurrent=variant == "concurrent"),
    )
    yield base
    yield replace(base, options=replace(base.options, wait_result=True))
    yield replace(base, branches=())
    yield replace(base, branches=steps[:1])


def events(variant: str) -> list[Event]:
    found: list[Event] = []
    for now, request in itertools.product((EARLY, LATE), requests(variant)):
        found += [Prepared(now, request), Submitted(now, request), Aborted(now, request)]
    for now in (EARLY, LATE):
        found.append(Woken(now))
        found += [
            Answered(now, key, result, "text", 14)
            for key in (QUERY, ("01", Op.ACTION), ("02", Op.ACTION))
            for result in Result
        ]
    return found


def stored(tx: Transaction | None) -> object:
    return None if tx is None else replace(tx, round=None)


def identity(tx: Transaction | None) -> str:
    return repr(tx)


@pytest.mark.parametrize("variant", ["plain", "concurrent", "delayed", "unasked", "empty"])
def test_every_reachable_step_keeps_the_promises(variant: str) -> None:
    """G1, G2, G5, G8, G12 of the design, for each transition that exists at all."""
    seen: dict[str, Transaction | None] = {identity(None): None}
    met: dict[tuple[Status | None, str], set[Status | None]] = {}
    front: list[Transaction | None] = [None]
    alphabet = events(variant)
    while front:
        before = front.pop()
        for event in alphabet:
            after, commands = step(before, event, POLICY)
            check(before, event, after, commands)
            key = (before.status if before else None, type(event).__name__)
            met.setdefault(key, set()).add(after.status if after else None)
            restarted = replace(after, round=None) if after else None
            for state in (after, restarted):  # the process may die after every step
                if identity(state) not in seen:
                    seen[identity(state)] = state
                    front.append(state)
    for key, targets in met.items():
        assert targets <= PUBLISHED[key], f"{key} leads to {targets - PUBLISHED[key]}"
    if variant == "plain":
        unmet = {key: PUBLISHED[key] - met[key] - {Status.SUCCEED} for key in PUBLISHED}
        unmet[(Status.PREPARED, "Woken")].discard(Status.SUBMITTED)  # only without a query
        assert not any(unmet.values()), f"transitions that nothing takes: {unmet}"


def check(
    before: Transaction | None, event: Event, after: Transaction | None, commands: list[Command]
) -> None:
    saves = [c for c in commands if isinstance(c, Save)]
    calls = [c for c in commands if isinstance(c, Call)]
    replies = [c for c in commands if isinstance(c, Reply)]
    answers = [c for c in commands if isinstance(c, Answer)]
    assert len(saves) <= 1
    assert len(replies) <= 1
    assert len(answers) <= 1

    # what is remembered is saved, and before anything that follows from it
    if stored(before) != stored(after) and not (saves and saves[0].tx.status == after.status):
        assert unchanged_for_store(before, after), f"{event} changed {after} without a save"
    if saves:
        assert commands[0] is saves[0]
        assert replace(saves[0].tx, round=None) == stored(after)

    if before is not None and before.status.terminal:
        assert after == before
        assert not saves
        assert not calls
    if after is None:
        assert not calls
        assert not saves
        return

    # calls go to what is not done yet, once, and only once the message is submitted
    for call in calls:
        assert after.round is not None
        assert call.branch.key in after.round.calling
        was = before.round.calling if before is not None and before.round is not None else ()
        assert call.branch.key not in was
        if call.branch.key == QUERY:
            assert after.status is Status.PREPARED
        else:
            assert after.status is Status.SUBMITTED
            assert call.branch.status is BranchStatus.PREPARED
    if before is not None:
        done = {b.key for b in before.branches if b.status is BranchStatus.SUCCEED}
        assert done <= {b.key for b in after.branches if b.status is BranchStatus.SUCCEED}
        assert [b.payload for b in after.branches] == [b.payload for b in before.branches]

    # the end is told truthfully, and nothing unfinished is forgotten
    if after.status is Status.SUCCEED:
        assert all(b.status is BranchStatus.SUCCEED for b in after.branches)
    if after.status is Status.FAILED:
        assert all(b.status is BranchStatus.PREPARED for b in after.branches)
    assert all(a.outcome is not Outcome.SUCCESS for a in answers) or after.status is Status.SUCCEED
    assert after.status.terminal == (after.next_cron_time is None)
    assert after.round is None or after.round.calling
    for save in saves:
        assert save.release == (after.round is None)
    for wake in (c for c in commands if isinstance(c, Wake)):
        assert wake.at == after.next_cron_time
    assert after.next_cron_interval <= POLICY.retry_max_interval


def unchanged_for_store(before: Transaction | None, after: Transaction | None) -> bool:
    return before is not None and after is not None and stored(before) == stored(after)


def test_the_search_finds_a_broken_rule() -> None:
    """The checker itself can fail: a message that fails after an action ran is caught."""
    tx, _ = step(None, Submitted(EARLY, next(requests("plain"))), POLICY)
    assert tx is not None
    done = replace(STEPS[0], status=BranchStatus.SUCCEED)
    broken = replace(
        tx, status=Status.FAILED, branches=(done, STEPS[1]), round=None, next_cron_time=None
    )
    with pytest.raises(AssertionError):
        check(tx, Woken(LATE), broken, [Save(broken, release=True)])
