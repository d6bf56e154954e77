"""Calls to whichever member of an etcd answers.

Rules:

- One channel a member. Calls go to the member that answered last; one that does not answer loses
  that place to the next.
- A call has a deadline over all members it tries. A read is tried at each member, with a fair share
  of the time left, so that a hung member does not use it up. A write is sent again only when it
  certainly never left: the answer to one that may have left is "unknown", and the caller decides.
- A token dies with the server that gave it, and of age. A call that is refused for its token is
  sent once more with a new one; it was not carried out.
- ``hasleader`` makes a member that lost its cluster say so instead of answering from its past.

Facts about gRPC that this module stands on, each measured:

- ``grpc.keepalive_timeout_ms`` alone does not find a hung server; ``grpc.http2.ping_timeout_ms``
  does.
- The default pause between connection attempts grows to two minutes.
- ``http_proxy`` of the environment is used even for loopback unless told otherwise.
- Closing a channel cancels the calls on it: their tasks see a CancelledError nobody sent them.
- A stream that fails while it begins may swallow the cancellation of who waits for it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from kit.cancellation import cancellation_kept
from kit.clock import Clock, SystemClock
from kit.etcd.errors import EtcdAuthOff, EtcdTokenInvalid, EtcdUnavailable, from_rpc
from kit.etcd.options import EtcdOptions, EtcdTls
from kit.etcd.pb import etcd_pb2 as pb

MAX_MESSAGE_BYTES = 64 << 20
"""Of one answer: some 200,000 service instances. gRPC's own limit is 4 MiB."""

_ROUND_PAUSE = 0.1
_LONGEST_PING_MS = 5000
"""How long an answer to the question "are you there?" may take."""

_RECONNECT_MS = {"initial": 200, "min": 1000, "max": 2000}
"""``min`` is in truth how long one connection attempt may take."""

Reply = TypeVar("Reply", bound=Message)
R = TypeVar("R")
CallMetadata: TypeAlias = tuple[tuple[str, str], ...]
Invoke: TypeAlias = Callable[[grpc.aio.Channel, float, CallMetadata], Awaitable[R]]
"""Makes one call: channel, seconds it may take, metadata."""


@dataclass(frozen=True, slots=True)
class Method(Generic[Reply]):
    """One method of etcd's API.

    Attributes:
        path: as etcd serves it; our messages have names of their own.
        reply: the type of the answer.
        repeatable: sending it twice does no harm.
    """

    path: str
    reply: type[Reply]
    repeatable: bool = False


