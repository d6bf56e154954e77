"""Tcc: its client tries, the coordinator confirms or cancels what was registered.

Source: dtm-labs/dtm dtmsvr/trans_type_tcc.go, client/dtmcli/trans_tcc.go.
"""

import pytest

from tests.conformance.dtm.business import ERROR, FAILURE, ONGOING, SUCCESS, Answer
from tests.conformance.dtm.clients import ERROR as BROKEN
from tests.conformance.dtm.clients import FAILURE as REFUSED
from tests.conformance.dtm.clients import PAYLOAD, Api, Tx
from tests.conformance.dtm.coordinators import Coordinator, accepted

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def register(api: Api, gid: str, *branch_ids: str, trans_type: str = "tcc") -> None:
    """Register branches that call ``confirm`` and ``cancel``."""
    for branch_id in branch_ids:
        accepted(
            await api.register(
                gid, trans_type, branch_id, confirm=api.url("confirm"), cancel=api.url("cancel")
            )
        )


async def test_row_23_tcc_confirms_last_registered_first(tm: Coordinator, api: Api) -> None:
    """Rows of the other op stay prepared."""
    gid = tm.gid("tcc")
    accepted(await api.prepare(Tx(gid, "tcc")))
    await register(api, gid, "01", "02", "03")
    assert tm.business.calls(gid) == []
    accepted(await api.submit(Tx(gid, "tcc")))
    await tm.until(gid, "succeed")
    assert tm.business.story(gid) == ["03 confirm", "02 confirm", "01 confirm"]
    assert (await tm.keys(gid))[:2] == ["01 cancel", "01 confirm"]
    assert await tm.rows(gid) == "P S P S P S"
    assert [call.body for call in tm.business.calls(gid)] == [PAYLOAD] * 3
    assert {call.trans_type for call in tm.business.calls(gid)} == {"tcc"}


async def test_row_23_tcc_cancels_last_registered_first_with_its_reason(
    tm: Coordinator, api: Api
) -> None:
    """An abort stores why."""
    gid = tm.gid("tcc")
    accepted(await api.prepare(Tx(gid, "tcc")))
    await register(api, gid, "01", "02")
    accepted(await api.abort(Tx(gid, "tcc", rollback_reason="try of 02 said no")))
    tx = await tm.until(gid, "failed")
    assert tm.business.story(gid) == ["02 cancel", "01 cancel"]
    assert await tm.rows(gid) == "S P S P"
    assert tx["rollback_reason"] == "try of 02 said no"


@pytest.mark.parametrize("trouble", [ERROR, ONGOING, FAILURE], ids=["error", "ongoing", "failure"])
@pytest.mark.parametrize("op", ["confirm", "cancel"])
async def test_row_23_tcc_second_phase_is_retried_until_it_succeeds(
    tm: Coordinator, op: str, trouble: Answer
) -> None:
    """The round ends at the first branch that does not succeed; FAILURE decides nothing."""
    api, gid = tm.http, tm.gid("tcc")
    tm.business.script(gid, op, trouble, SUCCESS)
    accepted(await api.prepare(Tx(gid, "tcc")))
    await register(api, gid, "01", "02")
    end = api.submit if op == "confirm" else api.abort
    accepted(await end(Tx(gid, "tcc")))
    await tm.business.until_called(gid, 1)
    assert (await tm.settled(gid))["status"] == ("submitted" if op == "confirm" else "aborting")
    assert tm.business.story(gid) == [f"02 {op}"]
    await tm.retry(gid)
    await tm.until(gid, "succeed" if op == "confirm" else "failed")
    assert tm.business.story(gid) == [f"02 {op}", f"02 {op}", f"01 {op}"]


async def test_row_23_tcc_without_branches_just_ends(tm: Coordinator, api: Api) -> None:
    """Nothing was tried."""
    done, undone = tm.gid("tcc"), tm.gid("tcc")
    accepted(await api.prepare(Tx(done, "tcc")))
    accepted(await api.submit(Tx(done, "tcc")))
    await tm.until(done, "succeed")
    accepted(await api.prepare(Tx(undone, "tcc")))
    accepted(await api.abort(Tx(undone, "tcc")))
    await tm.until(undone, "failed")


