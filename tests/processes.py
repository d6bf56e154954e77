"""Real processes of this project for tests: started on free ports, followed by their output, ended.

A process is ready when it says so or when its port answers, and is ended by its own handle; nothing
here sleeps for a guessed time.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.engines import chosen

READY_WITHIN = 60.0
STOPS_WITHIN = 30.0
_POLL = 0.01

_COMMANDS = Path(sys.executable).parent
COORDINATOR, TRANS, CLIENT = (str(_COMMANDS / name) for name in ("coordinator", "trans", "client"))

_ELSEWHERE = """
import socket, sys
name = sys.argv.pop(1)
socket.gethostname = lambda: name
from apps.trans.main import main
sys.exit(main())
"""
"""The transfer service as if on a machine of another name."""


@dataclass
class Process:
    """One process and all it has said, on stdout and stderr together.

    Attributes:
        name: for messages.
        output: what came until now.
    """

    name: str
    handle: asyncio.subprocess.Process
    output: str = ""
    _silent: bool = False
    _reader: asyncio.Task[None] | None = None
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def pid(self) -> int:
        return self.handle.pid

    @property
    def running(self) -> bool:
        return self.handle.returncode is None

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()

    async def says(self, pattern: str, times: int = 1, within: float = READY_WITHIN) -> None:
        """Wait until ``pattern`` was found in the output ``times`` times."""
        try:
            async with asyncio.timeout(within), self._news:
                while len(re.findall(pattern, self.output, re.MULTILINE)) < times:
                    if self._silent:
                        raise AssertionError(
                            f"{self.name} ended without {pattern!r}:\n{self.output}"
                        )
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"{self.name} did not say {pattern!r} within {within} s:\n{self.output}"
            ) from None

    async def listens(self, *ports: int, within: float = READY_WITHIN) -> None:
        """Wait until each of ``ports`` of loopback takes connections."""
        try:
            async with asyncio.timeout(within):
                for port in ports:
                    while not await _connects(port):
                        if not self.running:
                            raise AssertionError(f"{self.name} ended:\n{self.output}")
                        await asyncio.sleep(_POLL)
        except TimeoutError:
            raise AssertionError(
                f"{self.name} does not listen on {ports} after {within} s:\n{self.output}"
            ) from None

    async def ended(self, within: float = STOPS_WITHIN) -> int:
        """Wait for the end; the exit status, negative for a signal."""
        try:
            async with asyncio.timeout(within):
                status = await self.handle.wait()
                if self._reader is not None:
                    await asyncio.shield(self._reader)
                return status
        except TimeoutError:
            raise AssertionError(
                f"{self.name} still runs after {within} s:\n{self.output}"
            ) from None

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; the exit status."""
        self.handle.send_signal(number)
        return await self.ended()

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.handle.kill()
        await self.ended()

    def follow(self) -> None:
        """Collect the output until it ends, in a task that :meth:`reap` awaits."""
        self._reader = asyncio.create_task(self._read())

    async def reap(self) -> None:
        """Kill it if it runs, and read the rest of its output."""
        if self.running:
            await self.kill()
        assert self._reader is not None
        await self._reader

    async def _read(self) -> None:
        assert self.handle.stdout is not None
        while chunk := await self.handle.stdout.read(65_536):
            await self._hear(chunk.decode(errors="replace"))
        self._silent = True
        await self._hear("")

    async def _hear(self, text: str) -> None:
        async with self._news:
            self.output += text
            self._news.notify_all()


class Processes:
    """Starts processes and owns them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[Process] = []

    async def start(
        self, name: str, *command: str, env: Mapping[str, str] | None = None
    ) -> Process:
        """Start ``command`` in :attr:`folder`.

        Settings of the caller's shell that would change what a process does are taken away.
        """
        clean = {key: value for key, value in os.environ.items() if key in _KEPT}
        handle = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**clean, "GRPC_VERBOSITY": "ERROR", **(env or {})},
            cwd=self.folder,
        )
        process = Process(name, handle)
        process.follow()
        self._started.append(process)
        return process

    async def coordinator(
        self, port: int, *, etcd: str = "", folder: Path | None = None, ready: bool = True
    ) -> Process:
        """The coordinator with SQLite in ``folder``, polling every second.

        Args:
            port: where it serves gRPC.
            etcd: where it announces itself as ``dtmservice`` and finds services; empty: direct.
            folder: of its configuration and its database; a restart takes the same one.
            ready: wait until it listens.
        """
        folder = folder or self.folder
        config = folder / "coordinator.yaml"
        config.write_text(coordinator_config(port, folder / "coordinator.db", etcd))
        process = await self.start("coordinator", COORDINATOR, "-c", str(config))
        if ready:
            await process.listens(port)
        return process

    async def trans(
        self, port: int, *, etcd: str = "", host: str = "", ready: bool = True
    ) -> Process:
        """The transfer service on loopback.

        Args:
            port: where it serves gRPC.
            etcd: where it announces itself; empty: nowhere.
            host: what it takes for the name of its machine: two on one machine would share a key.
            ready: wait until it listens.
        """
        folder = self.folder / (host or "trans")
        folder.mkdir(exist_ok=True)
        config = folder / "config.yaml"
        database = folder / "trans.db"
        config.write_text(trans_config(f"127.0.0.1:{port}", etcd, database))
        command = (sys.executable, "-c", _ELSEWHERE, host) if host else (TRANS,)
        process = await self.start(host or "trans", *command, "-conf", str(config))
        if ready:
            await process.listens(port)
        return process

    async def client(self, dtm: str, busi: str, *flags: str) -> Process:
        """The client; what it says is read once it has ended."""
        process = await self.start("client", *client_command(), "-dtm", dtm, "-busi", busi, *flags)
        await process.ended()
        return process

    async def aclose(self) -> None:
        """Kill what still runs."""
        for process in reversed(self._started):
            await process.reap()


def client_command() -> tuple[str, ...]:
    """The client's command, on the engine that is spoken."""
    return CLIENT, "-engine", chosen()


def coordinator_config(port: int, database: Path, etcd: str = "") -> str:
    """YAML for the coordinator."""
    text = (
        "Listen: 127.0.0.1\n"
        f"HttpPort: 0\nGrpcPort: {port}\n"
        "Store:\n"
        "  Driver: sqlite\n"
        f"  Path: {database}\n"
        f"GrpcEngine: {chosen()}\n"
        "TransCronInterval: 1\n"
        "MicroService:\n"
        "  Driver: dtm-driver-kratos\n"
    )
    if etcd:
        text += f"  Target: discovery://{etcd}/dtmservice\n  EndPoint: grpc://127.0.0.1:{port}\n"
    return text


def trans_config(address: str, etcd: str = "", database: Path | None = None) -> str:
    """YAML for the transfer service; its accounts are in ``database``."""
    text = f"server:\n  grpc:\n    addr: {address}\n    timeout: 1s\n    engine: {chosen()}\n"
    if database is not None:
        text += f"data:\n  database:\n    source: {database}\n"
    if etcd:
        text += f"registry:\n  etcd:\n    endpoints: [{etcd}]\n"
    return text


_KEPT = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV"}


@asynccontextmanager
async def processes(folder: Path) -> AsyncIterator[Processes]:
    """A place to start processes in; all are gone when the block is left."""
    owner = Processes(folder)
    try:
        yield owner
    finally:
        await owner.aclose()


async def _connects(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
