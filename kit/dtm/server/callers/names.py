"""Where names lead: looked up, and checked against the allow-list, before anything connects.

grpcio resolves names itself and has no hook, so the gRPC caller checks before a call and believes
the verdict for a while; HTTP uses the very addresses that were checked.
"""

import asyncio
import socket
from collections.abc import Iterable, Sequence

from aiohttp.abc import AbstractResolver, ResolveResult

from kit.dtm.server.targets import Lookup, TargetRefused, Targets


class Unresolved(Exception):
    """Nobody knows the addresses of a name."""


class NameCheck:
    """Looks up names and refuses those that lead where nobody may go.

    Args:
        targets: the rules.
        lookup: how names become addresses.
    """

    def __init__(self, targets: Targets, lookup: Lookup) -> None:
        self.targets = targets
        self._lookup = lookup
        self._running: dict[str, asyncio.Task[Sequence[str]]] = {}

    async def aclose(self) -> None:
        """Give up look-ups that still run."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def check(self, url: str, names: Iterable[str], limit: float) -> None:
        """Make sure that every address of ``names`` may be called, ``limit`` seconds at most.

        Every one, because the engine may pick any of them.

        Raises:
            TargetRefused: one is forbidden.
            Unresolved: a name has no address, or nobody said so in time.
        """
        try:
            async with asyncio.timeout(limit):
                for name in names:
                    for address in await self._addresses(name):
                        if why := self.targets.why_not(address):
                            raise TargetRefused(f"'{url}' is refused: {name} is {address}; {why}")
        except TimeoutError:
            raise Unresolved(f"'{url}': its name was not resolved in time") from None

    async def _addresses(self, name: str) -> Sequence[str]:
        """One look-up a name at a time: a name nobody answers for takes one thread."""
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.create_task(self._look_up(name))  # awaited below
            task.add_done_callback(lambda done: self._looked_up(name, done))
        try:
            return await asyncio.shield(task)
        except OSError as error:
            raise Unresolved(f"{name} cannot be resolved: {error.strerror or error}") from error

    def _looked_up(self, name: str, done: "asyncio.Task[Sequence[str]]") -> None:
        del self._running[name]
        if not done.cancelled():
            done.exception()  # seen, also when nobody waits for it any more

    async def _look_up(self, name: str) -> Sequence[str]:
        return await self._lookup(name, 0)


class CheckedResolver(AbstractResolver):
    """Gives the HTTP client only addresses that may be called.

    Args:
        targets: the rules.
        lookup: how names become addresses.
    """

    def __init__(self, targets: Targets, lookup: Lookup) -> None:
        self._targets = targets
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The allowed addresses of ``host``.

        Raises:
            TargetRefused: it has only forbidden ones.
            OSError: it has none.
        """
        allowed: list[ResolveResult] = []
        refusal = ""
        for address in await self._lookup(host, port):
            why = self._targets.why_not(address)
            if why:
                refusal = f"'{host}' is refused: it is {address}; {why}"
                continue
            allowed.append(
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                    proto=0,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        if refusal and not allowed:
            raise TargetRefused(refusal)
        return allowed

    async def close(self) -> None:
        """Nothing to release: whoever made the look-up closes it."""
