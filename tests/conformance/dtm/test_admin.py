"""What operators ask for: stop, list, page, and the key-value table.

Source: dtm-labs/dtm dtmsvr/api_http.go, dtmsvr/api.go (svcForceStop).
"""

import asyncio
from typing import Any

import pytest

from tests.conformance.dtm.business import ONGOING, SUCCESS, Answer
from tests.conformance.dtm.clients import ERROR as BROKEN
from tests.conformance.dtm.clients import FAILURE as REFUSED
from tests.conformance.dtm.clients import Api, Tx, unique
from tests.conformance.dtm.coordinators import Coordinator, accepted, msg, saga

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_row_50_force_stop_fails_a_transaction_and_calls_nobody(
    tm: Coordinator, api: Api
) -> None:
    """Not even a compensation."""
    gid = tm.gid("saga")
    tm.business.script(gid, "in", ONGOING)
    accepted(await api.submit(saga(api, gid)))
    await tm.business.until_called(gid, 2)
    await tm.settled(gid)
    accepted(await tm.http.post("forceStop", {"gid": gid}))
    tx = await tm.tx(gid)
    assert tx["status"] == "failed"
    assert tx["rollback_time"]
    await tm.retry(gid)
    await asyncio.sleep(0.1)
    assert tm.business.story(gid) == ["01 action", "02 action"]


async def test_row_50_force_stop_beats_a_branch_call_in_flight(tm: Coordinator) -> None:
    """What the branch answers afterwards changes nothing."""
    gid = tm.gid("saga")
    gate = asyncio.Event()
    tm.business.script(gid, "out", Answer(gate=gate))
    accepted(await tm.http.submit(saga(tm.http, gid, request_timeout=30)))
    await tm.business.until_called(gid)
    accepted(await tm.http.post("forceStop", {"gid": gid}))
    gate.set()
    await asyncio.sleep(0.2)
    assert await tm.status(gid) == "failed"
    assert tm.business.story(gid) == ["01 action"]


@pytest.mark.parametrize("status", ["succeed", "failed"])
async def test_row_50_force_stop_of_a_finished_transaction_is_refused(
    tm: Coordinator, status: str
) -> None:
    gid = tm.gid()
    if status == "succeed":
        accepted(await tm.http.submit(msg(tm.http, gid, wait_result=True)))
    else:
        accepted(await tm.http.prepare(msg(tm.http, gid)))
        accepted(await tm.http.abort(msg(tm.http, gid)))
    reply = await tm.http.post("forceStop", {"gid": gid})
    assert (reply.code, reply.word) == (409, REFUSED)
    assert reply.text == f"global transaction force stop error. status: {status}. error: FAILURE"


async def test_row_50_force_stop_of_an_unknown_gid_is_an_error(tm: Coordinator) -> None:
    reply = await tm.http.post("forceStop", {"gid": unique("nobody")})
    assert (reply.word, reply.code) == (BROKEN, 500)


async def test_row_51_query_shows_a_transaction_with_its_branches(tm: Coordinator) -> None:
    """Of an unknown gid null and an empty list; without a gid it is an error."""
    gid = tm.gid()
    accepted(await tm.grpc.submit(msg(tm.grpc, gid, wait_result=True)))
    found = await tm.query(gid)
    assert list(found) == ["branches", "transaction"]
    assert found["transaction"]["gid"] == gid
    assert [branch["gid"] for branch in found["branches"]] == [gid, gid]
    assert await tm.query(unique("nobody")) == {"branches": [], "transaction": None}
    reply = await tm.http.get("query")
    assert reply.code in (400, 500)
    assert reply.text == "no gid specified"


async def walk(tm: Coordinator, **filters: Any) -> list[str]:
    """All gids that ``all`` lists, one a page."""
    found: list[str] = []
    position = ""
    for _ in range(300):
        reply = await tm.http.get("all", position=position, **filters)
        assert reply.code == 200, reply
        assert list(reply.body) == ["next_position", "transactions"]
        found += [tx["gid"] for tx in reply.body["transactions"] or []]
        position = reply.body["next_position"]
        if not position:
            return found
    raise AssertionError(f"the pages do not end: {position}")


