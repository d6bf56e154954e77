"""Every order of all events, for small transactions of every mode; see :mod:`search`."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from kit.dtm.core import (
    Aborted,
    Answered,
    Branch,
    Event,
    Options,
    Prepared,
    Registered,
    Request,
    Stopped,
    Submitted,
    Transaction,
    Woken,
)
from kit.dtm.wire import BranchStatus, Op, Result, Status, TransType
from tests.unit.dtm.core.search import (
    CALLBACK,
    EARLY,
    LATE,
    Met,
    explore,
)

PREPARED, SUBMITTED, ABORTING = Status.PREPARED, Status.SUBMITTED, Status.ABORTING
SUCCEED, FAILED = Status.SUCCEED, Status.FAILED


def saga_rows(*urls: str) -> tuple[Branch, ...]:
    """The rows of a saga; a URL for each action, ``-`` for none."""
    return tuple(
        Branch(f"{n:02d}", op, "" if url == "-" else f"h/{op.value}{n}")
        for n, url in enumerate(urls, 1)
        for op in (Op.COMPENSATE, Op.ACTION)
    )


MSG = Request(
    "g1",
    TransType.MSG,
    branches=(Branch("01", Op.ACTION, "h/Out", b"1"), Branch("02", Op.ACTION, "h/In", b"2")),
    query_prepared="h/Query",
)
CONCURRENT = '{"concurrent":true}'
SAGA = Request("g1", TransType.SAGA, branches=saga_rows("Out", "In"))
TCC = Request("g1", TransType.TCC)
XA = Request("g1", TransType.XA)
WORKFLOW = Request(
    "g1",
    TransType.WORKFLOW,
    query_prepared="h/Execute",
    custom_data=f'{{"name":"{CALLBACK}"}}',
)

VARIANTS: dict[TransType, dict[str, Request]] = {
    TransType.MSG: {
        "plain": MSG,
        "concurrent": replace(MSG, options=Options(concurrent=True)),
        "delayed": replace(MSG, custom_data='{"delay":60}'),
        "unasked": replace(MSG, query_prepared=""),
        "empty": replace(MSG, branches=tuple(replace(b, url="") for b in MSG.branches)),
    },
    TransType.SAGA: {
        "plain": SAGA,
        "concurrent": replace(SAGA, custom_data=CONCURRENT),
        "timeout": replace(SAGA, options=Options(timeout_to_fail=60)),
        "retry_limit": replace(SAGA, options=Options(retry_limit=1)),
        "ordered": replace(SAGA, custom_data='{"concurrent":true,"orders":{"1":[0]}}'),
        "empty": replace(SAGA, branches=saga_rows("-", "-")),
        "half_empty": replace(SAGA, branches=saga_rows("-", "In")),
        "irrevocable": replace(
            SAGA,
            branches=tuple(
                replace(b, url="") if b.op == Op.COMPENSATE else b for b in SAGA.branches
            ),
            options=Options(timeout_to_fail=60),
        ),
    },
    TransType.TCC: {"plain": TCC, "waiting": replace(TCC, options=Options(wait_result=True))},
    TransType.XA: {"plain": XA},
    TransType.WORKFLOW: {"plain": WORKFLOW, "unasked": replace(WORKFLOW, query_prepared="")},
}


def registrations(request: Request) -> Iterator[Request]:
    """Two branches, as the client of each mode registers them."""
    for n in ("01", "02"):
        rows: tuple[Branch, ...]
        match request.trans_type:
            case TransType.TCC:
                rows = (Branch(n, Op.CANCEL, f"h/Cancel{n}"), Branch(n, Op.CONFIRM, f"h/Do{n}"))
            case TransType.XA:
                rows = (Branch(n, Op.ROLLBACK, f"h/{n}"), Branch(n, Op.COMMIT, f"h/{n}"))
            case _:
                rows = (Branch(n, Op.ACTION, "", b"r", BranchStatus.SUCCEED),)
        yield replace(request, branches=rows, query_prepared="", custom_data="")


def answers(request: Request, now: int) -> Iterator[Event]:
    """Everything that anybody may say."""
    ops = {
        TransType.MSG: (Op.ACTION,),
        TransType.SAGA: (Op.ACTION, Op.COMPENSATE),
        TransType.TCC: (Op.CONFIRM, Op.CANCEL),
        TransType.XA: (Op.COMMIT, Op.ROLLBACK),
        TransType.WORKFLOW: (),
    }[request.trans_type]
    keys = [(branch_id, str(op)) for branch_id in ("01", "02") for op in ops]
    if request.trans_type is TransType.MSG:
        keys.append(("00", Op.MSG))
    if request.trans_type is TransType.WORKFLOW:
        keys.append(("00", CALLBACK))
    for key in keys:
        for result in Result:
            yield Answered(now, key, result, "text", 14)


def alphabet(request: Request) -> Iterator[Event]:
    """Every event, early and late where that matters, also from a client that repeats nothing."""
    unsure = replace(request, branches=())
    waiting = replace(unsure, options=replace(request.options, wait_result=True))
    timeless = request.trans_type is TransType.SAGA and not request.options.timeout_to_fail
    for now in (EARLY,) if timeless else (EARLY, LATE):
        yield Prepared(now, request)
        yield Submitted(now, request)
        yield Submitted(now, waiting)
        yield Aborted(now, replace(unsure, rollback_reason="why"))
        yield Woken(now)
        yield from answers(request, now)
        for registered in registrations(request):
            yield Registered(now, registered)
    if request.trans_type is TransType.WORKFLOW:
        for status in (SUCCEED, FAILED):
            yield Submitted(EARLY, replace(request, final_status=status, rollback_reason="why"))
    yield Stopped(LATE, "g1", "stopped")


def strangers(request: Request) -> Iterator[Event]:
    """The same gid for something else."""
    foreign = MSG if request.trans_type is not TransType.MSG else SAGA
    shorter = replace(request, branches=foreign.branches[:1])
    for asked in (foreign, shorter):
        yield Prepared(EARLY, asked)
        yield Submitted(EARLY, asked)
    yield Registered(EARLY, foreign)
    yield Aborted(EARLY, replace(request, trans_type=TransType.SAGA))


def graph(text: str) -> Met:
    """The published transitions of a mode, and what holds for every mode.

    A line holds a status, a kind of event and where it may lead to; what is not said leads nowhere.
    """
    found: Met = {}
    for status in (None, PREPARED, SUBMITTED, ABORTING, SUCCEED, FAILED):
        for event in (Prepared, Submitted, Aborted, Registered, Stopped, Answered, Woken):
            found[status, event.__name__] = {status}
    for line in text.split("\n"):
        if line.strip():
            start, name, *ends = line.split()
            key = None if start == "-" else Status(start)
            found[key, name] = {None if end == "-" else Status(end) for end in ends}
    return found


TWO_PHASE = """
    -         Prepared   prepared
    -         Submitted  succeed
    prepared  Submitted  prepared submitted succeed
    prepared  Aborted    prepared aborting failed
    prepared  Stopped    failed
    prepared  Woken      prepared aborting failed
    submitted Stopped    failed
    submitted Answered   submitted succeed
    aborting  Stopped    failed
    aborting  Answered   aborting failed
