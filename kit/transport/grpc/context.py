"""What a service method is given beside its request.

The part of ``grpc.aio.ServicerContext`` that generated code and services use, over the engine's
call. In place of ``abort`` a method may raise any :class:`kit.errors.Error`.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message

from kit.encoding import families
from kit.errors.codes import GrpcCode
from kit.transport import CallInfo
from kit.transport.grpc import jsonform
from kit.transport.grpc.engine import RawMetadata, RpcFailed, ServerCall
from kit.transport.grpc.failure import RpcError
from kit.transport.grpc.legal import checked, sendable

Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]


@dataclass(slots=True)
class ServerCallInfo(CallInfo):
    """A :class:`~kit.transport.CallInfo` that leads to the method's context."""

    context: "ServicerContext | None" = None


class ServicerContext:
    """One call, as the service sees it."""

    __slots__ = (
        "_call",
        "_callbacks",
        "_code",
        "_decode",
        "_details",
        "_encode",
        "_headers_sent",
        "_in_json",
        "_trailers",
        "info",
    )

    def __init__(
        self, call: ServerCall, info: CallInfo, decode: Decode | None, encode: Encode | None
    ) -> None:
        self.info = info
        self._call = call
        self._decode = decode
        self._encode = encode
        self._code = GrpcCode.OK
        self._details = ""
        self._trailers: RawMetadata = ()
        self._headers_sent = False
        self._in_json = False
        self._callbacks: list[Callable[[ServicerContext], None]] | None = None

    async def abort(
        self,
        code: grpc.StatusCode | GrpcCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with ``code``.

        Raises:
            RpcError: always; it has to leave the method.
            ValueError: ``code`` is OK.
        """
        status = _grpc_code(code)
        if status is GrpcCode.OK:
            raise ValueError("abort needs a code other than OK; return a message instead")
        trailers = tuple(trailing_metadata)
        if trailers:
            self.set_trailing_metadata(trailers)
        raise RpcError(status, details, trailers)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with ``status``, such as ``grpc_status.rpc_status.to_status`` makes."""
        await self.abort(status.code, status.details or "", tuple(status.trailing_metadata or ()))

    def set_code(self, code: grpc.StatusCode | GrpcCode) -> None:
        """End the call with ``code`` when the method returns."""
        self._code = _grpc_code(code)

    def set_details(self, details: str) -> None:
        """The message that goes with :meth:`set_code`."""
        self._details = details

    def code(self) -> grpc.StatusCode:
        """What :meth:`set_code` was given, else OK."""
        return _STATUS[self._code]

    def details(self) -> str:
        """What :meth:`set_details` was given."""
        return self._details

    def invocation_metadata(self) -> RawMetadata:
        """What the client sent along, binary values included."""
        return self._call.metadata

    async def send_initial_metadata(self, initial_metadata: RawMetadata) -> None:
        """Send metadata, and the reply headers set so far, ahead of the reply.

        Without this call the reply headers go with the reply.

        Raises:
            RpcError: INTERNAL; a key or a value cannot be sent.
        """
        headers = checked((*self.info.reply_headers.items(), *initial_metadata))
        self._headers_sent = True
        await self._call.send_initial_metadata(headers)

    def set_trailing_metadata(self, trailing_metadata: RawMetadata) -> None:
        """Metadata to send after the reply, or with the failure."""
        self._trailers = checked(tuple(trailing_metadata))

    def trailing_metadata(self) -> RawMetadata:
        """What will be sent after the reply."""
        return self._trailers

    def time_remaining(self) -> float | None:
        """Seconds to the call's deadline, the server's own limit included; never negative."""
        deadline = self.info.deadline
        return None if deadline is None else max(deadline - time.monotonic(), 0.0)

    def peer(self) -> str:
        """The other side's address."""
        return self._call.peer

    def cancelled(self) -> bool:
        """Whether the client has gone."""
        return self._call.cancelled()

    def add_done_callback(self, callback: "Callable[[ServicerContext], None]") -> None:
        """Call ``callback`` with this context when the call has ended."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)

    async def read(self) -> Any:
        """Streams: the next message, ``grpc.aio.EOF`` after the last."""
        data = await self._call.read()
        if data is None:
            return grpc.aio.EOF
        return self.message(data)

    async def write(self, message: Any) -> None:
        """Streams: send one message."""
        data = self.data(message)
        if not self._headers_sent:
            await self.send_headers()
        await self._call.write(data)

    def message(self, data: bytes) -> Any:
        """The message in ``data``, in protobuf's form or in JSON.

        Raises:
            RpcFailed: INTERNAL in grpc-go's words; ``data`` is no such message.
        """
        if data[:1] == b"{" and (kind := jsonform.kind_of(self._decode)) is not None:
            message = jsonform.read(data, kind)
            if message is not None:
                self._in_json = True
                return message
        return decoded(data, self._decode)

    def data(self, message: Any) -> bytes:
        """The bytes of ``message``, in JSON for a client that sent JSON.

        Raises:
            TypeError: the method gave something else than a message.
        """
        if self._in_json and isinstance(message, Message):
            return jsonform.written(message)
        return encoded(message, self._encode, self.info.operation)

    async def send_headers(self) -> None:
        """Send the reply headers, when there are any and none were sent."""
        if not self._headers_sent and len(self.info.reply_headers):
            await self.send_initial_metadata(())

    def raise_for_code(self) -> None:
        """What :meth:`set_code` asked for.

        Raises:
            RpcError: it was not OK.
        """
        if self._code is not GrpcCode.OK:
            raise RpcError(self._code, self._details)

    def finish(self, failure: RpcFailed | None = None) -> None:
        """Attach the trailing metadata to what ends the call, and tell who waits for its end."""
        if failure is not None:
            kept = {key for key, _ in failure.trailers}
            more = [pair for pair in self._trailers if pair[0] not in kept]
            failure.trailers = (*failure.trailers, *more)
            if not self._headers_sent:
                failure.headers = sendable(tuple(self.info.reply_headers.items()))
        elif self._trailers:
            self._call.set_trailing_metadata(self._trailers)
        for callback in self._callbacks or ():
            callback(self)


def decoded(data: bytes, decode: Decode | None) -> Any:
    """The message in ``data``.

    Raises:
        RpcFailed: INTERNAL in grpc-go's words; ``data`` is no such message.
    """
    if decode is None:
        return data
    try:
        return decode(data)
    except Exception as exc:
        raise RpcFailed(
            GrpcCode.INTERNAL, f"grpc: error unmarshalling request: {exc or type(exc).__name__}"
        ) from exc


def encoded(message: Any, encode: Encode | None, operation: str) -> bytes:
    """The bytes of ``message``.

    Raises:
        TypeError: the method gave something else than a message.
    """
    if encode is None and isinstance(message, bytes):
        return message
    try:
        if encode is not None:
            return encode(message)
    except Exception as exc:
        if families.is_foreign(type(message)):
            return families.to_bytes(message)
        raise TypeError(f"{operation} gave {type(message).__name__}, not its reply type") from exc
    raise TypeError(f"{operation} gave {type(message).__name__}, not bytes")


_STATUS = {GrpcCode(code.value[0]): code for code in grpc.StatusCode}


def _grpc_code(code: grpc.StatusCode | GrpcCode) -> GrpcCode:
    return code if isinstance(code, GrpcCode) else GrpcCode(code.value[0])
