"""Which calls are sent again, and to whom."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kit.etcd import EtcdError, EtcdOptions, EtcdUnavailable
from kit.etcd.connection import PUT, RANGE, Connection, Method
from kit.testing import ManualClock

MEMBERS = ("h1:2379", "h2:2379", "h3:2379")
Outcome = Callable[[float], Awaitable[str]]


class Calls:
    """Attempts, each with its seconds; every one takes them all and fails, until it is answered."""

    def __init__(self, error: EtcdError, answered_by: int = 10**6) -> None:
        self.clock = ManualClock()
        self.seconds: list[float] = []
        self.connection = Connection(EtcdOptions(MEMBERS, timeout=6.0), self.clock)
        self._error = error
        self._answered_by = answered_by

    async def __call__(self, _channel: Any, seconds: float, _metadata: Any) -> str:
        self.seconds.append(seconds)
        if len(self.seconds) == self._answered_by:
            return "answer"
        self.clock.advance(seconds)
        raise self._error

    async def make(self, method: Method[Any]) -> str:
        try:
            return await self.connection._call(self, method)
        finally:
            await self.connection.aclose()


async def test_a_read_is_tried_at_each_member_with_its_share_of_the_time() -> None:
    """A third of six seconds each; then the error of the last, with the names of all."""
    calls = Calls(EtcdUnavailable("h", "no answer"))
    with pytest.raises(EtcdUnavailable) as caught:
        await calls.make(RANGE)
    assert caught.value.message == "etcd at h1:2379, h2:2379, h3:2379: no answer"
    assert calls.seconds == [2.0, 2.0, 2.0]
    assert calls.clock.monotonic() == 6.0


async def test_a_read_ends_with_the_first_answer() -> None:
    """The second member gives it."""
    calls = Calls(EtcdUnavailable("h", "no answer"), answered_by=2)
    assert await calls.make(RANGE) == "answer"


async def test_a_write_that_may_have_left_is_not_sent_again() -> None:
    """Somebody else may have written since."""
    calls = Calls(EtcdUnavailable("h", "Socket closed"))
    with pytest.raises(EtcdUnavailable, match="Socket closed"):
        await calls.make(PUT)
    assert calls.seconds == [6.0]


async def test_an_answer_that_says_no_is_an_answer() -> None:
    """No other member would say yes."""
    calls = Calls(EtcdError("h", "database space exceeded"))
    with pytest.raises(EtcdError, match="space exceeded"):
        await calls.make(RANGE)
    assert len(calls.seconds) == 1


async def test_a_write_that_never_left_goes_to_the_next_member() -> None:
    """A refused connection carried nothing."""
    calls = Calls(EtcdUnavailable("h", "Connection refused", unsent=True), answered_by=2)
    assert await calls.make(PUT) == "answer"


def test_who_does_not_answer_loses_its_place_to_the_next() -> None:
    """Round and round; a complaint about one that lost its place already changes nothing."""
    connection = Connection(EtcdOptions(MEMBERS))
    seen = []
    for endpoint in (*MEMBERS, "h3:2379"):
        connection.avoid(endpoint)
        seen.append(connection._endpoint)
    assert seen == ["h2:2379", "h3:2379", "h1:2379", "h1:2379"]
