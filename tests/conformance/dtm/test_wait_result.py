"""What a client hears that waits for the result of the first round.

Source: dtm-labs/dtm dtmsvr/trans_process.go.
"""

import asyncio

import pytest

from tests.conformance.dtm.business import ERROR, FAILURE, ONGOING, SUCCESS, Answer
from tests.conformance.dtm.clients import ERROR as BROKEN
from tests.conformance.dtm.clients import FAILURE as REFUSED
from tests.conformance.dtm.clients import ONGOING as WAITS
from tests.conformance.dtm.clients import SUCCESS as DONE
from tests.conformance.dtm.clients import Api, Tx
from tests.conformance.dtm.coordinators import Coordinator, accepted, msg, saga

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOT_SUCCESS = "wait result not return success: FAILURE"
HINT = "your http/grpc result should be specified as in:"

OUTCOMES = {"success": SUCCESS, "failure": FAILURE, "ongoing": ONGOING, "error": ERROR}


def ongoing_word(api: Api) -> str:
    """JSON-RPC has no code for it in this direction."""
    return BROKEN if api.name == "json-rpc" else WAITS


@pytest.mark.parametrize(
    ("outcome", "word", "begin", "status"),
    [
        ("success", DONE, "", "succeed"),
        ("failure", REFUSED, HINT, "submitted"),
        ("ongoing", REFUSED, NOT_SUCCESS, "submitted"),
        ("error", BROKEN, "", "submitted"),
    ],
)
async def test_row_44_waiting_submit_of_a_msg(
    tm: Coordinator, api: Api, outcome: str, word: str, begin: str, status: str
) -> None:
    gid = tm.gid("msg")
    tm.business.script(gid, "in", OUTCOMES[outcome])
    reply = await api.submit(msg(api, gid, wait_result=True))
    assert reply.word == word
    assert reply.text.startswith(begin)
    if word == REFUSED:
        assert reply.text.endswith(" FAILURE")
    if outcome == "error":
        assert ERROR.text in reply.text
    assert await tm.status(gid) == status


@pytest.mark.parametrize(
    ("outcome", "word", "text", "status"),
    [
        ("success", DONE, "", "succeed"),
        ("failure", REFUSED, "url:{url} return failed: no money FAILURE", "failed"),
        ("ongoing", REFUSED, NOT_SUCCESS, "submitted"),
        ("error", REFUSED, NOT_SUCCESS, "submitted"),
    ],
)
async def test_row_44_waiting_submit_of_a_saga(
    tm: Coordinator, api: Api, outcome: str, word: str, text: str, status: str
) -> None:
    gid = tm.gid("saga")
    tm.business.script(gid, "in", OUTCOMES[outcome])
    reply = await api.submit(saga(api, gid, wait_result=True))
    assert (reply.word, reply.text) == (word, text.format(url=api.url("in")))
    assert await tm.status(gid) == status


@pytest.mark.parametrize("mode", ["tcc", "xa"])
@pytest.mark.parametrize("end", ["submit", "abort"])
@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_row_44_waiting_end_of_a_tcc_or_xa(
    tm: Coordinator, api: Api, mode: str, end: str, outcome: str
) -> None:
    """For an abort the option of Prepare counts."""
    gid = tm.gid(mode)
    tm.business.script(gid, "phase2", OUTCOMES[outcome])
    wait = {"wait_result": True}
    url = api.url("phase2")
    accepted(await api.prepare(Tx(gid, mode, options=wait)))
    accepted(await api.register(gid, mode, "01", url=url, confirm=url, cancel=url))
    if end == "submit":
        reply = await api.submit(Tx(gid, mode, options=wait))
    else:
        reply = await api.abort(Tx(gid, mode))
    words = {"success": DONE, "failure": REFUSED, "ongoing": ongoing_word(api), "error": BROKEN}
    assert reply.word == words[outcome]
    if outcome == "failure":
        assert reply.text.startswith(HINT)
    before, after = ("submitted", "succeed") if end == "submit" else ("aborting", "failed")
    assert await tm.status(gid) == (after if outcome == "success" else before)


async def test_row_44_waiting_submit_of_a_delayed_msg(tm: Coordinator, api: Api) -> None:
    gid = tm.gid("msg")
    reply = await api.submit(msg(api, gid, custom_data='{"delay":60}', wait_result=True))
    assert (reply.word, reply.text) == (REFUSED, NOT_SUCCESS)
    assert tm.business.calls(gid) == []


@pytest.mark.parametrize("outcome", [FAILURE, ONGOING, ERROR], ids=["failure", "ongoing", "error"])
async def test_row_44_submit_without_waiting_says_only_that_it_was_accepted(
    tm: Coordinator, api: Api, outcome: Answer
) -> None:
    gid = tm.gid("saga")
    tm.business.script(gid, "out", outcome)
    accepted(await api.submit(saga(api, gid)))


async def test_row_44_prepare_ignores_the_option(tm: Coordinator, api: Api) -> None:
    gid = tm.gid("msg")
    accepted(await api.prepare(msg(api, gid, wait_result=True)))
    assert tm.business.calls(gid) == []
    assert await tm.status(gid) == "prepared"


async def test_row_44_client_that_submits_again_waits_for_the_round_that_is_running(
    tm: Coordinator, api: Api
) -> None:
    """Both hear the same, and each branch is called once."""
    for pause in (0.1, 0.5, 2, 8):  # until the second one arrives while the round still runs
        gid = tm.gid("saga")
        gate = asyncio.Event()
        tm.business.script(gid, "out", Answer(gate=gate))
        tx = saga(api, gid, wait_result=True, request_timeout=20)
        clients = [asyncio.create_task(api.submit(tx))]
        await tm.business.until_called(gid)
        clients.append(asyncio.create_task(api.submit(tx)))
        await asyncio.sleep(pause)
        gate.set()
        heard = [reply.word for reply in await asyncio.gather(*clients)]
        if not tm.foreign:
            assert tm.business.story(gid) == ["01 action", "02 action"]
        if heard == [DONE, DONE]:
            return
    raise AssertionError(heard)
