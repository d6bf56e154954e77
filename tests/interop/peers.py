"""Processes of other languages: started, listened to, ended with the test."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

ANSWERS_WITHIN = 30.0
"""Seconds for one line of a peer; nothing here is about speed."""
_LINE_LIMIT = 64 << 20


class Peer:
    """A process that answers in lines; it is told to end by the end of its input."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        self._complaints = bytearray()
        self._listening = asyncio.create_task(self._listen())  # awaited in end()

    async def line(self) -> str:
        """The next line that it prints.

        Raises:
            AssertionError: none came; with what it printed as errors.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        assert line, f"{self._name} said nothing more:\n{self._complaints.decode(errors='replace')}"
        return line.decode()

    async def complains(self, text: str) -> str:
        """Wait for ``text`` among its errors, up to the end of that line; gives the line."""
        async with asyncio.timeout(ANSWERS_WITHIN):
            while True:
                for line in self._complaints.decode(errors="replace").splitlines(keepends=True):
                    if text in line and line.endswith("\n"):
                        return line.strip()
                await asyncio.sleep(0.01)

    async def tell(self, line: str) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def ended(self) -> None:
        """Wait until it has ended by itself."""
        async with asyncio.timeout(ANSWERS_WITHIN):
            await self._process.wait()

    async def end(self) -> None:
        """Kill it, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(65_536):
            self._complaints += chunk


@asynccontextmanager
async def running(
    name: str, *command: str, env: dict[str, str] | None = None
) -> AsyncIterator[Peer]:
    """Start ``command``; it is killed when the block is left."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_LIMIT,
        env=env,
    )
    peer = Peer(name, process)
    try:
        yield peer
    finally:
        await peer.end()


async def run(*command: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run ``command`` to its end; gives its exit status and all it printed."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=env,
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace")
