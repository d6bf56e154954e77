"""A real MariaDB for tests, started and stopped at will.

The system's own service is neither needed nor touched: each server here has a folder, a port and a
socket of its own.
"""

import asyncio
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from kit.ports import free_port
from kit.testing.absent import absent

INSTALL_HINT = (
    "apt-get install mariadb-server-core mariadb-client-core, or point MYSQL_DSN to a server"
)

DSN_VARIABLE = "MYSQL_DSN"
"""``mysql://user:password@host:port``: a server that is there already and that tests may fill."""

USER, PASSWORD = "kit", "kit"
"""Who may do everything on a server that was started here."""

_SEARCHED = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/libexec"))
_HELPERS = ("mariadb-install-db", "my_print_defaults")
_PACKAGES = ("mariadb-server-core", "mariadb-client-core")  # the second has my_print_defaults
_INSTALL_TRIES = 3
_READY_WITHIN = 60.0
_STOPS_WITHIN = 20.0
_INSTALLED_WITHIN = 300.0

_INIT = f"""\
CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;
"""


def find_mariadbd() -> str | None:
    """Where the server is: on PATH or in a folder of system programs, else ``None``.

    A server without the programs that make its data folder is of no use, and counts as absent.
    """
    if not all(shutil.which(name, path=_SEARCHED) for name in _HELPERS):
        return None
    return next(
        (path for name in ("mariadbd", "mysqld") if (path := shutil.which(name, path=_SEARCHED))),
        None,
    )


