"""One key that is kept in etcd for as long as somebody wants it there.

A round makes it so: a lease that lives, and the key with our value under it. A round that finds all
well costs two calls every third of the lease's life; one that does not - the lease expired, the key
was deleted or overwritten, etcd was away - mends it. Rounds never end by themselves, whereas kratos
gives up after five tries and its service stays unannounced until somebody restarts it.

Source: go-kratos/kratos contrib/registry/etcd/registry.go, heartBeat.
"""

import asyncio

from kit import log
from kit.etcd import (
    Backoff,
    EtcdClient,
    EtcdDenied,
    EtcdError,
    EtcdLeaseNotFound,
    Lease,
    OutagePart,
    get_step,
    lease_is,
    put_step,
    value_is,
)

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0

_log = log.get_logger()


class Announcement:
    """Keeps ``key`` in etcd from :meth:`announce` until :meth:`withdraw`.

    Args:
        client: stays open.
        key: what to keep.
        ttl: whole seconds after which the key goes when this process does.
        part: told when the key is lost and when it is back.
    """

    def __init__(self, client: EtcdClient, key: str, ttl: int, part: OutagePart) -> None:
        self._client = client
        self._key = key
        self._ttl = ttl
        self._part = part
        self._backoff = Backoff(_FIRST_PAUSE, min(ttl / 3, _LONGEST_PAUSE))
        self._value = b""
        self._standing: bytes | None = None  # the value last seen under our lease
        self._lease: Lease | None = None
        self._woken = asyncio.Event()
        self._settled: asyncio.Future[EtcdError | None] | None = None
        self._task: asyncio.Task[None] | None = None  # awaited by withdraw
        self.failure: EtcdError | None = None
        """Why the last round failed."""

    def announce(self, value: bytes) -> "asyncio.Future[EtcdError | None]":
        """Keep ``value`` there, in place of an earlier one and under the same lease.

        Returns:
            ``None`` once it is there; an error when it cannot be, for now, without help: etcd
            refuses us, or the key is withdrawn. Other failures are tried again, unsaid.
        """
        self._settle(None)  # whoever waits for an earlier value: this one replaced it
        self._value = value
        self._settled = asyncio.get_running_loop().create_future()
        self._woken.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"announce {self._key}")
        return self._settled

    async def withdraw(self) -> None:
        """Stop, and take the key back unless somebody else put their own there meanwhile.

        Revoking the lease deletes exactly the keys that still belong to it.

        Raises:
            EtcdError: etcd did not answer; the key ends with its lease.
        """
        self._part.forget()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._settle(EtcdError(self._client.endpoints, f"{self._key} was withdrawn"))
        lease, self._lease = self._lease, None
        if lease is not None:
            try:
                await self._client.revoke(lease.id)
            except EtcdLeaseNotFound:
                pass  # and the key with it

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                async with asyncio.timeout(await self._round()):
                    await self._woken.wait()
            except TimeoutError:
                pass  # time for the next round

    async def _round(self) -> float:
        """Make it so; seconds until that has to be looked at again."""
        value, settled = self._value, self._settled
        try:
            lease = await self._live_lease()
            contested = await self._put(value, lease)
        except EtcdError as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001  a fault of ours must not end it for good
            _log.exception("registry: %s could not be announced", self._key)
            self._part.down(f"{type(error).__name__}: {error}")
            return self._backoff.pause()
        self._standing, self.failure = value, None
        self._backoff.reset()
        if settled is self._settled:
            self._settle(None)
        if not contested:
            self._part.up()
        return lease.ttl / 3

    async def _live_lease(self) -> Lease:
        if self._lease is not None:
            try:
                self._lease = await self._client.keep_alive(self._lease.id)
            except EtcdLeaseNotFound as error:
                self._lose_lease(error)
        if self._lease is None:
            self._lease = await self._client.grant(self._ttl)
        return self._lease

    async def _put(self, value: bytes, lease: Lease) -> bool:
        """Put the key unless it is there; whether somebody else had put theirs over ours."""
        result = await self._client.txn(
            when=[lease_is(self._key, lease.id), value_is(self._key, value)],
            otherwise=[get_step(self._key), put_step(self._key, value, lease.id)],
        )
        if result.succeeded or self._standing != value:
            return False
        (found,) = result.found
        if found is None:
            self._part.down(f"{self._key} was deleted")
            return False
        # Told as restored only when it still stands a round later: two processes with one id
        # would otherwise fill the log.
        self._part.down(f"{self._key} was overwritten; does another process use this id?")
        return True

    def _failed(self, error: EtcdError) -> float:
        if isinstance(error, EtcdLeaseNotFound):  # it went between the two calls of a round
            self._lose_lease(error)
        self.failure = error
        self._part.down(error.message)
        if isinstance(error, EtcdDenied):
            self._settle(error)
        return self._backoff.pause()

    def _lose_lease(self, error: EtcdLeaseNotFound) -> None:
        self._lease = self._standing = None
        self._part.down(error.message)

    def _settle(self, outcome: EtcdError | None) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(outcome)
