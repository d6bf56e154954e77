"""Cancellations that somebody swallows, and those that are taken back."""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from kit.cancellation import cancellation_kept
from kit.etcd import EtcdClient, EtcdError, EtcdOptions
from kit.ports import free_port
from kit.transport.grpc.engine import Keepalive, Limits, RpcFailed
from kit.transport.grpc.engines import EngineName, client_engine
from kit.transport.grpc.grpcio import GrpcioConnection
from tests.engines import ENGINES


@pytest.mark.parametrize("outcome", ["an error", "a value"])
async def test_a_swallowed_cancellation_comes_out(outcome: str) -> None:
    waits = asyncio.Event()

    async def swallow() -> None:
        try:
            waits.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if outcome == "an error":
                raise ConnectionError("refused") from None

    async def guarded() -> None:
        with cancellation_kept():
            await swallow()

    task = asyncio.create_task(guarded())
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_inside_is_no_cancellation() -> None:
    with cancellation_kept(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_who_was_cancelled_before_may_clean_up() -> None:
    """Its own errors come out as they are."""
    begun, said = asyncio.Event(), []

    async def cleaning_up() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            try:
                with cancellation_kept():
                    raise ConnectionError("refused")
            except ConnectionError as error:
                said.append(str(error))

    task = asyncio.create_task(cleaning_up())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said == ["refused"]


async def nothing_is_lost(call: Callable[[], Awaitable[object]]) -> None:
    """Cancel calls that fail, at any moment of them."""
    rng = random.Random(68)
    seen = Counter[str]()

    async def calling() -> str:
        try:
            await call()
        except (EtcdError, RpcFailed):
            task = asyncio.current_task()
            return "lost" if task and task.cancelling() else "refused"
        return "answered"

    for _ in range(3_000):
        task = asyncio.create_task(calling())
        for _ in range(rng.randrange(1, 12)):
            await asyncio.sleep(0)
        if rng.random() < 0.5:
            await asyncio.sleep(rng.random() * 0.0003)
        task.cancel()
        await asyncio.wait([task])
        seen["cancelled" if task.cancelled() else task.result()] += 1
    assert seen["cancelled"] > 100
    assert seen.keys() <= {"cancelled", "refused"}, seen


async def test_no_cancellation_of_a_lease_that_cannot_be_renewed_is_lost() -> None:
    """One in eight was: who waited for a task that tried for ever then waited for ever."""
    async with EtcdClient(EtcdOptions((f"127.0.0.1:{free_port()}",), timeout=0.01)) as client:
        await nothing_is_lost(lambda: client.keep_alive(1))


async def test_no_cancellation_of_a_stream_that_fails_is_lost() -> None:
    address = f"127.0.0.1:{free_port()}"
    connection = GrpcioConnection(
        address, authority=None, tls=None, limits=Limits(), keepalive=Keepalive()
    )

    async def read() -> None:
        stream = connection.stream("/a.B/C", (), None)
        try:
            await stream.read()
        finally:
            stream.cancel()

    await nothing_is_lost(read)
    await connection.close()


@pytest.mark.parametrize("engine", ENGINES)
async def test_whoever_writes_hears_of_a_cancellation_before_the_call_has_begun(
    engine: EngineName,
) -> None:
    """grpc.aio let it wait for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        connection = client_engine(engine)(
            address, authority=None, tls=None, limits=Limits(), keepalive=Keepalive()
        )
        stream = connection.stream("/a.B/C", (), None)
        writing = asyncio.create_task(stream.write(b""))
        await asyncio.sleep(0.05)
        stream.cancel()
        async with asyncio.timeout(30):
            await asyncio.wait([writing])
        assert writing.cancelled()
        await connection.close()
