"""What a service method is given beside its request when it is called over HTTP.

The part of ``grpc.aio.ServicerContext`` that has a meaning there, so that one class serves both
transports. In place of ``abort`` a method may raise any :class:`kit.errors.Error`.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NoReturn

from kit.errors import Error
from kit.errors.codes import GrpcCode, http_code
from kit.transport.http.exchange import HttpCallInfo

Read = Callable[[], Awaitable[Any]]
Write = Callable[[Any], Awaitable[None]]


class HttpContext:
    """One call, as the service sees it.

    Attributes:
        info: what middleware sees, with the request.
    """

    __slots__ = ("_code", "_details", "_read", "_write", "info")

    def __init__(
        self, info: HttpCallInfo, read: Read | None = None, write: Write | None = None
    ) -> None:
        self.info = info
        self._code = GrpcCode.OK
        self._details = ""
        self._read = read
        self._write = write

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with a gRPC ``code``, by the table of :mod:`kit.errors.codes`.

        Raises:
            Error: always; it has to leave the method.
            ValueError: ``code`` is OK.
        """
        status = _grpc_code(code)
        if status is GrpcCode.OK:
            raise ValueError("abort needs a code other than OK; return a message instead")
        raise Error(http_code(status), "", details)

    def set_code(self, code: Any) -> None:
        """End the call with this gRPC code when the method returns."""
        self._code = _grpc_code(code)

    def set_details(self, details: str) -> None:
        """The message that goes with :meth:`set_code`."""
        self._details = details

    def details(self) -> str:
        """What :meth:`set_details` was given."""
        return self._details

    def raise_for_code(self) -> None:
        """What :meth:`set_code` asked for.

        Raises:
            Error: it was not OK.
        """
        if self._code is not GrpcCode.OK:
            raise Error(http_code(self._code), "", self._details)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """The request headers, in lower case."""
        return tuple(self.info.request_headers.items())

    async def send_initial_metadata(self, initial_metadata: Iterable[tuple[str, str]]) -> None:
        """Headers of the answer; they go with it."""
        for key, value in initial_metadata:
            self.info.reply_headers.add(key, value)

    def set_trailing_metadata(self, trailing_metadata: Iterable[tuple[str, str]]) -> None:
        """Nothing: HTTP/1.1 has no place for it."""

    def time_remaining(self) -> float | None:
        """Seconds to the call's deadline; never negative."""
        deadline = self.info.deadline
        return None if deadline is None else max(deadline - time.monotonic(), 0.0)

    def peer(self) -> str:
        """The other side's address."""
        return self.info.peer

    def cancelled(self) -> bool:
        """Always false: a method is cancelled when its client goes away."""
        return False

    async def read(self) -> Any:
        """Streams: the next message, ``grpc.aio.EOF`` after the last."""
        if self._read is None:
            raise TypeError(f"{self.info.operation} takes one message, not a stream")
        message = await self._read()
        if message is None:
            import grpc.aio

            return grpc.aio.EOF
        return message

    async def write(self, message: Any) -> None:
        """Streams: send one message."""
        if self._write is None:
            raise TypeError(f"{self.info.operation} gives one message, not a stream")
        await self._write(message)


def _grpc_code(code: Any) -> GrpcCode:
    """``code``, or the member of ``grpc.StatusCode`` that it is."""
    return code if isinstance(code, GrpcCode) else GrpcCode(code.value[0])
