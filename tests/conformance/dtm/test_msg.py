"""Messages: sent once they are submitted, decided by their sender when they are not.

Source: dtm-labs/dtm dtmsvr/trans_type_msg.go, client/dtmcli/trans_msg.go.
"""

import asyncio
import json

import pytest

from tests.conformance.dtm.business import ERROR, FAILURE, ONGOING, SUCCESS, Answer, overlapped
from tests.conformance.dtm.clients import FAILURE as REFUSED
from tests.conformance.dtm.clients import Api
from tests.conformance.dtm.coordinators import Coordinator, accepted, msg, seconds_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

TIMEOUT = 35


async def test_row_15_msg_submitted_without_prepare_succeeds(tm: Coordinator, api: Api) -> None:
    """Each action once, in order."""
    gid = tm.gid("msg")
    accepted(await api.submit(msg(api, gid)))
    tx = await tm.until(gid, "succeed")
    assert tm.business.story(gid) == ["01 action", "02 action"]
    assert await tm.keys(gid) == ["01 action", "02 action"]
    assert await tm.rows(gid) == "S S"
    assert tx["finish_time"]


async def test_row_15_msg_prepared_and_submitted_asks_nobody(tm: Coordinator, api: Api) -> None:
    """The submit decides."""
    gid = tm.gid("msg")
    accepted(await api.prepare(msg(api, gid, query="query")))
    assert await tm.status(gid) == "prepared"
    assert await tm.rows(gid) == "P P"
    accepted(await api.submit(msg(api, gid, query="query")))
    await tm.until(gid, "succeed")
    assert tm.business.story(gid) == ["01 action", "02 action"]


@pytest.mark.parametrize("trouble", [ERROR, ONGOING, FAILURE], ids=["error", "ongoing", "failure"])
async def test_row_15_msg_never_rolls_back(tm: Coordinator, api: Api, trouble: Answer) -> None:
    """Whatever a branch answers it is asked again; those that succeeded are not."""
    gid = tm.gid("msg")
    tm.business.script(gid, "in", trouble, SUCCESS)
    accepted(await api.submit(msg(api, gid)))
    await tm.business.until_called(gid, 2)
    assert (await tm.settled(gid))["status"] == "submitted"
    assert await tm.rows(gid) == "S P"
    await tm.retry(gid)
    await tm.until(gid, "succeed")
    assert tm.business.story(gid) == ["01 action", "02 action", "02 action"]


async def test_row_16_query_prepared_is_asked_only_after_the_timeout(
    tm: Coordinator, api: Api
) -> None:
    """Before it a round changes nothing; then SUCCESS sends the message."""
    gid = tm.gid("msg")
    accepted(await api.prepare(msg(api, gid, query="query")))
    await tm.retry(gid)
    await asyncio.sleep(0.1)
    assert tm.business.calls(gid) == []
    await tm.past(gid, TIMEOUT)
    await tm.until(gid, "succeed")
    assert tm.business.story(gid) == ["00 msg", "01 action", "02 action"]
    asked = tm.business.calls(gid)[0]
    assert asked.name == "query"
    assert asked.body == b""
    assert asked.method == ("grpc" if api.name == "grpc" else "GET")
    assert asked.trans_type == "msg"


async def test_row_16_query_prepared_failure_ends_the_msg(tm: Coordinator, api: Api) -> None:
    """Failed, and no branch was called."""
    gid = tm.gid("msg")
    tm.business.script(gid, "query", FAILURE)
    accepted(await api.prepare(msg(api, gid, query="query")))
    await tm.past(gid, TIMEOUT)
    await tm.until(gid, "failed")
    assert tm.business.story(gid) == ["00 msg"]
    assert await tm.rows(gid) == "P P"


