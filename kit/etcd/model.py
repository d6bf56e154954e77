"""What is stored in etcd and what happens to it; conditions and steps of transactions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kit.etcd.pb import etcd_pb2 as pb

Text: TypeAlias = str | bytes
"""Keys and values are bytes; text means its UTF-8."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as etcd holds it.

    Attributes:
        key: its bytes.
        value: its bytes.
        lease: the id of the lease it goes with; 0 for none.
        create_revision: of the put that made the key.
        mod_revision: of the last put.
        version: 1 for a new key, one more with each put.
    """

    key: bytes
    value: bytes
    lease: int = 0
    create_revision: int = 0
    mod_revision: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """The keys of a range at one revision, ordered by key."""

    revision: int
    items: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """A put, or with ``deleted`` the end of a key; then ``item`` has neither value nor lease."""

    item: KeyValue
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A promise of etcd to keep keys for ``ttl`` seconds after the last renewal."""

    id: int
    ttl: int


@dataclass(frozen=True, slots=True)
class TxnResult:
    """How a transaction went.

    Attributes:
        succeeded: all conditions held, ``then`` was done; else ``otherwise`` was.
        found: what the ``get`` steps of the part that was done found, one a step.
    """

    succeeded: bool
    found: tuple[KeyValue | None, ...]


def value_is(key: Text, value: Text) -> pb.Compare:
    """The key exists and has this value."""
    return pb.Compare(key=to_bytes(key), target=pb.Compare.VALUE, value=to_bytes(value))


def lease_is(key: Text, lease: int) -> pb.Compare:
    """The key goes with this lease; 0 also means that there is no such key."""
    return pb.Compare(key=to_bytes(key), target=pb.Compare.LEASE, lease=lease)


def absent(key: Text) -> pb.Compare:
    """There is no such key."""
    return pb.Compare(key=to_bytes(key), target=pb.Compare.CREATE, create_revision=0)


def get_step(key: Text) -> pb.RequestOp:
    """Read a key inside a transaction."""
    return pb.RequestOp(request_range=pb.RangeRequest(key=to_bytes(key)))


def put_step(key: Text, value: Text, lease: int = 0) -> pb.RequestOp:
    """Write a key inside a transaction."""
    put = pb.PutRequest(key=to_bytes(key), value=to_bytes(value), lease=lease)
    return pb.RequestOp(request_put=put)


def delete_step(key: Text) -> pb.RequestOp:
    """Delete a key inside a transaction."""
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=to_bytes(key)))


def to_bytes(text: Text) -> bytes:
    """``text`` as etcd wants it."""
    return text.encode() if isinstance(text, str) else text


def to_item(message: pb.KeyValue) -> KeyValue:
    """The value type of a message."""
    return KeyValue(
        message.key,
        message.value,
        message.lease,
        message.create_revision,
        message.mod_revision,
        message.version,
    )


def to_events(messages: Sequence[pb.Event]) -> tuple[Event, ...]:
    """The value types of a watch's events."""
    return tuple(Event(to_item(event.kv), event.type == pb.Event.DELETE) for event in messages)


def prefix_range(prefix: Text) -> tuple[bytes, bytes]:
    """First key and end of the range of all keys that begin with ``prefix``; all keys for none.

    Source: etcd-io/etcd client/v3/op.go, getPrefix.

    >>> prefix_range("/a/")
    (b'/a/', b'/a0')
    """
    first = to_bytes(prefix)
    kept = first.rstrip(b"\xff")
    end = kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\0"
    return first or b"\0", end
