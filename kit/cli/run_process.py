"""Processes whose lines are shown side by side, each line under the name of its process."""

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Self, TextIO

KEPT_LINES = 15
MAX_LINE_BYTES = 64 << 10
"""A longer line is shown in pieces."""
STOPS_WITHIN = 10.0
_LAST_LINES_WITHIN = 1.0
"""Seconds for lines of children that outlive their process and keep its output open."""

_COLOURS = ("\x1b[36m", "\x1b[32m", "\x1b[33m", "\x1b[35m", "\x1b[34m", "\x1b[31m")
_PLAIN = "\x1b[0m"


class Board:
    """Where the lines appear.

    Colours are used on a terminal only, and not when ``NO_COLOR`` is set (no-color.org).

    Args:
        names: who will speak, so that the column of names has its width from the start.
        stream: ``sys.stdout`` by default.
    """

    def __init__(self, names: Iterable[str] = (), stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._coloured = self._stream.isatty() and not os.environ.get("NO_COLOR")
        self._colours: dict[str, str] = {}
        self._width = 0
        for name in names:
            self._known(name)

    def show(self, name: str, line: str) -> None:
        """One line of ``name``."""
        colour = self._known(name)
        head = f"{name:>{self._width}} │"
        if self._coloured:
            head = f"{colour}{head}{_PLAIN}"
        try:
            print(head, line, file=self._stream, flush=True)
        except BrokenPipeError:
            self._end()

    def _end(self) -> None:
        """Whoever read the lines has left, such as ``head``: stop as if told to."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        signal.raise_signal(signal.SIGTERM)

    def _known(self, name: str) -> str:
        if name not in self._colours:
            self._colours[name] = _COLOURS[len(self._colours) % len(_COLOURS)]
            self._width = max(self._width, len(name) + 1)
        return self._colours[name]


class Process:
    """A running process; its lines go to a board as they come and the last ones are kept.

    It is in a session of its own: Ctrl-C on the terminal reaches it through its owner alone.

    Attributes:
        name: under which it speaks.
        last: its last lines.
    """

    def __init__(self, name: str, board: Board, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self._board = board
        self._process = process
        self._shown = asyncio.create_task(self._show())  # awaited in ended()

    @classmethod
    async def start(
        cls,
        name: str,
        board: Board,
        *command: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """Start ``command``.

        Args:
            name: under which its lines are shown.
            board: where they are shown.
            command: program and arguments.
            cwd: its working folder; ours by default.
            env: comes on top of our environment.

        Raises:
            OSError: there is no such program, or it cannot be run.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
        return cls(name, board, process)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; ``None`` while it runs."""
        return self._process.returncode

    async def ended(self) -> int:
        """Wait for its end and its last line; the exit status."""
        status = await self._process.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_LINES_WITHIN):
                await asyncio.shield(self._shown)
        self._shown.cancel()
        await asyncio.wait([self._shown])
        return status

    async def stop(self, within: float = STOPS_WITHIN) -> bool:
        """SIGTERM and, after ``within`` seconds, SIGKILL; whether the first was enough."""
        obeyed = True
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(within):
                    await self._process.wait()
            except TimeoutError:
                obeyed = False
                self.kill()
        await self.ended()
        return obeyed

    def kill(self) -> None:
        """SIGKILL, to it and to what it has started."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def describe(self, why: str) -> str:
        """Which process, why, how it ended if it has, and what it said last; several lines."""
        if self.status is not None:
            why += f", {how_it_ended(self.status)}"
        said = "\n".join(self.last) or "(nothing)"
        return f"{self.name} {why}; its last lines:\n{textwrap.indent(said, '    ')}"

    async def _show(self) -> None:
        assert self._process.stdout is not None, "it was asked for"
        async for line in _lines(self._process.stdout):
            self.last.append(line)
            self._board.show(self.name, line)


def how_it_ended(status: int) -> str:
    """An exit status for people.

    >>> how_it_ended(2), how_it_ended(-9)
    ('exit status 2', 'killed by SIGKILL')
    """
    return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    rest = b""
    while chunk := await stream.read(MAX_LINE_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            yield line.decode(errors="replace").rstrip()
    if rest:
        yield rest.decode(errors="replace").rstrip()
