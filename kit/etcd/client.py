"""A small asynchronous client of etcd's v3 API: what a registry and a configuration source need."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Self

from kit.clock import Clock
from kit.etcd import connection as api
from kit.etcd.connection import Connection, Stream
from kit.etcd.errors import EtcdCompacted, EtcdLeaseNotFound, EtcdUnavailable, from_text
from kit.etcd.model import (
    Event,
    KeyValue,
    Lease,
    Listing,
    Text,
    TxnResult,
    prefix_range,
    to_bytes,
    to_events,
    to_item,
)
from kit.etcd.options import EtcdOptions
from kit.etcd.pb import etcd_pb2 as pb


class EtcdClient:
    """Talks to one etcd, through whichever of its members answers.

    Every method raises an :class:`~kit.etcd.EtcdError`: ``EtcdUnavailable`` when no member answered
    within ``options.timeout``, ``EtcdDenied`` for a wrong user or a missing permission, others as
    they say. A cancelled call is cancelled on the wire too.

    Args:
        etcd: options, a URL such as ``etcd://user:password@h1:2379,h2:2379``, or endpoints.
        clock: measures deadlines.

    Raises:
        ValueError: ``etcd`` cannot be read, or a file it names.
    """

    def __init__(
        self, etcd: EtcdOptions | str | Sequence[str], *, clock: Clock | None = None
    ) -> None:
        self.options = EtcdOptions.of(etcd)
        self._connection = Connection(self.options, clock)

    async def __aenter__(self) -> Self:
        """The client; it connects with its first call."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """End calls and watches and close the connections; twice is fine."""
        await self._connection.aclose()

    @property
    def endpoints(self) -> str:
        """The members for messages: ``h1:2379, h2:2379``."""
        return ", ".join(self.options.endpoints)

    async def get(self, key: Text) -> KeyValue | None:
        """What is stored under ``key``; ``None`` for nothing."""
        items = (await self.listing(key)).items
        return items[0] if items else None

    async def get_prefix(self, prefix: Text) -> Listing:
        """All keys that begin with ``prefix``, ordered by key."""
        return await self.listing(prefix, prefix=True)

    async def listing(self, key: Text, *, prefix: bool = False) -> Listing:
        """``key``, if there is one, or all keys that begin with it; with the revision read at."""
        first, end = prefix_range(key) if prefix else (to_bytes(key), b"")
        reply = await self._connection.unary(api.RANGE, pb.RangeRequest(key=first, range_end=end))
        return Listing(reply.header.revision, tuple(map(to_item, reply.kvs)))

    async def put(self, key: Text, value: Text, *, lease: int = 0) -> int:
        """Store ``value``, bound to ``lease`` unless that is 0; the revision of the change.

        Raises:
            EtcdLeaseNotFound: there is no such lease.
        """
        request = pb.PutRequest(key=to_bytes(key), value=to_bytes(value), lease=lease)
        return (await self._connection.unary(api.PUT, request)).header.revision

    async def delete(self, key: Text) -> bool:
        """Delete ``key``; whether there was one."""
        request = pb.DeleteRangeRequest(key=to_bytes(key))
        return (await self._connection.unary(api.DELETE, request)).deleted > 0

    async def delete_prefix(self, prefix: Text) -> int:
        """Delete all keys that begin with ``prefix``; how many there were."""
        first, end = prefix_range(prefix)
        request = pb.DeleteRangeRequest(key=first, range_end=end)
        return (await self._connection.unary(api.DELETE, request)).deleted

    async def txn(
        self,
        when: Sequence[pb.Compare] = (),
        then: Sequence[pb.RequestOp] = (),
        otherwise: Sequence[pb.RequestOp] = (),
    ) -> TxnResult:
        """Do ``then`` if all of ``when`` holds, else ``otherwise``, as one step.

        Conditions and steps come from ``value_is``, ``lease_is``, ``absent``, ``get_step``,
        ``put_step`` and ``delete_step``.
        """
        request = pb.TxnRequest(compare=when, success=then, failure=otherwise)
        reply = await self._connection.unary(api.TXN, request)
        ranges = [
            answer.response_range
            for answer in reply.responses
            if answer.WhichOneof("response") == "response_range"
        ]
        found = tuple(to_item(answer.kvs[0]) if answer.kvs else None for answer in ranges)
        return TxnResult(reply.succeeded, found)

    async def compact(self, revision: int) -> None:
        """Forget what was before ``revision``; watches from there get :class:`EtcdCompacted`."""
        await self._connection.unary(api.COMPACT, pb.CompactionRequest(revision=revision))

    async def grant(self, ttl: int) -> Lease:
        """A new lease of ``ttl`` seconds; etcd may give a longer one."""
        reply = await self._connection.unary(api.LEASE_GRANT, pb.LeaseGrantRequest(TTL=ttl))
        return Lease(reply.ID, reply.TTL)

    async def keep_alive(self, lease: int) -> Lease:
        """Renew a lease once.

        Raises:
            EtcdLeaseNotFound: it expired or was revoked (etcd says so by a TTL of 0).
        """
        request = pb.LeaseKeepAliveRequest(ID=lease)
        reply = await self._connection.single(api.LEASE_KEEP_ALIVE, request)
        if reply.TTL <= 0:
            raise EtcdLeaseNotFound(self.endpoints, "the lease expired or was revoked")
        return Lease(reply.ID, reply.TTL)

    async def revoke(self, lease: int) -> None:
        """End a lease and delete the keys that are bound to it.

        Raises:
            EtcdLeaseNotFound: it is gone already.
        """
        await self._connection.unary(api.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=lease))

    @asynccontextmanager
    async def watch(
        self, key: Text, *, prefix: bool = False, start_revision: int = 0
    ) -> AsyncIterator[AsyncIterator[tuple[Event, ...]]]:
        """What happens to ``key``, or to all keys that begin with it, in batches.

        The watch stands when the block is entered: nothing after that is missed. It ends with an
        error when the connection breaks; :func:`~kit.etcd.follow` goes on across that.

        Args:
            key: a key, or a prefix.
            prefix: take ``key`` for a prefix.
            start_revision: of the first event; 0 means from now on.

        Raises:
            EtcdCompacted: the events from ``start_revision`` on are not kept any more, or the
                server is younger than that: it was emptied, restored or lags behind.
            EtcdUnavailable: no answer, or the stream broke.
        """
        first, end = prefix_range(key) if prefix else (to_bytes(key), b"")
        create = pb.WatchCreateRequest(key=first, range_end=end, start_revision=start_revision)
        async with self._connection.stream(api.WATCH, pb.WatchRequest) as stream:
            created = await self._created(stream, pb.WatchRequest(create_request=create))
            _refuse_canceled(stream.endpoint, created)
            if created.header.revision + 1 < start_revision:
                raise EtcdCompacted(
                    stream.endpoint,
                    f"it is at revision {created.header.revision}, before {start_revision}",
                )
            async with aclosing(self._batches(stream)) as batches:
                yield batches

    async def _created(
        self, stream: Stream[pb.WatchResponse], request: pb.WatchRequest
    ) -> pb.WatchResponse:
        """The answer to the first request of a watch, in the time that a call may take."""
        try:
            async with asyncio.timeout(self.options.timeout):
                await stream.call.write(request)
                return await self._read(stream)
        except TimeoutError as error:
            self._connection.avoid(stream.endpoint)
            raise EtcdUnavailable(
                stream.endpoint, f"no watch in {self.options.timeout:.1f} s"
            ) from error

    async def _batches(self, stream: Stream[pb.WatchResponse]) -> AsyncGenerator[tuple[Event, ...]]:
        while True:
            answer = await self._read(stream)
            _refuse_canceled(stream.endpoint, answer)
            if answer.events:
                yield to_events(answer.events)

    async def _read(self, stream: Stream[pb.WatchResponse]) -> pb.WatchResponse:
        with self._connection.translating(stream.endpoint):
            answer = await stream.call.read()
        if not isinstance(answer, pb.WatchResponse):  # grpc.aio.EOF
            self._connection.avoid(stream.endpoint)
            raise EtcdUnavailable(stream.endpoint, "it ended the watch; is it shutting down?")
        return answer


def _refuse_canceled(endpoint: str, answer: pb.WatchResponse) -> None:
    """Raise what a cancelled watch means: a compaction, a dead token, a missing permission."""
    if not answer.canceled:
        return
    if answer.compact_revision:
        raise EtcdCompacted(
            endpoint, f"the history before revision {answer.compact_revision} is compacted"
        )
    raise from_text(endpoint, answer.cancel_reason or "the watch was cancelled without a reason")
