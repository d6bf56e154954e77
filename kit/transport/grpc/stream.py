"""Streaming calls of a client."""

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, TypeAlias

import grpc

from kit.transport import Middleware, call_info
from kit.transport.grpc.callinfo import ClientCallInfo, received
from kit.transport.grpc.engine import ClientStream, RawMetadata, RpcFailed
from kit.transport.grpc.failure import RpcError
from kit.transport.grpc.pool import Lease, Pool

Requests: TypeAlias = AsyncIterable[Any] | Iterable[Any]


class StreamCall:
    """A call with many messages; it starts when it is first used.

    Read it with ``async for`` or :meth:`read`, write it with :meth:`write` unless it was given an
    iterator of requests. Leave it with ``async with``, :meth:`cancel`, or by reading to its end;
    until then its node counts as in use.
    """

    def __init__(
        self,
        pool: Pool,
        info: ClientCallInfo,
        *,
        encode: Callable[[Any], bytes] | None,
        decode: Callable[[bytes], Any] | None,
        wrap: Middleware,
        requests: Requests | None,
    ) -> None:
        self.info = info
        self._pool = pool
        self._encode = encode
        self._decode = decode
        self._requests = requests
        self._send = wrap(self._send_raw)
        self._receive = wrap(_as_it_is)
        self._opening = asyncio.Lock()
        self._lease: Lease | None = None
        self._stream: ClientStream | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._ended = False

    async def __aenter__(self) -> "StreamCall":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()
        if self._feeding is not None:
            await asyncio.gather(self._feeding, return_exceptions=True)

    def __aiter__(self) -> "StreamCall":
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        """The next message, ``grpc.aio.EOF`` after the last.

        Raises:
            RpcError: the call failed.
        """
        stream = await self._open()
        if self._ended:
            return grpc.aio.EOF
        try:
            data = await stream.read()
        except RpcFailed as failure:
            raise self._failed(failure) from failure
        except asyncio.CancelledError:
            self._raise_for_source()
            raise
        if data is None:
            self.info.take_answer(await stream.headers(), await stream.trailers())
            self._end(None)
            return grpc.aio.EOF
        message = received(data, self._decode)
        token = call_info.set(self.info)
        try:
            return await self._receive(message)
        finally:
            call_info.reset(token)

    async def write(self, message: Any) -> None:
        """Send one message.

        Raises:
            RpcError: the call has ended; :meth:`read` says why when it was the peer.
        """
        await self._open()
        token = call_info.set(self.info)
        try:
            await self._send(message)
        finally:
            call_info.reset(token)

    async def done_writing(self) -> None:
        """Say that no more messages follow."""
        await (await self._open()).done_writing()

    async def initial_metadata(self) -> RawMetadata:
        """The metadata ahead of the first message."""
        return await (await self._open()).headers()

    async def trailing_metadata(self) -> RawMetadata:
        """The metadata after the last message."""
        return await (await self._open()).trailers()

    def cancel(self) -> None:
        """Give the call up; nothing happens when it has ended."""
        if self._feeding is not None:
            self._feeding.cancel()
        if self._stream is not None and not self._ended:
            self._stream.cancel()
            self._end(asyncio.CancelledError())

    async def _open(self) -> ClientStream:
        async with self._opening:
            if self._stream is None:
                metadata = self.info.sent()
                await self._pool.resolved(self.info.deadline)
                self._lease = self._pool.lease(self.info)
                self._stream = self._lease.connection.stream(
                    self.info.operation, metadata, self.info.deadline
                )
                if self._requests is not None:
                    # Ends with the call: it was read to its end, failed, or was cancelled.
                    self._feeding = asyncio.create_task(self._feed(self._requests))
            return self._stream

    async def _feed(self, requests: Requests) -> None:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self.write(request)
            else:
                for request in requests:
                    await self.write(request)
            await self.done_writing()
        except RpcError:
            pass  # the call ended before it had read everything; read() says why
        except Exception:
            self.cancel()  # half a stream must not look like a whole one
            raise

    def _raise_for_source(self) -> None:
        """Say why the call was given up, when it was its iterator of requests that failed."""
        task = asyncio.current_task()
        given_up = self._feeding is not None and self._feeding.done() and self._ended
        if given_up and (task is None or not task.cancelling()):
            assert self._feeding is not None
            self._feeding.result()

    async def _send_raw(self, message: Any) -> None:
        stream = await self._open()
        data = message if self._encode is None else self._encode(message)
        try:
            await stream.write(data)
        except RpcFailed as failure:
            raise RpcError(failure.status, failure.message, failure.trailers) from failure

    def _failed(self, failure: RpcFailed) -> RpcError:
        self.info.take_answer(failure.headers, failure.trailers)
        self._ended = True
        if self._feeding is not None:
            self._feeding.cancel()
        assert self._lease is not None
        return self._lease.failed(failure)

    def _end(self, error: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            assert self._lease is not None
            self._lease.end(error)


async def _as_it_is(message: Any) -> Any:
    return message
