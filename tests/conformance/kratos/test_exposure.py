"""What a service opens to others: a fresh one with everything on, looked at from outside."""

import asyncio
import contextlib
import sys
from pathlib import Path

from tests.bench.kit_figures import SERVICE


def listening(pid: int) -> dict[int, set[str]]:
    """The ports on which a process listens, and their addresses as the kernel writes them."""
    sockets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if (link := str(entry.readlink())).startswith("socket:["):
                sockets.add(link.removeprefix("socket:[").removesuffix("]"))
    found: dict[int, set[str]] = {}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            waits = fields[3] in {"0A", "07"}  # LISTEN, and any UDP socket without a peer
            if fields[9] in sockets and waits:
                found.setdefault(int(port, 16), set()).add(address)
    return found


async def test_a_service_listens_on_the_ports_of_its_servers_and_on_no_others() -> None:
    """gRPC, HTTP and the admin port, the last on loopback; no profiler, no debugger, no UDP."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVICE),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            lines = [await process.stdout.readline() for _ in range(3)]
        ports = dict(line.decode().split() for line in lines)
        found = listening(process.pid)
        assert set(found) == {int(ports[name]) for name in ("grpc", "http", "admin")}
        assert found[int(ports["admin"])] == {"0100007F"}
    finally:
        process.terminate()
        await process.wait()
