"""The processes of one benchmark: echo server, branch sink, coordinator, load generator."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from kit.ports import free_port
from tests.bench.load import Round

READY_WITHIN = 30.0
_PIPE = asyncio.subprocess.PIPE


class BenchmarkFailed(Exception):
    """A process ended or an answer was wrong; the text says which."""


@dataclass(frozen=True, slots=True)
class Servers:
    """``host:port`` of the yardstick of calls, and of who is asked as a branch."""

    echo: str
    sink: str

    async def branches(self) -> int:
        """How many branch calls the sink has had."""
        return int(await self._ask("Count"))

    async def first_branch(self) -> float:
        """When the first branch call since the last time this was asked came.

        Returns:
            Seconds of ``time.perf_counter``, which all processes share; 0 while there was none.
        """
        return float(await self._ask("First"))

    async def _ask(self, question: str) -> bytes:
        async with grpc.aio.insecure_channel(self.sink) as channel:
            answer: bytes = await channel.unary_unary(f"/bench.Sink/{question}")(b"")
            return answer


@dataclass(frozen=True, slots=True)
class Deployment:
    """What runs.

    Attributes:
        coordinator_pid: whose CPU time is counted.
        started: when the coordinator was started, in seconds of ``time.perf_counter``.
        target: ``host:port`` of its gRPC API.
        servers: echo server and branch sink.
        load: the load generator.
    """

    coordinator_pid: int
    started: float
    target: str
    servers: Servers
    load: asyncio.subprocess.Process

    async def measure(self, kind: str, clients: int, seconds: float) -> Round:
        """One measurement; ``kind`` is one of :mod:`tests.bench.load`."""
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

    def peak_mib(self) -> float:
        """The most memory the coordinator has had at once, in MiB."""
        status = Path(f"/proc/{self.coordinator_pid}/status").read_text(encoding="utf-8")
        [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(peak) / 1024

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the coordinator meanwhile, so that it takes nothing from what is measured."""
        os.kill(self.coordinator_pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.coordinator_pid, signal.SIGCONT)


@asynccontextmanager
async def running_servers() -> AsyncIterator[Servers]:
    """An echo server and a branch sink, for one deployment or several."""
    async with AsyncExitStack() as stack:
        both = [
            await stack.enter_async_context(piped(f"tests.bench.{name}"))
            for name in ("echo", "sink")
        ]
        yield Servers(*[await first_line(process) for process in both])


@asynccontextmanager
async def deployment(
    folder: Path,
    profile: Path | None = None,
    store: Mapping[str, object] | None = None,
    *,
    servers: Servers | None = None,
    settings: Mapping[str, object] | None = None,
) -> AsyncIterator[Deployment]:
    """All of it on loopback, the coordinator with its defaults.

    Args:
        folder: on the disk that is to be measured.
        profile: where the coordinator, run under cProfile, leaves its profile.
        store: the section ``Store`` of its configuration; SQLite in ``folder`` otherwise.
        servers: echo and sink that run already; its own otherwise.
        settings: more of the configuration.

    Raises:
        BenchmarkFailed: the coordinator does not become ready.
    """
    async with AsyncExitStack() as stack:
        if servers is None:
            servers = await stack.enter_async_context(running_servers())
        port = free_port()
        target = f"127.0.0.1:{port}"
        arguments = (servers.echo, target, servers.sink)
        load = await stack.enter_async_context(piped("tests.bench.load", *arguments))
        await first_line(load)  # its own start takes nothing from that of the coordinator
        config = _config(folder, port, store, settings)
        under = ("-m", "cProfile", "-o", str(profile)) if profile else ()
        started = time.perf_counter()
        with (folder / "coordinator.log").open("wb") as log:
            coordinator = await asyncio.create_subprocess_exec(
                *(sys.executable, *under, "-m", "kit.dtm.server.main"),
                *("-c", str(config)),
                stdout=log,
                stderr=log,
            )
        stack.push_async_callback(_terminate, coordinator)
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
        yield Deployment(coordinator.pid, started, target, servers, load)


@asynccontextmanager
async def piped(module: str, *args: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of this folder that ends when its stdin closes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *args), stdin=_PIPE, stdout=_PIPE
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def first_line(process: asyncio.subprocess.Process) -> str:
    """What ``process`` says once it is ready.

    Raises:
        BenchmarkFailed: it ended before.
    """
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise BenchmarkFailed("a process of the benchmark ended before it was ready")
    return line.decode().strip()


def _config(
    folder: Path,
    port: int,
    store: Mapping[str, object] | None,
    settings: Mapping[str, object] | None,
) -> Path:
    path = folder / "coordinator.json"
    given = {
        "Listen": "127.0.0.1",
        "HttpPort": 0,
        "GrpcPort": port,
        "Store": store or {"Driver": "sqlite", "Path": str(folder / "coordinator.db")},
        **(settings or {}),
    }
    path.write_text(json.dumps(given), encoding="utf-8")
    return path


async def _terminate(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    await process.wait()
