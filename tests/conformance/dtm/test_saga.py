"""Sagas: what is stored and called, forwards and backwards.

Source: dtm-labs/dtm dtmsvr/trans_type_saga.go.
"""

import asyncio
import json

import pytest

from tests.conformance.dtm.business import ERROR, FAILURE, ONGOING, SUCCESS, Answer, overlapped
from tests.conformance.dtm.clients import FAILURE as REFUSED
from tests.conformance.dtm.clients import PAYLOAD, Api, Tx
from tests.conformance.dtm.coordinators import Coordinator, accepted, saga

pytestmark = pytest.mark.asyncio(loop_scope="session")

WAIT = {"wait_result": True}


async def test_row_07_saga_success_calls_each_action_once_in_order(
    tm: Coordinator, api: Api
) -> None:
    """Rows P S P S."""
    gid = tm.gid("saga")
    accepted(await api.submit(saga(api, gid)))
    tx = await tm.until(gid, "succeed")
    assert tm.business.story(gid) == ["01 action", "02 action"]
    assert await tm.keys(gid) == ["01 compensate", "01 action", "02 compensate", "02 action"]
    assert await tm.rows(gid) == "P S P S"
    assert tx["trans_type"] == "saga"
    assert tx["finish_time"]
    assert "rollback_time" not in tx
    assert "rollback_reason" not in tx


async def test_row_08_saga_rollback_undoes_the_failed_step_too_in_reverse(
    tm: Coordinator, api: Api
) -> None:
    """Rows S S S F; the reason names the URL and what it said."""
    gid = tm.gid("saga")
    tm.business.script(gid, "in", FAILURE)
    accepted(await api.submit(saga(api, gid)))
    tx = await tm.until(gid, "failed")
    assert tm.business.story(gid) == ["01 action", "02 action", "02 compensate", "01 compensate"]
    assert await tm.rows(gid) == "S S S F"
    assert tx["rollback_reason"] == f"url:{api.url('in')} return failed: {FAILURE.text} FAILURE"
    assert tx["rollback_time"]
    assert "finish_time" not in tx


async def test_row_08_saga_whose_first_step_fails_never_reaches_the_second(
    tm: Coordinator, api: Api
) -> None:
    """Rows S F P P."""
    gid = tm.gid("saga")
    tm.business.script(gid, "out", FAILURE)
    accepted(await api.submit(saga(api, gid)))
    await tm.until(gid, "failed")
    assert tm.business.story(gid) == ["01 action", "01 compensate"]
    assert await tm.rows(gid) == "S F P P"


async def test_row_08_saga_passes_the_payload_of_a_step_to_both_of_its_branches(
    tm: Coordinator,
) -> None:
    """An action and its compensation get the same bytes."""
    gid = tm.gid("saga")
    tm.business.script(gid, "in", FAILURE)
    steps = saga(tm.http, gid).steps
    accepted(await tm.http.submit(Tx(gid, "saga", steps, [b'{"n":1}', b'{"n":2}'])))
    await tm.until(gid, "failed")
    bodies = {str(call): call.body for call in tm.business.calls(gid)}
    assert bodies == {
        "01 action": b'{"n":1}',
        "01 compensate": b'{"n":1}',
        "02 action": b'{"n":2}',
        "02 compensate": b'{"n":2}',
    }


@pytest.mark.parametrize("trouble", [ERROR, ONGOING, FAILURE], ids=["error", "ongoing", "failure"])
async def test_row_09_saga_compensation_is_retried_until_it_succeeds(
    tm: Coordinator, api: Api, trouble: Answer
) -> None:
    """Meanwhile the saga is aborting; FAILURE of a compensation is one more reason to ask again."""
    gid = tm.gid("saga")
    tm.business.script(gid, "in", FAILURE)
    tm.business.script(gid, "inBack", trouble, SUCCESS)
    accepted(await api.submit(saga(api, gid)))
    await tm.business.until_called(gid, 1, "inBack")
    assert (await tm.settled(gid))["status"] == "aborting"
    assert tm.business.calls(gid, "outBack") == []

    await tm.retry(gid)
    await tm.until(gid, "failed")
    assert len(tm.business.calls(gid, "inBack")) == 2
    assert len(tm.business.calls(gid, "outBack")) == 1
    assert len(tm.business.calls(gid, "in")) == 1
    assert await tm.rows(gid) == "S S S F"


