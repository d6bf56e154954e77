"""Deletes transactions that ended long ago, a few at a time; nothing unfinished ever expires."""

from kit import log
from kit.clock import Clock
from kit.dtm.store import Store
from kit.errors import Error

logger = log.get_logger()

BATCH = 500
_EVERY_S = 60.0


async def purge_for_ever(store: Store, clock: Clock, *, keep_s: int) -> None:
    """Delete what ended more than ``keep_s`` seconds ago, every minute, until cancelled."""
    while True:
        try:
            before = await store.now_ms() - keep_s * 1000
            while await store.purge(before, BATCH) == BATCH:
                await clock.sleep(0.05)  # writers of live transactions go first
        except Error as error:
            logger.warning("finished transactions not deleted", reason=error.message)
        await clock.sleep(_EVERY_S)