async def test_row_23_tcc_with_empty_urls_calls_nobody(tm: Coordinator, api: Api) -> None:
    """A confirm or cancel that does not exist has succeeded."""
    gid = tm.gid("tcc")
    accepted(await api.prepare(Tx(gid, "tcc")))
    accepted(await api.register(gid, "tcc", "01", confirm="", cancel=""))
    accepted(await api.submit(Tx(gid, "tcc")))
    await tm.until(gid, "succeed")
    assert tm.business.calls(gid) == []


async def test_row_24_tcc_timeout_cancels_with_the_option_in_its_reason(
    tm: Coordinator, api: Api
) -> None:
    """A client that never came back."""
    gid = tm.gid("tcc")
    accepted(await api.prepare(Tx(gid, "tcc", options={"timeout_to_fail": 3})))
    await register(api, gid, "01")
    await tm.past(gid, 4)
    tx = await tm.until(gid, "failed")
    assert tm.business.story(gid) == ["01 cancel"]
    assert tx["rollback_reason"] == "Timeout after 3 seconds"


async def test_row_24_tcc_timeout_of_the_server_reads_zero_seconds(
    tm: Coordinator, api: Api
) -> None:
    """[Q-keep]: the option's value, whatever counted."""
    gid = tm.gid("tcc")
    accepted(await api.prepare(Tx(gid, "tcc")))
    await register(api, gid, "01")
    await tm.past(gid, 35)
    tx = await tm.until(gid, "failed")
    assert tx["rollback_reason"] == "Timeout after 0 seconds"


async def test_row_25_nested_tcc_branches_are_stored_and_ended_like_others(
    tm: Coordinator, api: Api
) -> None:
    """Branch 02 made a branch of its own: 0201."""
    gid = tm.gid("tcc")
    accepted(await api.prepare(Tx(gid, "tcc")))
    await register(api, gid, "01", "02", "0201")
    accepted(await api.submit(Tx(gid, "tcc")))
    await tm.until(gid, "succeed")
    assert [key for key in await tm.keys(gid) if key.endswith("confirm")] == [
        "01 confirm",
        "02 confirm",
        "0201 confirm",
    ]
    assert tm.business.story(gid) == ["0201 confirm", "02 confirm", "01 confirm"]


@pytest.mark.parametrize("end", ["submit", "abort"])
async def test_row_26_register_branch_is_refused_after_abort_and_submit(
    tm: Coordinator, api: Api, end: str
) -> None:
    """FAILURE: its client must not go on trying."""
    gid = tm.gid("tcc")
    accepted(await api.prepare(Tx(gid, "tcc")))
    accepted(await getattr(api, end)(Tx(gid, "tcc")))
    late = await api.register(gid, "tcc", "01", confirm=api.url("ok"), cancel=api.url("undo"))
    assert late.word == REFUSED
    assert late.text == f"no trans with gid: {gid} status: prepared found FAILURE"
    await tm.until(gid, "succeed" if end == "submit" else "failed")
    assert await tm.rows(gid) == ""
    assert tm.business.calls(gid) == []


async def test_row_26_register_branch_of_an_unknown_gid_is_refused(
    tm: Coordinator, api: Api
) -> None:
    """The same words."""
    gid = tm.gid("nobody")
    late = await api.register(gid, "tcc", "01", confirm=api.url("ok"), cancel=api.url("undo"))
    assert late.word == REFUSED
    assert late.text == f"no trans with gid: {gid} status: prepared found FAILURE"


async def test_row_26_register_branch_twice_is_a_conflict(tm: Coordinator, api: Api) -> None:
    """The first one stays as it is."""
    gid = tm.gid("tcc")
    accepted(await api.prepare(Tx(gid, "tcc")))
    await register(api, gid, "01")
    again = await api.register(gid, "tcc", "01", confirm=api.url("other"), cancel=api.url("other"))
    assert again.word == BROKEN
    if not tm.foreign:
        assert again.text == "storage: UniqueKeyConflict"
    accepted(await api.submit(Tx(gid, "tcc")))
    await tm.until(gid, "succeed")
    assert [call.name for call in tm.business.calls(gid)] == ["confirm"]
