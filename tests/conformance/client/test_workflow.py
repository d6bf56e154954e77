"""Workflows over gRPC and HTTP, against the real coordinator, which calls them back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from api.trans.v1.trans_pb2 import AdjustInfo, Response
from api.trans.v1.trans_pb2_grpc import TransServicer, TransStub, add_TransServicer_to_server
from kit.dtm.barrier import BranchBarrier
from kit.dtm.client import (
    CallbackFailed,
    DtmClient,
    DtmUnavailable,
    InvalidCall,
    Options,
    PayloadError,
    UnknownTransaction,
    UnknownWorkflow,
    WorkflowChanged,
)
from kit.dtm.client.workflow import Phase, Workflow, Workflows
from kit.dtm.errors import Failure, Ongoing
from kit.errors import InternalServer
from kit.errors.codes import GrpcCode
from kit.testing import Coordinator
from kit.testing.grpc import running
from kit.transport.grpc import GrpcClient, GrpcServer, RpcError
from tests.conformance.client.business import Business
from tests.conformance.client.conftest import address, ended

NO = Failure("no money")
BROKEN = InternalServer("BROKEN", "something broke")


@pytest.fixture(params=["grpc", "http"])
async def client(
    dtm: Coordinator, business: Business, request: pytest.FixtureRequest
) -> AsyncIterator[DtmClient]:
    """The two APIs that have workflows; branches are of both kinds all the same."""
    business.scheme = "http"
    async with DtmClient(address(dtm, request.param), http=dtm.http_url) as client:
        yield client


@pytest.fixture
async def workflows(client: DtmClient) -> AsyncIterator[Workflows]:
    """Registered where the coordinator finds them."""
    async with AsyncExitStack() as stack:
        if client.protocol == "grpc":
            server = GrpcServer(address="127.0.0.1:0")
            endpoint = await stack.enter_async_context(running(server))
            workflows = Workflows(client, endpoint)
            workflows.serve_on(server)
        else:
            app = web.Application()
            runner = web.AppRunner(app)
            held: list[Workflows] = []

            async def route(request: web.Request) -> web.StreamResponse:
                return await held[0].aiohttp_handler(request)

            app.router.add_route("*", "/workflow", route)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            workflows = Workflows(client, f"http://{host}:{port}/workflow")
            held.append(workflows)
        yield workflows


def counted(
    done: Counter[str], name: str, gives: bytes = b"ok", raises: list[Exception] | None = None
) -> Callable[[BranchBarrier], Awaitable[bytes]]:
    """A step that counts how often it was done; ``raises`` are raised first, one a call."""

    async def action(_: BranchBarrier) -> bytes:
        done[name] += 1
        if raises:
            raise raises.pop(0)
        return gives

    return action


def undo(done: Counter[str], name: str) -> Callable[[Phase], Awaitable[None]]:
    """A callback that counts."""

    async def callback(_: Phase) -> None:
        done[name] += 1

    return callback


async def test_a_workflow_does_its_steps_and_gives_its_result(
    client: DtmClient, workflows: Workflows, business: Business
) -> None:
    """§14.2; run again, it is not run: its result is told."""
    business.script("out", b'{"left":70}')
    done: Counter[str] = Counter()

    @workflows.register("transfer")
    async def transfer(wf: Workflow, data: bytes) -> dict[str, object]:
        reply = await wf.new_branch().post(business.url("out"), {"raw": data.decode()})
        await wf.new_branch().do(counted(done, "local"))
        return {"left": reply.json()}

    result = await workflows.execute("transfer", "wf-1", {"amount": 30})
    assert result == b'{"left":{"left":70}}'
    assert await workflows.execute("transfer", "wf-1", {"amount": 30}) == result
    assert done == {"local": 1}
    (heard,) = business.heard
    assert heard.ids == {"gid": "wf-1", "trans_type": "workflow", "branch_id": "01", "op": "action"}
    state = await client.wait("wf-1")
    assert [(b.branch_id, b.op, b.status, b.data) for b in state.branches] == [
        ("01", "action", "succeed", b'{"left":70}'),
        ("02", "action", "succeed", b"ok"),
    ]


async def test_the_coordinator_resumes_a_workflow_and_each_step_is_done_once(
    client: DtmClient, workflows: Workflows, business: Business, dtm: Coordinator
) -> None:
    """The run ends in the middle; the call back goes on behind what is recorded."""
    done: Counter[str] = Counter()
    crashes: list[Exception] = [LookupError("the process dies here")]

    @workflows.register("transfer")
    async def transfer(wf: Workflow, data: bytes) -> bytes:
        assert data == b'{"amount":30}'
        done["run"] += 1
        first = await wf.new_branch().do(counted(done, "first", b"1"))
        await wf.new_branch().post(business.url("out"))
        if crashes:
            raise crashes.pop()
        last = await wf.new_branch().on_commit(undo(done, "commit")).do(counted(done, "last", b"3"))
        return first + last

    with pytest.raises(LookupError):
        await workflows.execute("transfer", "wf-2", {"amount": 30})
    assert (await client.query("wf-2")).status == "prepared"
    state = await ended(dtm, client, "wf-2")
    assert state.result == b"13"
    assert done == {"run": 2, "first": 1, "last": 1, "commit": 1}
    assert business.names() == ["out"]


async def test_a_failure_rolls_back_in_reverse_but_for_the_branch_that_said_no(
    client: DtmClient, workflows: Workflows, business: Business
) -> None:
    """§14.2, steps 5 to 7; callbacks call as their branch, with op rollback."""
    business.script("try", NO)

    @workflows.register("saga")
    async def saga(wf: Workflow, _: bytes) -> None:
        for name in ("out", "in", "try"):
            branch = wf.new_branch().on_rollback(lambda phase: phase.post(business.url("out-undo")))
            await branch.post(business.url(name))

    for _ in range(2):
        with pytest.raises(Failure, match="no money"):
            await workflows.execute("saga", "wf-3")
    assert business.names() == ["out", "in", "try", "out-undo", "out-undo"]
    undone = business.heard[3:]
    assert [(call.ids["branch_id"], call.ids["op"]) for call in undone] == [
        ("02", "rollback"),
        ("01", "rollback"),
    ]
    with pytest.raises(Failure, match="no money"):
        await client.wait("wf-3")


async def test_a_branch_that_said_no_is_rolled_back_where_that_is_asked_for(
    workflows: Workflows,
) -> None:
    """CompensateErrorBranch."""
    done: Counter[str] = Counter()

    @workflows.register("saga", compensate_error_branch=True)
    async def saga(wf: Workflow, _: bytes) -> None:
        branch = wf.new_branch().on_rollback(undo(done, "undo"))
        await branch.do(counted(done, "first", raises=[NO]))

    with pytest.raises(Failure):
        await workflows.execute("saga", "wf-4")
    assert done == {"first": 1, "undo": 1}


async def test_a_rollback_that_breaks_off_is_resumed(
    client: DtmClient, workflows: Workflows, dtm: Coordinator
) -> None:
    """A recorded failure fails again, and recorded callbacks are not repeated."""
    done: Counter[str] = Counter()
    breaks = [BROKEN]

    @workflows.register("saga")
    async def saga(wf: Workflow, _: bytes) -> None:
        async def fragile(phase: Phase) -> None:
            assert phase.barrier == BranchBarrier("workflow", "wf-5", "01", "rollback")
            done["undo 1"] += 1
            if breaks:
                raise breaks.pop()

        await wf.new_branch().on_rollback(fragile).do(counted(done, "one"))
        await wf.new_branch().on_rollback(undo(done, "undo 2")).do(counted(done, "two"))
        await wf.new_branch().do(counted(done, "three", raises=[NO]))

    with pytest.raises(InternalServer, match="something broke"):
        await workflows.execute("saga", "wf-5")
    with pytest.raises(Failure, match="no money"):
        await ended(dtm, client, "wf-5")
    assert done == {"one": 1, "two": 1, "three": 1, "undo 2": 1, "undo 1": 2}


async def test_tcc_by_on_finish(workflows: Workflows) -> None:
    """Both ends of a branch by one callback."""
    ends: list[tuple[str, bool]] = []

    @workflows.register("tcc")
    async def tcc(wf: Workflow, data: bytes) -> None:
        async def finish(phase: Phase, rollback: bool) -> None:
            ends.append((phase.barrier.branch_id, rollback))

        for _ in range(2):
            await wf.new_branch().on_finish(finish).do(counted(Counter(), "try"))
        if data:
            raise NO

    await workflows.execute("tcc", "wf-6")
    with pytest.raises(Failure):
        await workflows.execute("tcc", "wf-7", b"fail")
    assert ends == [("02", False), ("01", False), ("02", True), ("01", True)]


async def test_ongoing_and_errors_are_not_recorded(
    client: DtmClient, workflows: Workflows, dtm: Coordinator
) -> None:
    """They are done again, until there is an answer."""
    done: Counter[str] = Counter()
    trouble: list[Exception] = [Ongoing("please wait"), BROKEN]

    @workflows.register("slow")
    async def slow(wf: Workflow, _: bytes) -> None:
        await wf.new_branch().do(counted(done, "step", raises=trouble))

    with pytest.raises(Ongoing):
        await workflows.execute("slow", "wf-8")
    await dtm.advance(60)
    await dtm.advance(60)
    await client.wait("wf-8")
    assert done == {"step": 3}


class Trans(TransServicer):
    """A generated service that counts, and refuses user 13."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    async def TransOut(self, request: AdjustInfo, context: object) -> Response:  # noqa: N802
        self.calls["out"] += 1
        if request.UserID == 13:
            raise RpcError(GrpcCode.ABORTED, "no such user")
        return Response()

    async def TransIn(self, request: AdjustInfo, context: object) -> Response:  # noqa: N802
        self.calls["in"] += 1
        return Response()


