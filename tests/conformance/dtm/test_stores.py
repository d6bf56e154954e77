"""What must not depend on where transactions live, and when they are forgotten.

Source: dtm-labs/dtm dtmsvr/storage, dtmsvr/svr.go (UpdateBranchAsync).
"""

import asyncio
import base64
import time

import grpc
import pytest

from kit.testing.redis import redis_server
from tests.conformance.dtm.business import ERROR, SUCCESS, Answer
from tests.conformance.dtm.clients import Tx, unique
from tests.conformance.dtm.coordinators import (
    Coordinator,
    Coordinators,
    accepted,
    msg,
    ours,
    saga,
    seconds_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_row_54_every_store_shows_a_transaction_alike(tm: Coordinator) -> None:
    """The keys that dtm shows for a finished message."""
    gid = tm.gid()
    payload = bytes(range(256))
    steps = [{"action": tm.grpc.url("out")}]
    before = await tm.now()
    accepted(await tm.grpc.submit(Tx(gid, "msg", steps, [payload], options={"wait_result": True})))
    found = await tm.query(gid)
    tx, (branch,) = found["transaction"], found["branches"]
    assert isinstance(tx.pop("id"), int)
    for key in ("create_time", "update_time", "finish_time"):
        assert before - 2 <= seconds_of(tx.pop(key)) <= before + 30
    assert {key: tx[key] for key in tx if key not in ("next_cron_time", "owner", "ext_data")} == {
        "gid": gid,
        "trans_type": "msg",
        "status": "succeed",
        "protocol": "grpc",
        "options": '{"wait_result":true,"concurrent":false}',
        "next_cron_interval": 10,
        "concurrent": False,
        **({"wait_result": True} if "wait_result" in tx else {}),
    }
    assert isinstance(branch.pop("id"), int)
    for key in ("create_time", "update_time", "finish_time"):
        assert before - 2 <= seconds_of(branch.pop(key)) <= before + 30
    assert branch == {
        "gid": gid,
        "url": tm.grpc.url("out"),
        "bin_data": base64.b64encode(payload).decode(),
        "branch_id": "01",
        "op": "action",
        "status": "succeed",
    }


async def test_row_54_every_store_keeps_long_and_foreign_texts(tm: Coordinator) -> None:
    """A gid of 128 characters, custom data over a kilobyte, text of every script."""
    gid = tm.gid("x" * 111)
    assert len(gid) == 128
    custom = '{"delay":0,"note":"' + "Überweisung 转账 🏦 " * 100 + '"}'
    reason = "Grund 原因 🚫"
    accepted(await tm.http.prepare(Tx(gid, "tcc", custom_data=custom)))
    accepted(await tm.http.register(gid, "tcc", "01", "转账".encode(), confirm="", cancel=""))
    accepted(await tm.http.abort(Tx(gid, "tcc", rollback_reason=reason)))
    tx = await tm.until(gid, "failed")
    assert tx["custom_data"] == custom
    assert tx["rollback_reason"] == reason
    rows = (await tm.query(gid))["branches"]
    assert [base64.b64decode(row["bin_data"]).decode() for row in rows] == ["转账", "转账"]


async def test_row_54_every_store_takes_gids_of_any_printable_text(tm: Coordinator) -> None:
    """Quotes, wildcards, placeholders and scripts are text and nothing else."""
    stems = ["o'x", 'o"x', "o\\x", "o%s", "o?x", "o:x", "o{x}", "ö", "转账", "a b", "a/b", "--"]
    gids = [tm.gid(stem) for stem in stems]
    for gid in gids:
        accepted(await tm.http.submit(msg(tm.http, gid, wait_result=True)))
    for gid in gids:
        assert await tm.status(gid) == "succeed"
        assert tm.business.story(gid) == ["01 action", "02 action"]


@pytest.mark.parametrize("mode", ["msg", "saga"])
async def test_row_54_every_store_keeps_many_and_large_steps(tm: Coordinator, mode: str) -> None:
    """Two hundred branches, and three payloads of a megabyte."""
    many, large = tm.gid("many"), tm.gid("large")
    step = {"action": tm.grpc.url("out"), "compensate": tm.grpc.url("outBack")}
    wait = {"wait_result": True}
    accepted(await tm.grpc.submit(Tx(many, mode, [step] * 200, options=wait)))
    assert [call.branch_id for call in tm.business.calls(many)] == [
        f"{n:02d}" for n in range(1, 201)
    ]
    assert (await tm.rows(many)).count("S") == 200
    payloads = [bytes([n]) * (1 << 20) for n in range(3)]
    accepted(await tm.grpc.submit(Tx(large, mode, [step] * 3, payloads, options=wait)))
    assert [call.body for call in tm.business.calls(large)] == payloads


async def test_row_54_every_store_tells_gids_apart_that_differ_in_case(tm: Coordinator) -> None:
    """And does not take trailing spaces or accents for the same."""
    stem = tm.gid("Case")
    gids = [stem, stem.lower(), stem.upper()]
    tm.used += gids
    for gid in gids:
        accepted(await tm.http.prepare(msg(tm.http, gid)))
    accepted(await tm.http.submit(msg(tm.http, stem)))
    await tm.until(stem, "succeed")
    assert [await tm.status(gid) for gid in gids[1:]] == ["prepared", "prepared"]


async def test_row_54_every_store_carries_fifty_transactions_at_once(tm: Coordinator) -> None:
    """Each with its own result."""
    gids = [tm.gid("many") for _ in range(50)]
    for gid in gids[::2]:
        tm.business.script(gid, "in", Answer(409, ERROR.code, "no"))
    replies = await asyncio.gather(
        *(tm.http.submit(saga(tm.http, gid, wait_result=True)) for gid in gids)
    )
    assert [reply.word for reply in replies] == ["FAILURE", "SUCCESS"] * 25
    for number, gid in enumerate(gids):
        assert await tm.status(gid) == ("succeed" if number % 2 else "failed")
        assert len(tm.business.calls(gid)) == (2 if number % 2 else 4)


async def test_row_54_store_that_is_away_is_said_so_and_found_again(
    deployed: Coordinators,
) -> None:
    """503 and UNAVAILABLE: whoever asked may ask again; what was stored goes on afterwards."""
    ours()
    async with redis_server() as redis:
        where = {"Driver": "redis", "Host": redis.host, "Port": redis.port}
        tm = await deployed.start("memory", Store=where)
        kept, refused = unique("kept"), unique("refused")
        tm.business.script(kept, "out", ERROR, SUCCESS)
        accepted(await tm.http.submit(msg(tm.http, kept)))
        await tm.business.until_called(kept)
        await tm.settled(kept)
        redis.kill()
        for api, code in ((tm.http, 503), (tm.grpc, grpc.StatusCode.UNAVAILABLE.value[0])):
            reply = await api.submit(msg(api, refused))
            assert reply.code == code, reply
            assert reply.text
        assert tm.business.calls(refused) == []
        await redis.start()
        async with asyncio.timeout(60):
            while (await tm.http.submit(msg(tm.http, refused))).code != 200:
                await asyncio.sleep(0.05)
        await tm.until(refused, "succeed")
        await tm.retry(kept)
        await tm.until(kept, "succeed")
        assert tm.process is not None
        await tm.process.stop()


@pytest.mark.parametrize("sync", [0, 1])
async def test_row_55_branch_statuses_appear_within_200_ms(
    deployed: Coordinators, sync: int
) -> None:
    """Written at once or with others; the one that is going on holds nobody up."""
    ours()
    tm = await deployed.start("sqlite", UpdateBranchSync=sync)
    fastest = float("inf")
    for _ in range(5):  # a busy machine is late now and then
        gid, gate = unique("async"), asyncio.Event()
        tm.business.script(gid, "c", Answer(gate=gate))
        accepted(await tm.http.submit(msg(tm.http, gid, "a", "b", "c", request_timeout=60)))
        calls = await tm.business.until_called(gid, 3)
        async with asyncio.timeout(60):
            while await tm.rows(gid) != "S S P":
                await asyncio.sleep(0.01)
        fastest = min(fastest, time.monotonic() - calls[2].began)
        gate.set()
        await tm.until(gid, "succeed")
    assert fastest < 0.2
    assert tm.process is not None
    await tm.process.stop()


async def test_row_56_finished_transactions_are_forgotten_and_unfinished_ones_are_not(
    deployed: Coordinators, store: str
) -> None:
    """After FinishedDataExpire; [Q-never]: an unfinished transaction expires."""
    ours()
    expire = {"FinishedDataExpire": 1, **deployed.apart(store)}
    tm = await deployed.start(store, Store=expire)
    finished, unfinished = unique("old"), unique("young")
    accepted(await tm.http.submit(msg(tm.http, finished, wait_result=True)))
    accepted(await tm.http.prepare(msg(tm.http, unfinished, timeout_to_fail=1_000_000)))
    assert await tm.status(finished) == "succeed"
    await tm.skip(90)
    async with asyncio.timeout(60):
        while (await tm.query(finished))["transaction"] is not None:
            await asyncio.sleep(0.05)
    assert await tm.status(unfinished) == "prepared"
    assert await tm.rows(unfinished) == "P P"
    assert (await tm.query(finished))["branches"] == []
    assert tm.process is not None
    await tm.process.stop()
