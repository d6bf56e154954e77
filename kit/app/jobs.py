"""Work at set times, by one instance of a service if it has a leader.

::

    jobs = Jobs(
        Job("report", send_report, Cron("0 6 * * mon-fri", zone="Europe/Vienna"), timeout=600),
        Job("sweep", sweep, Every(30)),
        leader=EtcdLeader(etcd, "trans"),
    )
    App(name="trans", servers=[server, jobs])

A job never overlaps itself: what is due while it runs is left out, and what was due while the
process slept is done once at most. The leader's clock decides; when the lead changes hands around
the instant at which a job is due, both may do it or neither, so jobs have to bear being repeated.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from kit import log
from kit.app.schedule import Schedule
from kit.clock import Clock, SystemClock

_log = log.get_logger()

LONGEST_NAP_S = 60.0
"""A clock that is set while we sleep is noticed after this time."""


@dataclass(eq=False, slots=True)
class Term:
    """A time of leading.

    Attributes:
        number: grows with each term of whichever instance: a fence for what a job writes.
        ended: set when the lead is lost, before anybody else can have it.
    """

    number: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Leader(Protocol):
    """Makes one of many instances the leader."""

    async def campaign(self) -> None:
        """Try to lead, for ever; give the lead up when cancelled."""
        ...

    @property
    def term(self) -> Term | None:
        """The term of this instance; ``None`` while it does not lead."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """What a job may know about its run.

    Attributes:
        job: its name.
        due: seconds since the epoch.
        term: of the leader; ``None`` where every instance does the job.
    """

    job: str
    due: float
    term: Term | None


_current: ContextVar[Run | None] = ContextVar("kit_run", default=None)


def current_run() -> Run | None:
    """The run in which this task works; ``None`` outside of one."""
    return _current.get()


@dataclass(frozen=True, slots=True)
class Job:
    """Work that is due again and again.

    Attributes:
        name: for the log.
        do: the work; :func:`current_run` tells it what it was due for.
        schedule: when.
        timeout: seconds after which a run is cancelled; ``None`` for no limit.
        everywhere: do it in every instance, whoever leads.
    """

    name: str
    do: Callable[[], Awaitable[object]]
    schedule: Schedule
    timeout: float | None = None
    everywhere: bool = False


class Jobs:
    """Does jobs when they are due; a :class:`kit.transport.Server`.

    A run that fails is logged; the next one comes as if nothing had been. When the lead is lost the
    runs that needed it are cancelled.

    Args:
        jobs: what to do.
        leader: who decides which instance works; without one every instance does.
        clock: tells when something is due.

    Raises:
        ValueError: two jobs have one name.
    """

    endpoint: str | None = None
    """Always ``None``: nobody calls it."""

    def __init__(
        self, *jobs: Job, leader: Leader | None = None, clock: Clock | None = None
    ) -> None:
        names = [job.name for job in jobs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"jobs: {', '.join(twice)} is there twice; give each its own name")
        self._jobs = jobs
        self._leader = leader
        self._clock = clock or SystemClock()
        self._stopping = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Nothing to bind."""

    async def serve(self) -> None:
        """Do what is due until :meth:`stop`; return when the last run has ended."""
        tasks = [
            asyncio.create_task(self._repeat(job), name=f"job {job.name}") for job in self._jobs
        ]
        if self._leader is not None:
            tasks.append(asyncio.create_task(self._leader.campaign(), name="campaign"))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
            # The lead is kept until the runs have ended: they rely on it.
            for task in tasks[: len(self._jobs)]:
                task.cancel()
            if self._running:
                await asyncio.wait(self._running)
        finally:
            await _end([stopping, *self._running, *tasks])

    async def stop(self, grace: float | None = None) -> None:
        """Begin nothing more; what runs has ``grace`` seconds, then it is cancelled."""
        self._stopping.set()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                _log.warning(f"[jobs] {task.get_name()} does not end in time and is cancelled")
            await _end(late)

    async def _repeat(self, job: Job) -> None:
        while True:
            due = job.schedule.after(self._clock.now_ms() / 1000)
            while (left := due - self._clock.now_ms() / 1000) > 0:
                await self._clock.sleep(min(left, LONGEST_NAP_S))
            if self._stopping.is_set():
                return
            leader = None if job.everywhere else self._leader
            term = None if leader is None else leader.term
            if leader is not None and term is None:
                continue  # somebody else does it
            # In a task of its own: stopping ends the waiting at once, and the run in its time.
            running = asyncio.create_task(self._run(job, Run(job.name, due, term)), name=job.name)
            self._running.add(running)
            running.add_done_callback(self._running.discard)
            await asyncio.wait({running})

    async def _run(self, job: Job, run: Run) -> None:
        _current.set(run)
        try:
            async with asyncio.timeout(job.timeout) as limit:
                if run.term is None:
                    await job.do()
                else:
                    await self._within(run.term, job)
        except TimeoutError as error:
            if limit.expired():
                _log.error(f"[jobs] {job.name} was cancelled after {job.timeout:g} s")
            else:
                _log.error(f"[jobs] {job.name} failed", exc_info=error)
        except Exception as error:  # noqa: BLE001  (the next run must come all the same)
            _log.error(f"[jobs] {job.name} failed", exc_info=error)

    async def _within(self, term: Term, job: Job) -> None:
        """Do the job; cancel it when the term ends."""
        working = asyncio.ensure_future(job.do())
        ended = asyncio.create_task(term.ended.wait())
        try:
            await asyncio.wait({working, ended}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            else:
                _log.warning(f"[jobs] {job.name} is cancelled: this instance leads no more")
        finally:
            await _end([working, ended])


async def _end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