async def test_row_10_concurrent_saga_calls_its_actions_at_the_same_time(
    tm: Coordinator, api: Api
) -> None:
    """Both are in the middle of it at once."""
    gid = tm.gid("saga")
    gate = asyncio.Event()
    tm.business.script(gid, "out", Answer(gate=gate))
    tm.business.script(gid, "in", Answer(gate=gate))
    accepted(await api.submit(saga(api, gid, custom_data='{"concurrent":true}')))
    calls = await tm.business.until_called(gid, 2)
    gate.set()
    await tm.until(gid, "succeed")
    assert overlapped(calls)
    assert await tm.rows(gid) == "P S P S"


async def test_row_10_concurrent_saga_undoes_what_succeeded_before_another_failed(
    tm: Coordinator, api: Api
) -> None:
    """Rows S F S S."""
    gid = tm.gid("saga")
    gate = asyncio.Event()
    tm.business.script(gid, "out", Answer(FAILURE.status, FAILURE.code, "no", gate=gate))
    accepted(await api.submit(saga(api, gid, custom_data='{"concurrent":true}')))
    await tm.business.until(
        lambda: len(tm.business.calls(gid)) == 2 and tm.business.calls(gid, "in")[0].ended > 0
    )
    await tm.until_row(gid, "02 action", "succeed")
    gate.set()
    await tm.until(gid, "failed")
    assert await tm.rows(gid) == "S F S S"


async def test_row_10_concurrent_saga_undoes_an_action_that_was_running_when_another_failed(
    tm: Coordinator, api: Api
) -> None:
    """It may have had its effect, whatever becomes of the call."""
    gid = tm.gid("saga")
    gate = asyncio.Event()
    tm.business.script(gid, "out", Answer(gate=gate))
    tm.business.script(gid, "in", FAILURE)
    custom = '{"concurrent":true}'
    accepted(await api.submit(saga(api, gid, custom_data=custom, request_timeout=20)))
    await tm.business.until_called(gid, 2)
    await asyncio.sleep(0.1)
    gate.set()
    await tm.until(gid, "failed")
    assert len(tm.business.calls(gid, "outBack")) == 1
    assert len(tm.business.calls(gid, "inBack")) == 1


@pytest.mark.parametrize("concurrent", [True, False])
async def test_row_10_saga_orders_hold_forwards_and_backwards(
    tm: Coordinator, concurrent: bool
) -> None:
    """A step begins when its predecessors have ended, and is undone before they are."""
    gid = tm.gid("saga")
    names = ["a", "b", "c", "d"]
    orders = {"2": [0, 1], "3": [2]}
    tm.business.script(gid, "d", FAILURE)
    custom = json.dumps({"concurrent": concurrent, "orders": orders})
    accepted(await tm.http.submit(saga(tm.http, gid, *names, custom_data=custom)))
    await tm.until(gid, "failed")
    calls = {call.name: call for call in tm.business.calls(gid)}
    assert len(calls) == len(tm.business.calls(gid)) == 8
    for before, after in (("a", "c"), ("b", "c"), ("c", "d")):
        assert calls[before].ended <= calls[after].began
        assert calls[f"{after}Back"].ended <= calls[f"{before}Back"].began
    if concurrent:
        assert calls["b"].began < calls["c"].began
    assert await tm.rows(gid) == "S S S S S S S F"


async def test_row_11_saga_timeout_rolls_back_with_the_seconds_in_its_reason(
    tm: Coordinator, api: Api
) -> None:
    """Rows S P P P: what may have been done is undone."""
    gid = tm.gid("saga")
    tm.business.script(gid, "out", ONGOING)
    accepted(await api.submit(saga(api, gid, timeout_to_fail=3)))
    await tm.business.until_called(gid)
    await tm.past(gid, 4)
    tx = await tm.until(gid, "failed")
    assert tx["rollback_reason"] == "Timeout after 3 seconds"
    assert await tm.rows(gid) == "S P P P"
    assert [c.name for c in tm.business.calls(gid)][-1] == "outBack"
    assert tm.business.calls(gid, "in") == []


async def test_row_11_saga_without_the_option_never_times_out(tm: Coordinator) -> None:
    """Hours later its action is asked again."""
    gid = tm.gid("saga")
    tm.business.script(gid, "out", ONGOING, SUCCESS)
    accepted(await tm.http.submit(saga(tm.http, gid)))
    await tm.business.until_called(gid)
    await tm.past(gid, 7200 if not tm.foreign else 12)
    await tm.until(gid, "succeed")


