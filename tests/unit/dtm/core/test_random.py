"""Long random histories of transactions too large to try everything; see :mod:`search`."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.dtm.core import (
    Answered,
    Branch,
    Event,
    Options,
    Registered,
    Request,
    Submitted,
    Woken,
    step,
)
from kit.dtm.wire import Op, Result, TransType
from tests.unit.dtm.core.search import (
    EARLY,
    POLICY,
    Seen,
    breaks_promise,
    check,
    check_progress,
    following,
)

STEPS = 5


@st.composite
def sagas(draw: st.DrawFn) -> Request:
    """A saga of five steps with any order, some URLs left out, and any limits."""
    orders = {
        str(n): draw(st.lists(st.integers(0, n - 1), max_size=2, unique=True))
        for n in range(1, STEPS)
    }
    concurrent = draw(st.booleans())
    rows = tuple(
        Branch(f"{n:02d}", op, draw(st.sampled_from(("h/s", "h/s", "h/s", ""))))
        for n in range(1, STEPS + 1)
        for op in (Op.COMPENSATE, Op.ACTION)
    )
    custom = f'{{"concurrent":{str(concurrent).lower()},"orders":{orders}}}'.replace("'", '"')
    options = Options(
        timeout_to_fail=draw(st.sampled_from((0, 0, 30))),
        retry_limit=draw(st.sampled_from((0, 0, 2))),
    )
    return Request("g1", TransType.SAGA, branches=rows, custom_data=custom, options=options)


MOVES = st.tuples(
    st.sampled_from(("answer", "answer", "answer", "answer", "wake", "submit", "crash", "late")),
    st.integers(0, 1_000),
    st.sampled_from((*Result, Result.SUCCESS, Result.SUCCESS)),
    st.integers(0, 9_000),
)


@settings(max_examples=300, deadline=None)
@given(sagas(), st.lists(MOVES, max_size=60))
def test_a_saga_keeps_its_promises_in_any_history(
    request_: Request, moves: list[tuple[str, int, Result, int]]
) -> None:
    """Answers, crashes and repeated requests in any order; at last everything comes to an end."""
    now = EARLY
    seen = happened(Seen(), Submitted(now, request_))
    for kind, pick, result, ms in moves:
        now += ms
        tx = seen.tx
        assert tx is not None
        if kind == "crash":
            seen = replace(seen, tx=seen.durable)
            continue
        asked = sorted(tx.round.calling) if tx.round is not None else []
        event: Event = Woken(now)
        if kind == "submit":
            event = Submitted(now, request_)
        elif kind == "late":
            branch = request_.branches[pick % len(request_.branches)]
            event = Registered(now, replace(request_, branches=(branch,)))
        elif kind == "answer" and asked:
            event = Answered(now, asked[pick % len(asked)], result, "text", jitter=0.5)
            if breaks_promise(seen, event):
                continue
        seen = happened(seen, event)
    check_progress(seen)


def happened(seen: Seen, event: Event) -> Seen:
    """The state after a step, which is checked."""
    after, commands = step(seen.tx, event, POLICY)
    check(seen, event, after, commands)
    return following(seen, event, after, commands)
