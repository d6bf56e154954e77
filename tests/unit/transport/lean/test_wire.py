"""Timers of a connection, and attempts to connect that the loop breaks off; no network."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import Keepalive, Limits, RpcFailed
from kit.transport.lean import Guard, LeanConnection
from kit.transport.lean.client import (
    BACKOFF_MOST_S,
    BACKOFF_S,
    CONNECT_TIMEOUT_MOST_S,
    CONNECT_TIMEOUT_S,
    ClientConnection,
)
from kit.transport.lean.connection import TOGETHER
from kit.transport.lean.frames import ACK, PING, frame, settings
from tests.unit.transport.lean.test_fuzz import Nowhere

KEEPALIVE = Keepalive(interval=10.0, timeout=5.0)


def opened() -> ClientConnection:
    """A client's connection with a call, whose peer has greeted."""
    connection = ClientConnection("trans", "http", Limits(), KEEPALIVE, Guard())
    connection.connection_made(Nowhere(connection))
    connection.data_received(settings({}))
    connection.stream("/s.S/Stream", (), None)
    return connection


def stand_still(connection: ClientConnection, seconds: float) -> None:
    """As if nothing of this process had run for so long: timers are due, the socket is unread."""
    connection._heard -= seconds
    connection._pinged -= seconds if connection._pinged else 0.0
    connection._check_silence()


async def test_a_process_that_stood_still_reads_the_answer_before_it_blames_the_peer() -> None:
    connection = opened()
    stand_still(connection, 11.0)
    assert connection._pinged
    stand_still(connection, 60.0)
    assert not connection.lost
    connection.data_received(frame(PING, ACK, 0, b"kit-ping"))
    connection._check_silence()
    assert not connection.lost
    connection.abort("over")


async def test_a_peer_that_says_nothing_at_the_second_look_is_given_up() -> None:
    for rounds in range(2):
        connection = opened()
        for _ in range(rounds):  # a first look of long ago does not count
            stand_still(connection, 11.0)
            stand_still(connection, 60.0)
            connection.data_received(frame(PING, ACK, 0, b"kit-ping"))
        stand_still(connection, 11.0)
        stand_still(connection, 60.0)
        assert not connection.lost
        connection._check_silence()
        assert connection.lost


Connect = Callable[..., Any]


@pytest.fixture
def to() -> LeanConnection:
    return LeanConnection(
        "127.0.0.1:1", authority=None, tls=None, limits=Limits(), keepalive=KEEPALIVE
    )


async def attempt(to: LeanConnection) -> RpcFailed:
    """The failure of one more attempt, whether its time has come or not."""
    to._retry_at = 0.0
    with pytest.raises(RpcFailed) as caught:
        await to.unary("/s.S/M", b"", (), None)
    return caught.value


async def test_pauses_between_attempts_grow_to_a_limit_and_begin_anew_after_success(
    to: LeanConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_args: Any, **_options: Any) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refuse)
    pauses = []
    for _ in range(9):
        failure = await attempt(to)
        assert failure.status is GrpcCode.UNAVAILABLE
        assert failure.unsent
        assert to._retry_at > time.monotonic()
        pauses.append(to._backoff)  # before it is spread
    assert BACKOFF_S < pauses[0] < pauses[1] < pauses[2] < BACKOFF_MOST_S
    assert pauses[-1] == BACKOFF_MOST_S

    async def accept(
        protocol: Callable[[], ClientConnection], *_args: Any, **_options: Any
    ) -> None:
        made = protocol()
        made.connection_made(Nowhere(made))
        made.data_received(settings({}))

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", accept)
    to._retry_at = 0.0
    calling = asyncio.create_task(to.unary("/s.S/M", b"", (), None))
    while to._current is None or to._attempt is not None:
        await asyncio.sleep(0)
    assert to._backoff == BACKOFF_S
    calling.cancel()
    await to.close()


async def test_an_attempt_that_took_too_long_leaves_nothing_and_the_next_has_more_time(
    to: LeanConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop breaks off without a word to a protocol that it has told of its beginning."""
    made: list[ClientConnection] = []

    async def hang(protocol: Callable[[], ClientConnection], *_args: Any, **_options: Any) -> None:
        made.append(protocol())
        made[-1].connection_made(Nowhere(made[-1]))
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", hang)
    assert to._allowed == CONNECT_TIMEOUT_S
    allowed = []
    for _ in range(5):
        to._allowed /= 200  # or the test would take as long
        assert "no answer within" in (await attempt(to)).message
        to._allowed *= 200
        allowed.append(to._allowed)
    assert allowed[:3] == [2.0, 4.0, 8.0]
    assert CONNECT_TIMEOUT_MOST_S == 8.0
    for connection in made:
        assert connection.lost
        assert connection._silence is not None
        assert connection._silence.cancelled()
    await to.close()


async def test_many_calls_of_one_turn_do_not_wait_for_the_last_of_them() -> None:
    """The peer can begin with the first ones; order and bytes are what they were."""
    connection = opened()
    writes: list[bytes] = []
    transport = Nowhere(connection)
    transport.write = writes.append  # type: ignore[method-assign]
    connection._transport = transport
    await asyncio.sleep(0)  # what greeted has left
    writes.clear()
    for number in range(10):
        connection.unary("/s.S/Unary", b"%d" % number, (), None)
    assert len(writes) == 10 // TOGETHER
    await asyncio.sleep(0)
    assert len(writes) == 10 // TOGETHER + 1
    sent = b"".join(writes)
    places = [sent.index(b"\0\0\0\0\1%d" % number) for number in range(10)]
    assert places == sorted(places)
    connection.abort("over")
