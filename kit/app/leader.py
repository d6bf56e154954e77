"""One instance of many leads, by a key in etcd that goes with a lease.

Who puts the key first leads until it resigns, dies or loses etcd. The leader measures the time
since it asked for its last renewal, on its own clock, and gives up :data:`MARGIN` of the lease's
life before etcd can: two instances never believe to lead at the same time, unless a process stands
still between looking at its term and acting on it; :attr:`Term.number` grows with each term and
lets a store refuse what comes from an old one.

Source: etcd-io/etcd client/v3/concurrency/election.go, lock.go.
"""

import asyncio
import os
import socket

from kit import log
from kit.app.jobs import Term
from kit.clock import Clock, SystemClock
from kit.etcd import (
    EtcdClient,
    EtcdError,
    EtcdLeaseNotFound,
    Lease,
    absent,
    get_step,
    lease_is,
    put_step,
)

DEFAULT_NAMESPACE = "/kit/leaders"
DEFAULT_TTL_S = 15
MARGIN = 1 / 6
"""Part of the lease's life that the leader gives up early."""

_log = log.get_logger()


class EtcdLeader:
    """A :class:`kit.app.jobs.Leader` in etcd.

    Args:
        client: stays open.
        name: who leads this leads all instances that use the name.
        ttl: whole seconds after which another instance leads when this one dies; at least 2.
        namespace: what keys begin with.
        clock: measures the life of the lease.

    Raises:
        ValueError: ``ttl`` is below 2, or the name is empty.
    """

    def __init__(
        self,
        client: EtcdClient,
        name: str,
        *,
        ttl: int = DEFAULT_TTL_S,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Clock | None = None,
    ) -> None:
        if ttl < 2 or not name:
            raise ValueError(f"leader {name!r}, ttl {ttl}: a name and 2 or more seconds are needed")
        self._client = client
        self._key = f"{namespace.rstrip('/')}/{name}"
        self._value = f"{socket.gethostname()}/{os.getpid()}"
        self._ttl = ttl
        self._clock = clock or SystemClock()
        self._term: Term | None = None
        self._failing = False

    @property
    def term(self) -> Term | None:
        """The term of this instance; ``None`` while it does not lead."""
        return self._term

    async def campaign(self) -> None:
        """Try to lead, for ever; give the lead up when cancelled."""
        while True:
            lease: Lease | None = None
            try:
                if await self._client.get(self._key) is None:
                    asked = self._clock.monotonic()
                    lease = await self._client.grant(self._ttl)
                    number = await self._elected(lease)
                    if number is not None:
                        await self._hold(lease, asked, Term(number))
                self._failing = False
            except EtcdError as error:
                if not self._failing:
                    _log.warning(f"[leader] {self._key}: {error.message}; trying on")
                self._failing = True
            finally:
                self._resign_term()
                await self._revoke(lease)
            await self._clock.sleep(self._pause)

    @property
    def _pause(self) -> float:
        return self._ttl / 3

    async def _elected(self, lease: Lease) -> int | None:
        """Put the key; the number of the term, ``None`` when somebody else was faster."""
        put = put_step(self._key, self._value, lease.id)
        result = await self._client.txn([absent(self._key)], [put, get_step(self._key)])
        if not result.succeeded:
            return None
        (found,) = result.found
        assert found is not None, "etcd reads in a transaction what it wrote there"
        return found.create_revision

    async def _hold(self, lease: Lease, renewed: float, term: Term) -> None:
        """Renew until that fails for too long or the key is not ours any more."""
        while True:
            left = renewed + self._life(lease) - self._clock.monotonic()
            if left <= 0:
                _log.warning(f"[leader] {self._key}: the lease could not be renewed in time")
                return
            if self._term is None:
                self._term = term
                _log.info(f"[leader] {self._key}: this instance leads, term {term.number}")
            await self._clock.sleep(min(self._pause, left))
            asked = self._clock.monotonic()
            left = renewed + self._life(lease) - asked
            try:
                async with asyncio.timeout(max(left, 0)):
                    await self._client.keep_alive(lease.id)
                    held = await self._client.txn([lease_is(self._key, lease.id)])
            except EtcdLeaseNotFound:
                _log.warning(f"[leader] {self._key}: the lease is gone")
                return
            except (EtcdError, TimeoutError):
                continue  # there may be time for another try
            if not held.succeeded:
                _log.warning(f"[leader] {self._key}: the key was taken away")
                return
            renewed = asked

    def _life(self, lease: Lease) -> float:
        return lease.ttl * (1 - MARGIN)

    def _resign_term(self) -> None:
        term, self._term = self._term, None
        if term is not None:
            term.ended.set()

    async def _revoke(self, lease: Lease | None) -> None:
        """End the lease, so that the next leader need not wait for its end."""
        if lease is None:
            return
        try:
            await self._client.revoke(lease.id)
        except EtcdError:
            pass  # it ends by itself
