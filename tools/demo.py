"""The transfer, end to end: etcd, coordinator, trans and client with their logs side by side.

Run by ``make demo``. Everything listens on loopback, on the usual ports where they are free, keeps
its data in a temporary folder, and is stopped in the end. ``ETCD_ENDPOINTS`` names an etcd to use
in place of an own one. Exit status: 0 after the transfer, 1 when something failed, 130 after
Ctrl-C.
"""

import asyncio
import os
import re
import signal
import socket
import sys
import tempfile
import textwrap
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from kit.etcd import EtcdClient, EtcdError
from kit.testing.etcd import INSTALL_HINT, find_etcd

ROOT = Path(__file__).parents[1]
COMMANDS = Path(sys.executable).parent
"""Where the installed ``coordinator``, ``trans`` and ``client`` are; bin/ leads there too."""

READY_WITHIN = 20.0
STOPS_WITHIN = 10.0
KEPT_LINES = 15
NAMES = ("etcd", "coordinator", "trans", "client")
WIDTH = max(map(len, NAMES)) + 1
COLOURS = dict(zip(NAMES, ("\x1b[35m", "\x1b[36m", "\x1b[32m", "\x1b[33m"), strict=True))
PLAIN = "\x1b[0m"
COLOURED = sys.stdout.isatty() and "NO_COLOR" not in os.environ


class DemoFailed(Exception):
    """The demonstration cannot go on; the text is for people and may have several lines."""


def show(name: str, line: str) -> None:
    """One line of a process, under its name."""
    head = f"{name:>{WIDTH}} │"
    print(f"{COLOURS[name]}{head}{PLAIN} {line}" if COLOURED else f"{head} {line}", flush=True)


