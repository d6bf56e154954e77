"""One key that is kept in etcd for as long as somebody wants it there.

A round makes it so: a lease that lives, and the key with our value under it. A round that finds all
well costs two calls every third of the lease's life; one that does not - the lease expired, the key
was deleted or overwritten, etcd was away - mends it.

Source: go-kratos/kratos contrib/registry/etcd/registry.go, heartBeat.
"""

from kit.errors import Error
from kit.etcd import (
    EtcdClient,
    EtcdDenied,
    EtcdError,
    EtcdLeaseNotFound,
    Lease,
    get_step,
    lease_is,
    put_step,
    value_is,
)
from kit.outage import OutagePart
from kit.registry.upkeep import Upkeep


class Announcement(Upkeep[bytes]):
    """Keeps a key in etcd from :meth:`announce` until :meth:`withdraw`.

    Args:
        client: stays open.
        key: what to keep.
        ttl: whole seconds after which the key goes when this process does.
        part: told when the key is lost and when it is back.
    """

    errors = EtcdError
    refusals = EtcdDenied

    def __init__(self, client: EtcdClient, key: str, ttl: int, part: OutagePart) -> None:
        super().__init__(key, part, ttl / 3)
        self._client = client
        self._key = key
        self._ttl = ttl
        self._standing: bytes | None = None  # the value last seen under our lease
        self._lease: Lease | None = None

    async def withdraw(self) -> None:
        """Stop, and take the key back unless somebody else put their own there meanwhile.

        Revoking the lease deletes exactly the keys that still belong to it.

        Raises:
            EtcdError: etcd did not answer; the key ends with its lease.
        """
        await self.stop(EtcdError(self._client.endpoints, f"{self._key} was withdrawn"))
        lease, self._lease = self._lease, None
        if lease is not None:
            try:
                await self._client.revoke(lease.id)
            except EtcdLeaseNotFound:
                pass  # and the key with it

    async def uphold(self, value: bytes) -> float:
        """See :meth:`Upkeep.uphold`."""
        lease = await self._live_lease()
        contested = await self._put(value, lease)
        self._standing = value
        if not contested:
            self.part.up()
        return lease.ttl / 3

    def failed(self, error: Error) -> None:
        """See :meth:`Upkeep.failed`."""
        if isinstance(error, EtcdLeaseNotFound):  # it went between the two calls of a round
            self._lose_lease(error)

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
            self.part.down(f"{self._key} was deleted")
            return False
        # Told as restored only when it still stands a round later: two processes with one id
        # would otherwise fill the log.
        self.part.down(f"{self._key} was overwritten; does another process use this id?")
        return True

    def _lose_lease(self, error: EtcdLeaseNotFound) -> None:
        self._lease = self._standing = None
        self.part.down(error.message)
