"""gRPC's endings are translated once, into errors that say what is wrong and with whom."""

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from kit.errors import Error
from kit.etcd import (
    EtcdAuthOff,
    EtcdCompacted,
    EtcdDenied,
    EtcdError,
    EtcdLeaseNotFound,
    EtcdTokenInvalid,
    EtcdUnavailable,
)
from kit.etcd.errors import from_rpc, from_text

REFUSED = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:2379: "
    "Failed to connect to remote host: connect: Connection refused (111)"
)
Code = grpc.StatusCode


def ended(code: grpc.StatusCode, details: str) -> EtcdError:
    error = AioRpcError(code, Metadata(), Metadata(), details=details)
    return from_rpc("127.0.0.1:2379", error, 3.0)


@pytest.mark.parametrize(
    ("code", "details", "kind", "message"),
    [
        (Code.UNAVAILABLE, REFUSED, EtcdUnavailable, "connect: Connection refused (111)"),
        (Code.UNAVAILABLE, "Socket closed", EtcdUnavailable, "Socket closed"),
        (Code.UNAVAILABLE, "etcdserver: no leader", EtcdUnavailable, "no leader"),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", EtcdUnavailable,
         "no answer in 3.0 s; check that it runs there and can be reached"),
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", EtcdTokenInvalid,
         "the token is not valid any more"),
        (Code.INVALID_ARGUMENT, "etcdserver: user name is empty", EtcdTokenInvalid,
         "it wants a user and a password"),
        (Code.INVALID_ARGUMENT,
         "etcdserver: authentication failed, invalid user ID or password", EtcdDenied,
         "wrong user or password"),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", EtcdDenied,
         "permission denied; grant the user a role for the key"),
        (Code.FAILED_PRECONDITION, "etcdserver: authentication is not enabled", EtcdAuthOff,
         "authentication is not switched on"),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", EtcdLeaseNotFound,
         "the lease expired or was revoked"),
        (Code.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted",
         EtcdCompacted, "the history is compacted"),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", EtcdError,
         "mvcc: database space exceeded (RESOURCE_EXHAUSTED)"),
        (Code.UNIMPLEMENTED, "", EtcdError, "no reason given (UNIMPLEMENTED)"),
    ],
)  # fmt: skip
def test_each_ending_becomes_the_error_it_means(
    code: grpc.StatusCode, details: str, kind: type[EtcdError], message: str
) -> None:
    """etcd's texts are those of api/v3rpc/rpctypes/error.go; the endpoint comes first."""
    error = ended(code, details)
    assert type(error) is kind
    assert error.message == f"etcd at 127.0.0.1:2379: {message}"
    assert error.endpoint == "127.0.0.1:2379"


def test_only_a_call_that_never_left_counts_as_unsent() -> None:
    """A write may be sent again then; "Socket closed" may come after etcd carried it out."""
    refused, cut = ended(Code.UNAVAILABLE, REFUSED), ended(Code.UNAVAILABLE, "Socket closed")
    assert isinstance(refused, EtcdUnavailable)
    assert isinstance(cut, EtcdUnavailable)
    assert (refused.unsent, cut.unsent) == (True, False)


def test_the_reason_of_a_cancelled_watch_is_read_alike() -> None:
    """It comes as text inside a healthy stream."""
    assert type(from_text("h:1", "etcdserver: invalid auth token")) is EtcdTokenInvalid
    assert from_text("h:1", "etcdserver: odd").message == "etcd at h:1: odd"


def test_every_error_is_one_of_the_kit() -> None:
    """With code and reason, so that who knows nothing of etcd can handle it."""
    for kind, code in ((EtcdError, 500), (EtcdUnavailable, 503), (EtcdDenied, 403)):
        error = kind("h:1", "text")
        assert isinstance(error, Error)
        assert error.code == code
        assert error.reason.startswith("ETCD_")
