"""A real etcd for tests and demonstrations, started and stopped at will."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kit.etcd.program import INSTALL_HINT, find_etcd
from kit.ports import free_port
from kit.testing.absent import absent

_READY_WITHIN = 60.0
_STOPS_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class EtcdServerTls:
    """Files in PEM form for an etcd that speaks TLS.

    Attributes:
        cert: its certificate.
        key: the key of ``cert``.
        ca: whose certificates clients must show; empty: they need none.
    """

    cert: str | Path
    key: str | Path
    ca: str | Path = ""


class EtcdServer:
    """One etcd process on loopback with data and ports that survive a restart.

    Attributes:
        endpoint: ``127.0.0.1:port`` for clients.
        name: among the members of a cluster.
    """

    def __init__(
        self,
        binary: str,
        folder: Path,
        port: int,
        tls: EtcdServerTls | None,
        election_ms: int,
        name: str = "kit",
    ) -> None:
        self.name = name
        self._binary = binary
        self._folder = folder
        self._tls = tls
        self._election_ms = election_ms
        self._port = port or free_port()
        self._peer_port, self._health_port = free_port(), free_port()
        self._members = [self]
        self._user: tuple[str, str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"127.0.0.1:{self._port}"

    def join(self, members: "Sequence[EtcdServer]") -> None:
        """Be one of ``members`` from the first start on."""
        self._members = list(members)

    @property
    def pid(self) -> int:
        """The process; an error when none runs."""
        assert self._process is not None, "etcd does not run"
        return self._process.pid

    async def start(self) -> None:
        """Start, on the data and port of the last time; return when it is healthy.

        Raises:
            RuntimeError: it ended, or was not healthy within 60 s; with the end of its log.
        """
        assert self._process is None, "etcd runs already"
        with self._log_path.open("ab") as log:
            self._process = _spawn(self._command(), log)
        try:
            async with asyncio.timeout(_READY_WITHIN):
                while not await self._is_healthy():
                    if self._process.poll() is not None:
                        raise RuntimeError(f"etcd ended at once:\n{self._log_tail()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise RuntimeError(f"etcd is not healthy:\n{self._log_tail()}") from None

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
        assert self._process is not None, "etcd does not run"
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """SIGCONT: go on."""
        assert self._process is not None, "etcd does not run"
        self._process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Delete the data of a server that is down: it will start empty."""
        assert self._process is None, "etcd runs"
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    async def enable_auth(self, user: str, password: str) -> None:
        """Switch authentication on.

        ``user`` may do everything, as ``root`` may, who has the same password.
        """
        await self.ctl("user", "add", f"root:{password}")
        await self.ctl("user", "grant-role", "root", "root")
        if user != "root":
            await self.ctl("user", "add", f"{user}:{password}")
            await self.ctl("user", "grant-role", user, "root")
        await self.ctl("auth", "enable")
        self._user = ("root", password)

    async def leads(self) -> bool:
        """Whether it is the leader; a member that does not run is not."""
        if self._process is None:
            return False
        (member,) = json.loads(await self.ctl("endpoint", "status", "--write-out=json"))
        status = member["Status"]
        return bool(status["header"]["member_id"] == status.get("leader"))

    async def ctl(self, *args: str) -> str:
        """What ``etcdctl`` with ``args`` prints.

        Raises:
            RuntimeError: it failed; with what it said.
        """
        etcdctl = find_etcd("etcdctl") or absent("etcdctl", INSTALL_HINT)
        scheme = "https" if self._tls else "http"
        command = [etcdctl, f"--endpoints={scheme}://{self.endpoint}"]
        if self._tls:
            command.append("--insecure-skip-tls-verify")
            command += [f"--cert={self._tls.cert}", f"--key={self._tls.key}"]
        if self._user:
            command.append(f"--user={self._user[0]}:{self._user[1]}")
        done = await asyncio.to_thread(
            subprocess.run, [*command, *args], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"etcdctl {args[0]}: {done.stderr.strip()}")
        return done.stdout

    @property
    def peer(self) -> str:
        """Where the other members of a cluster reach it."""
        return f"http://127.0.0.1:{self._peer_port}"

    @property
    def _log_path(self) -> Path:
        return self._folder / "etcd.log"

    def _log_tail(self) -> str:
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-10:])

    def _command(self) -> list[str]:
        scheme = "https" if self._tls else "http"
        client, peer = f"{scheme}://{self.endpoint}", self.peer
        cluster = ",".join(f"{member.name}={member.peer}" for member in self._members)
        command = [
            self._binary,
            f"--name={self.name}",
            f"--data-dir={self._folder / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={cluster}",
            f"--listen-metrics-urls=http://127.0.0.1:{self._health_port}",
            f"--heartbeat-interval={max(self._election_ms // 10, 1)}",
            f"--election-timeout={self._election_ms}",
            "--grpc-keepalive-min-time=500ms",
            "--bcrypt-cost=4",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]
        if self._tls:
            command += [f"--cert-file={self._tls.cert}", f"--key-file={self._tls.key}"]
            if self._tls.ca:
                command += ["--client-cert-auth", f"--trusted-ca-file={self._tls.ca}"]
        return command

    async def _is_healthy(self) -> bool:
        """Whether its health page, which needs neither TLS nor a user, says so."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._health_port)
        except OSError:
            return False
        try:
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            return b'"health":"true"' in await reader.read()
        except OSError:
            return False
        finally:
            writer.close()


@asynccontextmanager
async def etcd_server(
    port: int = 0,
    *,
    tls: EtcdServerTls | None = None,
    auth: tuple[str, str] | None = None,
    election_ms: int = 100,
) -> AsyncIterator[EtcdServer]:
    """A running etcd in a temporary folder, gone with its data when the block is left.

    Without the binary the test is skipped, or failed where ``REQUIRE_SERVERS=1`` is set.

    Args:
        port: for clients; 0 picks a free one.
        tls: ``None`` for plain text.
        auth: user and password to switch authentication on with.
        election_ms: etcd's election timeout. Leases live at least one and a half of it, in whole
            seconds: with the default of 100 ms a lease of 1 s is possible.
    """
    binary = find_etcd() or absent("etcd", INSTALL_HINT)
    with tempfile.TemporaryDirectory(prefix="kit-etcd-", ignore_cleanup_errors=True) as folder:
        server = EtcdServer(binary, Path(folder), port, tls, election_ms)
        try:
            await server.start()
            if auth is not None:
                await server.enable_auth(*auth)
            yield server
        finally:
            server.kill()


@asynccontextmanager
async def etcd_cluster(
    size: int = 3, *, election_ms: int = 1000
) -> AsyncIterator[list[EtcdServer]]:
    """Running members of one cluster in temporary folders, gone when the block is left.

    Without the binary the test is skipped, or failed where ``REQUIRE_SERVERS=1`` is set.

    Args:
        size: how many; more than half of them have to live.
        election_ms: as of :func:`etcd_server`; short ones make a busy machine elect all the time.
    """
    binary = find_etcd() or absent("etcd", INSTALL_HINT)
    with tempfile.TemporaryDirectory(prefix="kit-etcd-", ignore_cleanup_errors=True) as folder:
        members: list[EtcdServer] = []
        for number in range(size):
            own = Path(folder) / str(number)
            own.mkdir()
            members.append(EtcdServer(binary, own, 0, None, election_ms, name=f"kit{number}"))
        for member in members:
            member.join(members)
        try:
            await asyncio.gather(*(member.start() for member in members))
            yield members
        finally:
            for member in members:
                member.kill()


def _spawn(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process that belongs to no event loop, as those of asyncio do: fixtures outlive loops."""
    return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
