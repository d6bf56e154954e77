"""XA branches on PostgreSQL and MariaDB: nothing stays prepared, whoever dies and when."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import psycopg
import pymysql
import pytest
import pytest_asyncio

from kit.dtm.barrier import BarrierError, CommitsApart, Outcome, xa
from kit.dtm.barrier.links import SqlLink, link_of
from kit.dtm.barrier.xa import (
    Decision,
    Prepared,
    Recovery,
    afinish,
    aprepare,
    finish,
    prepare,
)
from kit.dtm.errors import Failure, Ongoing
from kit.testing.mariadb import MariadbServer
from kit.testing.postgres import PostgresSettings
from tests.conformance.barrier import banks
from tests.conformance.barrier.rms import (
    Mariadb,
    Postgres,
    Rm,
    branch,
    first_phase,
    registered,
    second_phase,
)


class Unlucky(Exception):
    """Raised by a business."""


@pytest.fixture(params=["postgres", "mariadb"])
def rm(request: pytest.FixtureRequest) -> Rm:
    found = request.getfixturevalue(request.param)
    return Postgres(found) if request.param == "postgres" else Mariadb(found)


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_left(rm: Rm) -> AsyncIterator[None]:
    yield
    assert await rm.prepared() == []


async def test_a_branch_is_prepared_and_committed(rm: Rm) -> None:
    assert await first_phase(rm, "xa-commit") is Outcome.DONE
    assert await rm.prepared() == ["xa-commit-01"]
    assert await rm.amounts("xa-commit") == []
    for _ in range(2):  # a repeat is a success
        await second_phase(rm, "xa-commit", "commit")
    assert await rm.amounts("xa-commit") == [1]
    assert await first_phase(rm, "xa-commit") is Outcome.REPEATED
    assert await rm.amounts("xa-commit") == [1]


async def test_a_branch_is_prepared_and_rolled_back(rm: Rm) -> None:
    await first_phase(rm, "xa-rollback")
    for _ in range(2):
        await second_phase(rm, "xa-rollback", "rollback")
    assert await rm.amounts("xa-rollback") == []


async def test_a_branch_that_comes_after_its_rollback_is_refused(rm: Rm) -> None:
    await second_phase(rm, "xa-late", "rollback")
    with pytest.raises(Failure, match="before it came"):
        await first_phase(rm, "xa-late")
    assert await rm.amounts("xa-late") == []


async def test_a_business_or_a_coordinator_that_refuses_leaves_nothing(rm: Rm) -> None:
    async def refuse() -> None:
        raise Unlucky

    with pytest.raises(Unlucky):
        await first_phase(rm, "xa-refused", register=refuse)
    async with rm.connect() as connection:
        with pytest.raises(Unlucky):
            await aprepare(branch("xa-refused"), connection, refuse, register=registered)
        # The connection goes on.
        await aprepare(
            branch("xa-refused"),
            connection,
            lambda: rm.add(connection, "xa-refused"),
            register=registered,
        )
    await second_phase(rm, "xa-refused", "commit")
    assert await rm.amounts("xa-refused") == [1]


async def test_a_rollback_waits_for_a_branch_on_its_way(rm: Rm) -> None:
    """It says ONGOING until the branch has prepared or died; then nothing of it is left."""
    going, go_on = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        going.set()
        await go_on.wait()

    phase = asyncio.create_task(first_phase(rm, "xa-slow", register=hang))
    await going.wait()
    async with rm.connect() as connection:
        with pytest.raises(Ongoing):
            await afinish(branch("xa-slow", "rollback"), connection)
    go_on.set()
    assert await phase is Outcome.DONE
    await second_phase(rm, "xa-slow", "rollback")
    assert await rm.amounts("xa-slow") == []


async def test_phase_2_waits_until_the_server_has_let_go_of_the_connection_of_phase_1(
    mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL lets go by itself. One that stays open is told as ONGOING."""
    rm, gid = Mariadb(mariadb), f"xa-open-{uuid4().hex}"
    async with rm.connect() as other:
        async with rm.connect() as connection:
            await aprepare(
                branch(gid), connection, lambda: rm.add(connection, gid), register=registered
            )
            with pytest.raises(Ongoing, match="the connection of phase 1 is still open"):
                await afinish(branch(gid, "commit"), other)
            monkeypatch.setattr(xa, "_PAUSES_S", (0.05,) * 600)  # this machine may be busy
            finishing = asyncio.create_task(afinish(branch(gid, "commit"), other))
            await asyncio.sleep(0.2)
            assert not finishing.done()
        async with asyncio.timeout(60):
            await finishing
    assert await rm.amounts(gid) == [1]


@pytest.mark.parametrize("moment", ["business", "register"])
async def test_a_process_that_dies_before_prepare_leaves_nothing(rm: Rm, moment: str) -> None:
    gid = f"xa-dies-{moment}"
    async with rm.connect() as connection:

        async def business() -> None:
            await rm.add(connection, gid)
            if moment == "business":
                rm.cut(connection)

        async def register() -> None:
            rm.cut(connection)

        with pytest.raises(Exception):  # noqa: B017 - each driver has its own
            await aprepare(branch(gid), connection, business, register=register)
    await second_phase(rm, gid, "rollback")
    assert await rm.amounts(gid) == []


