"""Who takes up what was left: after a crash, between coordinators, by hand.

Source: dtm-labs/dtm dtmsvr/cron.go, dtmsvr/storage (LockOneGlobalTrans, ResetCronTime).
"""

import asyncio

import pytest

from kit.ports import free_port
from tests.conformance.dtm.business import ERROR, ONGOING, SUCCESS, Answer
from tests.conformance.dtm.clients import ERROR as BROKEN
from tests.conformance.dtm.clients import Api, Tx, unique
from tests.conformance.dtm.coordinators import (
    STORES,
    Coordinator,
    Coordinators,
    accepted,
    msg,
    ours,
    saga,
    seconds_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

FAR = 1_000_000
LATER = 900_000


async def stop(coordinator: Coordinator) -> None:
    assert coordinator.process is not None
    await coordinator.process.stop()
    assert "Traceback" not in coordinator.process.output


async def test_row_46_what_a_killed_coordinator_left_is_taken_up_by_the_next(
    deployed: Coordinators, store: str
) -> None:
    """Prepared, waiting for its retry, and in the middle of a branch call."""
    ours()
    business, folder, apart = deployed.business, deployed.folder(), deployed.apart(store)
    first = await deployed.start(store, folder=folder, Store=apart)
    api = first.http
    prepared, retried, calling, rolling = (unique("crash") for _ in range(4))
    gate = asyncio.Event()
    business.script(retried, "in", ERROR, SUCCESS)
    business.script(calling, "in", Answer(gate=gate), SUCCESS)
    business.script(rolling, "in", Answer(409, ERROR.code, "no"))
    business.script(rolling, "inBack", ERROR, SUCCESS)
    accepted(await api.prepare(msg(api, prepared, query="query", timeout_to_fail=3_600)))
    accepted(await api.submit(msg(api, retried)))
    accepted(await api.submit(msg(api, calling, request_timeout=30)))
    accepted(await api.submit(saga(api, rolling)))
    await business.until_called(retried, 2)
    await business.until_called(rolling, 3)
    await first.settled(retried)
    await first.settled(rolling)
    await business.until_called(calling, 2)
    assert first.process is not None
    await first.process.kill()
    gate.set()

    second = await deployed.start(store, folder=folder, Store=apart)
    await second.skip(30)
    await second.until(retried, "succeed")
    await second.until(calling, "succeed")
    await second.until(rolling, "failed")
    assert business.story(retried) == ["01 action", "02 action", "02 action"]
    assert business.story(rolling)[-2:] == ["02 compensate", "01 compensate"]
    assert await second.status(prepared) == "prepared"
    await second.skip(3_600)
    await second.until(prepared, "succeed")
    assert business.story(prepared) == ["00 msg", "01 action", "02 action"]
    await stop(second)


async def test_row_47_sqlite_file_serves_one_coordinator(deployed: Coordinators) -> None:
    """The second one ends, and names the file and the process that has it."""
    ours()
    first = await deployed.start("sqlite")
    assert first.process is not None
    settings = {**first.settings, "HttpPort": free_port(), "GrpcPort": free_port()}
    other = await deployed.launch(settings, deployed.folder())
    assert await other.ended() != 0
    assert first.settings["Store"]["Path"] in other.output
    assert str(first.process.pid) in other.output
    await stop(first)


@pytest.mark.parametrize("shared", [store for store in STORES if store != "sqlite"])
async def test_row_47_two_coordinators_share_one_store(deployed: Coordinators, shared: str) -> None:
    """Each due transaction is taken up by one of them, and a client may talk to either."""
    ours()
    apart = deployed.apart(shared)
    first = await deployed.start(shared, Store=apart)
    second = await deployed.start(shared, Store=apart)
    await each_takes_up_its_own(first, second)
    await client_goes_on_elsewhere(first, second)
    await workflow_goes_on_elsewhere(first, second)
    await stop(first)
    await stop(second)


async def each_takes_up_its_own(first: Coordinator, second: Coordinator) -> None:
    """Thirty transactions are due at once at both: each branch is asked once more."""
    business = first.business
    gids = [unique("shared") for _ in range(30)]
    for number, gid in enumerate(gids):
        business.script(gid, "out", ERROR, SUCCESS)
        api = (first, second)[number % 2].http
        accepted(await api.submit(msg(api, gid, "out")))
    for gid in gids:
        await business.until_called(gid)
        assert (await first.settled(gid))["status"] == "submitted"
    await asyncio.gather(
        *((first, second)[number // 2 % 2].retry(gid) for number, gid in enumerate(gids))
    )
    for gid in gids:
        await first.until(gid, "succeed")
        assert business.story(gid) == ["01 action", "01 action"]
        assert await second.status(gid) == "succeed"


async def client_goes_on_elsewhere(first: Coordinator, second: Coordinator) -> None:
    """Prepare here, register there, submit there."""
    gid = unique("tcc")
    url = first.http.url("ok")
    accepted(await first.http.prepare(Tx(gid, "tcc")))
    accepted(await second.http.register(gid, "tcc", "01", confirm=url, cancel=url))
    accepted(await first.http.register(gid, "tcc", "02", confirm=url, cancel=url))
    accepted(await second.http.submit(Tx(gid, "tcc", options={"wait_result": True})))
    assert first.business.story(gid) == ["02 confirm", "01 confirm"]


async def workflow_goes_on_elsewhere(first: Coordinator, second: Coordinator) -> None:
    """A workflow called back by one coordinator tells the other how it goes on."""
    gid, gate = unique("workflow"), asyncio.Event()
    business = first.business
    business.script(gid, "run", Answer(gate=gate))
    tx = Tx(
        gid,
        "workflow",
        query_prepared=first.http.url("run"),
        custom_data='{"name":"n","data":null}',
        options={"request_timeout": 30},
    )
    accepted(await first.http.prepare_workflow(tx))
    await first.retry(gid)
    await business.until_called(gid)
    for api, branch_id in ((second.http, "01"), (first.http, "02")):
        accepted(
            await api.register(gid, "workflow", branch_id, b"x", op="action", status="succeed")
        )
    accepted(await second.http.submit(Tx(gid, "workflow", req_extra={"status": "succeed"})))
    gate.set()
    await first.until(gid, "succeed")
    assert await first.keys(gid) == ["01 action", "02 action"]


async def test_row_48_reset_cron_time_counts_and_says_whether_more_remain(
    tm: Coordinator,
) -> None:
    """Ten and one transactions that wait for days, ten at a time."""
    gate = asyncio.Event()
    gids = [tm.gid("far") for _ in range(11)]
    for gid in gids:
        tm.business.script(gid, "out", ONGOING, Answer(gate=gate))
        tx = msg(tm.http, gid, "out", retry_interval=FAR, request_timeout=30)
        accepted(await tm.http.submit(tx))
    for gid in gids:
        await tm.business.until_called(gid)
        await tm.settled(gid)
    reply = await tm.http.get("resetCronTime", timeout=LATER, limit=10)
    assert (reply.code, reply.body) == (200, {"has_remaining": True, "succeed_count": 10})
    await tm.business.until(lambda: sum(len(tm.business.calls(gid)) for gid in gids) == 21)
    reply = await tm.http.get("resetCronTime", timeout=LATER, limit=10)
    assert reply.body == {"has_remaining": False, "succeed_count": 1}
    reply = await tm.http.get("resetCronTime", timeout=LATER, limit=10)
    assert reply.body == {"has_remaining": False, "succeed_count": 0}
    gate.set()
    for gid in gids:
        await tm.until(gid, "succeed")


async def test_row_48_reset_cron_time_leaves_alone_what_is_due_soon(tm: Coordinator) -> None:
    """Three times the timeout of the server is the default."""
    gid = tm.gid("near")
    tm.business.script(gid, "out", ONGOING)
    accepted(await tm.http.submit(msg(tm.http, gid, "out", retry_interval=60)))
    await tm.business.until_called(gid)
    before = await tm.settled(gid)
    assert (await tm.http.get("resetCronTime")).code == 200
    assert (await tm.tx(gid))["next_cron_time"] == before["next_cron_time"]


async def test_row_48_reset_cron_time_refuses_a_limit_that_is_no_number(tm: Coordinator) -> None:
    reply = await tm.http.get("resetCronTime", limit="ten")
    assert reply.code in (400, 500)
    assert reply.text


async def test_row_49_reset_next_cron_time_makes_a_transaction_due(
    tm: Coordinator, api: Api
) -> None:
    """At once, and the round begins."""
    gid = tm.gid("far")
    gate = asyncio.Event()
    tm.business.script(gid, "out", ONGOING, Answer(gate=gate))
    accepted(await api.submit(msg(api, gid, "out", retry_interval=FAR, request_timeout=30)))
    await tm.business.until_called(gid)
    tx = await tm.settled(gid)
    assert seconds_of(tx["next_cron_time"]) > await tm.now() + LATER
    await tm.retry(gid)
    assert seconds_of((await tm.tx(gid))["next_cron_time"]) <= await tm.now() + 3
    await tm.business.until_called(gid, 2)
    gate.set()
    await tm.until(gid, "succeed")


async def test_row_49_reset_next_cron_time_of_an_unknown_gid_is_an_error(tm: Coordinator) -> None:
    reply = await tm.http.post("resetNextCronTime", {"gid": unique("nobody")})
    assert (reply.word, reply.code) == (BROKEN, 500)


async def test_row_49_reset_next_cron_time_of_a_finished_transaction_changes_nothing(
    tm: Coordinator,
) -> None:
    """Any status is accepted."""
    gid = tm.gid()
    accepted(await tm.http.submit(msg(tm.http, gid, wait_result=True)))
    await tm.retry(gid)
    await asyncio.sleep(0.1)
    assert await tm.status(gid) == "succeed"
    assert len(tm.business.calls(gid)) == 2
