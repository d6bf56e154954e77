"""What a repeated or late call does: the table of the protocol, for each stored status.

Source: dtm-labs/dtm dtmsvr/api.go (svcPrepare, svcSubmit, svcAbort).
"""

import dataclasses

import pytest

from tests.conformance.dtm.business import FAILURE, ONGOING
from tests.conformance.dtm.clients import ERROR as BROKEN
from tests.conformance.dtm.clients import FAILURE as REFUSED
from tests.conformance.dtm.clients import PAYLOAD, Api, Reply, Tx
from tests.conformance.dtm.coordinators import Coordinator, accepted, msg, ours, saga

pytestmark = pytest.mark.asyncio(loop_scope="session")

STATES = [
    *(("msg", status) for status in ("none", "prepared", "submitted", "succeed", "failed")),
    *(
        (mode, status)
        for mode in ("saga", "tcc")
        for status in ("none", "prepared", "submitted", "aborting", "succeed", "failed")
    ),
]


def request(api: Api, mode: str, gid: str) -> Tx:
    """The transaction of ``mode``."""
    if mode == "tcc":
        return Tx(gid, "tcc")
    return saga(api, gid) if mode == "saga" else msg(api, gid)


async def bring(tm: Coordinator, api: Api, mode: str, status: str, gid: str) -> None:
    """Bring a new transaction into ``status``."""
    tx = request(api, mode, gid)
    if status == "none":
        return
    if status == "submitted":
        tm.business.script(gid, "confirm" if mode == "tcc" else "in", ONGOING)
    if status == "aborting":
        tm.business.script(gid, "cancel" if mode == "tcc" else "outBack", ONGOING)
    if mode == "saga" and status in ("aborting", "failed"):
        tm.business.script(gid, "in", FAILURE)
    if status == "prepared" or mode == "tcc" or (mode, status) == ("msg", "failed"):
        accepted(await api.prepare(tx))
    if mode == "tcc":
        accepted(
            await api.register(
                gid, "tcc", "01", confirm=api.url("confirm"), cancel=api.url("cancel")
            )
        )
    if status == "prepared":
        return
    undone = status in ("aborting", "failed") and mode != "saga"
    accepted(await (api.abort if undone else api.submit)(tx))
    await tm.until(gid, status)
    if status in ("submitted", "aborting"):
        await tm.settled(gid)


def refused(reply: Reply, text: str) -> None:
    """It was refused for good with that text."""
    assert (reply.word, reply.text) == (REFUSED, text)


@pytest.mark.parametrize(("mode", "status"), STATES)
async def test_row_06_prepare_once_more(tm: Coordinator, api: Api, mode: str, status: str) -> None:
    """Makes it, changes nothing, or is refused."""
    gid = tm.gid(mode)
    await bring(tm, api, mode, status, gid)
    before = await tm.rows(gid) if status != "none" else ""
    reply = await api.prepare(request(api, mode, gid))
    if status in ("none", "prepared"):
        accepted(reply)
        assert await tm.status(gid) == "prepared"
    else:
        refused(reply, f"current status '{status}', cannot prepare. FAILURE")
        assert await tm.status(gid) == status
        assert await tm.rows(gid) == before


@pytest.mark.parametrize(("mode", "status"), STATES)
async def test_row_06_submit_once_more(tm: Coordinator, api: Api, mode: str, status: str) -> None:
    """Carries it out with the stored branches, or is refused."""
    gid = tm.gid(mode)
    await bring(tm, api, mode, status, gid)
    calls = len(tm.business.calls(gid))
    reply = await api.submit(request(api, mode, gid))
    if status in ("none", "prepared"):
        accepted(reply)
        await tm.until(gid, "succeed")
        expected = {"msg": 2, "saga": 2, "tcc": int(status == "prepared")}[mode]
        assert len(tm.business.calls(gid)) == expected
    elif status == "submitted":
        accepted(reply)
        last = "confirm" if mode == "tcc" else "in"
        await tm.business.until_called(gid, 2, last)
        assert len(tm.business.calls(gid, "out")) == int(mode != "tcc"), "what is done is done"
        assert (await tm.settled(gid))["status"] == "submitted"
    else:
        refused(reply, f"current status '{status}', cannot sumbmit. FAILURE")
        assert await tm.status(gid) == status
        assert len(tm.business.calls(gid)) == calls


