"""Alerts on their way to a web hook."""

import asyncio

import pytest
from aiohttp import web

from kit.dtm.core.commands import Alert
from kit.dtm.server.alerts import AlertSender
from kit.dtm.wire import Status


async def test_alerts_are_posted_in_order_and_never_waited_for() -> None:
    """dtmsvr/trans_status.go: the five keys of the body; no redirect is followed."""
    got: list[object] = []
    arrived = asyncio.Event()

    async def hook(request: web.Request) -> web.Response:
        got.append((request.method, request.path, await request.json()))
        if len(got) == 2:
            arrived.set()
        return web.Response(status=302, headers={"Location": "/other"})

    app = web.Application()
    app.router.add_route("*", "/{x:.*}", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with AlertSender(f"http://127.0.0.1:{runner.addresses[0][1]}/hook") as sender:
        for n in (3, 4):
            sender.send("g1", Status.SUBMITTED, Alert("http://h/x", "boom", n))
        await asyncio.wait_for(arrived.wait(), 5)
    await runner.cleanup()
    assert got == [
        (
            "POST",
            "/hook",
            {
                "gid": "g1",
                "status": "submitted",
                "branch": "http://h/x",
                "error": "boom",
                "retry_count": n,
            },
        )
        for n in (3, 4)
    ]


async def test_a_hook_that_is_away_is_logged_and_the_queue_is_bounded(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with AlertSender("http://127.0.0.1:1/hook", max_queued=2) as sender:
        for _ in range(5):
            sender.send("g1", Status.SUBMITTED, Alert("u", "boom", 3))
        said = ""
        async with asyncio.timeout(5):
            while "were dropped" not in said or said.count("no connection") < 2:
                await asyncio.sleep(0.01)
                said += "".join(capfd.readouterr())
    assert "alerting webhook error: 2 alerts wait already" in said
    assert "alerting webhook error: 3 alerts were dropped" in said
    assert said.count("alerting webhook error: POST http://127.0.0.1:1/hook: no connection") == 2


def test_a_hook_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="AlertWebHook: bad url"):
        AlertSender("hook.example/x")
