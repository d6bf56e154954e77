"""Every kind of transaction over all three APIs, against the real coordinator and real branches."""

import asyncio
from pathlib import Path

import aiosqlite
import pytest

from api.trans.v1.trans_pb2 import AdjustInfo
from kit.dtm.barrier import BranchBarrier
from kit.dtm.barrier.table import acreate_table
from kit.dtm.client import (
    DtmClient,
    DtmUnavailable,
    InvalidCall,
    Msg,
    Options,
    PayloadError,
    Refused,
    Saga,
    Tcc,
    UnknownTransaction,
    tcc,
    tcc_from_grpc,
    tcc_from_query,
    xa,
)
from kit.dtm.client.messages import BranchRequest
from kit.dtm.client.payloads import Payload
from kit.dtm.errors import DtmError, Failure, Ongoing
from kit.errors import InternalServer
from kit.registry import ServiceInstance
from kit.registry.memory import MemoryRegistry
from kit.testing import Coordinator
from tests.conformance.client.business import Business, Heard

WAIT = Options(wait_result=True)
NO = Failure("no money")
BROKEN = InternalServer("BROKEN", "something broke")


def payload(client: DtmClient) -> Payload:
    """30 cents of user 1, as the branches of this client take it."""
    return AdjustInfo(Amount=30, UserID=1) if client.protocol == "grpc" else {"amount": 30}


def sent(client: DtmClient) -> bytes:
    """The same as a branch receives it."""
    return b"\x08\x1e\x10\x01" if client.protocol == "grpc" else b'{"amount":30}'


async def test_a_message_calls_its_steps_in_order(client: DtmClient, business: Business) -> None:
    """dtm-protocol.md §6.3; the gid comes from the coordinator."""
    msg = Msg(client, options=Options(wait_result=True, branch_headers={"token": "t"}))
    msg.add(business.url("out"), payload(client)).add(business.url("in"), payload(client))
    await msg.submit()
    assert business.names() == ["out", "in"]
    first = business.heard[0]
    assert first.payload == sent(client)
    assert first.headers["token"] == "t"
    assert first.ids["gid"] == msg.gid
    state = await client.wait(msg.gid)
    assert state.succeeded
    assert [branch.branch_id for branch in state.branches] == ["01", "02"]


async def test_a_delayed_message_waits(
    client: DtmClient, business: Business, dtm: Coordinator
) -> None:
    """The coordinator's clock decides."""
    msg = Msg(client).delay(60).add(business.url("out"), payload(client))
    await msg.submit()
    await dtm.settle()
    assert business.names() == []
    await dtm.advance(61)
    assert business.names() == ["out"]


async def test_do_and_submit_sends_what_committed(client: DtmClient, business: Business) -> None:
    """dtm-protocol.md §13.3."""
    msg = Msg(client, options=WAIT).add(business.url("out"), payload(client))
    seen: list[BranchBarrier] = []

    async def local(barrier: BranchBarrier) -> None:
        seen.append(barrier)
        assert business.names() == []

    await msg.do_and_submit(business.url("query"), local)
    assert seen == [BranchBarrier("msg", msg.gid, "00", "msg")]
    assert business.names() == ["out"]


async def test_do_and_submit_asks_as_the_coordinator_would(
    client: DtmClient, business: Business
) -> None:
    """§7.6: the ids, and the address of the coordinator; GET, or an empty message."""
    msg = Msg(client, "lost-1", WAIT).add(business.url("out"), payload(client))

    async def local(_: BranchBarrier) -> None:
        raise LookupError("connection lost at commit")

    with pytest.raises(LookupError):
        await msg.do_and_submit(business.url("query"), local)
    assert business.names() == ["query", "out"]
    asked = business.heard[0]
    assert asked.how == ("grpc" if client.protocol == "grpc" else "GET")
    assert asked.payload == b""
    assert asked.ids == {
        "gid": "lost-1",
        "trans_type": "msg",
        "branch_id": "00",
        "op": "msg",
        "dtm": client.server,
    }


