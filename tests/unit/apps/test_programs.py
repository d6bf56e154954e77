"""The transfer service and its client as processes; a gRPC server stands in for the coordinator."""

import asyncio
import json
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest

from api.trans.v1.trans_pb2 import AdjustInfo
from api.trans.v1.trans_pb2_grpc import TransStub
from apps.trans.coordinator import Coordinators
from kit.dtm.barrier import BranchBarrier
from kit.dtm.pb.dtm_pb2 import DtmGidReply, DtmRequest
from kit.errors.codes import GrpcCode
from kit.testing.grpc import running
from kit.transport.grpc import GrpcClient, GrpcServer, RpcError, RpcFailed, ServerCall
from kit.transport.grpc.engines import EngineName
from tests.engines import chosen, engine_at, hearing

NEW_GID, SUBMIT = "/dtmgimp.Dtm/NewGid", "/dtmgimp.Dtm/Submit"
CONFIG = 'server: {grpc: {addr: "127.0.0.1:0", timeout: 1s}}\n'


async def start(program: str, *arguments: str) -> Process:
    code = f"import sys; from apps.{program}.main import main; sys.exit(main())"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments, stdout=PIPE, stderr=PIPE
    )


async def run(program: str, *arguments: str) -> tuple[int | None, str, str]:
    process = await start(program, *arguments)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode(), err.decode()


async def client(*arguments: str) -> tuple[int | None, str, str]:
    """On the gRPC engine of the test."""
    return await run("client", "-engine", chosen(), *arguments)


async def line_with(process: Process, text: str) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(30):
        async for line in process.stderr:
            if text in line.decode():
                return line.decode().rstrip("\n")
    raise AssertionError(f"no line with {text!r}")


class Coordinator:
    """Takes a submission and answers as told."""

    def __init__(self) -> None:
        self.requests: list[DtmRequest] = []
        self.refusal: RpcFailed | None = None
        self.address = ""

    async def new_gid(self, _: bytes, __: ServerCall) -> bytes:
        return DtmGidReply(Gid="g-1").SerializeToString()

    async def submit(self, request: bytes, _: ServerCall) -> bytes:
        self.requests.append(DtmRequest.FromString(request))
        if self.refusal is not None:
            raise self.refusal
        return b""


@pytest.fixture
async def coordinator(engine: EngineName) -> AsyncIterator[Coordinator]:
    coordinator, server = Coordinator(), GrpcServer(address="127.0.0.1:0")
    server.register_unary(NEW_GID, coordinator.new_gid)
    server.register_unary(SUBMIT, coordinator.submit)
    async with running(server) as address:
        coordinator.address = address
        yield coordinator