"""

PUBLISHED = {
    TransType.MSG: """
    -         Prepared   prepared
    -         Submitted  - submitted succeed
    prepared  Submitted  prepared submitted succeed
    prepared  Aborted    failed
    prepared  Stopped    failed
    prepared  Woken      prepared submitted
    prepared  Answered   prepared submitted succeed failed
    submitted Stopped    failed
    submitted Answered   submitted succeed
""",
    TransType.SAGA: """
    -         Prepared   prepared
    -         Submitted  - submitted succeed
    prepared  Submitted  prepared submitted succeed aborting failed
    prepared  Stopped    failed
    submitted Submitted  submitted aborting failed
    submitted Stopped    failed
    submitted Woken      submitted aborting failed
    submitted Answered   submitted succeed aborting failed
    aborting  Stopped    failed
    aborting  Answered   aborting failed
""",
    TransType.TCC: TWO_PHASE,
    TransType.XA: TWO_PHASE,
    TransType.WORKFLOW: """
    -         Prepared   prepared
    prepared  Submitted  prepared succeed failed
    prepared  Stopped    failed
""",
}


@pytest.mark.parametrize("mode", TransType)
def test_every_reachable_step_keeps_the_promises(mode: TransType) -> None:
    """G1, G2, G3, G5, G8, G9 and G12 of the design, for each transition that exists at all."""
    met: Met = {}
    for request in VARIANTS[mode].values():
        explore(alphabet(request), strangers(request), met)
    published = graph(PUBLISHED[mode])
    for key, ends in met.items():
        assert ends <= published[key], f"{key} leads to {ends - published[key]}"
    reached = {status for ends in met.values() for status in ends}
    untaken = {
        key: left
        for key, ends in published.items()
        if key[0] in reached and (left := ends - met.get(key, set()))
    }
    assert not untaken, f"transitions that no test takes: {untaken}"


def confirms_always(tx: Transaction) -> tuple[Branch, ...]:
    return tuple(b for b in tx.branches if b.op == Op.CONFIRM and b.status != BranchStatus.SUCCEED)


def undoes_only_successes(tx: Transaction) -> dict[int, Branch]:
    rows = {b.key: b for b in tx.branches}
    actions = [b for b in tx.branches if b.op == Op.ACTION]
    return {
        n: rows[a.branch_id, Op.COMPENSATE]
        for n, a in enumerate(actions)
        if a.status is BranchStatus.SUCCEED
        and rows[a.branch_id, Op.COMPENSATE].status is not BranchStatus.SUCCEED
    }


@pytest.mark.parametrize(
    ("mode", "variant", "name", "broken"),
    [
        (TransType.TCC, "plain", "twophase._pending", confirms_always),
        (TransType.SAGA, "plain", "saga._to_undo", undoes_only_successes),
        (TransType.SAGA, "timeout", "saga._is_plain", lambda _: True),
        (TransType.SAGA, "plain", "saga._needs", lambda _: [set(), set()]),
        (TransType.MSG, "plain", "msg._pending", lambda branches: branches),
    ],
    ids=["confirms", "forgets-the-failed", "defers", "unordered", "asks-again"],
)
def test_the_search_finds_a_broken_rule(
    monkeypatch: pytest.MonkeyPatch, mode: TransType, variant: str, name: str, broken: object
) -> None:
    """The checks themselves can fail: each of these mistakes is found."""
    monkeypatch.setattr(f"kit.dtm.core.{name}", broken)
    request = VARIANTS[mode][variant]
    with pytest.raises(AssertionError):
        explore(alphabet(request), strangers(request), {})