RANGE = Method("/etcdserverpb.KV/Range", pb.RangeResponse, repeatable=True)
PUT = Method("/etcdserverpb.KV/Put", pb.PutResponse)
DELETE = Method("/etcdserverpb.KV/DeleteRange", pb.DeleteRangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", pb.TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", pb.CompactionResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", pb.WatchResponse)
LEASE_GRANT = Method("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse, repeatable=True)
LEASE_REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse)
LEASE_KEEP_ALIVE = Method(
    "/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse, repeatable=True
)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", pb.AuthenticateResponse, repeatable=True)


@dataclass(frozen=True, slots=True)
class Stream(Generic[Reply]):
    """An open stream and the member it goes to.

    Attributes:
        endpoint: ``host:port``.
        call: write requests to it, read answers from it.
    """

    endpoint: str
    call: grpc.aio.StreamStreamCall[Any, Reply]


class Connection:
    """Channels to the members of one etcd. Belongs to the event loop of its first call."""

    def __init__(self, options: EtcdOptions, clock: Clock | None = None) -> None:
        self._options = options
        self._clock = clock or SystemClock()
        self._credentials = _credentials(options.tls)
        self._endpoint = options.endpoints[0]
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._token: str | None = None if options.username else ""
        self._login: asyncio.Task[str] | None = None  # owned here, awaited by aclose
        self._closed = False

    async def aclose(self) -> None:
        """End calls and close the channels."""
        self._closed = True
        login, channels = self._login, list(self._channels.values())
        self._channels.clear()
        for channel in channels:
            await channel.close()
        if login is not None:
            await asyncio.wait([login])  # its call ended with the channel

    async def unary(self, method: Method[Reply], request: Message) -> Reply:
        """One request, one answer.

        Raises:
            EtcdError: no member answered in time, or the answer is no.
        """

        async def invoke(
            channel: grpc.aio.Channel, seconds: float, metadata: CallMetadata
        ) -> Reply:
            call = channel.unary_unary(
                method.path, type(request).SerializeToString, method.reply.FromString
            )
            return await call(request, timeout=seconds, metadata=metadata)

        return await self._call(invoke, method)

    async def single(self, method: Method[Reply], request: Message) -> Reply:
        """One request and the first answer of a method that is a stream in both directions.

        Raises:
            EtcdError: no member answered in time, or the answer is no.
        """

        async def invoke(
            channel: grpc.aio.Channel, seconds: float, metadata: CallMetadata
        ) -> Reply:
            open_stream = channel.stream_stream(
                method.path, type(request).SerializeToString, method.reply.FromString
            )
            call = open_stream(timeout=seconds, metadata=metadata)
            try:
                # An iterator of requests would be another task, left behind where the call fails.
                await call.write(request)
                reply = await call.read()
            finally:
                call.cancel()
            if not isinstance(reply, method.reply):  # grpc.aio.EOF
                raise EtcdUnavailable(self._endpoint, "the stream ended without an answer")
            return reply

        return await self._call(invoke, method)

    @asynccontextmanager
    async def stream(
        self, method: Method[Reply], request_type: type[Message]
    ) -> AsyncIterator[Stream[Reply]]:
        """A stream to the current member, cancelled when the block is left.

        Raises:
            EtcdError: the stream broke while the block ran.
        """
        self._refuse_when_closed()
        metadata = _metadata(await self._valid_token())
        endpoint = self._endpoint
        open_stream = self._channel(endpoint).stream_stream(
            method.path, request_type.SerializeToString, method.reply.FromString
        )
        call = open_stream(metadata=metadata)
        try:
            with self.translating(endpoint):
                yield Stream(endpoint, call)
        finally:
            call.cancel()

    @contextmanager
    def translating(self, endpoint: str, seconds: float | None = None) -> Iterator[None]:
        """Translate what goes wrong in the block into an :class:`EtcdError` of ``endpoint``."""
        try:
            with cancellation_kept():
                yield
        except grpc.aio.AioRpcError as rpc_error:
            error = from_rpc(endpoint, rpc_error, seconds or self._options.timeout)
            if isinstance(error, EtcdUnavailable):
                self.avoid(endpoint)
            raise error from rpc_error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise EtcdUnavailable(endpoint, "this client is closed") from None
            raise

    def avoid(self, endpoint: str) -> None:
        """Send the next calls to the member after ``endpoint``, which did not answer."""
        members = self._options.endpoints
        if self._endpoint == endpoint:
            self._endpoint = members[(members.index(endpoint) + 1) % len(members)]

    async def _call(self, invoke: Invoke[R], method: Method[Any]) -> R:
        members = self._options.endpoints
        deadline = self._clock.monotonic() + self._options.timeout
        while True:
            for untried in range(len(members), 0, -1):
                left = max(deadline - self._clock.monotonic(), 0.001)
                share = left / untried if method.repeatable else left
                try:
                    return await self._attempt(invoke, share, with_token=method is not AUTHENTICATE)
                except EtcdUnavailable as error:
                    if self._closed or not (method.repeatable or error.unsent):
                        raise
                    failure = error
            if self._clock.monotonic() + _ROUND_PAUSE >= deadline:
                if len(members) == 1:
                    raise failure
                raise EtcdUnavailable(", ".join(members), failure.detail) from failure
            await self._clock.sleep(_ROUND_PAUSE)

    async def _attempt(self, invoke: Invoke[R], seconds: float, *, with_token: bool) -> R:
        self._refuse_when_closed()
        token = await self._valid_token() if with_token else ""
        endpoint = self._endpoint
        channel = self._channel(endpoint)
        try:
            with self.translating(endpoint, seconds):
                return await invoke(channel, seconds, _metadata(token))
        except EtcdTokenInvalid:
            if not with_token or not self._options.username:
                raise
        token = await self._valid_token(stale=token)
        with self.translating(endpoint, seconds):
            return await invoke(channel, seconds, _metadata(token))

    async def _valid_token(self, stale: str | None = None) -> str:
        """The token for calls, empty for none; a new one when the one we have is ``stale``.

        Calls that need it at the same time share one login: etcd hashes a password on purpose
        slowly.
        """
        if self._token is not None and self._token != stale:
            return self._token
        if self._options.username == "":
            return ""
        if self._login is None:
            self._login = asyncio.create_task(self._log_in(), name="etcd login")
            self._login.add_done_callback(_retrieve)
        return await asyncio.shield(self._login)

    async def _log_in(self) -> str:
        request = pb.AuthenticateRequest(
            name=self._options.username, password=self._options.password
        )
        try:
            self._token = (await self.unary(AUTHENTICATE, request)).token
        except EtcdAuthOff:
            self._token = ""
        finally:
            self._login = None
        return self._token

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        channel = self._channels.get(endpoint)
        if channel is None:
            options = _channel_options(self._options.keepalive)
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(endpoint, options)
            else:
                channel = grpc.aio.secure_channel(endpoint, self._credentials, options)
            self._channels[endpoint] = channel
        return channel

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise EtcdUnavailable(self._endpoint, "this client is closed")


def _metadata(token: str) -> CallMetadata:
    return (("hasleader", "true"), ("token", token)) if token else (("hasleader", "true"),)


def _credentials(tls: EtcdTls | None) -> grpc.ChannelCredentials | None:
    if tls is None:
        return None
    return grpc.ssl_channel_credentials(
        _read(tls.ca, "ca"), _read(tls.key, "key"), _read(tls.cert, "cert")
    )


def _read(path: str | Path, name: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"etcd tls.{name}: {path}: {error.strerror}") from error


def _channel_options(keepalive: float) -> list[tuple[str, int]]:
    ping_timeout_ms = min(int(keepalive * 500), _LONGEST_PING_MS)
    return [
        ("grpc.keepalive_time_ms", int(keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),
        *((f"grpc.{name}_reconnect_backoff_ms", ms) for name, ms in _RECONNECT_MS.items()),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.enable_http_proxy", 0),
    ]


def _retrieve(task: asyncio.Task[str]) -> None:
    """Read how a login ended: everybody who waited for it may be gone by now."""
    if not task.cancelled():
        task.exception()