class Part:
    """A running process whose lines are shown as they come; the last ones are kept."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self._process = process
        self._shown = asyncio.create_task(self._show())  # awaited in ended()

    async def ended(self) -> int:
        """Wait for its end and its last line; the exit status."""
        status = await self._process.wait()
        await asyncio.shield(self._shown)
        return status

    async def check(self) -> None:
        """Nothing while it runs.

        Raises:
            DemoFailed: it ended.
        """
        if self._process.returncode is not None:
            raise await self.failure("ended too early")

    async def failure(self, why: str) -> DemoFailed:
        """An error that says which process, why, and what it said last."""
        if (status := self._process.returncode) is not None:
            await self._shown
            why += f", {_how_it_ended(status)}"
        said = "\n".join(self.last) or "(nothing)"
        return DemoFailed(f"{self.name} {why}; its last lines:\n{textwrap.indent(said, '    ')}")

    async def stop(self) -> None:
        """SIGTERM and, after 10 s, SIGKILL."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(STOPS_WITHIN):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
        await self.ended()

    async def _show(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self.last.append(line)
            show(self.name, line)


def _how_it_ended(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


class Demo:
    """What runs, in the order of starting."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._parts: list[Part] = []

    async def start(self, name: str, *command: str) -> Part:
        """Start a process that is stopped in the end; Ctrl-C reaches it through us alone."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "GRPC_VERBOSITY": "ERROR"},
            cwd=ROOT,
            limit=1 << 20,
            start_new_session=True,
        )
        part = Part(name, process)
        self._stack.push_async_callback(part.stop)
        return part

    async def serve(self, name: str, ready: Callable[[], Awaitable[bool]], *command: str) -> None:
        """Start a process and wait until ``ready``; from then on all parts have to stay alive."""
        part = await self.start(name, *command)
        self._parts.append(part)
        try:
            async with asyncio.timeout(READY_WITHIN):
                while not await ready():
                    for each in self._parts:
                        await each.check()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise await part.failure(f"was not ready within {READY_WITHIN:.0f} s") from None

    async def etcd(self) -> str:
        """``host:port,…`` of an etcd that answers."""
        if endpoints := os.environ.get("ETCD_ENDPOINTS"):
            if await announced(endpoints, "") is None:
                raise DemoFailed(
                    f"no etcd answers at {endpoints}, from ETCD_ENDPOINTS; start it, or unset the"
                    " variable to use an own one"
                )
            show("etcd", f"the one at {endpoints}, from ETCD_ENDPOINTS")
            return endpoints
        if (binary := find_etcd()) is None:
            raise DemoFailed(f"etcd is not there: {INSTALL_HINT}, or set ETCD_ENDPOINTS=host:2379")
        port, peer = pick_port(2379), pick_port(2380)
        here, to_peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"

        async def ready() -> bool:
            return await listens(port) and await announced(f"127.0.0.1:{port}", "") is not None

        await self.serve(
            "etcd",
            ready,
            *(binary, "--name=demo", f"--data-dir={self._folder / 'etcd'}", "--log-level=error"),
            "--enable-grpc-gateway=false",
            *(f"--listen-client-urls={here}", f"--advertise-client-urls={here}"),
            *(f"--listen-peer-urls={to_peers}", f"--initial-advertise-peer-urls={to_peers}"),
            *(f"--initial-cluster=demo={to_peers}", "--heartbeat-interval=10"),
            "--election-timeout=100",  # the first election is then over at once
        )
        show("etcd", f"listening on 127.0.0.1:{port}")
        return f"127.0.0.1:{port}"

    async def coordinator(self, etcd: str) -> None:
        """Serves and is announced as ``dtmservice``."""
        port = pick_port(36790)
        config = self._folder / "coordinator.yaml"
        config.write_text(
            f"Listen: 127.0.0.1\nHttpPort: 0\nGrpcPort: {port}\n"
            "Store:\n"
            "  Driver: sqlite\n"
            f"  Path: {self._folder / 'coordinator.db'}\n"
            "MicroService:\n"
            "  Driver: dtm-driver-kratos\n"
            f"  Target: discovery://{etcd}/dtmservice\n"
            f"  EndPoint: grpc://127.0.0.1:{port}\n"
        )

        async def ready() -> bool:
            return await listens(port) and f":{port}" in (await announced(etcd, "dtmservice") or "")

        await self.serve("coordinator", ready, str(COMMANDS / "coordinator"), "-c", str(config))

    async def trans(self, etcd: str) -> None:
        """Serves and is announced as ``trans``."""
        port = pick_port(9000)
        config = self._folder / "config.yaml"
        config.write_text(
            "server:\n"
            "  grpc:\n"
            f"    addr: 127.0.0.1:{port}\n"
            "    timeout: 1s\n"
            "registry:\n"
            "  etcd:\n"
            f"    endpoints: [{etcd}]\n"
            "data:\n"
            "  database:\n"
            f"    source: {self._folder / 'trans.db'}\n"
        )

        async def ready() -> bool:
            return await listens(port) and f":{port}" in (await announced(etcd, "trans") or "")

        await self.serve("trans", ready, str(COMMANDS / "trans"), "-conf", str(config))

    async def client(self, etcd: str) -> str:
        """Submit the transfer; the gid."""
        part = await self.start(
            "client",
            str(COMMANDS / "client"),
            *("-dtm", f"discovery://{etcd}/dtmservice", "-busi", f"discovery://{etcd}/trans"),
        )
        status = await self._first_end(part)
        if status != 0:
            raise await part.failure("did not succeed")
        found = re.search(r"gid[:= ]+(\S+)", "\n".join(part.last))
        return found[1].rstrip(",.;") if found else "?"

    async def _first_end(self, part: Part) -> int:
        """The exit status of ``part``, which ends before those that serve.

        Raises:
            DemoFailed: another one ended first, or none in time.
        """
        waiting = {asyncio.create_task(each.ended()): each for each in (part, *self._parts)}
        ended, _ = await asyncio.wait(
            waiting, timeout=READY_WITHIN, return_when=asyncio.FIRST_COMPLETED
        )
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        if not ended:
            raise await part.failure(f"has no answer after {READY_WITHIN:.0f} s")
        for each in self._parts:
            await each.check()
        return ended.pop().result()


async def announced(etcd: str, service: str) -> str | None:
    """The values of a service in etcd; ``None`` when etcd does not answer."""
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
    return True


def pick_port(usual: int) -> int:
    """``usual`` when nobody listens there, else a free one."""
    for port in (usual, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoFailed("no free port on 127.0.0.1")


@asynccontextmanager
async def demonstration() -> AsyncIterator[Demo]:
    """A place to start processes; all are stopped, the last one first, when the block is left."""
    with tempfile.TemporaryDirectory(prefix="kit-demo-", ignore_cleanup_errors=True) as folder:
        async with AsyncExitStack() as stack:
            yield Demo(Path(folder), stack)


async def demonstrate() -> str:
    """Run the transfer; the sentence to close with."""
    async with demonstration() as demo:
        etcd = await demo.etcd()
        await demo.coordinator(etcd)
        await demo.trans(etcd)
        gid = await demo.client(etcd)
    return (
        f"The transfer is done: transaction {gid} succeeded, 30 cents went from account 1 to"
        " account 2.\nGo on with README.md: it starts the same parts by hand, one terminal each."
    )


def main(_: Sequence[str] = ()) -> int:
    """Exit status: see the module."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        print(f"\n{asyncio.run(demonstrate())}")
    except DemoFailed as failure:
        print(f"\ndemo: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
