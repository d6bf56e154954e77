"""A cancellation that a library swallows still ends who was cancelled.

``grpc.aio`` waits for its own tasks while a stream begins. Whoever is cancelled then cancels such a
task in truth, which takes the CancelledError for the end of its call; where the call was failing
anyhow its error comes out instead. One in eight cancellations of streams to a server that refuses
connections is lost so, and who waits for the cancelled task waits for ever.

Source: grpc/aio/_call.py, StreamStreamCall._prepare_rpc and _StreamResponseMixin._read.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cancellation_kept() -> Iterator[None]:
    """Let the block end with CancelledError when its task was cancelled in it.

    Raises:
        asyncio.CancelledError: instead of what the block did with it.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0

    def refuse_to_go_on() -> None:
        # asyncio.timeout takes its own cancellations back before it is left
        if task and task.cancelling() > before:
            raise asyncio.CancelledError

    try:
        yield
    except Exception:
        refuse_to_go_on()
        raise
    refuse_to_go_on()
