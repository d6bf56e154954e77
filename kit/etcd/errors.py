"""What goes wrong with etcd, translated once from gRPC.

::

    kit.errors.Error
    └── EtcdError             500 ETCD_ERROR        any other answer
        ├── EtcdUnavailable   503 ETCD_UNAVAILABLE  nobody answered: refused, cut, too late
        ├── EtcdDenied        403 ETCD_DENIED       wrong user or password, or not permitted
        │   └── EtcdTokenInvalid                    the token died, with its server or of age
        ├── EtcdAuthOff       400 ETCD_AUTH_OFF     a login where nobody needs one
        ├── EtcdLeaseNotFound 404 ETCD_LEASE        the lease expired or was revoked
        └── EtcdCompacted     409 ETCD_COMPACTED    the history asked for is gone: read anew

Every message names the endpoint.

Source: etcd-io/etcd api/v3rpc/rpctypes/error.go.
"""

import re
from typing import ClassVar

import grpc

from kit.errors import Error


class EtcdError(Error):
    """etcd said no in a way that has no class of its own.

    Attributes:
        endpoint: ``host:port`` of the member, or several, separated by commas.
        detail: the message without the endpoint.
    """

    CODE: ClassVar[int] = 500
    REASON: ClassVar[str] = "ETCD_ERROR"

    def __init__(self, endpoint: str, message: str) -> None:
        super().__init__(self.CODE, self.REASON, f"etcd at {endpoint}: {message}")
        self.endpoint = endpoint
        self.detail = message


class EtcdUnavailable(EtcdError):
    """No member answered.

    Attributes:
        unsent: the request certainly never left, so that even a write may be sent again.
    """

    CODE = 503
    REASON = "ETCD_UNAVAILABLE"

    def __init__(self, endpoint: str, message: str, *, unsent: bool = False) -> None:
        super().__init__(endpoint, message)
        self.unsent = unsent


class EtcdDenied(EtcdError):
    """Who asks is not known, or may not do this."""

    CODE = 403
    REASON = "ETCD_DENIED"


class EtcdTokenInvalid(EtcdDenied):
    """The token is not valid any more; the user and the password may still be."""


class EtcdAuthOff(EtcdError):
    """Authentication is not switched on there: calls need no token."""

    CODE = 400
    REASON = "ETCD_AUTH_OFF"


class EtcdLeaseNotFound(EtcdError):
    """The lease expired or was revoked, and its keys went with it."""

    CODE = 404
    REASON = "ETCD_LEASE"


class EtcdCompacted(EtcdError):
    """The events asked for are not kept any more, or never happened on this server: read anew."""

    CODE = 409
    REASON = "ETCD_COMPACTED"


_KNOWN: dict[str, tuple[type[EtcdError], str]] = {
    "requested lease not found": (EtcdLeaseNotFound, "the lease expired or was revoked"),
    "mvcc: required revision has been compacted": (EtcdCompacted, "the history is compacted"),
    "mvcc: required revision is a future revision": (EtcdCompacted, "the history is shorter"),
    "invalid auth token": (EtcdTokenInvalid, "the token is not valid any more"),
    "revision of auth store is old": (EtcdTokenInvalid, "users or roles changed"),
    "user name is empty": (EtcdTokenInvalid, "it wants a user and a password"),
    "authentication failed, invalid user ID or password": (
        EtcdDenied,
        "wrong user or password",
    ),
    "authentication is not enabled": (EtcdAuthOff, "authentication is not switched on"),
    "permission denied": (EtcdDenied, "permission denied; grant the user a role for the key"),
}
_PREFIX = "etcdserver: "
_LAST_ERROR = re.compile(r"last error: (?:[A-Z_]+: )?(?:ipv[46]:\S+: )?(.+)", re.DOTALL)
_NEVER_SENT = ("failed to connect to all addresses", "DNS resolution failed", "errors resolving")


def from_text(endpoint: str, text: str) -> EtcdError:
    """The error that etcd means by ``text``, such as the reason of a cancelled watch."""
    text = text.removeprefix(_PREFIX)
    error_type, message = _KNOWN.get(text, (EtcdError, text))
    return error_type(endpoint, message)


def from_rpc(endpoint: str, error: grpc.aio.AioRpcError, timeout_s: float) -> EtcdError:
    """The error that a failed call means.

    Args:
        endpoint: whom the call went to.
        error: how it ended.
        timeout_s: how long the call waited, in seconds; named when it waited in vain.
    """
    details = error.details() or ""
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            hint = "check that it runs there and can be reached"
            return EtcdUnavailable(endpoint, f"no answer in {timeout_s:.1f} s; {hint}")
        case grpc.StatusCode.UNAVAILABLE:
            unsent = details.startswith(_NEVER_SENT)
            return EtcdUnavailable(endpoint, _reason(details), unsent=unsent)
        case code if details.removeprefix(_PREFIX) not in _KNOWN:
            return EtcdError(endpoint, f"{_reason(details)} ({code.name})")
        case _:
            return from_text(endpoint, details)


def _reason(details: str) -> str:
    """The part of gRPC's text that helps: ``connect: Connection refused (111)``."""
    match = _LAST_ERROR.search(details)
    reason = match[1] if match else details.removeprefix(_PREFIX)
    return reason.removeprefix("Failed to connect to remote host: ") or "no reason given"
