"""Workflows, the coordinator's side: it keeps progress and results, and calls back.

Source: dtm-labs/dtm dtmsvr/trans_type_workflow.go, dtmsvr/api.go (svcPrepareWorkflow), and
client/workflow/imp.go for what a client asks.
"""

import asyncio
import base64
import json
from dataclasses import dataclass

import pytest

from kit.dtm.pb import dtm_pb2
from tests.conformance.dtm.business import ERROR, SUCCESS, Answer
from tests.conformance.dtm.clients import ERROR as BROKEN
from tests.conformance.dtm.clients import Api, GrpcApi, HttpApi, Reply, Tx, text64
from tests.conformance.dtm.coordinators import Coordinator, Coordinators, accepted, ours

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAME = "transfer"
DATA = b'{"amount":30}'


@dataclass
class Flow:
    """A workflow as its client drives it, over HTTP or gRPC."""

    tm: Coordinator
    over: str
    gid: str
    data: bytes = DATA

    @property
    def api(self) -> HttpApi | GrpcApi:
        return self.tm.grpc if self.over == "grpc" else self.tm.http

    @property
    def callback(self) -> str:
        """Where it is resumed."""
        if self.over == "grpc":
            return f"{self.tm.business.grpc_address}/workflow.Workflow/Execute"
        return self.tm.business.http("Execute")

    async def prepare(
        self, **options: object
    ) -> tuple[dict[str, str], list[tuple[str, str, str, bytes]]]:
        """The transaction, and its progress: branch, op, status and data."""
        custom = {"name": NAME, "data": text64(self.data) if self.data else None}
        tx = Tx(
            self.gid,
            "workflow",
            query_prepared=self.callback,
            custom_data=json.dumps(custom),
            options={"wait_result": True, **options},
        )
        reply = await self.api.prepare_workflow(tx)
        accepted(reply)
        if isinstance(self.api, GrpcApi):
            found = reply.body.Transaction
            told = {
                "gid": found.Gid,
                "status": found.Status,
                "rollback_reason": found.RollbackReason,
                "result": found.Result,
            }
            rows = [(p.BranchID, p.Op, p.Status, p.BinData) for p in reply.body.Progresses]
            return told, rows
        rows = [
            (p["branch_id"], p["op"], p["status"], base64.b64decode(p.get("bin_data", "")))
            for p in reply.body["progresses"]
        ]
        return reply.body["transaction"], rows

    async def did(
        self, branch_id: str, op: str = "action", status: str = "succeed", data: bytes = b"done"
    ) -> Reply:
        """Record a step."""
        return await self.api.register(self.gid, "workflow", branch_id, data, op=op, status=status)

    async def end(self, status: str, *, reason: str = "", result: bytes = b"") -> Reply:
        """Record the end; over HTTP with nothing else, as the Go client does it."""
        extra = {"status": status, "rollback_reason": reason, "result": text64(result)}
        return await self.api.submit(Tx(self.gid, "workflow", req_extra=extra))


@pytest.fixture(params=["http", "grpc"])
def flow(request: pytest.FixtureRequest, tm: Coordinator) -> Flow:
    """A workflow that nobody has begun."""
    return Flow(tm, request.param, tm.gid("workflow"))


async def test_row_29_workflow_success_keeps_its_result(flow: Flow) -> None:
    """A second execution is told that it is over, and with what."""
    told, rows = await flow.prepare()
    assert (told["gid"], told["status"], rows) == (flow.gid, "prepared", [])
    accepted(await flow.did("01", data=b"out"))
    accepted(await flow.did("02", data=b"\x00in" if flow.over == "grpc" else b"in"))
    accepted(await flow.end("succeed", result=b"all fine"))

    told, rows = await flow.prepare()
    assert told["status"] == "succeed"
    if flow.over == "http" or not flow.tm.foreign:
        assert told["result"] == text64(b"all fine")
    assert [row[:3] for row in rows] == [("01", "action", "succeed"), ("02", "action", "succeed")]
    stored = await flow.tm.tx(flow.gid)
    assert stored["result"] == text64(b"all fine")
    assert stored["finish_time"]
    assert flow.tm.business.calls(flow.gid) == []


