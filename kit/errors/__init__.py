"""What goes wrong, in a form that survives the wire.

::

    Error                     code, reason (for programs), message (for people), metadata
    ├── BadRequest            400
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── NotFound              404
    ├── Conflict              409
    ├── TooManyRequests       429
    ├── ClientClosed          499
    ├── InternalServer        500
    ├── ServiceUnavailable    503
    └── GatewayTimeout        504

Two errors are equal when code and reason are equal: callers compare with the reason they know, the
message is free to change. Translation to and from a gRPC status is in :mod:`kit.errors.rpc`, the
code table in :mod:`kit.errors.codes`.

Source: go-kratos/kratos errors/errors.go.
"""

from collections.abc import Mapping
from typing import ClassVar, Self

from kit.errors.codes import GrpcCode

UNKNOWN_CODE = 500
UNKNOWN_REASON = ""


class Error(Exception):
    """An error with a code, a reason, a message and metadata.

    Args:
        code: HTTP-like status; business codes are allowed, but those outside the table become 500
            on gRPC.
        reason: one word for programs, such as ``USER_NOT_FOUND``.
        message: a sentence for people.
        metadata: text to text, travels with the error.
    """

    GRPC_CODE: ClassVar[GrpcCode | None] = None
    """The gRPC code of a class whose code the table does not know."""

    def __init__(
        self,
        code: int = UNKNOWN_CODE,
        reason: str = UNKNOWN_REASON,
        message: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})

    def with_metadata(self, metadata: Mapping[str, str]) -> Self:
        """A copy that carries ``metadata`` in place of its own."""
        return self._copy(metadata, self.__cause__)

    def with_cause(self, cause: BaseException) -> Self:
        """A copy that was caused by ``cause``; the cause is local and never travels."""
        return self._copy(self.metadata, cause)

    def _copy(self, metadata: Mapping[str, str], cause: BaseException | None) -> Self:
        """The same class, because that decides about the gRPC code, past its own constructor."""
        copy = type(self).__new__(type(self), *self.args)
        vars(copy).update(vars(self))
        copy.metadata = dict(metadata)
        copy.__cause__ = cause
        return copy

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Error):
            return NotImplemented
        return (self.code, self.reason) == (other.code, other.reason)

    def __hash__(self) -> int:
        return hash((self.code, self.reason))

    def __str__(self) -> str:
        return (
            f"error: code = {self.code} reason = {self.reason} message = {self.message} "
            f"metadata = {go_map(self.metadata)} cause = {go_nil(self.__cause__)}"
        )


class _CodedError(Error):
    CODE: ClassVar[int]

    def __init__(
        self, reason: str = "", message: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(self.CODE, reason, message, metadata)

    @classmethod
    def matches(cls, error: BaseException | None) -> bool:
        """Whether ``error``, read as a kit error, has this class's code: kratos' ``IsNotFound``."""
        return code(error) == cls.CODE

    def __init_subclass__(cls, code: int = 0, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if code:
            cls.CODE = code


class BadRequest(_CodedError, code=400):
    """The caller sent something that can never work."""


class Unauthorized(_CodedError, code=401):
    """The caller did not say, or not prove, who it is."""


class Forbidden(_CodedError, code=403):
    """The caller may not do this."""


class NotFound(_CodedError, code=404):
    """What was asked for does not exist."""


class Conflict(_CodedError, code=409):
    """The state does not allow it; on gRPC this is ABORTED."""


class TooManyRequests(_CodedError, code=429):
    """A limit was reached."""


class ClientClosed(_CodedError, code=499):
    """The caller went away."""


class InternalServer(_CodedError, code=500):
    """A fault of this side."""


class ServiceUnavailable(_CodedError, code=503):
    """Not now; another try may succeed."""


class GatewayTimeout(_CodedError, code=504):
    """A deadline passed."""


def from_error(error: BaseException) -> Error:
    """``error`` as an :class:`Error`: the first in its chain of causes, else 500 with its text."""
    seen: set[int] = set()  # ``raise error from error`` is legal, and a chain without end
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        if isinstance(link, Error):
            return link
        seen.add(id(link))
        link = link.__cause__
    wrapped = Error(UNKNOWN_CODE, UNKNOWN_REASON, str(error) or type(error).__name__)
    wrapped.__cause__ = error
    return wrapped


def code(error: BaseException | None) -> int:
    """The HTTP-like code of ``error``; 200 for no error."""
    return 200 if error is None else from_error(error).code


def reason(error: BaseException | None) -> str:
    """The reason of ``error``; empty for no error and for one that has none."""
    return "" if error is None else from_error(error).reason


def go_map(values: Mapping[str, str]) -> str:
    """A mapping as Go prints it with ``%v``.

    >>> go_map({"b": "2", "a": "1"})
    'map[a:1 b:2]'
    """
    return "map[" + " ".join(f"{key}:{values[key]}" for key in sorted(values)) + "]"


def go_nil(value: object) -> str:
    """The text of ``value``, or Go's ``<nil>``."""
    return "<nil>" if value is None else str(value)


__all__ = [
    "UNKNOWN_CODE",
    "UNKNOWN_REASON",
    "BadRequest",
    "ClientClosed",
    "Conflict",
    "Error",
    "Forbidden",
    "GatewayTimeout",
    "InternalServer",
    "NotFound",
    "ServiceUnavailable",
    "TooManyRequests",
    "Unauthorized",
    "code",
    "from_error",
    "reason",
]
