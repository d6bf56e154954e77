"""A real Consul agent for tests and demonstrations, started and stopped at will."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kit.consul import ConsulClient, ConsulError, ConsulOptions
from kit.ports import free_port

INSTALL_HINT = "put it on PATH, name it in CONSUL_BIN, or run make consul where go is"

_READY_WITHIN = 30.0
_STOPS_WITHIN = 10.0


def find_consul() -> str | None:
    """Where the binary is: ``CONSUL_BIN``, else on PATH, else what ``make consul`` built."""
    built = Path.home() / ".cache" / "kit" / "consul"
    return (
        os.environ.get("CONSUL_BIN")
        or shutil.which("consul")
        or (str(built) if built.exists() else None)
    )


def require_consul() -> str:
    """The binary; without it the running test is skipped, and the way out named.

    No registry of packages has it, so ``REQUIRE_SERVERS=1`` does not ask for it.
    """
    binary = find_consul()
    if binary is None:
        import pytest  # here: who only starts servers needs no pytest

        pytest.skip(f"consul is not installed; {INSTALL_HINT}")
    return binary


@dataclass(frozen=True, slots=True)
class ConsulServerTls:
    """Files in PEM form for an agent that speaks TLS.

    Attributes:
        cert: its certificate.
        key: the key of ``cert``.
        ca: whose certificates clients must show; empty: they need none.
    """

    cert: str | Path
    key: str | Path
    ca: str | Path = ""


class ConsulServer:
    """One agent on loopback, server and client in one, with data and ports that survive a restart.

    Attributes:
        address: ``127.0.0.1:port`` for clients.
        tls_address: the same for those that speak TLS; empty when it does not.
        token: may do everything; empty: access control is off, and everybody may.
    """

    def __init__(self, binary: str, folder: Path, tls: ConsulServerTls | None, token: str) -> None:
        self._binary = binary
        self._folder = folder
        self._tls = tls
        self._ports = {kind: free_port() for kind in ("http", "https", "server", "serf_lan")}
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"127.0.0.1:{self._ports['http']}"
        self.tls_address = f"127.0.0.1:{self._ports['https']}" if tls else ""
        self.token = token

    async def start(self) -> None:
        """Start, on the data and ports of the last time; return when it leads and knows itself.

        Raises:
            RuntimeError: it ended, or was not ready within 30 s; with the end of its log.
        """
        assert self._process is None, "consul runs already"
        self._process = process = self._spawn()
        options = ConsulOptions(self.address, self.token, timeout=1.0)
        try:
            async with asyncio.timeout(_READY_WITHIN), ConsulClient(options) as client:
                while not await _is_ready(client):
                    if process.poll() is not None:
                        raise RuntimeError(f"consul ended at once:\n{self._log_tail()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise RuntimeError(f"consul is not ready:\n{self._log_tail()}") from None

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
        assert self._process is not None, "consul does not run"
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """SIGCONT: go on."""
        assert self._process is not None, "consul does not run"
        self._process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Delete the data of a server that is down: it will start empty."""
        assert self._process is None, "consul runs"
        shutil.rmtree(self._folder / "data", ignore_errors=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        """A process that belongs to no event loop, as asyncio's do: fixtures outlive loops."""
        settings = self._folder / "agent.json"
        settings.write_text(json.dumps(self._settings()))
        command = [self._binary, "agent", f"-config-file={settings}"]
        with self._log_path.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    @property
    def _log_path(self) -> Path:
        return self._folder / "consul.log"

    def _log_tail(self) -> str:
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-10:])

    def _settings(self) -> dict[str, object]:
        settings: dict[str, object] = {
            "node_name": "kit",
            "server": True,
            "bootstrap_expect": 1,
            "data_dir": str(self._folder / "data"),
            "bind_addr": "127.0.0.1",
            "ports": {
                **self._ports,
                "https": self._ports["https"] if self._tls else -1,
                **dict.fromkeys(("dns", "grpc", "grpc_tls", "serf_wan"), -1),
            },
            "connect": {"enabled": False},
            "performance": {"raft_multiplier": 1},
            "disable_update_check": True,
            "log_level": "warn",
        }
        if self.token:
            settings["acl"] = {
                "enabled": True,
                "default_policy": "deny",
                "tokens": {"initial_management": self.token, "agent": self.token},
            }
        if self._tls:
            settings["tls"] = {
                "https": {
                    "cert_file": str(self._tls.cert),
                    "key_file": str(self._tls.key),
                    "ca_file": str(self._tls.ca),
                    "verify_incoming": bool(self._tls.ca),
                }
            }
        return settings


async def _is_ready(client: ConsulClient) -> bool:
    """Whether it leads, and has put itself in its catalog."""
    try:
        return bool((await client.get("catalog", "nodes")).value)
    except ConsulError:
        return False


@asynccontextmanager
async def consul_server(
    *, tls: ConsulServerTls | None = None, token: str = ""
) -> AsyncIterator[ConsulServer]:
    """A running Consul in a temporary folder, gone with its data when the block is left.

    Without the binary the test is skipped.

    Args:
        tls: ``None`` for plain text alone.
        token: switches access control on; who shows it may do everything, others nothing.
    """
    binary = require_consul()
    with tempfile.TemporaryDirectory(prefix="kit-consul-", ignore_cleanup_errors=True) as folder:
        server = ConsulServer(binary, Path(folder), tls, token)
        try:
            await server.start()
            yield server
        finally:
            server.kill()