async def test_row_29_workflow_that_ended_stays_as_it_ended(flow: Flow) -> None:
    """Another end is refused, and another step."""
    await flow.prepare()
    accepted(await flow.end("succeed", result=b"first"))
    again = await flow.end("failed", reason="second thoughts")
    assert (again.word, again.text) == (BROKEN, "storage: NotFound")
    late = await flow.did("01")
    assert "no trans with gid" in late.text
    told, _ = await flow.prepare()
    assert told["status"] == "succeed"


async def test_row_29_submit_of_an_unknown_workflow_is_an_error(flow: Flow) -> None:
    """Nothing is inserted."""
    reply = await flow.end("succeed")
    assert (reply.word, reply.text) == (BROKEN, "storage: NotFound")
    assert (await flow.tm.query(flow.gid))["transaction"] is None


async def test_row_30_workflow_rollback_keeps_reason_and_order(flow: Flow) -> None:
    """The client undoes in reverse; every step is recorded in the order it happened."""
    await flow.prepare()
    accepted(await flow.did("01"))
    accepted(await flow.did("02"))
    accepted(await flow.did("03", status="failed", data=b"no money"))
    accepted(await flow.did("02", "rollback", data=b""))
    accepted(await flow.did("01", "rollback", data=b""))
    accepted(await flow.end("failed", reason="no money FAILURE"))

    told, rows = await flow.prepare()
    assert (told["status"], told["rollback_reason"]) == ("failed", "no money FAILURE")
    assert rows == [
        ("01", "action", "succeed", b"done"),
        ("02", "action", "succeed", b"done"),
        ("03", "action", "failed", b"no money"),
        ("02", "rollback", "succeed", b""),
        ("01", "rollback", "succeed", b""),
    ]
    assert (await flow.tm.tx(flow.gid))["rollback_time"]


async def test_row_31_workflow_resumes_with_the_steps_it_has_recorded(flow: Flow) -> None:
    """Its client died after two steps: it is called back, and told what it need not do again."""
    tm = flow.tm
    tm.business.script(flow.gid, "Execute", ERROR, SUCCESS)
    await flow.prepare()
    accepted(await flow.did("01", data=b"first"))
    accepted(await flow.did("02", data=b"second"))
    await tm.retry_until(flow.gid, 1, "Execute")
    assert await tm.status(flow.gid) == "prepared"
    told, rows = await flow.prepare()
    assert told["status"] == "prepared"
    assert rows == [
        ("01", "action", "succeed", b"first"),
        ("02", "action", "succeed", b"second"),
    ]
    await tm.retry_until(flow.gid, 2, "Execute")
    assert await tm.status(flow.gid) == "prepared", "only its client ends a workflow"
    accepted(await flow.did("03"))
    accepted(await flow.end("succeed"))
    await tm.retry(flow.gid)
    assert len(tm.business.calls(flow.gid)) == 2


async def test_row_31_workflow_progress_survives_a_killed_coordinator(
    deployed: Coordinators, store: str
) -> None:
    """What was acknowledged is there when it is back."""
    ours()
    folder = deployed.folder()
    first = await deployed.start(store, folder=folder)
    gid = first.gid("workflow")
    flow = Flow(first, "grpc", gid)
    await flow.prepare()
    accepted(await flow.did("01", data=b"\x00\xff"))
    assert first.process is not None
    await first.process.kill()
    second = await deployed.start(store, folder=folder)
    told, rows = await Flow(second, "grpc", gid).prepare()
    assert told["status"] == "prepared"
    assert rows == [("01", "action", "succeed", b"\x00\xff")]
    assert second.process is not None
    await second.process.stop()