async def test_do_and_submit_aborts_when_the_local_transaction_says_no(
    client: DtmClient, business: Business
) -> None:
    """Step 3."""
    msg = Msg(client).add(business.url("out"), payload(client))

    async def local(_: BranchBarrier) -> None:
        raise NO

    with pytest.raises(Failure, check=lambda raised: raised is NO):
        await msg.do_and_submit(business.url("query"), local)
    assert (await client.query(msg.gid)).status == "failed"
    assert business.names() == []


async def test_a_topic_without_subscribers_is_refused(client: DtmClient) -> None:
    """Nothing is stored, and the error says so."""
    msg = Msg(client, "topical-1").add_topic("paid", b'{"a":1}')
    with pytest.raises(DtmUnavailable, match="topic"):
        await msg.submit()
    with pytest.raises(UnknownTransaction, match="topical-1"):
        await client.query("topical-1")


async def test_a_saga_that_succeeds_calls_no_compensation(
    client: DtmClient, business: Business
) -> None:
    """§6.4."""
    saga = Saga(client, options=WAIT)
    saga.add(business.url("out"), business.url("out-undo"), payload(client))
    saga.add(business.url("in"), business.url("in-undo"), payload(client))
    await saga.submit()
    assert business.names() == ["out", "in"]
    assert business.heard[1].payload == sent(client)


async def test_a_saga_whose_second_step_says_no_is_compensated_in_reverse(
    client: DtmClient, business: Business
) -> None:
    """§6.4; the waiting caller learns why, and so does whoever asks later."""
    business.script("in", NO)
    saga = Saga(client, options=WAIT)
    saga.add(business.url("out"), business.url("out-undo"), payload(client))
    saga.add(business.url("in"), business.url("in-undo"), payload(client))
    with pytest.raises(Failure, match="no money"):
        await saga.submit()
    assert business.names() == ["out", "in", "in-undo", "out-undo"]
    with pytest.raises(Failure, match="no money"):
        await client.wait(saga.gid)


async def test_a_concurrent_saga_keeps_its_orders(client: DtmClient, business: Business) -> None:
    """Step 0 waits for nobody, and step 1 waits for step 0 although all are called at once."""
    saga = Saga(client, options=WAIT).concurrent()

    async def slow(_: Heard) -> bytes:
        await asyncio.sleep(0.05)
        return b"OK"

    business.on("out", slow)
    saga.add(business.url("out"), "", payload(client))
    saga.add(business.url("in"), "", payload(client)).add_branch_order(1, [0])
    saga.add(business.url("try"), "", payload(client))
    await saga.submit()
    assert business.names()[-1] == "in"
    assert sorted(business.names()) == ["in", "out", "try"]


async def test_tcc_confirms_every_branch_last_first(
    client: DtmClient, business: Business, dtm: Coordinator
) -> None:
    """§6.5 and §7.6: what a try is called with."""
    business.script("try", b'{"held":30}')
    async with tcc(client, options=WAIT) as t:
        reply = await t.call_branch(
            payload(client), business.url("try"), business.url("confirm"), business.url("cancel")
        )
        assert reply.json() == {"held": 30}
        await t.call_branch(payload(client), business.url("out"), business.url("in"))
        assert (await client.query(t.gid)).status == "prepared"
    assert business.names() == ["try", "out", "in", "confirm"]
    tried = business.heard[0]
    assert tried.how == ("grpc" if client.protocol == "grpc" else "POST")
    assert tried.payload == business.heard[-1].payload == sent(client)
    assert tried.ids == {
        "gid": t.gid,
        "trans_type": "tcc",
        "branch_id": "01",
        "op": "try",
        "dtm": client.server,
    }
    assert (await client.wait(t.gid)).succeeded


async def test_tcc_cancels_every_branch_when_a_try_says_no(
    client: DtmClient, business: Business
) -> None:
    """The error leaves the block, and the coordinator keeps its text."""
    business.script("out", NO)
    t: Tcc | None = None
    undo = business.url("cancel")
    with pytest.raises(Failure, match="no money"):  # noqa: PT012
        async with tcc(client, options=WAIT) as t:
            await t.call_branch(payload(client), business.url("try"), "", undo)
            await t.call_branch(payload(client), business.url("out"), "", undo)
    assert t is not None
    assert business.names() == ["try", "out", "cancel", "cancel"]
    state = await client.query(t.gid)
    assert (state.status, "no money" in state.rollback_reason) == ("failed", True)