async def run_until(flow: Any, steps: int) -> bool:
    """Let a phase take ``steps`` steps and then stand still for ever; whether it ended before."""
    try:
        call = next(flow)
        for _ in range(steps):
            try:
                result = await call()
            except Exception as exc:
                call = flow.throw(exc)
            else:
                call = flow.send(result)
    except StopIteration:
        return True
    while True:
        try:
            flow.close()
        except RuntimeError:
            continue  # it would like to clean up, as the dead do not
        return False


@pytest.mark.parametrize("decision", ["commit", "rollback"])
async def test_no_crash_between_two_steps_leaves_a_prepared_transaction(
    rm: Rm, decision: str
) -> None:
    """Phase 1 dies after each of its steps in turn, then phase 2 after each of its own.

    A phase 1 that has not answered is rolled back.
    """
    for first in range(100):
        gid = f"xa-crash-{decision}-{first}"
        async with rm.connect() as connection:
            link = link_of(connection)
            assert isinstance(link, SqlLink)

            def business(gid: str = gid, connection: Any = connection) -> Any:
                return rm.add(connection, gid)

            answered = await run_until(xa._prepare(branch(gid), link, business, registered), first)
            rm.cut(connection)
        op = decision if answered else "rollback"
        for second in range(100):
            async with rm.connect() as connection:
                link = link_of(connection)
                assert isinstance(link, SqlLink)
                try:
                    ended = await run_until(xa._finish(branch(gid, op), link), second)
                except Ongoing:
                    ended = False
                rm.cut(connection)
            if ended:
                break
        await second_phase(rm, gid, op)
        assert await rm.prepared() == []
        assert await rm.amounts(gid) == ([1] if op == "commit" else [])
        if answered:
            return
    raise AssertionError("phase 1 does not end")


async def test_recovery_asks_about_old_ones_and_ends_them(rm: Rm) -> None:
    await first_phase(rm, "xa-old-yes")
    await first_phase(rm, "xa-old-no")
    now = 0.0
    recovery = Recovery(older_than=1_000.0, now=lambda: now)
    asked: list[str] = []

    async def decide(one: Prepared) -> Decision:
        asked.append(one.gid)
        return Decision.COMMIT if one.gid == "xa-old-yes" else Decision.ROLLBACK

    async def wait(one: Prepared) -> Decision:
        assert one.age >= 1_000.0
        return Decision.WAIT

    async with rm.connect() as connection:
        assert await recovery.aresolve(connection, decide) == []
        now = 1_001.0
        assert await recovery.aresolve(connection, wait) == []
        ended = await recovery.aresolve(connection, decide)
    assert sorted(one.gid for one in ended) == sorted(asked) == ["xa-old-no", "xa-old-yes"]
    assert await rm.amounts("xa-old-yes") == [1]
    assert await rm.amounts("xa-old-no") == []


async def test_ids_that_cannot_be_a_name_are_refused(rm: Rm) -> None:
    async with rm.connect() as connection:
        for gid, why in (
            ("a'; DROP", "letters, digits"),
            ("a\\", "letters"),
            ("x" * 250, "shorter"),
        ):
            for op in ("commit", "rollback"):
                with pytest.raises(BarrierError, match=why):
                    await afinish(branch(gid, op), connection)
        with pytest.raises(BarrierError, match="phase 2"):
            await afinish(branch("g"), connection)
        with pytest.raises(BarrierError, match="phase 1"):
            await aprepare(branch("g", "commit"), connection, registered, register=registered)
        with pytest.raises(TypeError, match="awaited"):
            finish(branch("g", "commit"), connection)


@pytest.mark.parametrize("autocommit", [True, False])
def test_called_drivers_prepare_as_well(
    postgres: PostgresSettings, mariadb: MariadbServer, autocommit: bool, rm: Rm
) -> None:
    options = banks.mysql_options(mariadb, database="business", autocommit=autocommit)
    for connect in (
        lambda: psycopg.connect(banks.psycopg_dsn(postgres), autocommit=autocommit),
        lambda: pymysql.connect(**options),
    ):
        gid = f"xa-called-{autocommit}"
        with closing(connect()) as connection:
            work = lambda c=connection, g=gid: banks.percent(c, banks.INSERT, g, 1)  # noqa: E731
            prepare(branch(gid), connection, work, register=lambda: None)
        with closing(connect()) as connection:
            for _ in range(500):
                try:
                    finish(branch(gid, "commit"), connection)
                    break
                except Ongoing:
                    time.sleep(0.02)
            else:
                raise AssertionError("phase 2 does not end")
            finish(branch(gid, "rollback"), connection)  # too late, and changes nothing
            assert banks.percent(connection, banks.SELECT, gid) == [1]


def test_an_open_transaction_is_refused(postgres: PostgresSettings, rm: Rm) -> None:
    with closing(psycopg.connect(banks.psycopg_dsn(postgres))) as connection:
        connection.execute("SELECT 1")
        with pytest.raises(CommitsApart, match="its own"):
            prepare(branch("xa-open"), connection, lambda: None, register=lambda: None)
