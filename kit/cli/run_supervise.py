"""Services that run side by side, each started again when what it is made of changes.

Rules:

- A change below the folder of a service concerns that one, elsewhere below the root all of the
  root, in a configuration those that read it.
- A proto is generated first; when that fails the services go on with the code they have.
- A service that ends by itself is named with its status and waits for the next change.
- A signal stops all; a second one kills them.
"""

import asyncio
import contextlib
import shlex
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kit.cli.run_find import Service, shown
from kit.cli.run_process import STOPS_WITHIN, Board, Process, how_it_ended
from kit.cli.run_proto import generate
from kit.cli.run_watch import CODE, PROTO, TooMuch, Watch

KIT = "kit"
"""The name of our own lines."""


class Keeper:
    """Keeps one service running: starts, stops, and tells when it ended by itself."""

    def __init__(
        self,
        service: Service,
        board: Board,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.service = service
        self._board = board
        self._command = service.command(arguments)
        self._env = env
        self._process: Process | None = None
        self._stopping = False
        self._told: asyncio.Task[int] | None = None

    @property
    def shown(self) -> str:
        """How it is started, for people."""
        return shlex.join(["python", *self._command[1:]])

    @property
    def configs(self) -> list[Path]:
        """What it reads, as its arguments say."""
        for place, argument in enumerate(self._command[3:], start=3):
            flag, sign, value = argument.lstrip("-").partition("=")
            if argument.startswith("-") and flag == "conf":
                given = value if sign else "".join(self._command[place + 1 : place + 2])
                return [self.service.root / given] if given else []
        return []

    def concerned(self, paths: Iterable[Path]) -> bool:
        """Whether a change of ``paths`` is one of this service."""
        service = self.service
        for path in paths:
            above = path.parents
            if any(path == conf or conf in above for conf in self.configs):
                return True
            is_code = path.suffix in (CODE, PROTO) and service.root in above
            if is_code and not any(other in above for other in service.others):
                return True
        return False

    async def start(self) -> None:
        """Start it; what cannot be started is told, and waits for the next change as well."""
        self._stopping = False
        try:
            self._process = await Process.start(
                self.service.name,
                self._board,
                *self._command,
                cwd=self.service.root,
                # What is compiled is kept by second and size of its source: an edit that changes
                # neither would be overlooked.
                env={"PYTHONDONTWRITEBYTECODE": "1", **(self._env or {})},
            )
        except OSError as error:
            why = f"cannot run {self._command[0]}: {error.strerror}"
            self._board.show(self.service.name, why)
            return
        self._told = asyncio.create_task(self._tell(self._process))  # awaited in stop()

    async def ended(self) -> int:
        """Wait until it ended by itself; the exit status, 1 when it could not be started."""
        return await asyncio.shield(self._told) if self._told is not None else 1

    async def stop(self) -> None:
        """Let it drain, and wait for its end."""
        self._stopping = True
        if self._process is not None and not await self._process.stop():
            self._board.show(
                KIT, f"{self.service.name} did not end within {STOPS_WITHIN:g} s and was killed"
            )
        if self._told is not None:
            await self._told

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()

    async def _tell(self, process: Process) -> int:
        status = await process.ended()
        if not self._stopping:
            self._board.show(KIT, f"{self.service.name} ended: {how_it_ended(status)}")
        return status


class Supervisor:
    """Several services of one or more roots.

    Args:
        services: what to run.
        board: where their lines appear.
        arguments: what each is given.
        env: for each service, on top of our environment.
        generator: see :func:`kit.cli.run_proto.generate`.
        reload: start services again when something changes.
    """

    def __init__(
        self,
        services: Sequence[Service],
        board: Board,
        *,
        arguments: Sequence[str] = (),
        env: Callable[[Service], Mapping[str, str]] = lambda _: {},
        generator: Sequence[str] | None = None,
        reload: bool = True,
    ) -> None:
        self._board = board
        self._keepers = [Keeper(each, board, arguments, env(each)) for each in services]
        self._generator = generator
        self._watch: Watch | None = None
        if reload:
            configs = [conf for keeper in self._keepers for conf in keeper.configs]
            roots = dict.fromkeys(keeper.service.root for keeper in self._keepers)
            self._watch = Watch(roots, configs)

    async def run(self) -> int:
        """Until it is cancelled; without reload, until all have ended: the worst exit status.

        Services are stopped before it ends, however it does.
        """
        try:
            for keeper in self._keepers:
                self._board.show(KIT, f"{keeper.service.name} is {keeper.shown}")
            await self._each(Keeper.start)
            if self._watch is not None:
                await self._reload(self._watch)
            statuses = [await keeper.ended() for keeper in self._keepers]
            return max(abs(status) for status in statuses)
        finally:
            if self._watch is not None:
                await self._watch.aclose()
            await self._each(Keeper.stop)

    def kill(self) -> None:
        """End all services at once."""
        for keeper in self._keepers:
            keeper.kill()

    async def _reload(self, watch: Watch) -> None:
        while True:
            try:
                paths = await watch.changed()
            except TooMuch as error:
                self._board.show(KIT, f"no longer watching: {error}")
                return
            concerned = [keeper for keeper in self._keepers if keeper.concerned(paths)]
            if not concerned:
                continue
            protos = [path for path in sorted(paths) if path.suffix == PROTO and path.exists()]
            if protos:
                if not await self._generate(protos):
                    continue
                watch.accept()
            names = ", ".join(keeper.service.name for keeper in concerned)
            self._board.show(KIT, f"{self._what(paths)} changed: {names} starts again")
            await asyncio.gather(*(self._again(keeper) for keeper in concerned))

    async def _generate(self, protos: Sequence[Path]) -> bool:
        for root in dict.fromkeys(keeper.service.root for keeper in self._keepers):
            below = [proto for proto in protos if root in proto.parents]
            if below and not await generate(below, root, self._board, self._generator):
                return False
        return True

    def _what(self, paths: frozenset[Path]) -> str:
        roots = [keeper.service.root for keeper in self._keepers]
        first = min(paths)
        root = next((root for root in roots if root in first.parents), first.parent)
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        return f"{shown(first, root)}{more}"

    async def _again(self, keeper: Keeper) -> None:
        await keeper.stop()
        await keeper.start()

    async def _each(self, step: Callable[[Keeper], Awaitable[None]]) -> None:
        await asyncio.gather(*(step(keeper) for keeper in self._keepers))


async def until_signal(work: Coroutine[Any, Any, int], kill: Callable[[], None]) -> int:
    """Run ``work`` to its end, or cancel it at SIGINT, SIGTERM or SIGHUP.

    Args:
        work: cleans up when it is cancelled.
        kill: is called at the second signal, so that the cleaning up is over.

    Returns:
        what ``work`` gives; 0 after a signal.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def heard() -> None:
        if stop.is_set():
            kill()
        stop.set()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup keeps it away
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, heard)
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not stop.is_set():
            return await working
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        return 0
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
