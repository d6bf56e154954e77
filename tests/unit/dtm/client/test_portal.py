"""The loop in a thread: callbacks run where the caller waits, an interrupt cancels."""

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from kit.dtm.client.errors import DtmUnavailable
from kit.dtm.client.portal import Here, Portal

_seen: ContextVar[str] = ContextVar("seen")


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()
    portal.close()


def test_callbacks_run_in_the_waiting_thread_and_may_nest(portal: Portal) -> None:
    """The loop is another thread."""

    async def inner(here: Here) -> list[int]:
        return [await here(threading.get_ident), threading.get_ident()]

    async def outer(here: Here) -> list[int]:
        return await here(lambda: portal.run(inner))

    mine, other = portal.run(outer)
    assert mine == threading.get_ident() != other


def test_an_error_goes_to_where_it_is_awaited_and_then_on(portal: Portal) -> None:
    """Both sides may catch it."""
    caught: list[BaseException] = []

    def fail() -> None:
        raise LookupError("mine")

    async def make(here: Here) -> None:
        try:
            await here(fail)
        except LookupError as exc:
            caught.append(exc)
            raise

    with pytest.raises(LookupError, match="mine") as raised:
        portal.run(make)
    assert caught == [raised.value]


def test_an_interrupt_of_the_caller_cancels_the_coroutine(portal: Portal) -> None:
    """Ctrl-C in a callback: the loop lives on, and what was awaited is cancelled."""
    cancelled = threading.Event()

    def interrupted() -> None:
        raise KeyboardInterrupt

    async def make(here: Here) -> None:
        try:
            await here(interrupted)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(KeyboardInterrupt):
        portal.run(make)
    assert cancelled.wait(5.0)

    async def again(_: Here) -> str:
        return "alive"

    assert portal.run(again) == "alive"


def test_the_context_of_the_caller_is_that_of_the_coroutine(portal: Portal) -> None:
    """Traces are found by it."""
    _seen.set("mine")

    async def make(_: Here) -> str:
        return _seen.get()

    assert portal.run(make) == "mine"


def test_a_call_that_is_open_when_another_thread_closes_the_client_is_ended(
    portal: Portal,
) -> None:
    """Its caller would wait for ever."""
    begun = threading.Event()
    raised: list[BaseException] = []

    async def lasting(_: Here) -> None:
        begun.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            portal.run(lasting)
        except DtmUnavailable as exc:
            raised.append(exc)

    caller = threading.Thread(target=call, daemon=True)
    caller.start()
    assert begun.wait(5)
    portal.close()
    caller.join(5)
    assert not caller.is_alive()
    assert "the client was closed" in str(raised)
