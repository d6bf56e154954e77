"""One text for drivers that are called and drivers that are awaited.

A flow is a generator that yields what is to be called and is sent what came out. :func:`run` calls,
:func:`arun` calls and awaits; the flow itself does neither, so each rule is written once.
"""

from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Flow: TypeAlias = Generator[Callable[[], Any], Any, T]


def run(flow: Flow[T]) -> T:
    """What ``flow`` returns; everything it yields is called, errors are raised inside of it."""
    try:
        call = next(flow)
        while True:
            try:
                result = call()
            except BaseException as exc:  # noqa: BLE001 - it is the flow's, which raises it again
                call = flow.throw(exc)
            else:
                call = flow.send(result)
    except StopIteration as end:
        value: T = end.value
        return value


async def arun(flow: Flow[T]) -> T:
    """As :func:`run`, for calls that give an awaitable."""
    try:
        call = next(flow)
        while True:
            try:
                result = await call()
            except BaseException as exc:  # noqa: BLE001 - as above; cancellation passes through
                call = flow.throw(exc)
            else:
                call = flow.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