def install_mariadbd() -> str | None:
    """Where the server is; as root where there is ``apt-get`` it is installed when absent.

    The packages bring programs and no service. Takes up to 5 minutes a step; of several processes
    that ask at the same time one installs and the others wait for it.
    """
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return find_mariadbd()
    with (Path(tempfile.gettempdir()) / "kit-install-mariadb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (found := find_mariadbd()) is not None:
            return found
        for _ in range(_INSTALL_TRIES):
            if _apt("update") and _apt("install", "--no-install-recommends", *_PACKAGES):
                break
        return find_mariadbd()


def _apt(*words: str) -> bool:
    """Whether ``apt-get`` did it; what it complained about goes to standard error."""
    command = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"]
    try:
        done = subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=_INSTALLED_WITHIN,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    except (subprocess.SubprocessError, OSError) as exc:
        complaint = str(exc)
    else:
        if done.returncode == 0:
            return True
        complaint = done.stderr.strip()
    print(f"apt-get {words[0]}: {complaint[-1_000:]}", file=sys.stderr)  # noqa: T201  no logger yet
    return False


class MariadbServer:
    """A MariaDB on loopback whose data and port survive a restart, or one that is there already.

    Attributes:
        host: for clients.
        port: for clients.
        user: who may do everything.
        password: of ``user``.
    """

    def __init__(
        self, host: str, port: int, user: str = USER, password: str = PASSWORD, folder: str = ""
    ) -> None:
        self.host, self.port, self.user, self.password = host, port, user, password
        self._folder = Path(folder)
        self._settings: tuple[str, ...] = ()
        self._binary = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """``mysql://user:password@host:port``."""
        return f"mysql://{self.user}:{self.password}@{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process; an error when none runs here."""
        assert self._process is not None, "no MariaDB of ours runs"
        return self._process.pid

    def install(self, binary: str, settings: tuple[str, ...]) -> None:
        """Make the data folder; ``settings`` are options of the server, such as ``--port=1``."""
        self._binary, self._settings = binary, settings
        self._folder.chmod(0o700)
        if os.geteuid() == 0:
            entry = pwd.getpwnam(_unprivileged())
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        (self._folder / "init.sql").write_text(_INIT)
        program = shutil.which("mariadb-install-db", path=_SEARCHED) or "mariadb-install-db"
        command = [program, "--no-defaults", f"--datadir={self._data}", "--skip-test-db"]
        command.append("--auth-root-authentication-method=normal")
        # In a shared one a server that starts removes the temporary tables of all others.
        command.append(f"--tmpdir={self._folder}")
        if os.geteuid() == 0:
            command.append(f"--user={_unprivileged()}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr + done.stdout).strip()  # it complains on its standard output
            raise RuntimeError(f"{program}: {said[-2_000:]}")

    async def start(self, *settings: str) -> None:
        """Start on the data and port of the last time; return when it answers.

        Args:
            *settings: options for this run, behind those of :meth:`install`.

        Raises:
            RuntimeError: it ended, or did not answer within 60 s; with the end of its log.
        """
        assert self._process is None, "MariaDB runs already"
        with self._log_path.open("ab") as log:
            self._process = _spawn([*self._command(), *self._settings, *settings], log)
        try:
            async with asyncio.timeout(_READY_WITHIN):
                while not await self._greets():
                    if self._process.poll() is not None:
                        self._process = None
                        raise RuntimeError(f"MariaDB ended at once:\n{self._log_tail()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise RuntimeError(f"MariaDB does not answer:\n{self._log_tail()}") from None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if (process := self._process) is not None:
            process.kill()
            process.wait()
            self._process = None

    async def stop(self) -> None:
        """SIGTERM, and wait until it is gone; SIGKILL after 20 s."""
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

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _log_path(self) -> Path:
        return self._folder / "mariadb.log"

    def _log_tail(self) -> str:
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-10:])

    def _command(self) -> list[str]:
        command = [
            self._binary,
            "--no-defaults",
            f"--datadir={self._data}",
            f"--tmpdir={self._folder}",
            f"--socket={self._folder / 'socket'}",
            f"--pid-file={self._folder / 'pid'}",
            f"--init-file={self._folder / 'init.sql'}",
            f"--bind-address={self.host}",
            f"--port={self.port}",
            "--skip-name-resolve",
            "--skip-log-bin",
            "--innodb-flush-log-at-trx-commit=1",
            "--innodb-buffer-pool-size=128M",
        ]
        if os.geteuid() == 0:
            command.append(f"--user={_unprivileged()}")
        return command

    async def _greets(self) -> bool:
        """Whether it sends the first packet of its protocol; it listens only a while before."""
        try:
            reader, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        try:
            return len(await reader.read(5)) == 5
        except OSError:
            return False
        finally:
            writer.close()


@asynccontextmanager
async def mariadb_server(
    *settings: str, own: bool = False, folder: Path | None = None
) -> AsyncIterator[MariadbServer]:
    """A running MariaDB in a temporary folder, gone with its data when the block is left.

    With ``MYSQL_DSN`` set it is that server. Without a server the test is skipped, or failed where
    ``REQUIRE_SERVERS=1`` is set; as root on Debian the package is installed first.

    Args:
        *settings: options of the server, such as ``--sync-binlog=0``; with any it is an own one.
        own: start one even where ``MYSQL_DSN`` is set, to stop it or to change its settings.
        folder: where its temporary folder is made; the system's by default.
    """
    dsn = os.environ.get(DSN_VARIABLE)
    if dsn and not own and not settings:
        url = urlsplit(dsn)
        user, password = unquote(url.username or "root"), unquote(url.password or "")
        yield MariadbServer(url.hostname or "127.0.0.1", url.port or 3306, user, password)
        return
    binary = await asyncio.to_thread(install_mariadbd) or absent("MariaDB", INSTALL_HINT)
    with tempfile.TemporaryDirectory(
        prefix="kit-mariadb-", dir=folder, ignore_cleanup_errors=True
    ) as own_folder:
        server = MariadbServer("127.0.0.1", free_port(), folder=own_folder)
        try:
            await asyncio.to_thread(server.install, binary, settings)
            await server.start()
            yield server
        finally:
            server.kill()


def _spawn(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process that belongs to no event loop, as those of asyncio do: fixtures outlive loops."""
    return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def _unprivileged() -> str:
    """Whom a server started by root runs as."""
    for name in ("mysql", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise RuntimeError("there is neither a user mysql nor nobody to run MariaDB as")