async def test_calls_of_generated_stubs_are_recorded(
    client: DtmClient, workflows: Workflows, dtm: Coordinator
) -> None:
    """workflow.Interceptor: the reply is restored as its message; ABORTED is a failure."""
    trans = Trans()  # type: ignore[abstract]  # the other methods are not called
    server = GrpcServer(address="127.0.0.1:0")
    add_TransServicer_to_server(trans, server.services)
    crashes: list[Exception] = [LookupError("the process dies here")]
    done: Counter[str] = Counter()
    async with running(server) as endpoint, GrpcClient(endpoint) as grpc_client:

        @workflows.register("stubs")
        async def stubs(wf: Workflow, data: bytes) -> None:
            branch = wf.new_branch().on_rollback(undo(done, "undo"))
            reply = await TransStub(branch.grpc(grpc_client)).TransIn(AdjustInfo(Amount=30))
            assert isinstance(reply, Response)
            if crashes:
                raise crashes.pop()
            user = int(data or b"1")
            stub = TransStub(wf.new_branch().grpc(grpc_client))
            await stub.TransOut(AdjustInfo(UserID=user), timeout=5.0)

        with pytest.raises(LookupError):
            await workflows.execute("stubs", "wf-9")
        await ended(dtm, client, "wf-9")
        assert trans.calls == {"in": 1, "out": 1}
        with pytest.raises(Failure, match="no such user"):
            await workflows.execute("stubs", "wf-10", b"13")
        assert done == {"undo": 1}


