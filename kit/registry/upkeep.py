"""Something that is made so, and made so again whenever it is not.

What is upheld is looked at in rounds. A round that fails is tried again after a pause that grows,
for ever: kratos gives up after five tries and its service stays unannounced until somebody restarts
it.

Source: go-kratos/kratos contrib/registry/etcd/registry.go, heartBeat.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from kit import log
from kit.errors import Error
from kit.outage import OutagePart
from kit.resilience import BackOff

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0

V = TypeVar("V")

_log = log.get_logger()


class Upkeep(ABC, Generic[V]):
    """Upholds a value from :meth:`announce` until :meth:`stop`.

    Args:
        name: of what is upheld, for messages.
        part: told when it is lost and when it is back.
        interval: seconds that no pause between two failing rounds exceeds, nor 5 s.
    """

    errors: ClassVar[type[Error]]
    """What a round may raise, to be tried again."""
    refusals: ClassVar[type[Error] | tuple[type[Error], ...]]
    """Those of them that no new try will mend without help."""

    def __init__(self, name: str, part: OutagePart, interval: float) -> None:
        self.name = name
        self.part = part
        self._backoff = BackOff(
            min(_FIRST_PAUSE, interval), max(min(interval, _LONGEST_PAUSE), 0.01)
        )
        self._tries = 0
        self._value: V | None = None
        self._woken = asyncio.Event()
        self._settled: asyncio.Future[Error | None] | None = None
        self._task: asyncio.Task[None] | None = None  # awaited by stop
        self.failure: Error | None = None
        """Why the last round failed."""

    @abstractmethod
    async def uphold(self, value: V) -> float:
        """One round: make it so; gives the seconds until the next one is due.

        Raises:
            Error: one of :attr:`errors`.
        """

    def failed(self, error: Error) -> None:
        """Told of what a round raised, before it is tried again."""

    def announce(self, value: V) -> "asyncio.Future[Error | None]":
        """Uphold ``value`` from now on, in place of an earlier one.

        Returns:
            ``None`` once it is so; an error when it cannot be, for now, without help. Other
            failures are tried again, unsaid.
        """
        self.settle(None)  # whoever waits for an earlier value: this one replaced it
        self._value = value
        self._settled = asyncio.get_running_loop().create_future()
        self._woken.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"announce {self.name}")
        return self._settled

    async def stop(self, outcome: Error) -> None:
        """No more rounds; whoever still waits is told ``outcome``."""
        self.part.forget()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.settle(outcome)

    def settle(self, outcome: Error | None) -> None:
        """Tell who waits for the value to be so."""
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(outcome)

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                async with asyncio.timeout(await self._round()):
                    await self._woken.wait()
            except TimeoutError:
                pass  # time for the next round

    async def _round(self) -> float:
        value, settled = self._value, self._settled
        assert value is not None, "announce comes first"
        try:
            due = await self.uphold(value)
        except Exception as error:  # noqa: BLE001  a fault of ours must not end it for good
            return self._take(error)
        self.failure = None
        self._tries = 0
        if settled is self._settled:
            self.settle(None)
        return due

    def _take(self, error: Exception) -> float:
        if isinstance(error, self.errors):
            self.failed(error)
            self.failure = error
            self.part.down(error.message)
            if isinstance(error, self.refusals):
                self.settle(error)
        else:
            _log.exception("registry: %s could not be announced", self.name)
            self.part.down(f"{type(error).__name__}: {error}")
        self._tries += 1
        return self._backoff.pause(self._tries)