async def test_row_12_saga_repeats_an_action_at_once_while_its_retry_limit_allows(
    tm: Coordinator, api: Api
) -> None:
    """Three failures with a limit of 3: who waits hears of the success in the same call."""
    gid = tm.gid("saga")
    tm.business.script(gid, "in", ERROR, ONGOING, ERROR, SUCCESS)
    accepted(await api.submit(saga(api, gid, retry_limit=3, wait_result=True)))
    assert len(tm.business.calls(gid, "in")) == 4
    assert await tm.rows(gid) == "P S P S"


async def test_row_12_saga_rolls_back_when_its_retry_limit_is_used_up(
    tm: Coordinator, api: Api
) -> None:
    """Rows S S S P, and the limit is in the reason."""
    gid = tm.gid("saga")
    tm.business.script(gid, "in", ERROR)
    reply = await api.submit(saga(api, gid, retry_limit=1, wait_result=True))
    assert reply.word == REFUSED
    assert reply.text.startswith("RetryCount is greater than RetryLimit, RetryLimit: 1")
    tx = await tm.until(gid, "failed")
    assert tx["rollback_reason"] == "RetryCount is greater than RetryLimit, RetryLimit: 1"
    assert len(tm.business.calls(gid, "in")) == 2
    assert await tm.rows(gid) == "S S S P"


async def test_row_12_saga_counts_the_repeats_of_all_its_branches_together(
    tm: Coordinator,
) -> None:
    """Two of the first leave none for the second."""
    gid = tm.gid("saga")
    tm.business.script(gid, "out", ERROR, ERROR, SUCCESS)
    tm.business.script(gid, "in", ERROR)
    accepted(await tm.http.submit(saga(tm.http, gid, retry_limit=2)))
    await tm.until(gid, "failed")
    assert len(tm.business.calls(gid, "out")) == 3
    assert len(tm.business.calls(gid, "in")) == 1


async def test_row_13_empty_branch_url_succeeds_without_a_call(tm: Coordinator, api: Api) -> None:
    """Of an action and of a compensation."""
    gid, undone = tm.gid("saga"), tm.gid("saga")
    empty = {"action": "", "compensate": ""}
    accepted(await api.submit(Tx(gid, "saga", [empty, empty], options=WAIT)))
    assert await tm.status(gid) == "succeed"
    assert await tm.rows(gid) == "P S P S"

    tm.business.script(undone, "in", FAILURE)
    steps = [
        {"action": api.url("out"), "compensate": ""},
        {"action": api.url("in"), "compensate": ""},
    ]
    accepted(await api.submit(Tx(undone, "saga", steps)))
    await tm.until(undone, "failed")
    assert await tm.rows(undone) == "S S S F"
    assert tm.business.story(undone) == ["01 action", "02 action"]


async def test_row_14_legacy_payload_inside_of_a_step_is_used(tm: Coordinator) -> None:
    """``steps[].data`` of clients below 1.3."""
    gid = tm.gid("saga")
    steps = [
        {"action": tm.http.url("out"), "compensate": tm.http.url("outBack"), "data": '{"n":1}'},
        {"action": tm.http.url("in"), "compensate": tm.http.url("inBack"), "data": '{"n":2}'},
    ]
    accepted(await tm.http.submit(Tx(gid, "saga", steps, payloads=[], options=WAIT)))
    assert [call.body for call in tm.business.calls(gid)] == [b'{"n":1}', b'{"n":2}']


async def test_row_14_payloads_come_before_the_data_of_steps(tm: Coordinator) -> None:
    """The list that counts is payloads, then every data that is not empty."""
    gid = tm.gid("saga")
    steps = [
        {"action": tm.http.url("out"), "compensate": ""},
        {"action": tm.http.url("in"), "compensate": "", "data": '{"n":2}'},
    ]
    accepted(await tm.http.submit(Tx(gid, "saga", steps, payloads=[PAYLOAD], options=WAIT)))
    assert [call.body for call in tm.business.calls(gid)] == [PAYLOAD, b'{"n":2}']


async def test_row_08_saga_that_rolled_back_tells_who_waited_for_it(
    tm: Coordinator, api: Api
) -> None:
    """FAILURE with the reason."""
    gid = tm.gid("saga")
    tm.business.script(gid, "in", FAILURE)
    reply = await api.submit(saga(api, gid, wait_result=True))
    assert reply.word == REFUSED
    assert reply.text == f"url:{api.url('in')} return failed: {FAILURE.text} FAILURE"
    assert await tm.status(gid) == "failed"