async def test_branches_may_run_at_once(workflows: Workflows, business: Business) -> None:
    """Their ids are given when they are made; a group of failures is a failure."""
    done: Counter[str] = Counter()

    @workflows.register("parallel")
    async def parallel(wf: Workflow, data: bytes) -> bytes:
        async with asyncio.TaskGroup() as group:
            both = [
                group.create_task(wf.new_branch().on_rollback(undo(done, "undo")).do(step))
                for step in (counted(done, "a", b"a"), counted(done, "b", b"b"))
            ]
            if data:
                bad = wf.new_branch().do(counted(done, "c", raises=[NO]))
                both.append(group.create_task(bad))
        return b"".join(task.result() for task in both)

    assert await workflows.execute("parallel", "wf-11") == b"ab"
    with pytest.raises(Failure, match="no money"):
        await workflows.execute("parallel", "wf-12", b"fail")
    assert done["undo"] == 2


async def test_changed_code_is_named(
    client: DtmClient, workflows: Workflows, dtm: Coordinator
) -> None:
    """A step that is recorded and not asked for again: nothing is ended, nothing undone."""
    done: Counter[str] = Counter()
    version = 1

    @workflows.register("changing")
    async def changing(wf: Workflow, _: bytes) -> None:
        await wf.new_branch().do(counted(done, "one"))
        if version == 1:
            await wf.new_branch().on_rollback(undo(done, "undo")).do(counted(done, "two"))
            raise LookupError("the process dies here")
        raise NO

    with pytest.raises(LookupError):
        await workflows.execute("changing", "wf-13")
    version = 2
    with pytest.raises(WorkflowChanged, match="'changing' gid wf-13: step 02 action is recorded"):
        await workflows.execute("changing", "wf-13")
    await dtm.advance(60)
    assert (await client.query("wf-13")).status == "prepared"
    assert done == {"one": 1, "two": 1}


async def test_a_changed_outcome_is_named(workflows: Workflows) -> None:
    """It was rolling back, and now wants to commit."""
    done: Counter[str] = Counter()
    fails = [NO]
    breaks = [BROKEN]

    @workflows.register("moody")
    async def moody(wf: Workflow, _: bytes) -> None:
        async def fragile(_: Phase) -> None:
            if breaks:
                raise breaks.pop()

        await wf.new_branch().on_rollback(fragile).do(counted(done, "one"))
        await wf.new_branch().on_rollback(undo(done, "undo")).do(counted(done, "two"))
        if fails:
            raise fails.pop()

    with pytest.raises(InternalServer):
        await workflows.execute("moody", "wf-14")
    with pytest.raises(WorkflowChanged, match=r"02 rollback is recorded, .* leads to commit"):
        await workflows.execute("moody", "wf-14")