@pytest.mark.parametrize(("mode", "status"), STATES)
async def test_row_06_abort_once_more(tm: Coordinator, api: Api, mode: str, status: str) -> None:
    """Undoes what may be undone, or is refused."""
    gid = tm.gid(mode)
    await bring(tm, api, mode, status, gid)
    reply = await api.abort(request(api, mode, gid))
    if status == "none":
        assert (reply.word, reply.text) == (BROKEN, f"no TransGlobal with gid: {gid} found")
    elif mode == "msg" and status == "prepared":
        accepted(reply)
        assert await tm.status(gid) == "failed"
        assert tm.business.calls(gid) == []
    elif mode == "tcc" and status == "prepared":
        accepted(reply)
        await tm.until(gid, "failed")
        assert tm.business.story(gid) == ["01 cancel"]
    elif mode == "tcc" and status == "aborting":
        accepted(reply)
        await tm.business.until_called(gid, 2, "cancel")
        assert (await tm.settled(gid))["status"] == "aborting"
    else:
        refused(reply, f"trans type: '{mode}' current status '{status}', cannot abort. FAILURE")
        assert await tm.status(gid) == status


async def test_row_06_body_of_a_repeated_submit_never_replaces_the_stored_steps(
    tm: Coordinator, api: Api
) -> None:
    """[Q-never]: other steps under the same gid are a conflict, and are not called."""
    ours()
    gid = tm.gid("saga")
    tm.business.script(gid, "in", ONGOING)
    accepted(await api.submit(saga(api, gid)))
    await tm.business.until_called(gid, 2)
    other = await api.submit(saga(api, gid, "elsewhere", "nowhere"))
    assert other.word == REFUSED
    assert gid in other.text
    await tm.settled(gid)
    assert {call.name for call in tm.business.calls(gid)} == {"out", "in"}


async def test_row_06_submit_of_a_prepared_tcc_confirms_what_is_stored(
    tm: Coordinator, api: Api
) -> None:
    """[Q-never]: a repeated submit does not see an empty tcc and call it done."""
    gid = tm.gid("tcc")
    await bring(tm, api, "tcc", "submitted", gid)
    accepted(await api.submit(Tx(gid, "tcc")))
    await tm.business.until_called(gid, 2, "confirm")
    assert (await tm.settled(gid))["status"] == "submitted"


async def test_row_06_options_of_a_submit_count_for_a_prepared_transaction(
    tm: Coordinator, api: Api
) -> None:
    """The headers that came with it arrive."""
    gid = tm.gid("msg")
    accepted(await api.prepare(msg(api, gid)))
    headers = {"branch_headers": {"x-late": "yes"}}
    accepted(await api.submit(dataclasses.replace(msg(api, gid), options=headers)))
    await tm.until(gid, "succeed")
    assert [call.headers.get("x-late") for call in tm.business.calls(gid)] == ["yes", "yes"]


async def test_row_06_gid_of_another_type_is_refused(tm: Coordinator, api: Api) -> None:
    """A gid is unique across all types."""
    ours()
    gid = tm.gid("msg")
    accepted(await api.prepare(msg(api, gid)))
    other = await api.submit(saga(api, gid))
    assert other.word == REFUSED
    assert await tm.status(gid) == "prepared"


async def test_row_06_gids_that_begin_alike_are_strangers(tm: Coordinator, api: Api) -> None:
    """``order-1`` and ``order-10`` share nothing."""
    stem = tm.gid("order")
    gids = [stem, f"{stem}0", f"{stem}-01", f"{stem}%", f"{stem}_"]
    tm.used += gids[1:]
    for gid in gids:
        accepted(await api.prepare(msg(api, gid)))
    accepted(await api.submit(msg(api, stem)))
    await tm.until(stem, "succeed")
    for gid in gids[1:]:
        assert await tm.status(gid) == "prepared"
        assert await tm.rows(gid) == "P P"


async def test_row_06_gid_over_http_loses_line_breaks_and_semicolons(tm: Coordinator) -> None:
    """What could split a header or a query never reaches a branch."""
    gid = tm.gid("msg")
    dirty = f"{gid[:4]}\r\n;{gid[4:]}"
    steps = [{"action": tm.http.url("out")}]
    accepted(
        await tm.http.submit(Tx(dirty, "msg", steps, [PAYLOAD], options={"wait_result": True}))
    )
    assert await tm.status(gid) == "succeed"
    assert len(tm.business.calls(gid)) == 1