async def test_row_32_workflow_records_steps_of_tcc_and_xa_side_by_side(flow: Flow) -> None:
    """Ops action, commit, rollback and business of one branch are rows of their own."""
    await flow.prepare()
    steps = [
        ("01", "action", "succeed", b"tried"),
        ("02", "business", "succeed", b""),
        ("02", "action", "succeed", b"xa"),
        ("02", "commit", "succeed", b""),
        ("01", "commit", "succeed", b""),
    ]
    for branch_id, op, status, data in steps:
        accepted(await flow.did(branch_id, op, status, data))
    accepted(await flow.end("succeed"))
    _, rows = await flow.prepare()
    assert rows == steps


async def test_row_33_workflow_branch_and_op_are_recorded_once(flow: Flow) -> None:
    """The second one is a conflict, and the first one stays; another op is no conflict."""
    await flow.prepare()
    accepted(await flow.did("01", data=b"first"))
    again = await flow.did("01", data=b"second")
    assert again.word == BROKEN
    if not flow.tm.foreign:
        assert again.text == "storage: UniqueKeyConflict"
    accepted(await flow.did("01", "rollback", data=b""))
    _, rows = await flow.prepare()
    assert rows == [
        ("01", "action", "succeed", b"first"),
        ("01", "rollback", "succeed", b""),
    ]


async def test_row_33_workflow_goes_on_while_its_callback_is_running(flow: Flow) -> None:
    """That is how it resumes: steps and end are recorded, and the late answer changes nothing."""
    tm, gate = flow.tm, asyncio.Event()
    tm.business.script(flow.gid, "Execute", Answer(ERROR.status, ERROR.code, "late", gate=gate))
    await flow.prepare(request_timeout=30)
    accepted(await flow.did("01"))
    await tm.retry(flow.gid)
    await tm.business.until_called(flow.gid)
    _, rows = await flow.prepare()
    assert [row[:2] for row in rows] == [("01", "action")]
    accepted(await flow.did("02"))
    accepted(await flow.end("succeed", result=b"resumed"))
    gate.set()
    await asyncio.sleep(0.1)
    told, rows = await flow.prepare()
    assert told["status"] == "succeed"
    assert [row[:2] for row in rows] == [("01", "action"), ("02", "action")]


async def test_row_34_workflow_callback_carries_name_and_data(flow: Flow) -> None:
    """HTTP: POST with op=name and the data; gRPC: Execute with a WorkflowData message."""
    await flow.prepare()
    await flow.tm.retry_until(flow.gid, 1)
    (call,) = flow.tm.business.calls(flow.gid)
    assert (call.branch_id, call.op, call.trans_type) == ("00", NAME, "workflow")
    if flow.over == "grpc":
        assert call.path == "/workflow.Workflow/Execute"
        assert dtm_pb2.WorkflowData.FromString(call.body).Data == DATA
    else:
        assert call.method == "POST"
        assert call.body == DATA


async def test_row_34_workflow_callback_without_data(flow: Flow) -> None:
    """Over HTTP a GET without a body."""
    flow.data = b""
    await flow.prepare()
    await flow.tm.retry_until(flow.gid, 1)
    (call,) = flow.tm.business.calls(flow.gid)
    assert call.method == ("grpc" if flow.over == "grpc" else "GET")
    assert call.body == b""


async def test_row_34_workflow_is_called_back_by_itself_after_the_retry_interval(
    flow: Flow,
) -> None:
    """Nobody asked for it."""
    await flow.prepare()
    await flow.tm.past(flow.gid, 12)
    await flow.tm.business.until_called(flow.gid)
    assert await flow.tm.status(flow.gid) == "prepared"


async def test_row_34_workflow_has_no_abort(tm: Coordinator, api: Api) -> None:
    """Only forceStop ends it from outside."""
    flow = Flow(tm, "http", tm.gid("workflow"))
    await flow.prepare()
    reply = await api.abort(Tx(flow.gid, "workflow"))
    assert reply.text == ("trans type: 'workflow' current status 'prepared', cannot abort. FAILURE")
    accepted(await tm.http.post("forceStop", {"gid": flow.gid}))
    assert await tm.status(flow.gid) == "failed"