async def test_a_callback_must_not_say_no(workflows: Workflows) -> None:
    """Confirm and cancel are promises."""

    @workflows.register("broken promise")
    async def broken(wf: Workflow, _: bytes) -> None:
        async def refuse(_: Phase) -> None:
            raise NO

        await wf.new_branch().on_commit(refuse).do(counted(Counter(), "one"))

    with pytest.raises(CallbackFailed, match="commit callback of branch 01 raised Failure"):
        await workflows.execute("broken promise", "wf-15")


async def test_one_run_at_a_time_in_a_process(
    client: DtmClient, workflows: Workflows, dtm: Coordinator
) -> None:
    """The coordinator calls back while it is running: it is told to wait."""
    done: Counter[str] = Counter()
    gate, inside = asyncio.Event(), asyncio.Event()

    @workflows.register("long")
    async def long(wf: Workflow, _: bytes) -> None:
        async def wait(_: BranchBarrier) -> None:
            done["step"] += 1
            inside.set()
            await gate.wait()

        await wf.new_branch().do(wait)

    running_it = asyncio.create_task(workflows.execute("long", "wf-16"))
    await inside.wait()
    await dtm.advance(60)
    with pytest.raises(Ongoing, match="running in this process"):
        await workflows.execute("long", "wf-16")
    gate.set()
    await running_it
    assert (await client.wait("wf-16")).succeeded
    assert done == {"step": 1}


async def test_mistakes_are_named(client: DtmClient, workflows: Workflows) -> None:
    """Before anything is done."""
    with pytest.raises(UnknownWorkflow, match=r"workflow 'nobody' not registered. please register"):
        await workflows.execute("nobody", "wf-17")
    with pytest.raises(UnknownTransaction):
        await client.query("wf-17")
    with pytest.raises(InvalidCall, match="gid: it is empty"):
        await workflows.execute("nobody", "")
    with pytest.raises(PayloadError, match="data of type set"):
        await workflows.execute("nobody", "g", {object()})

    @workflows.register("twice")
    async def twice(wf: Workflow, _: bytes) -> None:
        branch = wf.new_branch().on_commit(undo(Counter(), "x"))
        with pytest.raises(InvalidCall, match="branch 01: one branch can only add one commit"):
            branch.on_commit(undo(Counter(), "x"))
        await branch.do(counted(Counter(), "x"))
        with pytest.raises(InvalidCall, match="branch 01: one branch can have only one action"):
            await branch.do(counted(Counter(), "x"))
        for _number in range(98):
            wf.new_branch()
        with pytest.raises(InvalidCall, match="branch id is larger than 99"):
            wf.new_branch()

    await workflows.execute("twice", "wf-18")
    with pytest.raises(InvalidCall, match="a workflow 'twice' exists already"):
        workflows.register("twice")


async def test_a_result_that_http_cannot_carry_is_refused(
    client: DtmClient, workflows: Workflows
) -> None:
    """Go replaces such bytes, and gives others when it resumes."""

    @workflows.register("binary")
    async def binary(wf: Workflow, _: bytes) -> bytes:
        return await wf.new_branch().do(counted(Counter(), "step", b"\xff\xfe"))

    if client.protocol == "grpc":
        assert await workflows.execute("binary", "wf-19") == b"\xff\xfe"
    else:
        with pytest.raises(PayloadError, match="result of step 01 of workflow 'binary' is not"):
            await workflows.execute("binary", "wf-19")


