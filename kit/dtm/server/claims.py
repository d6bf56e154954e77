"""Finds transactions that are due, takes their leases in batches, and hands them to the engine.

One loop a coordinator. It sleeps until the next transaction is due, and never longer than the poll
interval, because on a shared store other coordinators make work too. It also renews the leases of
rounds that take long. A store that does not answer is reported once, and once when it is back.

After an outage everything is due at once, and what waits for a dead target comes back again and
again. Clients must not feel that: while they ask, a claim takes a few, which are woken one by one
with a pause behind each, so that what is due takes a quarter of a busy loop at the most. When
nobody asks, there is no pause.

Source: dtm-labs/dtm dtmsvr/cron.go, which locks one transaction at a time.
"""

import asyncio
import math
from collections.abc import Sequence

from kit import log
from kit.clock import Clock
from kit.dtm.server.engine import Engine
from kit.dtm.store import Held, Store
from kit.errors import Error

logger = log.get_logger()

BATCH = 100
"""Transactions that one claim takes when no client asks for anything."""

SMALL_BATCH = 10
"""Transactions that one claim takes otherwise: requests wait for the commit that it is part of."""

PAUSE_S = 0.002
"""What requests get of the loop behind a transaction that is woken."""

_SHORTEST_S = 0.05
"""Between claims that find everything: what is due nearly at once is claimed together."""

_BREATH_S = 0.01
"""Behind a claim that left something."""


class Claims:
    """The loop that brings due transactions to ``engine``.

    Args:
        poll_s: the longest sleep, dtm's ``TransCronInterval``.
        lease_s: seconds that a claim holds; leases are renewed every third of it.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        clock: Clock,
        *,
        owner: str,
        poll_s: float = 3.0,
        lease_s: float = 10.0,
    ) -> None:
        self._store = store
        self._engine = engine
        self._clock = clock
        self._owner = owner
        self._poll_s = poll_s
        self._lease_s = lease_s
        self._kick = asyncio.Event()
        self._sleeping_until = 0
        self._expected = math.inf
        self._away = False
        self._heard = 0
        engine.on_wake = self.expect

    def expect(self, at: int) -> None:
        """Hear that a transaction is due at ``at``: the loop does not sleep past it."""
        self._expected = min(self._expected, at)
        if at < self._sleeping_until:
            self._kick.set()

    async def run(self) -> None:
        """Claim until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew())
            while True:
                try:
                    pause = await self._round()
                    self._answered()
                except Error as error:
                    self._failed(error)
                    pause = 1.0
                if pause > 0:
                    await self._sleep(pause)

    async def _round(self) -> float:
        """Claim once; give the seconds until the next time."""
        if self._engine.room <= 0:
            return _SHORTEST_S
        self._expected = math.inf  # what is expected from now on may have missed next_due
        asked = self._clock.monotonic()
        limit = SMALL_BATCH if self._clients_ask() else BATCH
        claimed = await self._store.claim(self._owner, limit, lease_s=self._lease_s)
        await self._wake(claimed, asked)
        if len(claimed) == limit:
            return _BREATH_S
        now = await self._store.now_ms()
        due = await self._store.next_due()
        soonest = min(self._expected, math.inf if due is None else due)
        pause = min((soonest - now) / 1000, self._poll_s)
        self._sleeping_until = now + round(pause * 1000)
        return max(pause, _SHORTEST_S)

    async def _wake(self, claimed: Sequence[Held], asked: float) -> None:
        waiting = iter(claimed)
        try:
            for held in waiting:
                self._engine.wake(held, asked)
                if self._clients_ask():
                    await asyncio.sleep(PAUSE_S)  # of the loop itself, whatever the clock says
        finally:  # a coordinator that stops gives back the leases of those that it has woken
            for held in waiting:
                self._engine.wake(held, asked)

    def _clients_ask(self) -> bool:
        """Whether a request has come since the last time."""
        before, self._heard = self._heard, self._engine.requests
        return self._heard != before

    async def _sleep(self, seconds: float) -> None:
        self._kick.clear()
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        kicked = asyncio.ensure_future(self._kick.wait())
        try:
            await asyncio.wait({sleeping, kicked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sleeping, kicked):
                task.cancel()
            await asyncio.gather(sleeping, kicked, return_exceptions=True)

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(self._lease_s / 3)
            try:
                await self._engine.renew()
            except Error as error:
                self._failed(error)

    def _failed(self, error: Error) -> None:
        if not self._away:
            self._away = True
            logger.error("store does not answer; due transactions wait", reason=error.message)

    def _answered(self) -> None:
        if self._away:
            self._away = False
            logger.info("store answers again")
