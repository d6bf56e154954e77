"""Two coordinators on one database: one freezes, both get everything at once (G2, G3, G6, G12)."""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace

import grpc
import pytest

from kit.ports import free_port
from tests.conformance.dtm.business import FAILURE, SUCCESS, Answer
from tests.conformance.dtm.clients import GrpcApi, Reply, Tx
from tests.conformance.dtm.coordinators import Coordinators
from tests.faults.stand import Life, Stand, stand
from tests.faults.workload import STEPS, Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

THIS = "tests/faults/test_two_coordinators.py"
SHARED = ("postgres", "mysql", "redis")

LEASE_S = 10.0
"""The coordinator's own; it is on the clock of the database, which nobody can move."""

TAKEN_OVER_WITHIN_S = LEASE_S + 30.0
SUBMITS = 1_000
CHANNELS = 4
ENDS_WITHIN_S = 60.0


async def another(place: Stand, **settings: object) -> Life:
    """One more coordinator on the same database, beside those that run."""
    return await place.begin("", "-d", HttpPort=free_port(), GrpcPort=free_port(), **settings)


async def until_status(life: Life, gid: str, status: str, within: float = ENDS_WITHIN_S) -> None:
    """Wait for it."""
    end = time.monotonic() + within
    while (found := await life.tm.status(gid)) != status:
        assert time.monotonic() < end, f"{gid} is {found}: {life.process.output}"
        await asyncio.sleep(0.05)


async def test_a_frozen_coordinator_writes_nothing_once_another_has_taken_over(
    deployed: Coordinators,
) -> None:
    """On every shared store at once, because each needs to wait for a lease to lapse."""
    print(f"repeat with: .venv/bin/pytest {THIS} -k frozen")
    async with asyncio.TaskGroup() as stores:
        for store in SHARED:
            stores.create_task(freeze(deployed, store))


async def freeze(deployed: Coordinators, store: str) -> None:
    """A is stopped while it waits for branches; B hears other answers from them than A will."""
    async with stand(deployed, store, RequestTimeout=120) as place:
        business, release = place.business, asyncio.Event()
        held = Answer(gate=release)
        first = await another(place)
        asking = [
            asyncio.create_task(first.client.api.submit(tx)) for tx in held_up(place, held, SUCCESS)
        ]
        for gid in ("saga", "undone", "msg"):
            await business.until_called(gid, 2)
            await first.tm.until_row(gid, "01 action", "succeed")  # it may be written a bit later
        await first.client.run("tcc", "tcc")
        os.kill(first.process.pid, signal.SIGSTOP)
        try:
            second = await another(place)
            alone = Tx("alone", "msg", [{"action": business.grpc("slow")}])
            business.script("alone", "slow", held, SUCCESS)
            await second.client.api.submit(alone)
            await business.until_called("alone")
            for gid, status in (("saga", "succeed"), ("undone", "failed"), ("msg", "succeed")):
                await until_status(second, gid, status, TAKEN_OVER_WITHIN_S)
            before = {gid: await second.tm.query(gid) for gid in ("saga", "undone", "msg")}
            called = {gid: business.story(gid) for gid in before}
        finally:
            release.set()
            os.kill(first.process.pid, signal.SIGCONT)
        replies = await asyncio.gather(*asking)
        await until_status(second, "alone", "succeed")
        await asyncio.sleep(1.0)  # long enough for whatever the thawed one might still do
        for gid, found in before.items():
            assert await second.tm.query(gid) == found, f"{store}: {gid} was changed by who slept"
            assert business.story(gid) == called[gid], f"{store}: {gid} was called by who slept"
        assert called["saga"] == ["01 action", "02 action", "02 action", "03 action"]
        assert called["undone"] == [
            "01 action", "02 action", "02 action", "02 compensate", "01 compensate",
        ]  # fmt: skip
        assert business.story("alone") == ["01 action"], "a lease that was renewed was lost"
        truthful(dict(zip(("saga", "undone", "msg"), replies, strict=True)))
        for life in (first, second):
            assert "Traceback" not in life.process.output, life.process.output
            assert await life.process.stop() == 0


def held_up(place: Stand, held: Answer, later: Answer) -> list[Tx]:
    """Transactions whose second step answers late the first time, and otherwise the second."""
    url = place.business.grpc
    place.business.script("saga", "b", held, later)
    place.business.script("undone", "b", held, FAILURE)
    place.business.script("msg", "b", held, later)
    options = {"wait_result": True}
    sagas = [
        Tx(
            gid,
            "saga",
            [{"action": url(name), "compensate": url("undo")} for name in ("a", "b", "c")],
            options=options,
        )
        for gid in ("saga", "undone")
    ]
    message = Tx("msg", "msg", [{"action": url("a")}, {"action": url("b")}], options=options)
    return [*sagas, message]