async def test_a_cancelled_tcc_is_aborted(client: DtmClient, business: Business) -> None:
    """Cancellation leaves the block like any other error, after the abort."""
    inside = asyncio.Event()
    gids: list[str] = []

    async def work() -> None:
        async with tcc(client, options=WAIT) as t:
            gids.append(t.gid)
            await t.call_branch(payload(client), business.url("try"), "", business.url("cancel"))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert business.names() == ["try", "cancel"]
    assert (await client.query(gids[0])).status == "failed"


async def test_a_try_can_nest_branches_of_its_own(client: DtmClient, business: Business) -> None:
    """§6.2: ids of children stand behind the id of their parent."""

    async def nest(call: Heard) -> bytes:
        if client.protocol == "grpc":
            t = tcc_from_grpc(client, [(f"dtm-{key}", value) for key, value in call.ids.items()])
        else:
            t = tcc_from_query(client, call.ids)
        await t.call_branch(payload(client), business.url("try"), business.url("confirm"))
        return b"nested"

    business.on("nest", nest)
    async with tcc(client, options=WAIT) as t:
        await t.call_branch(payload(client), business.url("nest"), business.url("confirm"))
    assert [call.ids["branch_id"] for call in business.heard] == ["01", "0101", "0101", "01"]


async def test_tcc_says_ongoing_and_unknown_apart(client: DtmClient, business: Business) -> None:
    """§1.3: only FAILURE is definite."""
    business.script("try", Ongoing("please wait"), BROKEN)
    with pytest.raises(Ongoing):
        async with tcc(client) as t:
            await t.call_branch(payload(client), business.url("try"))
    with pytest.raises(DtmUnavailable, match="something broke"):
        async with tcc(client) as t:
            await t.call_branch(payload(client), business.url("try"))


async def test_the_words_of_old_services_are_understood(
    client: DtmClient, business: Business
) -> None:
    """§1.3: services of dtm below 1.10 answer 200 over HTTP and say it in the body."""
    if client.protocol == "grpc":
        business.scheme = "http"
    business.script("try", b'{"dtm_result":"FAILURE"}', b'{"dtm_result":"ONGOING"}')
    with pytest.raises(Failure):
        async with tcc(client) as t:
            await t.call_branch({"amount": 30}, business.url("try"))
    with pytest.raises(Ongoing):
        async with tcc(client) as t:
            await t.call_branch({"amount": 30}, business.url("try"))


async def test_xa_calls_its_branches_with_the_url_of_phase_2(
    client: DtmClient, business: Business
) -> None:
    """§7.6 and §13.5; the branch registers itself, as §12 says."""

    async def work(call: Heard) -> bytes:
        if call.ids["op"] == "action":
            ids, url = call.ids, call.ids["phase2_url"]
            request = BranchRequest(ids["gid"], "xa", ids["branch_id"], b"", {"url": url})
            await client.register_branch(request)
        return b"done"

    business.on("xa", work)
    async with xa(client, options=WAIT) as x:
        reply = await x.call_branch(payload(client), business.url("xa"))
        assert reply.data == b"done"
        await x.call_branch(payload(client), business.url("xa"))
    heard = [(call.ids["branch_id"], call.ids["op"]) for call in business.heard]
    assert heard == [("01", "action"), ("02", "action"), ("01", "commit"), ("02", "commit")]
    assert business.heard[0].ids["phase2_url"] == business.url("xa")
    assert (await client.wait(x.gid)).succeeded


async def test_an_xa_that_fails_rolls_back(client: DtmClient, business: Business) -> None:
    """The error leaves the block; no branch registered, so nothing is called."""
    business.script("xa", NO)
    with pytest.raises(Failure, match="no money"):
        async with xa(client, options=WAIT) as x:
            await x.call_branch(payload(client), business.url("xa"))
    assert (await client.query(x.gid)).status == "failed"


