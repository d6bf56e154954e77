"""When a transaction is tried again, and who is told when that does not help.

Ours add up to 10 % to an interval and double it up to RetryMaxInterval (docs/divergence.md).

Source: dtm-labs/dtm dtmsvr/trans_status.go (touchCronTime, getNextCronInterval, execBranch).
"""

import asyncio
import json
from typing import Any

import pytest

from tests.conformance.dtm.business import ERROR, ONGOING, SUCCESS, Heard
from tests.conformance.dtm.clients import Api, Tx
from tests.conformance.dtm.coordinators import Coordinator, accepted, msg, ours, saga, seconds_of

pytestmark = pytest.mark.asyncio(loop_scope="session")

JITTER = 0.1
CEILING = 300


async def due_after(tm: Coordinator, gid: str) -> float:
    """Seconds from now until it is tried again."""
    tx = await tm.tx(gid)
    return seconds_of(tx["next_cron_time"]) - await tm.now()


def near(seconds: float, interval: int) -> bool:
    """Whether that is an interval that began a moment ago."""
    return interval - 3 <= seconds <= interval * (1 + JITTER) + 1


async def test_row_42_intervals_double_with_every_error(tm: Coordinator, api: Api) -> None:
    """20, 40, 80, 160, and then the ceiling."""
    gid = tm.gid()
    tm.business.script(gid, "out", ERROR)
    accepted(await api.submit(msg(api, gid)))
    await tm.business.until_called(gid, 1)
    for calls, interval in enumerate((20, 40, 80, 160, 320, 640), 1):
        if calls > 1:
            await tm.retry_until(gid, calls)
        tx = await tm.settled(gid)
        found = tx["next_cron_interval"]
        capped = min(interval, CEILING)
        assert found in ((capped, interval) if tm.foreign else (capped,))
        assert near(await due_after(tm, gid), found)


async def test_row_42_transaction_is_tried_again_when_its_time_has_come(
    tm: Coordinator, api: Api
) -> None:
    """By cron alone, not before."""
    gid = tm.gid("saga")
    tm.business.script(gid, "out", ERROR, SUCCESS)
    accepted(await api.submit(saga(api, gid)))
    await tm.business.until_called(gid, 1)
    await tm.settled(gid)
    if not tm.foreign:
        await tm.skip(15)
        await asyncio.sleep(0.3)
        assert len(tm.business.calls(gid)) == 1
    await tm.skip(23 if tm.foreign else 8)
    await tm.until(gid, "succeed")


async def test_row_42_ongoing_keeps_the_interval(tm: Coordinator, api: Api) -> None:
    """10 again and again; behind an error it keeps what the error made of it."""
    gid = tm.gid()
    tm.business.script(gid, "out", ONGOING, ONGOING, ERROR, ONGOING, ONGOING)
    accepted(await api.submit(msg(api, gid)))
    await tm.business.until_called(gid, 1)
    for calls, interval in enumerate((10, 10, 20, 20, 20), 1):
        if calls > 1:
            await tm.retry_until(gid, calls)
        assert (await tm.settled(gid))["next_cron_interval"] == interval
        assert near(await due_after(tm, gid), interval)


async def test_row_42_success_of_a_branch_resets_the_interval(tm: Coordinator, api: Api) -> None:
    """The next error begins with 20 again."""
    gid = tm.gid()
    tm.business.script(gid, "out", ERROR, ERROR, ERROR, SUCCESS)
    tm.business.script(gid, "in", ERROR)
    accepted(await api.submit(msg(api, gid)))
    await tm.business.until_called(gid, 1)
    for calls in (2, 3):
        await tm.retry_until(gid, calls)
    assert (await tm.settled(gid))["next_cron_interval"] == 80
    await tm.retry_until(gid, 1, "in")
    assert (await tm.settled(gid))["next_cron_interval"] == 20


async def test_row_43_retry_interval_option_is_the_base(tm: Coordinator, api: Api) -> None:
    """150 for ONGOING, 300 after an error."""
    gid = tm.gid()
    tm.business.script(gid, "out", ONGOING, ERROR)
    accepted(await api.submit(msg(api, gid, retry_interval=150)))
    await tm.business.until_called(gid, 1)
    assert (await tm.settled(gid))["next_cron_interval"] == 150
    assert near(await due_after(tm, gid), 150)
    await tm.retry_until(gid, 2)
    assert (await tm.settled(gid))["next_cron_interval"] == 300


async def test_row_43_short_timeout_is_the_base_where_there_is_no_interval(
    tm: Coordinator, api: Api
) -> None:
    """``timeout_to_fail`` below the server's interval."""
    gid = tm.gid("tcc")
    tm.business.script(gid, "ok", ONGOING)
    options = {"timeout_to_fail": 4}
    accepted(await api.prepare(Tx(gid, "tcc", options=options)))
    accepted(await api.register(gid, "tcc", "01", confirm=api.url("ok"), cancel=""))
    accepted(await api.submit(Tx(gid, "tcc", options=options)))
    await tm.business.until_called(gid, 1)
    assert (await tm.settled(gid))["next_cron_interval"] == 4


def alerts(tm: Coordinator, gid: str) -> list[dict[str, Any]]:
    """What the web hook was told about a transaction."""
    bodies = [json.loads(call.body) for call in tm.business.heard if call.name == "alert"]
    return [body for body in bodies if body["gid"] == gid]


async def test_row_45_alert_is_sent_with_the_third_failure_and_each_later_one(
    tm: Coordinator, api: Api
) -> None:
    """Who, in which status, which branch, why and how often."""
    ours()
    gid = tm.gid("saga")
    tm.business.script(gid, "out", ERROR)
    accepted(await api.submit(saga(api, gid)))
    await tm.business.until_called(gid, 1)
    await tm.retry_until(gid, 2)
    await asyncio.sleep(0.1)
    assert alerts(tm, gid) == []

    await tm.retry_until(gid, 3)
    await tm.business.until(lambda: len(alerts(tm, gid)) == 1)
    (alert,) = alerts(tm, gid)
    assert sorted(alert) == ["branch", "error", "gid", "retry_count", "status"]
    assert (alert["status"], alert["branch"], alert["retry_count"]) == (
        "submitted",
        api.url("out"),
        3,
    )
    assert ERROR.text in alert["error"]

    await tm.retry_until(gid, 4)
    await tm.business.until(lambda: len(alerts(tm, gid)) == 2)
    assert alerts(tm, gid)[1]["retry_count"] == 4
    hook: Heard = next(call for call in tm.business.heard if call.name == "alert")
    assert hook.method == "POST"


async def test_row_45_ongoing_never_alerts(tm: Coordinator) -> None:
    """However long it goes on."""
    ours()
    gid = tm.gid("saga")
    tm.business.script(gid, "out", ONGOING)
    accepted(await tm.http.submit(saga(tm.http, gid)))
    await tm.business.until_called(gid, 1)
    for calls in range(2, 7):
        await tm.retry_until(gid, calls)
    await asyncio.sleep(0.1)
    assert alerts(tm, gid) == []
