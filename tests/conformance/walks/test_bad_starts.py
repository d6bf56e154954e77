"""What a user sees when a program cannot start, or starts into a broken world."""

import asyncio
import re
import socket
from collections.abc import Callable
from contextlib import closing

import grpc.aio
import pytest

from api.trans.v1 import trans_pb2, trans_pb2_grpc
from kit.etcd import EtcdClient, EtcdError
from kit.ports import free_port
from kit.testing.etcd import EtcdServer
from tests.processes import COORDINATOR, TRANS, Process, Processes, coordinator_config, trans_config

PROGRAMS = {"trans": (TRANS, "-conf"), "coordinator": (COORDINATOR, "-c")}
USAGE = 2


def complaints(process: Process) -> list[str]:
    """The lines that are no news of a normal start."""
    return [line for line in process.lines if not line.startswith("INFO ")]


async def started(run: Processes, program: str, config: str | None) -> Process:
    """``program`` once it has ended; ``None``: its configuration does not exist."""
    path = run.folder / "config.yaml"
    if config is not None:
        path.write_text(config)
    command, flag = PROGRAMS[program]
    process = await run.start(program, command, flag, str(path))
    await process.ended()
    return process


@pytest.mark.parametrize(
    ("program", "config", "said"),
    [
        ("trans", None, r"config\.yaml"),
        ("coordinator", None, r"config\.yaml"),
        ("trans", 'server:\n  grpc: "0.0.0.0\n', r"config\.yaml:[23]\b"),
        ("coordinator", "GrpcPort: [1\n", r"config\.yaml:[12]\b"),
        ("trans", "server:\n  grpc:\n    timeout: soon\n", r"config\.yaml:3\b.*timeout.*soon"),
        ("coordinator", "\nGrpcPort: many\n", r"config\.yaml:2\b.*GrpcPort.*many"),
        ("coordinator", "RetryInterval: -1\n", r"config\.yaml.*RetryInterval"),
        ("trans", "server:\n  grcp: {}\n", r"config\.yaml:2\b.*grcp.*grpc"),
        ("trans", "server:\n  http: {engine: lean}\n", r"config\.yaml:2\b.*server\.http\.engine"),
        ("coordinator", "GrpcPrt: 1\n", r"config\.yaml:1\b.*GrpcPrt.*GrpcPort"),
    ],
    ids=lambda value: None if value is None else repr(value)[:24],
)
async def test_a_configuration_that_cannot_be_used(
    run: Processes, program: str, config: str | None, said: str
) -> None:
    """Exit 2, and one line says what, where and the way out."""
    process = await started(run, program, config)
    assert process.handle.returncode == USAGE, process.output
    (line,) = complaints(process)
    assert re.search(said, line), line


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("program", "config"),
    [
        ("trans", lambda port, folder: trans_config(f"127.0.0.1:{port}", "", folder / "trans.db")),
        ("coordinator", lambda port, folder: coordinator_config(port, folder / "c.db")),
    ],
    ids=PROGRAMS,
)
async def test_a_port_that_is_taken(
    run: Processes, program: str, config: Callable[..., str]
) -> None:
    """Exit 1, and one line names the address."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        process = await started(run, program, config(port, run.folder))
    assert process.handle.returncode == 1, process.output
    (line,) = complaints(process)
    assert f"127.0.0.1:{port}" in line


async def test_a_file_that_is_no_database(run: Processes) -> None:
    """Exit 1, one line with the path, and the file is left as it was."""
    database = run.folder / "letters.db"
    database.write_text("a letter, and no database\n" * 100)
    process = await started(run, "coordinator", coordinator_config(free_port(), database))
    assert process.handle.returncode == 1, process.output
    (line,) = complaints(process)
    assert str(database) in line
    assert database.read_text().startswith("a letter")


@pytest.mark.usefixtures("engine")
async def test_a_service_serves_although_etcd_is_away(run: Processes, etcd: EtcdServer) -> None:
    """It says once that etcd is away and once that it is announced, and serves all the time."""
    etcd.kill()
    port = free_port()
    trans = await run.trans(port, etcd=etcd.endpoint)
    await trans.says(r"^(WARN|ERROR) .*etcd")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await trans_pb2_grpc.TransStub(channel).TransOut(
            trans_pb2.AdjustInfo(Amount=5, UserID=6), timeout=30
        )
    await trans.says("transfer out 5 cents from 6")

    await etcd.start()
    async with EtcdClient(etcd.endpoint) as keys, asyncio.timeout(60):
        while not await _has(keys, "/microservices/trans/"):
            await asyncio.sleep(0.05)
    assert await trans.stop() == 0
    about_etcd = [line for line in trans.lines if re.match(r"(WARN|ERROR) ", line)]
    assert len(about_etcd) == 1, trans.output
    assert "Traceback" not in trans.output


async def _has(keys: EtcdClient, prefix: str) -> bool:
    try:
        return bool((await keys.get_prefix(prefix)).items)
    except EtcdError:
        return False  # it is only just starting


@pytest.mark.usefixtures("engine")
async def test_a_service_that_nobody_announced(run: Processes, etcd: EtcdServer) -> None:
    """The client is told its name, and that the transfer is not done."""
    port = free_port()
    await run.coordinator(port, etcd=etcd.endpoint)
    client = await run.client(
        f"discovery://{etcd.endpoint}/dtmservice", f"discovery://{etcd.endpoint}/nobody"
    )
    assert client.handle.returncode == 1
    assert re.search(r"^result: not finished: .*nobody", client.output, re.MULTILINE), client.output
    assert "Traceback" not in client.output


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_flag_that_does_not_exist(run: Processes, program: str) -> None:
    """Exit 2 and one line that says where the flags are told."""
    process = await run.start(program, PROGRAMS[program][0], "-nonsense")
    assert await process.ended() == USAGE
    (line,) = process.lines
    assert "-nonsense" in line
    assert "-help" in line


@pytest.mark.usefixtures("engine")
async def test_a_coordinator_that_is_not_there(run: Processes) -> None:
    """Exit 1, without waiting for the whole timeout, and the way out is named."""
    port = free_port()
    client = await run.client(f"localhost:{port}", "localhost:9000")
    assert client.handle.returncode == 1, client.output
    (line,) = client.lines
    assert f"localhost:{port}" in line
    assert "is the coordinator running?" in line