async def test_watch_shows_every_change_until_the_end(
    client: DtmClient, business: Business, dtm: Coordinator
) -> None:
    """A branch that is not done yet, and then is."""
    business.script("out", Ongoing())
    msg = Msg(client).add(business.url("out"), payload(client))
    await msg.submit()
    await dtm.settle()
    seen: list[str] = []
    async for state in client.watch(msg.gid):
        seen.append(state.status)
        if not state.terminal:
            await dtm.advance(30)
    assert seen == ["submitted", "succeed"]


async def test_a_gid_that_is_used_twice_is_refused(client: DtmClient, business: Business) -> None:
    """§5.2: the second transaction is not begun."""
    await Msg(client, "order-7", WAIT).add(business.url("out"), payload(client)).submit()
    with pytest.raises(Failure, match="current status 'succeed'"):
        async with tcc(client, "order-7"):
            pytest.fail("the block ran")


async def test_a_request_that_can_never_work_is_refused(
    client: DtmClient, business: Business
) -> None:
    """Headers that no call can carry: the coordinator names the field."""
    msg = Msg(client, "bad-1", Options(branch_headers={"token": "ünsent"}))
    with pytest.raises(DtmError, match="BranchHeaders") as raised:
        await msg.add(business.url("out"), payload(client)).submit()
    assert isinstance(raised.value, Refused) or client.protocol == "json-rpc"


async def test_a_payload_of_the_wrong_kind_names_its_step(
    client: DtmClient, business: Business
) -> None:
    """Bytes that are no text over HTTP, a dict for a gRPC branch, and what is no JSON."""
    wrong: Payload = {"amount": 30} if client.protocol == "grpc" else b"\xff\xfe"
    with pytest.raises(PayloadError, match="/out"):
        Msg(client, "g").add(business.url("out"), wrong)
    with pytest.raises(PayloadError, match="/out"):
        Saga(client, "g").add(business.url("out"), payload={"a": object()})


async def test_a_step_without_url_is_refused(client: DtmClient) -> None:
    """Missing fields are named."""
    with pytest.raises(InvalidCall, match="action of step 1: it is empty"):
        Msg(client, "g").add("")
    with pytest.raises(InvalidCall, match="try_url: it is empty"):
        async with tcc(client) as t:
            await t.call_branch(b"{}", "")


async def test_a_coordinator_and_its_branches_are_found_in_the_registry(
    dtm: Coordinator, business: Business
) -> None:
    """``discovery:///dtmservice``, as the transfer service's client names it."""
    registry = MemoryRegistry()
    endpoint = f"grpc://{dtm.grpc_address}"
    await registry.register(ServiceInstance("1", "dtmservice", endpoints=(endpoint,)))
    endpoint = f"grpc://{business.grpc_address}"
    await registry.register(ServiceInstance("2", "busi", endpoints=(endpoint,)))
    async with DtmClient("discovery:///dtmservice", discovery=registry) as client:
        async with tcc(client) as t:
            reply = await t.call_branch(b"\x08\x1e", "discovery:///busi/busi.Busi/try")
        assert reply.data == b"OK"
    assert business.names() == ["try"]


async def test_do_and_submit_db_commits_with_the_barrier(
    client: DtmClient, business: Business, tmp_path: Path
) -> None:
    """§13.3, DoAndSubmitDB, by a driver that is awaited: both rows, or neither."""
    async with aiosqlite.connect(tmp_path / "bank.db", isolation_level=None) as bank:
        await acreate_table(bank)
        await bank.execute("CREATE TABLE account (cents INTEGER)")

        async def deposit() -> None:
            await bank.execute("INSERT INTO account VALUES (30)")

        async def change_of_mind() -> None:
            await deposit()
            raise NO

        msg = Msg(client, "kept", WAIT).add(business.url("out"), payload(client))
        await msg.do_and_submit_db(business.url("query"), bank, deposit)
        dropped = Msg(client, "dropped").add(business.url("in"), payload(client))
        with pytest.raises(Failure, check=lambda raised: raised is NO):
            await dropped.do_and_submit_db(business.url("query"), bank, change_of_mind)
        async with bank.execute("SELECT cents, gid FROM account, dtm_barrier") as rows:
            assert [tuple(row) async for row in rows] == [(30, "kept")]
    assert business.names() == ["out"]