@pytest.mark.usefixtures("engine")
async def test_trans_moves_money_refuses_nonsense_and_stops_on_sigterm(tmp_path: Path) -> None:
    """kratos-wire.md §23, byte for byte; without a registry it serves all the same."""
    database = f"data: {{database: {{source: '{tmp_path / 'trans.db'}'}}}}\n"
    (tmp_path / "config.yaml").write_text(
        CONFIG.replace("timeout", f"engine: {chosen()}, timeout") + database
    )
    process = await start("trans", f"-conf={tmp_path / 'config.yaml'}")
    try:
        loaded = await line_with(process, "config loaded")
        assert loaded == "INFO msg=config loaded: config.yaml format: yaml"
        address = (await line_with(process, "listening on: ")).rpartition(" ")[2]
        async with GrpcClient(address) as client:
            stub = TransStub(client.channel)
            await stub.TransOut(AdjustInfo(Amount=30, UserID=1))
            await stub.TransIn(AdjustInfo(Amount=30, UserID=2))
            with pytest.raises(RpcError, match="Amount: -5") as refused:
                await stub.TransOut(AdjustInfo(Amount=-5, UserID=1))
            assert refused.value.status is GrpcCode.ABORTED
            with pytest.raises(RpcError, match="UserID: 0"):
                await stub.TransIn(AdjustInfo(Amount=5))
        process.send_signal(signal.SIGTERM)
        _, rest = await asyncio.wait_for(process.communicate(), 30)
        out, into, stopping = rest.decode().splitlines()
        stamp = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d "
        assert re.fullmatch(stamp + "transfer out 30 cents from 1", out)
        assert re.fullmatch(stamp + "transfer in 30 cents to 2", into)
        assert stopping == "INFO msg=[gRPC] server stopping"
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_trans_follows_v3_when_its_configuration_says_so(tmp_path: Path) -> None:
    """Lines as kratos v3 writes them, from when the configuration was read."""
    database = f"compat: v3\ndata: {{database: {{source: '{tmp_path / 'trans.db'}'}}}}\n"
    (tmp_path / "config.yaml").write_text(CONFIG + database)
    process = await start("trans", f"-conf={tmp_path / 'config.yaml'}")
    try:
        line = await line_with(process, "listening")
        assert re.fullmatch(
            r"time=\S+ level=INFO msg=\"\[gRPC\] server listening\" addr=\S+:\d+", line
        )
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_trans_names_all_that_is_wrong_with_its_configuration(tmp_path: Path) -> None:
    """One line a problem with its place, exit status 2, no stack."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "server:\n  grpc:\n    addr: 9000\n    adr: x\n    engine: fast\nlog: {level: loud}\n"
    )
    status, _, err = await run("trans", "--conf", str(path))
    places = [line.split(": ")[1:3] for line in err.splitlines() if line.startswith("trans: ")]
    assert status == 2
    assert places == [
        [f"{path}:3", "server.grpc.addr"],
        [f"{path}:4", "server.grpc.adr"],
        [f"{path}:5", "server.grpc.engine"],
        [f"{path}:6", "log.level"],
    ]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("driver", "source", "code", "named"),
    [
        ("postgres", "postgres://u:s3cret@127.0.0.1:1/bank", 1, "127.0.0.1:1/bank"),
        ("mysql", "mysql://u:s3cret@127.0.0.1:1/bank", 1, "127.0.0.1:1/bank"),
        ("sqlite", "/nowhere/trans.db", 1, "/nowhere/trans.db"),
        ("postgres", "postgres://u:s3/cret@127.0.0.1:1/bank", 2, "%2F"),
        ("mysql", "mysql://u:s3#cret@127.0.0.1:1/bank", 2, "%23"),
        ("mysql", "mysql://u:1/s3cret@127.0.0.1:1/bank", 2, "%2F"),
        ("postgres", "postgres://u:s3[cret@127.0.0.1:1/bank", 2, "%5B"),
        ("sqlite", "postgres://u:s3cret@127.0.0.1:1/bank", 2, "driver"),
    ],
)
async def test_trans_names_the_database_that_it_cannot_open_without_its_password(
    tmp_path: Path, driver: str, source: str, code: int, named: str
) -> None:
    """One line, with the place or the way out; no piece of the password, no stack."""
    path = tmp_path / "c.yaml"
    path.write_text(f"data: {{database: {{driver: {driver}, source: '{source}'}}}}\n")
    status, _, err = await run("trans", "-conf", str(path))
    (line,) = [line for line in err.splitlines() if line.startswith("trans: ")]
    assert status == code, err
    assert named in line
    assert "Traceback" not in err
    assert "s3" not in err


async def test_trans_says_which_port_is_taken(coordinator: Coordinator, tmp_path: Path) -> None:
    """Exit status 1 and one line."""
    (tmp_path / "c.yaml").write_text(
        f'server: {{grpc: {{addr: "{coordinator.address}"}}}}\n'
        f"data: {{database: {{source: '{tmp_path / 'trans.db'}'}}}}\n"
    )
    status, _, err = await run("trans", "-conf", str(tmp_path / "c.yaml"))
    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith("trans: ")
    assert coordinator.address in last


async def test_client_submits_two_steps_and_waits(coordinator: Coordinator) -> None:
    """Flags as Go and as GNU write them."""
    status, out, err = await client(
        *("-dtm", coordinator.address, "--busi=localhost:9000", "-amount=7", "--from", "3"),
    )
    assert (status, out, err) == (0, "gid: g-1\nresult: succeed\n", "")
    (request,) = coordinator.requests
    assert request.TransOptions.WaitResult
    assert json.loads(request.Steps) == [
        {"action": "localhost:9000/api.trans.v1.Trans/TransOut"},
        {"action": "localhost:9000/api.trans.v1.Trans/TransIn"},
    ]
    assert [AdjustInfo.FromString(payload) for payload in request.BinPayloads] == [
        AdjustInfo(Amount=7, UserID=3),
        AdjustInfo(Amount=7, UserID=2),
    ]


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (RpcFailed(GrpcCode.UNAVAILABLE, "trans is down"), "not finished: "),
        (RpcFailed(GrpcCode.ABORTED, "Amount FAILURE"), "not finished: Amount FAILURE"),
        (RpcFailed(GrpcCode.INVALID_ARGUMENT, "Steps: bad"), "refused: "),
    ],
)
async def test_client_says_why_the_transfer_is_not_finished(
    coordinator: Coordinator, refusal: RpcFailed, said: str
) -> None:
    """Exit status 1; the gid is what the user can ask with."""
    coordinator.refusal = refusal
    status, out, _ = await client("-dtm", coordinator.address, "-busi", "localhost:9000")
    lines = out.splitlines()
    assert status == 1
    assert lines[0] == "gid: g-1"
    assert lines[1].startswith(f"result: {said}")
    assert ("keeps trying" in out) == said.startswith("not finished")


@pytest.mark.parametrize("mode", ["msg", "saga"])
@pytest.mark.parametrize(
    ("before", "code", "said"),
    [
        ("succeed", 0, "succeed"),
        ("failed", 1, "failed: current status 'failed'"),
        ("submitted", 1, "not finished: current status 'submitted'"),
        ("aborting", 1, "not finished: current status 'aborting'"),
    ],
)
async def test_a_gid_that_is_asked_for_again_is_answered_by_its_outcome(
    coordinator: Coordinator, mode: str, before: str, code: int, said: str
) -> None:
    """Money that has moved, or may yet move, is never called failed."""
    text = f"current status '{before}', cannot sumbmit. FAILURE"
    coordinator.refusal = RpcFailed(GrpcCode.ABORTED, text)
    where = ("-dtm", coordinator.address, "-busi", "localhost:9000")
    status, out, _ = await client(*where, "-mode", mode, "-gid", "g-1")
    assert status == code
    assert out.splitlines()[1].startswith(f"result: {said}")


async def test_client_speaks_on_the_engine_of_the_test(engine: EngineName) -> None:
    async with hearing(NEW_GID, SUBMIT) as (address, heard):
        status, _, err = await client("-dtm", address, "-busi", "localhost:9000")
        assert (status, err) == (0, "")
        assert heard == {NEW_GID: engine, SUBMIT: engine}


async def test_a_workflow_of_the_client_is_called_back_on_its_engine(engine: EngineName) -> None:
    """The coordinator is told where, and looks at once."""
    found: list[str] = []

    async def prepare(request: bytes, _: ServerCall) -> bytes:
        url = DtmRequest.FromString(request).QueryPrepared
        found.append(await engine_at(url.removeprefix("grpc://").partition("/")[0]))
        raise RpcFailed(GrpcCode.INVALID_ARGUMENT, "enough")

    server = GrpcServer(address="127.0.0.1:0")
    server.register_unary("/dtmgimp.Dtm/PrepareWorkflow", prepare)
    async with running(server) as address:
        where = ("-dtm", address, "-busi", "localhost:9000", "-gid", "g-1")
        status, out, _ = await client(*where, "-mode", "workflow")
    assert (status, found) == (1, [engine])
    assert out.endswith("INVALID_ARGUMENT: enough\n")


@pytest.mark.parametrize("engine", get_args(EngineName))
async def test_trans_speaks_to_coordinators_on_its_engine(engine: EngineName) -> None:
    """``server.grpc.engine``; a branch of xa is what it tells them about."""
    register = "/dtmgimp.Dtm/RegisterBranch"
    branch = BranchBarrier("xa", "g-1", "01", "action")
    async with hearing(register) as (address, heard), Coordinators(None, engine) as coordinators:
        await coordinators.register(address, branch, "localhost:9000/api.trans.v1.Trans/TransOutXa")
        assert heard == {register: engine}


@pytest.mark.usefixtures("engine")
async def test_client_says_that_no_coordinator_is_there() -> None:
    """Nothing listens at port 1: one line, exit status 1."""
    status, out, err = await client("-dtm", "127.0.0.1:1", "-timeout", "2s")
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert "127.0.0.1:1" in line
    assert "is the coordinator running?" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("-amount", "x"), "'x'"),
        (("-amount", "-5"), "'-5'"),
        (("-amount=0",), "'0'"),
        (("--to", "1.5"), "'1.5'"),
        (("-mode", "floppy"), "'floppy'"),
        (("-timeout", "5"), "'5'"),
        (("-busi", "http://h:1/x"), "'http'"),
        (("-dtm", "discovery:///dtmservice"), "does not say where the registry is"),
        (("-nope",), "-nope"),
        (("-engine", "netty"), "-engine: engine 'netty' is not known; write grpcio or lean"),
    ],
)
async def test_client_refuses_bad_usage_in_one_line(arguments: tuple[str, ...], named: str) -> None:
    """Exit status 2; the line names the value."""
    status, out, err = await run("client", *arguments)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert named in line
