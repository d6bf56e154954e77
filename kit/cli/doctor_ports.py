"""Whether the ports of a configuration can be had, and who has those that cannot."""

import errno
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from kit.cli.doctor_report import Finding, failed, good
from kit.transport.host import ListenAddress

FREE = "free"
"""Said of a port that nobody has."""
_LISTENS = "0A"
"""Of the states in ``/proc/net/tcp``."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who listens on a port.

    Attributes:
        pid: of the process.
        command: its arguments, cut.
        folder: where it works.
    """

    pid: int
    command: str
    folder: Path | None


def check_port(address: str, where: str, root: Path, announced: frozenset[int]) -> Finding:
    """Whether a service that is told to listen on ``address`` can, or does.

    Args:
        address: as in ``server.grpc.addr``.
        where: the key and the place it was written at.
        root: a process that works there is the service itself.
        announced: ports that the registry has for the service.
    """
    try:
        listen = ListenAddress.parse(address)
        host = listen.resolve()
    except (ValueError, OSError) as error:
        return failed("port", address, f"{where}: {error}")
    if listen.port == 0:
        return good("port", address, "the system will choose a free one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not listen.wildcard)
            probe.bind((host, listen.port))
            return good("port", address, FREE)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return failed("port", address, _why(error, where))
    holder = holder_of(listen.port)
    if listen.port in announced or (holder and holder.folder == root):
        by = f", process {holder.pid}" if holder else ""
        return good("port", address, f"the service listens there{by}")
    by = f"process {holder.pid} ({holder.command})" if holder else "another process"
    why = f"is taken by {by}; stop that one, or write another port at {where}"
    return failed("port", address, why)


def holder_of(port: int) -> Holder | None:
    """Who listens on a TCP port of this machine; ``None`` when the system does not tell."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    if not sockets:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):
                return _holder(process)
        except OSError:  # not ours, or gone
            continue
    return None


def _holder(process: Path) -> Holder:
    words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    command = " ".join(word for word in words if word)
    try:
        folder = (process / "cwd").resolve()
    except OSError:
        folder = None
    return Holder(int(process.name), command[:80], folder)


def _listening(port: int) -> set[str]:
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def _why(error: OSError, where: str) -> str:
    match error.errno:
        case errno.EACCES:
            return f"needs rights that you have not; write a port from 1024 on at {where}"
        case errno.EADDRNOTAVAIL:
            return f"is no address of this machine; write 0.0.0.0 or one that is at {where}"
        case _:
            return f"cannot be listened on: {error.strerror}; see {where}"
