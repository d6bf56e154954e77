"""Iterators for who implements ``Source.watch``."""

import asyncio
from collections.abc import AsyncIterator


async def each(event: asyncio.Event) -> AsyncIterator[None]:
    """One element each time ``event`` is set; what comes while nobody looks counts once."""
    while True:
        await event.wait()
        event.clear()
        yield


async def never() -> AsyncIterator[None]:
    """No element, and no end."""
    async for _ in each(asyncio.Event()):
        yield