async def test_an_xa_step_ends_with_the_workflow(
    client: DtmClient, workflows: Workflows, dtm: Coordinator
) -> None:
    """§14.3: business, prepare, and commit or rollback by callbacks of its own."""
    log: list[str] = []
    dies = [LookupError("before prepare")]

    class Database:
        async def local(
            self,
            barrier: BranchBarrier,
            business: Callable[[str], Awaitable[object]],
            register: Callable[[], Awaitable[object]],
        ) -> None:
            log.append(f"start {barrier.op}")
            await business("connection")
            await register()
            if barrier.gid == "wf-21" and dies:
                raise dies.pop()
            log.append("prepare")

        async def finish(self, barrier: BranchBarrier) -> None:
            log.append(f"{barrier.op} {barrier.branch_id}")

    async def work(connection: str) -> bytes:
        log.append(f"work on {connection}")
        return b"done"

    @workflows.register("xa")
    async def xa(wf: Workflow, data: bytes) -> bytes:
        return await wf.new_branch().do_xa(Database(), work)

    assert await workflows.execute("xa", "wf-20") == b"done"
    expected = ["start action", "work on connection", "prepare", "commit 01"]
    assert log == expected
    rows = [(b.op, b.status) for b in (await client.wait("wf-20")).branches]
    assert rows == [("business", "succeed"), ("action", "succeed"), ("commit", "succeed")]
    log.clear()
    with pytest.raises(LookupError):
        await workflows.execute("xa", "wf-21")
    with pytest.raises(Failure, match="not resumable, to rollback"):
        await workflows.execute("xa", "wf-21")
    assert log == ["start action", "work on connection", "rollback 01"]


async def test_an_unreachable_coordinator_stops_before_any_step(workflows: Workflows) -> None:
    """Nothing listens at port 1."""
    async with DtmClient("127.0.0.1:1", timeout=2) as lost:
        elsewhere = Workflows(lost, "127.0.0.1:1", options=Options(request_timeout=9))

        @elsewhere.register("never")
        async def never(wf: Workflow, _: bytes) -> None:
            pytest.fail("it ran")

        with pytest.raises(DtmUnavailable, match="PrepareWorkflow at 127"):
            await elsewhere.execute("never", "wf-22")


async def test_json_rpc_has_no_workflows(dtm: Coordinator) -> None:
    """The error says which address to give instead."""
    async with DtmClient(address(dtm, "json-rpc")) as client:
        with pytest.raises(InvalidCall, match=r"JSON-RPC API at .* has no workflows"):
            Workflows(client, "http://127.0.0.1:1/workflow")


async def test_the_status_of_an_answer_counts_and_not_its_words(
    workflows: Workflows, business: Business
) -> None:
    """§14.1: no body-text compatibility in workflows; of transactions there is."""
    business.script("out", b'{"note":"FAILURE is not an option"}')

    @workflows.register("wordy")
    async def wordy(wf: Workflow, _: bytes) -> bytes:
        return (await wf.new_branch().request("PUT", business.url("out"), b"{}")).data

    assert b"FAILURE" in await workflows.execute("wordy", "wf-23")
    assert business.heard[0].how == "PUT"


async def test_labels_tell_steps_that_changed_places(
    client: DtmClient, workflows: Workflows, business: Business
) -> None:
    """The first step that is another one is named, by what it did and what it would do."""
    names = ["out", "in"]
    crashes: list[Exception] = [LookupError("the process dies here")]

    async def note(_: BranchBarrier) -> bytes:
        return b"noted"

    async def forget(_: BranchBarrier) -> bytes:
        return b"forgotten"

    actions = [note, forget]

    @workflows.register("labelled", labels=True)
    async def labelled(wf: Workflow, _: bytes) -> list[str]:
        replies = [await wf.new_branch().post(business.url(name)) for name in names]
        given = await wf.new_branch().do(actions[0])
        if crashes:
            raise crashes.pop()
        return [*(reply.data.decode() for reply in replies), given.decode()]

    with pytest.raises(LookupError):
        await workflows.execute("labelled", "wf-24")
    names.reverse()
    with pytest.raises(WorkflowChanged) as raised:
        await workflows.execute("labelled", "wf-24")
    assert "step 01 action is recorded as 'POST /out', but the code asks for 'POST /in'" in str(
        raised.value
    )
    names.reverse()
    actions.reverse()
    with pytest.raises(WorkflowChanged, match=r"step 03 action is recorded as 'do .*note'"):
        await workflows.execute("labelled", "wf-24")
    actions.reverse()
    assert await workflows.execute("labelled", "wf-24") == b'["OK","OK","noted"]'
    assert business.names() == ["out", "in"]


async def test_a_labelled_failure_keeps_its_text(workflows: Workflows) -> None:
    """And so does one that was recorded before there were labels."""
    done: Counter[str] = Counter()

    @workflows.register("labelled", labels=True)
    async def labelled(wf: Workflow, _: bytes) -> None:
        try:
            await wf.new_branch().do(counted(done, "step", raises=[NO]))
        except Failure as exc:
            done[exc.message] += 1
        if done["no money"] < 2:
            raise BROKEN

    with pytest.raises(InternalServer):
        await workflows.execute("labelled", "wf-25")
    await workflows.execute("labelled", "wf-25")
    assert done == {"step": 1, "no money": 2}