async def test_row_16_query_prepared_ongoing_is_asked_again_at_the_base_interval(
    tm: Coordinator, api: Api
) -> None:
    """The interval does not grow."""
    gid = tm.gid("msg")
    tm.business.script(gid, "query", ONGOING, ONGOING, SUCCESS)
    accepted(await api.prepare(msg(api, gid, query="query")))
    await tm.past(gid, TIMEOUT)
    await tm.business.until_called(gid, 1)
    assert (await tm.settled(gid))["next_cron_interval"] == 10
    await tm.retry_until(gid, 2)
    tx = await tm.settled(gid)
    assert (tx["status"], tx["next_cron_interval"]) == ("prepared", 10)
    await tm.retry(gid)
    await tm.until(gid, "succeed")


async def test_row_16_query_prepared_error_backs_off(tm: Coordinator, api: Api) -> None:
    """The interval doubles."""
    gid = tm.gid("msg")
    tm.business.script(gid, "query", ERROR, ERROR, FAILURE)
    accepted(await api.prepare(msg(api, gid, query="query")))
    await tm.past(gid, TIMEOUT)
    await tm.business.until_called(gid, 1)
    assert (await tm.settled(gid))["next_cron_interval"] == 20
    await tm.retry_until(gid, 2)
    tx = await tm.settled(gid)
    assert (tx["status"], tx["next_cron_interval"]) == ("prepared", 40)
    await tm.retry(gid)
    await tm.until(gid, "failed")


async def test_row_16_timeout_option_of_a_prepared_msg_counts(tm: Coordinator, api: Api) -> None:
    """``timeout_to_fail`` instead of the server's setting."""
    gid = tm.gid("msg")
    accepted(await api.prepare(msg(api, gid, query="query", timeout_to_fail=3)))
    await tm.past(gid, 4)
    await tm.until(gid, "succeed")


async def test_row_16_msg_without_query_prepared_is_sent_after_the_timeout(
    tm: Coordinator, api: Api
) -> None:
    """[Q-keep]: who cannot be asked is taken to have meant it."""
    gid = tm.gid("msg")
    accepted(await api.prepare(msg(api, gid)))
    await tm.past(gid, TIMEOUT)
    await tm.until(gid, "succeed")
    assert tm.business.story(gid) == ["01 action", "02 action"]


async def test_row_17_msg_abort_while_prepared_calls_nobody(tm: Coordinator, api: Api) -> None:
    """Failed, without a reason; a submit comes too late."""
    gid = tm.gid("msg")
    accepted(await api.prepare(msg(api, gid, query="query")))
    accepted(await api.abort(msg(api, gid)))
    tx = await tm.tx(gid)
    assert tx["status"] == "failed"
    assert tx["rollback_time"]
    late = await api.submit(msg(api, gid))
    assert late.word == REFUSED
    assert late.text == "current status 'failed', cannot sumbmit. FAILURE"
    assert tm.business.calls(gid) == []


async def test_row_18_msg_delay_calls_branches_only_when_it_is_over(
    tm: Coordinator, api: Api
) -> None:
    """``{"delay": n}``: nothing after half of n seconds, everything after n."""
    delay = 4 if tm.foreign else 60
    gid = tm.gid("msg")
    accepted(await api.submit(msg(api, gid, custom_data=f'{{"delay":{delay}}}')))
    tx = await tm.settled(gid)
    assert tx["status"] == "submitted"
    wait = seconds_of(tx["next_cron_time"]) - seconds_of(tx["create_time"])
    assert delay - 1 <= wait <= delay + 1
    if not tm.foreign:
        await tm.skip(delay / 2)
        await asyncio.sleep(0.1)
        assert tm.business.calls(gid) == []
    await tm.past(gid, delay)
    await tm.until(gid, "succeed")


async def test_row_18_msg_delay_is_not_cut_short_by_a_reset(tm: Coordinator, api: Api) -> None:
    """Whoever makes everything due after an outage sends no message before its time."""
    gid = tm.gid("msg")
    accepted(await api.submit(msg(api, gid, custom_data='{"delay":60}')))
    await tm.settled(gid)
    await tm.retry(gid)
    await asyncio.sleep(0.2)
    assert tm.business.calls(gid) == []
    assert await tm.status(gid) == "submitted"


