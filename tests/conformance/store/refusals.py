"""How a store has to refuse what its server does not answer."""

import asyncio
from collections.abc import Awaitable

import pytest

from kit.dtm.store import StoreUnavailable

WITHIN = 3.0
"""Seconds: what the contract gives a store to say that it cannot."""
_TURNS = 50


async def refused_in_time(calling: Awaitable[object]) -> StoreUnavailable:
    """See to it that a call is refused within the contract's time; give the error.

    The time is that of a timer in the loop of the store: on a machine that is busy both are late.
    """
    call = asyncio.ensure_future(calling)
    await asyncio.wait({call}, timeout=WITHIN)
    for _ in range(_TURNS):  # the store's timer was due before, and its callbacks follow
        if call.done():
            break
        await asyncio.sleep(0)
    assert call.done(), f"not refused within {WITHIN} s"
    with pytest.raises(StoreUnavailable) as refused:
        call.result()
    return refused.value
