"""A small asynchronous etcd client, for the registry and the configuration source.

The field's clients do not resume their watches or their leases, or cannot be loaded beside today's
protobuf (docs/dependencies.md); this one has what the kit needs and no more. Its messages live in a
package of their own, so that it can share a process with any other client.

Source: etcd-io/etcd api/etcdserverpb/rpc.proto, client/v3.
"""

from kit.etcd.backoff import Backoff
from kit.etcd.client import EtcdClient
from kit.etcd.errors import (
    EtcdAuthOff,
    EtcdCompacted,
    EtcdDenied,
    EtcdError,
    EtcdLeaseNotFound,
    EtcdTokenInvalid,
    EtcdUnavailable,
)
from kit.etcd.follow import follow
from kit.etcd.model import (
    Event,
    KeyValue,
    Lease,
    Listing,
    TxnResult,
    absent,
    delete_step,
    get_step,
    lease_is,
    put_step,
    value_is,
)
from kit.etcd.options import EtcdOptions, EtcdTls

__all__ = [
    "Backoff",
    "EtcdAuthOff",
    "EtcdClient",
    "EtcdCompacted",
    "EtcdDenied",
    "EtcdError",
    "EtcdLeaseNotFound",
    "EtcdOptions",
    "EtcdTls",
    "EtcdTokenInvalid",
    "EtcdUnavailable",
    "Event",
    "KeyValue",
    "Lease",
    "Listing",
    "TxnResult",
    "absent",
    "delete_step",
    "follow",
    "get_step",
    "lease_is",
    "put_step",
    "value_is",
]