@pytest.mark.parametrize("name", ["http", "json-rpc"])
async def test_row_19_msg_concurrent_calls_its_branches_at_the_same_time(
    tm: Coordinator, name: str
) -> None:
    """An option that gRPC does not have."""
    api = tm.api(name)
    gid = tm.gid("msg")
    gate = asyncio.Event()
    for branch in ("out", "in"):
        tm.business.script(gid, branch, Answer(gate=gate))
    accepted(await api.submit(msg(api, gid, concurrent=True)))
    calls = await tm.business.until_called(gid, 2)
    gate.set()
    await tm.until(gid, "succeed")
    assert overlapped(calls)


async def test_row_19_msg_concurrent_records_every_answer_of_a_round_with_an_error(
    tm: Coordinator,
) -> None:
    """Only the branch that failed is called again."""
    gid = tm.gid("msg")
    tm.business.script(gid, "a", ERROR, SUCCESS)
    accepted(await tm.http.submit(msg(tm.http, gid, "a", "b", "c", concurrent=True)))
    await tm.business.until_called(gid, 3)
    await tm.until_row(gid, "03 action", "succeed")
    await tm.settled(gid)
    assert await tm.rows(gid) == "P S S"
    await tm.retry(gid)
    await tm.until(gid, "succeed")
    assert len(tm.business.calls(gid)) == 4


@pytest.mark.parametrize(
    ("query", "status"), [(SUCCESS, "succeed"), (FAILURE, "failed")], ids=["done", "not done"]
)
async def test_row_22_client_that_died_between_prepare_and_submit_is_asked_what_became_of_it(
    tm: Coordinator, api: Api, query: Answer, status: str
) -> None:
    """The crash of DoAndSubmit before and after its local commit."""
    gid = tm.gid("msg")
    tm.business.script(gid, "query", query)
    accepted(await api.prepare(msg(api, gid, query="query")))
    await tm.past(gid, TIMEOUT)
    await tm.until(gid, status)
    assert tm.business.story(gid)[0] == "00 msg"


async def test_row_22_query_in_flight_loses_against_a_submit(tm: Coordinator, api: Api) -> None:
    """FAILURE that comes after the submit was acknowledged does not fail the message."""
    gid = tm.gid("msg")
    gate = asyncio.Event()
    tm.business.script(gid, "query", Answer(FAILURE.status, FAILURE.code, "no", gate=gate))
    accepted(await api.prepare(msg(api, gid, query="query", request_timeout=20)))
    await tm.past(gid, TIMEOUT)
    await tm.business.until_called(gid, 1, "query")
    accepted(await api.submit(msg(api, gid, query="query")))
    gate.set()
    await tm.until(gid, "succeed")
    assert [c.name for c in tm.business.calls(gid)] == ["query", "out", "in"]


async def test_row_22_query_that_says_yes_after_an_abort_changes_nothing(
    tm: Coordinator, api: Api
) -> None:
    """The abort was acknowledged."""
    gid = tm.gid("msg")
    gate = asyncio.Event()
    tm.business.script(gid, "query", Answer(gate=gate))
    accepted(await api.prepare(msg(api, gid, query="query", request_timeout=20)))
    await tm.past(gid, TIMEOUT)
    await tm.business.until_called(gid, 1, "query")
    accepted(await api.abort(msg(api, gid)))
    gate.set()
    await asyncio.sleep(0.1)
    assert await tm.status(gid) == "failed"
    assert tm.business.story(gid) == ["00 msg"]


async def test_row_15_msg_custom_data_with_other_keys_is_kept(tm: Coordinator) -> None:
    """Clients may send more than the coordinator reads."""
    gid = tm.gid("msg")
    custom = json.dumps({"delay": 0, "note": "<&>"})
    accepted(await tm.http.submit(msg(tm.http, gid, custom_data=custom, wait_result=True)))
    assert (await tm.tx(gid))["custom_data"] == custom
