"""The processes of one benchmark: echo server, branch sink, coordinator, load generator."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from tests.bench.load import Round
from tests.processes import free_port

READY_WITHIN = 15.0
_PIPE = asyncio.subprocess.PIPE


class BenchmarkFailed(Exception):
    """A process ended or an answer was wrong; the text says which."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """What runs.

    Attributes:
        coordinator_pid: whose CPU time is counted.
        target: ``host:port`` of its gRPC API.
        sink: ``host:port`` of the branch sink.
        load: the load generator.
    """

    coordinator_pid: int
    target: str
    sink: str
    load: asyncio.subprocess.Process

    async def measure(self, kind: str, clients: int, seconds: float) -> Round:
        """One measurement; ``kind`` is ``echo``, ``msg``, ``saga`` or ``tcc``."""
        assert self.load.stdin is not None
        assert self.load.stdout is not None
        self.load.stdin.write(f"{kind} {clients} {seconds}\n".encode())
        line = await self.load.stdout.readline()
        if not line:
            raise BenchmarkFailed(f"the load generator ended during {kind} at {clients} clients")
        return Round(**json.loads(line))

    def cpu_seconds(self) -> float:
        """User and system time the coordinator has used, to a hundredth."""
        stat = Path(f"/proc/{self.coordinator_pid}/stat").read_text(encoding="ascii")
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def branches(self) -> int:
        """How many branch calls the sink has had."""
        async with grpc.aio.insecure_channel(self.sink) as channel:
            return int(await channel.unary_unary("/bench.Sink/Count")(b""))


@asynccontextmanager
async def deployment(
    folder: Path, profile: Path | None = None, store: Mapping[str, object] | None = None
) -> AsyncIterator[Deployment]:
    """All of it on loopback, the coordinator with its defaults.

    Args:
        folder: on the disk that is to be measured.
        profile: where the coordinator, run under cProfile, leaves its profile.
        store: the section ``Store`` of its configuration; SQLite in ``folder`` otherwise.
    """
    async with AsyncExitStack() as stack:

        async def piped(module: str, *args: str) -> asyncio.subprocess.Process:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *args), stdin=_PIPE, stdout=_PIPE
            )
            stack.push_async_callback(_close, process)
            return process

        echo, sink = [await piped("tests.bench.echo") for _ in range(2)]
        echo_at, sink_at = [await _first_line(process) for process in (echo, sink)]
        port = free_port()
        under = ("-m", "cProfile", "-o", str(profile)) if profile else ()
        with (folder / "coordinator.log").open("wb") as log:
            coordinator = await asyncio.create_subprocess_exec(
                *(sys.executable, *under, "-m", "kit.dtm.server.main"),
                *("-c", str(_config(folder, port, store))),
                stdout=log,
                stderr=log,
            )
        stack.push_async_callback(_terminate, coordinator)
        target = f"127.0.0.1:{port}"
        async with grpc.aio.insecure_channel(target) as channel:
            ready = asyncio.create_task(channel.channel_ready())
            ended = asyncio.create_task(coordinator.wait())
            await asyncio.wait(
                (ready, ended), timeout=READY_WITHIN, return_when=asyncio.FIRST_COMPLETED
            )
            is_ready = ready.done()
            for task in (ready, ended):
                task.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)
            if not is_ready:
                said = (folder / "coordinator.log").read_text(errors="replace")[-2_000:]
                raise BenchmarkFailed(f"the coordinator is not ready; it said:\n{said}")
        load = await piped("tests.bench.load", echo_at, target, sink_at)
        yield Deployment(coordinator.pid, target, sink_at, load)


def _config(folder: Path, port: int, store: Mapping[str, object] | None) -> Path:
    path = folder / "coordinator.json"
    settings = {
        "Listen": "127.0.0.1",
        "HttpPort": 0,
        "GrpcPort": port,
        "Store": store or {"Driver": "sqlite", "Path": str(folder / "coordinator.db")},
    }
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path


async def _first_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise BenchmarkFailed("an echo server ended before it listened")
    return line.decode().strip()


async def _close(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


async def _terminate(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    await process.wait()
