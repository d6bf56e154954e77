"""Row 68: dtmcli, the public Python client, unchanged against this coordinator.

It speaks HTTP by requests, so it runs in a thread; its barrier knows MySQL only and is not used.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from dtmcli import msg, saga, tcc, utils

from kit.testing import Coordinator

BODY = {"amount": 30}


@dataclass
class Shop:
    """Branches that remember who was called; those named in ``refusing`` answer 409.

    Attributes:
        heard: name, branch, op and body of each call.
    """

    address: str = ""
    refusing: set[str] = field(default_factory=set)
    heard: list[tuple[str, str, str, object]] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"http://{self.address}/{name}"

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.heard]

    async def answer(self, request: web.Request) -> web.Response:
        name, query = request.match_info["name"], request.query
        body = await request.json() if request.can_read_body else None
        self.heard.append((name, query.get("branch_id", ""), query.get("op", ""), body))
        return web.json_response({}, status=409 if name in self.refusing else 200)


@asynccontextmanager
async def running_shop() -> AsyncIterator[Shop]:
    shop = Shop()
    app = web.Application()
    app.router.add_route("*", "/{name}", shop.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        shop.address = "{}:{}".format(*runner.addresses[0][:2])
        yield shop
    finally:
        await runner.cleanup()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with running_shop() as made:
        yield made


@pytest.fixture
async def dtm() -> AsyncIterator[Coordinator]:
    async with Coordinator() as made:
        yield made


async def ended(dtm: Coordinator, gid: str) -> tuple[str, list[tuple[str, str, str]]]:
    """The status, and branch, op and status of every row, once nothing is due."""
    await dtm.settle()
    tx = await dtm.transaction(gid)
    return str(tx.status), [(b.branch_id, str(b.op), str(b.status)) for b in tx.branches]


def transfer(dtm: Coordinator, shop: Shop, gid: str) -> saga.Saga:
    return (
        saga.Saga(dtm.http_url, gid)
        .add(BODY, shop.url("out"), shop.url("out-undo"))
        .add(BODY, shop.url("in"), shop.url("in-undo"))
    )


async def test_its_gids_are_made_here(dtm: Coordinator) -> None:
    gids = {await asyncio.to_thread(utils.gen_gid, dtm.http_url) for _ in range(5)}
    assert len(gids) == 5
    assert all(gids)


async def test_its_saga_succeeds(dtm: Coordinator, shop: Shop) -> None:
    gid = await asyncio.to_thread(utils.gen_gid, dtm.http_url)
    await asyncio.to_thread(transfer(dtm, shop, gid).submit)
    assert await ended(dtm, gid) == (
        "succeed",
        [
            ("01", "compensate", "prepared"),
            ("01", "action", "succeed"),
            ("02", "compensate", "prepared"),
            ("02", "action", "succeed"),
        ],
    )
    assert shop.heard == [("out", "01", "action", BODY), ("in", "02", "action", BODY)]


async def test_its_saga_is_rolled_back(dtm: Coordinator, shop: Shop) -> None:
    shop.refusing.add("in")
    gid = await asyncio.to_thread(utils.gen_gid, dtm.http_url)
    await asyncio.to_thread(transfer(dtm, shop, gid).submit)
    assert await ended(dtm, gid) == (
        "failed",
        [
            ("01", "compensate", "succeed"),
            ("01", "action", "succeed"),
            ("02", "compensate", "succeed"),
            ("02", "action", "failed"),
        ],
    )
    assert shop.names == ["out", "in", "in-undo", "out-undo"]


async def test_it_hears_of_a_refused_gid_as_its_own_error(dtm: Coordinator, shop: Shop) -> None:
    gid = await asyncio.to_thread(utils.gen_gid, dtm.http_url)
    await asyncio.to_thread(transfer(dtm, shop, gid).submit)
    await dtm.settle()
    with pytest.raises(utils.DTMFailureError):
        await asyncio.to_thread(transfer(dtm, shop, gid).submit)


async def test_its_message_is_delivered(dtm: Coordinator, shop: Shop) -> None:
    gid = await asyncio.to_thread(utils.gen_gid, dtm.http_url)
    sent = msg.Msg(dtm.http_url, gid).add(BODY, shop.url("in"))
    await asyncio.to_thread(sent.prepare, shop.url("query"))
    assert (await ended(dtm, gid))[0] == "prepared"
    await asyncio.to_thread(sent.submit)
    assert await ended(dtm, gid) == ("succeed", [("01", "action", "succeed")])
    assert shop.heard == [("in", "01", "action", BODY)]


@pytest.mark.parametrize(("committed", "status"), [(True, "succeed"), (False, "failed")])
async def test_its_prepared_message_is_decided_by_its_query(
    dtm: Coordinator, shop: Shop, *, committed: bool, status: str
) -> None:
    if not committed:
        shop.refusing.add("query")
    gid = await asyncio.to_thread(utils.gen_gid, dtm.http_url)
    sent = msg.Msg(dtm.http_url, gid).add(BODY, shop.url("in"))
    await asyncio.to_thread(sent.prepare, shop.url("query"))
    await dtm.advance(40)
    assert (await ended(dtm, gid))[0] == status
    assert shop.names == (["query", "in"] if committed else ["query"])


@pytest.mark.parametrize("refused", [False, True])
async def test_its_tcc_confirms_or_cancels(dtm: Coordinator, shop: Shop, *, refused: bool) -> None:
    if refused:
        shop.refusing.add("in-try")

    def branches(t: tcc.Tcc) -> None:
        for name in ("out", "in"):
            urls = (shop.url(f"{name}-{op}") for op in ("try", "confirm", "cancel"))
            t.call_branch(BODY, *urls)

    gid = await asyncio.to_thread(utils.gen_gid, dtm.http_url)
    told = await asyncio.to_thread(tcc.tcc_global_transaction, dtm.http_url, gid, branches)
    assert told == ("" if refused else gid)
    status, rows = await ended(dtm, gid)
    assert status == ("failed" if refused else "succeed")
    done = "cancel" if refused else "confirm"
    assert rows == [
        (branch, op, "succeed" if op == done else "prepared")
        for branch in ("01", "02")
        for op in ("cancel", "confirm")
    ]
    assert shop.names == ["out-try", "in-try", f"in-{done}", f"out-{done}"]
