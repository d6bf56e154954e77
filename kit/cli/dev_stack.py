"""etcd and the coordinator as processes of ours: what ``kit dev`` and ``make demo`` begin with.

Everything listens on loopback, on the usual ports where they are free, and is stopped in the end,
the last one first. ``ETCD_ENDPOINTS`` names an etcd to use in place of an own one.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from kit.cli.run_process import Board, Process
from kit.etcd import EtcdClient, EtcdError
from kit.etcd.program import INSTALL_HINT, find_etcd
from kit.ports import free_port
from kit.transport.grpc.engines import EngineName

READY_WITHIN = 60.0
COORDINATOR_NAME = "dtmservice"
_POLL_S = 0.02


class StackError(Exception):
    """Something cannot be started or has ended; the text is for people, maybe of several lines."""


@dataclass(frozen=True, slots=True)
class Coordinator:
    """Where the coordinator serves.

    Attributes:
        http: base URL, up to ``/api/dtmsvr``.
        grpc: ``host:port``.
        target: how clients find it, ``discovery://host:port/dtmservice``.
    """

    http: str
    grpc: str
    target: str


@dataclass(frozen=True, slots=True)
class Ports:
    """Where to listen when nobody else does; 0 is any free port.

    Attributes:
        etcd: for clients.
        http: of the coordinator.
        grpc: of the coordinator.
    """

    etcd: int = 2379
    http: int = 36789
    grpc: int = 36790


class Stack:
    """What runs, in the order of starting.

    Args:
        folder: keeps the data and the configurations that are made.
        board: where lines are shown.
        stack: stops the processes when it is closed.
        ports: the usual ones by default.
    """

    def __init__(
        self,
        folder: Path,
        board: Board,
        stack: AsyncExitStack,
        ports: Ports | None = None,
    ) -> None:
        self.folder = folder
        self.ports = ports or Ports()
        self.board = board
        self.parts: list[Process] = []
        self._stack = stack

    async def start(
        self,
        name: str,
        *command: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a process that is stopped in the end.

        Raises:
            StackError: it cannot be run.
        """
        try:
            process = await Process.start(name, self.board, *command, cwd=cwd, env=env)
        except OSError as error:
            raise StackError(f"{name}: cannot run {command[0]}: {error.strerror}") from None
        self._stack.push_async_callback(process.stop)
        return process

    async def serve(
        self,
        name: str,
        ready: Callable[[], Awaitable[bool]],
        *command: str,
        cwd: Path | None = None,
    ) -> None:
        """Start a process and wait until ``ready``; from then on all parts have to stay alive.

        Raises:
            StackError: one of them ended, or it was not ready within 60 s.
        """
        process = await self.start(name, *command, cwd=cwd)
        self.parts.append(process)
        try:
            async with asyncio.timeout(READY_WITHIN):
                while not await ready():
                    await self.check()
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            why = f"was not ready within {READY_WITHIN:.0f} s"
            raise StackError(process.describe(why)) from None

    async def check(self) -> None:
        """Nothing while all parts run.

        Raises:
            StackError: one ended.
        """
        for process in self.parts:
            if process.status is not None:
                await process.ended()
                raise StackError(process.describe("ended too early"))

    async def first_end(self, *others: Process) -> Process:
        """Wait until one of the parts, or one of ``others``, has ended; which one."""
        waiting = {asyncio.create_task(each.ended()): each for each in (*others, *self.parts)}
        try:
            ended, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return next(each for task, each in waiting.items() if task in ended)

    async def etcd(self) -> str:
        """``host:port,…`` of an etcd that answers.

        Raises:
            StackError: there is none and none can be started.
        """
        if endpoints := os.environ.get("ETCD_ENDPOINTS"):
            if await announced(endpoints, "") is None:
                raise StackError(
                    f"no etcd answers at {endpoints}, from ETCD_ENDPOINTS; start it, or unset the"
                    " variable to use an own one"
                )
            self.board.show("etcd", f"the one at {endpoints}, from ETCD_ENDPOINTS")
            return endpoints
        if (binary := find_etcd()) is None:
            raise StackError(f"etcd is not there: {INSTALL_HINT}, or set ETCD_ENDPOINTS=host:2379")
        port, peer = self.port("etcd", self.ports.etcd), pick_port(0)
        here, to_peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"

        async def ready() -> bool:
            return await listens(port) and await announced(f"127.0.0.1:{port}", "") is not None

        await self.serve(
            "etcd",
            ready,
            *(binary, "--name=kit", f"--data-dir={self.folder / 'etcd'}", "--log-level=error"),
            "--enable-grpc-gateway=false",
            *(f"--listen-client-urls={here}", f"--advertise-client-urls={here}"),
            *(f"--listen-peer-urls={to_peers}", f"--initial-advertise-peer-urls={to_peers}"),
            *(f"--initial-cluster=kit={to_peers}", "--heartbeat-interval=10"),
            "--election-timeout=100",  # the first election is then over at once
        )
        self.board.show("etcd", f"listening on 127.0.0.1:{port}")
        return f"127.0.0.1:{port}"

    async def coordinator(self, etcd: str, engine: EngineName | None = None) -> Coordinator:
        """Serves, keeps its transactions in SQLite and is announced as ``dtmservice``.

        Args:
            etcd: ``host:port,…`` of the one that it is announced in.
            engine: what speaks HTTP/2 for its gRPC; its own default, or what the environment says.

        Raises:
            StackError: it did not start.
        """
        http = self.port("coordinator", self.ports.http)
        grpc = self.port("coordinator", self.ports.grpc)
        target = f"discovery://{etcd}/{COORDINATOR_NAME}"
        config = self.folder / "coordinator.yaml"
        spoken = f"GrpcEngine: {engine}\n" if engine else ""
        config.write_text(
            f"Listen: 127.0.0.1\nHttpPort: {http}\nGrpcPort: {grpc}\n{spoken}"
            "Store:\n"
            "  Driver: sqlite\n"
            f"  Path: {quoted(self.folder / 'coordinator.db')}\n"
            "MicroService:\n"
            "  Driver: dtm-driver-kratos\n"
            f"  Target: {target}\n"
            f"  EndPoint: grpc://127.0.0.1:{grpc}\n"
        )

        async def ready() -> bool:
            names = await announced(etcd, COORDINATOR_NAME) or ""
            return await listens(grpc) and await listens(http) and f":{grpc}" in names

        command = (sys.executable, "-m", "kit.dtm.server.main", "-c", str(config))
        await self.serve("coordinator", ready, *command)
        return Coordinator(f"http://127.0.0.1:{http}/api/dtmsvr", f"127.0.0.1:{grpc}", target)

    def port(self, name: str, usual: int) -> int:
        """``usual`` when nobody listens there, else a free one; that is told."""
        port = pick_port(usual)
        if usual and port != usual:
            self.board.show(name, f"port {usual} is taken by another program; {port} instead")
        return port


async def announced(etcd: str, service: str) -> str | None:
    """The values of a service in etcd, one a line; ``None`` when etcd does not answer."""
    try:
        async with EtcdClient(etcd) as client:
            listing = await client.get_prefix(f"/microservices/{service}/")
    except (EtcdError, ValueError):  # no answer, or text that is no address
        return None
    return "\n".join(item.value.decode(errors="replace") for item in listing.items)


async def listens(port: int) -> bool:
    """Whether ``port`` of loopback takes connections."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def pick_port(usual: int) -> int:
    """``usual`` when nobody listens there, else one that no other ``kit`` is given meanwhile.

    Raises:
        StackError: there is none.
    """
    if usual:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", usual))
            return usual
    try:
        return free_port()
    except RuntimeError as error:
        raise StackError(str(error)) from None


def quoted(path: Path) -> str:
    """A path for YAML, whatever its characters.

    >>> quoted(Path("/tmp/it's: here"))
    "'/tmp/it''s: here'"
    """
    return "'" + str(path).replace("'", "''") + "'"