def truthful(replies: dict[str, Reply]) -> None:
    """Who waited at the frozen one hears the truth, or that it is not known."""
    for gid, reply in replies.items():
        truth = "FAILURE" if gid == "undone" else "SUCCESS"
        assert reply.word in (truth, "ERROR"), f"{gid}: {reply}"


@pytest.mark.parametrize("store", ["sqlite", *SHARED])
async def test_a_thousand_submits_of_one_gid_are_one_transaction(
    deployed: Coordinators, store: str
) -> None:
    """Over several connections, and through two coordinators where they share a store."""
    print(f"repeat with: .venv/bin/pytest {THIS} -k 'thousand and {store}'")
    async with stand(deployed, store, RequestTimeout=30) as place:
        lives = [await another(place)]
        if store != "sqlite":
            lives.append(await another(place))
        apis = [
            GrpcApi(await place.channel(life.tm.settings["GrpcPort"]), place.business)
            for life in lives
            for _ in range(CHANNELS)
        ]
        url = place.business.grpc
        steps = [{"action": url(name), "compensate": url("undo")} for name in ("a", "b")]
        tx = Tx("one", "saga", steps)
        release = asyncio.Event()  # a Submit for what has ended is refused, as in dtm
        place.business.script("one", "a", Answer(gate=release), SUCCESS)
        replies = await asyncio.gather(*(apis[n % len(apis)].submit(tx) for n in range(SUBMITS)))
        assert [reply for reply in replies if reply.word != "SUCCESS"] == []
        release.set()
        await until_status(lives[0], "one", "succeed")
        assert place.business.story("one") == ["01 action", "02 action"]
        rows = await lives[-1].tm.keys("one")
        assert rows == [f"{step} {op}" for step in STEPS for op in ("compensate", "action")]

        await others_conflict(place, lives)
        for life in lives:
            assert "Traceback" not in life.process.output, life.process.output
            assert await life.process.stop() == 0


async def others_conflict(place: Stand, lives: Sequence[Life]) -> None:
    """The same gid with other steps is a definite no while it runs, wherever it is sent."""
    release = asyncio.Event()
    place.business.script("two", "a", Answer(gate=release))
    url = place.business.grpc
    tx = Tx("two", "msg", [{"action": url("a")}, {"action": url("b")}])
    other = Tx("two", "msg", [{"action": url("a")}, {"action": url("elsewhere")}])
    assert (await lives[0].client.api.submit(tx)).word == "SUCCESS"
    await place.business.until_called("two")
    for life in lives:
        over_grpc = await life.client.api.submit(other)
        assert over_grpc.code == grpc.StatusCode.ABORTED.value[0], over_grpc
        over_http = await life.tm.http.submit(replace(other, options={"protocol": "grpc"}))
        assert over_http.code == 409, over_http
    release.set()
    await until_status(lives[0], "two", "succeed")
    assert place.business.calls("two", "elsewhere") == []


@pytest.mark.parametrize("store", SHARED)
async def test_a_workflow_goes_on_at_one_coordinator_while_another_calls_it_back(
    deployed: Coordinators, store: str
) -> None:
    """Its steps and its end are taken down wherever they are told; nobody waits for the lease."""
    print(f"repeat with: .venv/bin/pytest {THIS} -k 'workflow and {store}'")
    async with stand(deployed, store, RequestTimeout=30) as place:
        business, release = place.business, asyncio.Event()
        business.script("flow", "Execute", Answer(gate=release), SUCCESS)
        first = await another(place)
        await first.client.run("flow", "workflow", leave=True)
        business.resume = None
        await business.until_called("flow", 1, "Execute")

        second = await another(place)
        business.resume = None
        began = time.monotonic()
        flow = Client(second.client.api, business)
        assert await flow.run("flow", "workflow")
        assert time.monotonic() - began < 10, "it waited for the other's round"
        told = place.history.told["flow"]
        assert (told.acknowledged, told.refused) == (True, "")
        for life in (first, second):
            assert await life.tm.status("flow") == "succeed"
            assert await life.tm.keys("flow") == ["01 action", "02 action"]
        again = await second.client.api.register(
            "flow", "workflow", "03", b"late", op="action", status="succeed"
        )
        assert again.word == "FAILURE", again
        release.set()
        await asyncio.sleep(2.5)  # two more intervals: nobody is called back about what is over
        assert len(business.calls("flow", "Execute")) == 1
        await place.judge(second)
        for life in (first, second):
            assert await life.process.stop() == 0
