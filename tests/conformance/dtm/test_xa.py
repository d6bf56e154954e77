"""Xa, the coordinator's side: which resource managers are told to commit or to roll back.

Source: dtm-labs/dtm dtmsvr/trans_type_xa.go.
"""

import pytest

from tests.conformance.dtm.business import ERROR, FAILURE, ONGOING, SUCCESS, Answer
from tests.conformance.dtm.clients import FAILURE as REFUSED
from tests.conformance.dtm.clients import Api, Tx
from tests.conformance.dtm.coordinators import Coordinator, accepted

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def prepared(tm: Coordinator, api: Api, *branch_ids: str, **options: object) -> str:
    """An xa transaction with branches that call ``phase2``."""
    gid = tm.gid("xa")
    accepted(await api.prepare(Tx(gid, "xa", options=options)))
    for branch_id in branch_ids:
        accepted(await api.register(gid, "xa", branch_id, b"", url=api.url("phase2")))
    return gid


async def test_row_27_xa_commits_in_the_order_of_registration(tm: Coordinator, api: Api) -> None:
    """A POST with an empty body, or an empty message, to the one URL of each branch."""
    gid = await prepared(tm, api, "01", "02")
    accepted(await api.submit(Tx(gid, "xa")))
    await tm.until(gid, "succeed")
    assert tm.business.story(gid) == ["01 commit", "02 commit"]
    assert await tm.keys(gid) == ["01 rollback", "01 commit", "02 rollback", "02 commit"]
    assert await tm.rows(gid) == "P S P S"
    for call in tm.business.calls(gid):
        assert call.method == ("grpc" if api.name == "grpc" else "POST")
        assert (call.body, call.trans_type) == (b"", "xa")


async def test_row_27_xa_rolls_back_in_the_order_of_registration(tm: Coordinator, api: Api) -> None:
    """After an abort."""
    gid = await prepared(tm, api, "01", "02")
    accepted(await api.abort(Tx(gid, "xa")))
    await tm.until(gid, "failed")
    assert tm.business.story(gid) == ["01 rollback", "02 rollback"]
    assert await tm.rows(gid) == "S P S P"


async def test_row_27_xa_that_was_left_alone_is_rolled_back(tm: Coordinator, api: Api) -> None:
    """When its time to fail is over."""
    gid = await prepared(tm, api, "01", timeout_to_fail=3)
    await tm.past(gid, 4)
    tx = await tm.until(gid, "failed")
    assert tm.business.story(gid) == ["01 rollback"]
    assert tx["rollback_reason"] == "Timeout after 3 seconds"


async def test_row_27_xa_registers_no_branch_after_its_end(tm: Coordinator, api: Api) -> None:
    """A first phase that was late is told to roll back by itself."""
    gid = await prepared(tm, api)
    accepted(await api.abort(Tx(gid, "xa")))
    late = await api.register(gid, "xa", "01", b"", url=api.url("phase2"))
    assert late.word == REFUSED
    await tm.until(gid, "failed")
    assert tm.business.calls(gid) == []


@pytest.mark.parametrize("trouble", [ERROR, ONGOING, FAILURE], ids=["error", "ongoing", "failure"])
@pytest.mark.parametrize("op", ["commit", "rollback"])
async def test_row_28_xa_second_phase_is_repeated_until_it_succeeds(
    tm: Coordinator, api: Api, op: str, trouble: Answer
) -> None:
    """Whoever has succeeded is not told again; one decision, never the other."""
    gid = await prepared(tm, api, "01", "02")
    tm.business.script(gid, "phase2", SUCCESS, trouble, SUCCESS)
    end = api.submit if op == "commit" else api.abort
    accepted(await end(Tx(gid, "xa")))
    await tm.business.until_called(gid, 2)
    assert (await tm.settled(gid))["status"] == ("submitted" if op == "commit" else "aborting")
    await tm.retry(gid)
    await tm.until(gid, "succeed" if op == "commit" else "failed")
    assert tm.business.story(gid) == [f"01 {op}", f"02 {op}", f"02 {op}"]


async def test_row_28_xa_branch_that_was_committed_by_hand_is_told_to_commit_once(
    tm: Coordinator, api: Api
) -> None:
    """The resource manager takes the unknown xid for a repeat and answers SUCCESS."""
    gid = await prepared(tm, api, "01", wait_result=True)
    accepted(await api.submit(Tx(gid, "xa", options={"wait_result": True})))
    assert await tm.status(gid) == "succeed"
    again = await api.submit(Tx(gid, "xa"))
    assert again.text == "current status 'succeed', cannot sumbmit. FAILURE"
    assert tm.business.story(gid) == ["01 commit"]
