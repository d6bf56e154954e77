"""What a call of a client knows about itself, and the reading of its answer."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kit.errors.codes import GrpcCode
from kit.transport import CallInfo, Kind, call_info
from kit.transport.grpc.engine import RawMetadata
from kit.transport.grpc.failure import RpcError
from kit.transport.grpc.legal import checked


@dataclass(slots=True)
class ClientCallInfo(CallInfo):
    """A :class:`~kit.transport.CallInfo` with what only gRPC has.

    Attributes:
        binary_headers: metadata whose values are bytes; their keys end in ``-bin``.
        trailers: trailing metadata of the answer.
    """

    binary_headers: RawMetadata = ()
    trailers: RawMetadata = ()

    def sent(self) -> RawMetadata:
        """All metadata that goes out.

        Raises:
            RpcError: INTERNAL; a key or a value cannot be sent.
        """
        return checked((*self.request_headers.items(), *self.binary_headers))

    def take_answer(self, headers: RawMetadata, trailers: RawMetadata) -> None:
        """Keep what came back beside the message."""
        for key, value in headers:
            if isinstance(value, str):
                self.reply_headers.add(key, value)
        self.trailers = trailers


def new_call(
    target: str,
    method: str,
    timeout: float | None,
    metadata: Iterable[tuple[str, str | bytes]] | None,
) -> ClientCallInfo:
    """A call that is about to be made, bound by ``timeout`` seconds.

    A call made while a method of a server runs is bound by that call's deadline as well, as Go's
    context would do it.
    """
    info = ClientCallInfo(Kind.GRPC, "client", method, target)
    if timeout is not None:
        info.deadline = time.monotonic() + timeout
        info.limit, info.limit_side = timeout, "client"
    outer = call_info.get()
    if (
        outer is not None
        and outer.side == "server"
        and outer.deadline is not None
        and (info.deadline is None or outer.deadline < info.deadline)
    ):
        info.deadline, info.limit = outer.deadline, outer.limit
        info.limit_side = outer.limit_side
    binary: list[tuple[str, str | bytes]] = []
    for key, value in metadata or ():
        if isinstance(value, str):
            info.request_headers.add(key, value)
        else:
            binary.append((key.lower(), value))
    info.binary_headers = binary
    return info


def received(data: bytes, decode: Callable[[bytes], Any] | None) -> Any:
    """The message in ``data``.

    Raises:
        RpcError: INTERNAL; the peer answered something else than this method's reply.
    """
    if decode is None:
        return data
    try:
        return decode(data)
    except Exception as exc:
        raise RpcError(
            GrpcCode.INTERNAL,
            f"grpc: failed to unmarshal the received message: {exc or type(exc).__name__}",
        ) from exc