async def test_row_51_all_lists_what_the_filters_ask_for_page_by_page(tm: Coordinator) -> None:
    """Status, type and time of creation, each alone and together."""
    await tm.skip(3)
    since = round(await tm.now() * 1000)
    failed_msg, failed_tcc, done = tm.gid("msg"), tm.gid("tcc"), tm.gid("msg")
    accepted(await tm.http.prepare(msg(tm.http, failed_msg)))
    accepted(await tm.http.abort(msg(tm.http, failed_msg)))
    accepted(await tm.http.prepare(Tx(failed_tcc, "tcc", options={"wait_result": True})))
    accepted(await tm.http.abort(Tx(failed_tcc, "tcc")))
    accepted(await tm.http.submit(msg(tm.http, done, wait_result=True)))
    await tm.until(failed_tcc, "failed")
    when = {"createTimeStart": since - 1500, "createTimeEnd": since + 60_000, "limit": 1}

    everything = await walk(tm, **when)
    assert sorted(set(everything)) == sorted([failed_msg, failed_tcc, done])
    assert set(await walk(tm, status="failed", **when)) == {failed_msg, failed_tcc}
    assert set(await walk(tm, transType="msg", **when)) == {failed_msg, done}
    assert set(await walk(tm, transType="msg", status="failed", **when)) == {failed_msg}
    assert await walk(tm, status="aborting", **when) == []
    before = {"createTimeEnd": since - 1500, "limit": 100}
    assert not {failed_msg, failed_tcc, done} & set(await walk(tm, **before))


async def test_row_51_all_with_a_gid_shows_that_one(tm: Coordinator) -> None:
    """The position is echoed; nobody is null."""
    gid = tm.gid()
    accepted(await tm.http.prepare(msg(tm.http, gid)))
    reply = await tm.http.get("all", gid=gid, position="7")
    assert [tx["gid"] for tx in reply.body["transactions"]] == [gid]
    assert reply.body["next_position"] == "7"
    reply = await tm.http.get("all", gid=unique("nobody"))
    assert reply.body["transactions"] is None


async def test_row_51_all_has_a_hundred_to_a_page(tm: Coordinator) -> None:
    """By default."""
    await tm.skip(3)
    since = round(await tm.now() * 1000) - 1500
    gids = [tm.gid() for _ in range(101)]
    replies = await asyncio.gather(*(tm.http.prepare(msg(tm.http, gid)) for gid in gids))
    assert {reply.word for reply in replies} == {"SUCCESS"}
    reply = await tm.http.get("all", createTimeStart=since)
    if tm.store != "redis":  # whose pages may be uneven
        assert len(reply.body["transactions"]) == 100
        assert reply.body["next_position"]
    assert set(await walk(tm, createTimeStart=since)) == set(gids)


async def test_row_51_all_refuses_a_limit_that_is_no_number(tm: Coordinator) -> None:
    reply = await tm.http.get("all", limit="many")
    assert reply.code in (400, 500)
    assert "convert to int error" in reply.text


async def test_row_52_key_values_are_listed_page_by_page(tm: Coordinator) -> None:
    """Three topics, one a page."""
    topics = {unique("page") for _ in range(3)}
    for topic in topics:
        accepted(await tm.http.get("subscribe", topic=topic, url=tm.http.url("a"), remark=""))
    found: list[str] = []
    position, pages = "", 0
    while True:
        reply = await tm.http.get("scanKV", cat="topics", position=position, limit=1)
        assert reply.code == 200
        assert list(reply.body) == ["kv", "next_position"]
        found += [row["k"] for row in reply.body["kv"] or []]
        position, pages = reply.body["next_position"], pages + 1
        if not position:
            break
        assert pages < 500
    assert topics <= set(found)
    if tm.store != "redis":
        assert len(found) == len(set(found))


async def test_row_52_key_values_are_found_by_category_and_key(tm: Coordinator) -> None:
    """Both, one, or neither."""
    topic = unique("find")
    accepted(await tm.http.get("subscribe", topic=topic, url=tm.http.url("a"), remark="r"))
    (row,) = (await tm.http.get("queryKV", cat="topics", key=topic)).body["kv"]
    assert {"id", "create_time", "update_time", "cat", "k", "v", "version"} <= set(row)
    assert (row["cat"], row["k"], row["version"]) == ("topics", topic, 1)
    for query in ({"cat": "topics"}, {"key": topic}, {}):
        found = (await tm.http.get("queryKV", **query)).body["kv"]
        assert topic in [entry["k"] for entry in found]
    assert (await tm.http.get("queryKV", cat="nothing")).body["kv"] == []


async def test_row_50_force_stop_ends_what_was_prepared(tm: Coordinator, api: Api) -> None:
    """Its client is told when it comes back."""
    gid = tm.gid("tcc")
    tm.business.script(gid, "ok", SUCCESS)
    accepted(await api.prepare(Tx(gid, "tcc")))
    accepted(await api.register(gid, "tcc", "01", confirm=api.url("ok"), cancel=api.url("no")))
    accepted(await tm.http.post("forceStop", {"gid": gid}))
    late = await api.submit(Tx(gid, "tcc"))
    assert late.text == "current status 'failed', cannot sumbmit. FAILURE"
    assert tm.business.calls(gid) == []
