"""The contract suite finds stores that break the contract."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest

from kit.dtm.core.model import Branch, Transaction
from kit.dtm.store import (
    Change,
    Filter,
    GidExists,
    Held,
    KeyValue,
    KvChanged,
    LostLease,
    Store,
)
from kit.dtm.store.memory import MemoryStore
from kit.dtm.wire import Status
from kit.errors import Conflict
from kit.testing import ManualClock
from kit.testing.store import STORE_CHECKS, StoreCheck, check_store


class ForgetsRetries(MemoryStore):
    """Keeps no retry count."""

    async def load(self, gid: str) -> Held | None:
        held = await super().load(gid)
        return held and replace(held, tx=replace(held.tx, retry_count=0))


class StampsAnew(MemoryStore):
    """Takes every write of a branch for its first."""

    async def save(self, change: Change) -> int:
        fence = await super().save(change)
        now = await self.now_ms()
        held = self._stored[change.tx.gid]
        branches = tuple(replace(branch, create_time=now) for branch in held.tx.branches)
        self._stored[change.tx.gid] = replace(held, tx=replace(held.tx, branches=branches))
        return fence


class CutsReasons(MemoryStore):
    """Keeps 1,024 bytes of a reason instead of characters."""

    async def create(self, tx: Transaction, *, owner: str = "", lease_s: float = 10.0) -> int:
        reason = tx.rollback_reason.encode()[:1_024].decode(errors="ignore")
        return await super().create(
            replace(tx, rollback_reason=reason), owner=owner, lease_s=lease_s
        )


class LooksThenWrites(MemoryStore):
    """Lets others write between its look and its own write."""

    async def create(self, tx: Transaction, *, owner: str = "", lease_s: float = 10.0) -> int:
        if tx.gid in self._stored:
            raise GidExists(tx.gid)
        await asyncio.sleep(0)
        self._stored.pop(tx.gid, None)
        return await super().create(tx, owner=owner, lease_s=lease_s)

    async def claim(self, owner: str, limit: int, *, lease_s: float = 10.0) -> list[Held]:
        before = dict(self._stored)
        claimed = await super().claim(owner, limit, lease_s=lease_s)
        self._stored = before
        await asyncio.sleep(0)
        self._stored.update((held.tx.gid, held) for held in claimed)
        return claimed

    async def append(self, gid: str, branches: Sequence[Branch]) -> None:
        before = dict(self._stored)
        await super().append(gid, branches)
        after, self._stored = self._stored, before
        await asyncio.sleep(0)
        self._stored = after

    async def create_kv(self, cat: str, key: str, value: str) -> None:
        before = dict(self._kv)
        await super().create_kv(cat, key, value)
        after, self._kv = self._kv, before
        await asyncio.sleep(0)
        self._kv = after

    async def update_kv(self, read: KeyValue, value: str) -> None:
        before = dict(self._kv)
        await super().update_kv(read, value)
        after, self._kv = self._kv, before
        await asyncio.sleep(0)
        self._kv = after


class Overwhelmed(MemoryStore):
    """Drops every tenth save, and says nothing."""

    saves = 0

    async def save(self, change: Change) -> int:
        self.saves += 1
        return change.fence if self.saves % 10 == 0 else await super().save(change)


class Unforced(MemoryStore):
    """Knows nothing of force."""

    async def save(self, change: Change) -> int:
        return await super().save(replace(change, force=False))


class ForcesAnyFence(MemoryStore):
    """Forces whatever fence its writer names."""

    async def save(self, change: Change) -> int:
        held = self._stored.get(change.tx.gid)
        if held is not None and change.force and not held.tx.status.terminal:
            change = replace(change, fence=held.fence)
        return await super().save(change)


class AppendsWithFence(MemoryStore):
    """Raises the fence with rows that are appended, so that the holder loses its lease."""

    async def append(self, gid: str, branches: Sequence[Branch]) -> None:
        await super().append(gid, branches)
        self._stored[gid] = replace(self._stored[gid], fence=self._stored[gid].fence + 1)


class AppendsWhatItCan(MemoryStore):
    """Writes rows until one is there already."""

    async def append(self, gid: str, branches: Sequence[Branch]) -> None:
        for branch in branches:
            await super().append(gid, [branch])


class AppendsToSubmitted(MemoryStore):
    """Asks for no status."""

    async def append(self, gid: str, branches: Sequence[Branch]) -> None:
        held = self._stored.get(gid)
        if held is None:
            raise LostLease(gid)
        self._stored[gid] = replace(held, tx=replace(held.tx, status=Status.PREPARED))
        await super().append(gid, branches)
        branches = self._stored[gid].tx.branches
        self._stored[gid] = replace(held, tx=replace(held.tx, branches=tuple(branches)))


class ShowsTheUnfinished(MemoryStore):
    """Expires by the times alone."""

    async def expired(self, finished_before: int, limit: int) -> list[Transaction]:
        old = (held.tx for held in self._stored.values())
        return [tx for tx in old if (tx.finish_time or tx.rollback_time or 0) < finished_before][
            :limit
        ]


class DeletesAnything(MemoryStore):
    """Deletes what is unfinished too."""

    async def delete(self, gids: Sequence[str]) -> int:
        return sum(self._stored.pop(gid, None) is not None for gid in gids)


class DeletesByTrimmedGid(MemoryStore):
    """Compares as a padded column does."""

    async def delete(self, gids: Sequence[str]) -> int:
        trimmed = {gid.rstrip() for gid in gids}
        return await super().delete([gid for gid in self._stored if gid.rstrip() in trimmed])


class PagesByOffset(MemoryStore):
    """Counts rows to find the next page: a row that comes or goes shifts the rest."""

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        offset = int(position or 0)
        page, _ = await super().scan("", offset + limit, which)
        return page[offset:], str(offset + limit) if len(page) == offset + limit else ""


class PagesForEver(MemoryStore):
    """Gives a position after the last page."""

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        page, following = await super().scan(position, limit, which)
        return page, following or "1"


class ForgetsTheFilter(MemoryStore):
    """Remembers one filter of several."""

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        return await super().scan(position, limit, replace(which, created_until=None))


class ListsOldStatuses(MemoryStore):
    """Lists by the status that a transaction began with."""

    async def create(self, tx: Transaction, *, owner: str = "", lease_s: float = 10.0) -> int:
        self.began = {**getattr(self, "began", {}), tx.gid: tx.status}
        return await super().create(tx, owner=owner, lease_s=lease_s)

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        page, following = await super().scan(position, limit, replace(which, status=""))
        wanted = which.status
        return [held for held in page if wanted in ("", self.began[held.tx.gid])], following


class TakesAnyPosition(MemoryStore):
    """Begins anew at a position that it does not know."""

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        try:
            return await super().scan(position, limit, which)
        except ValueError:
            return await super().scan("", limit, which)


class ShowsBranches(MemoryStore):
    """Reads branches for every page."""

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        page, following = await super().scan(position, limit, which)
        return [self._stored[held.tx.gid] for held in page], following


class ResetsTheLease(MemoryStore):
    """Frees what it makes due, so that two run it at once."""

    async def reset_next_cron_time(self, gid: str) -> bool:
        there = await super().reset_next_cron_time(gid)
        if there:
            self._stored[gid] = replace(self._stored[gid], owner="", lease_until=0)
        return there


class ResetsTheRecordAlone(MemoryStore):
    """Says due, and schedules as before."""

    async def reset_next_cron_time(self, gid: str) -> bool:
        return gid in self._stored


class ResetsTheEnded(MemoryStore):
    """Makes due what is over."""

    async def reset_next_cron_time(self, gid: str) -> bool:
        held = self._stored.get(gid)
        if held is not None:
            self._make_due(held)
        return held is not None


class GuessesTheRest(MemoryStore):
    """Says that more remain whenever the limit was reached."""

    async def reset_cron_time(self, later_than: int, limit: int) -> tuple[int, bool]:
        number, _ = await super().reset_cron_time(later_than, limit)
        return number, number == limit


class ResetsWhatIsDueSoon(MemoryStore):
    """Counts the instant itself as later."""

    async def reset_cron_time(self, later_than: int, limit: int) -> tuple[int, bool]:
        return await super().reset_cron_time(later_than - 1, limit)


class OverwritesKeys(MemoryStore):
    """Creates over what is there."""

    async def create_kv(self, cat: str, key: str, value: str) -> None:
        self._kv.pop((cat, key), None)
        await super().create_kv(cat, key, value)


class UpdatesAnyVersion(MemoryStore):
    """The last writer wins."""

    async def update_kv(self, read: KeyValue, value: str) -> None:
        kv = self._kv.get((read.cat, read.key))
        if kv is None:
            raise KvChanged(read.cat, read.key)
        await super().update_kv(kv, value)


class JoinsNames(MemoryStore):
    """Keeps an entry under ``<cat>_<key>``."""

    async def create_kv(self, cat: str, key: str, value: str) -> None:
        if any(f"{cat}_{key}" == "_".join(known) for known in self._kv):
            raise KvChanged(cat, key)
        await super().create_kv(cat, key, value)


class FindsInNoOrder(MemoryStore):
    """Gives entries as they were created."""

    async def find_kv(self, cat: str, key: str) -> list[KeyValue]:
        found = await super().find_kv(cat, key)
        return sorted(found, key=lambda kv: kv.id)


class PagesAllCategories(MemoryStore):
    """Asks for no category."""

    async def scan_kv(self, cat: str, position: str, limit: int) -> tuple[list[KeyValue], str]:
        known = [kv for kv in reversed(self._kv.values()) if kv.id < int(position or 1 << 60)]
        page = known[:limit]
        return page, str(page[-1].id) if len(page) == limit else ""


class KeepsKeys(MemoryStore):
    """Clears transactions and forgets key-values."""

    async def clear(self) -> None:
        self._stored.clear()


class Renumbers(MemoryStore):
    """Numbers a row anew with every write."""

    async def save(self, change: Change) -> int:
        fence = await super().save(change)
        gid = change.tx.gid
        self._stored[gid] = replace(self._stored[gid], id=next(self._ids))
        return fence


class SaysAWord(MemoryStore):
    """Names no way out of its weakness."""

    weaknesses = ("volatile",)


BROKEN: list[tuple[type[MemoryStore], str]] = [
    (ForgetsRetries, "a_retry_count_that_is_back_at_nothing_reads_back"),
    (ForgetsRetries, "a_transaction_reads_back_as_it_was_written"),
    (ForgetsRetries, "save_writes_every_column"),
    (StampsAnew, "branches_tell_when_they_were_written_first_and_last"),
    (CutsReasons, "long_texts_read_back"),
    (LooksThenWrites, "one_of_two_simultaneous_creates_wins"),
    (LooksThenWrites, "one_of_a_thousand_simultaneous_creates_wins"),
    (LooksThenWrites, "two_owners_claim_no_transaction_together"),
    (LooksThenWrites, "claims_and_saves_meet_and_one_of_them_wins"),
    (LooksThenWrites, "simultaneous_appends_are_all_written_and_one_of_twins"),
    (LooksThenWrites, "one_of_twenty_simultaneous_creates_of_a_key_wins"),
    (LooksThenWrites, "one_of_twenty_simultaneous_updates_wins"),
    (Overwhelmed, "a_hundred_simultaneous_saves_are_all_written"),
    (Unforced, "an_end_is_forced_whoever_holds_the_lease"),
    (ForcesAnyFence, "an_end_is_forced_whoever_holds_the_lease"),
    (AppendsWithFence, "appended_branches_stand_behind_and_the_holder_goes_on"),
    (AppendsWhatItCan, "a_branch_that_is_there_is_not_appended_nor_its_neighbours"),
    (AppendsToSubmitted, "nothing_is_appended_to_what_is_not_prepared"),
    (ShowsTheUnfinished, "expired_shows_what_purge_would_delete"),
    (DeletesAnything, "only_what_is_terminal_is_deleted"),
    (DeletesByTrimmedGid, "of_odd_gids_only_the_named_ones_are_deleted"),
    (PagesByOffset, "a_walk_goes_on_when_its_rows_are_deleted"),
    (PagesByOffset, "pages_hold_every_row_while_more_are_created"),
    (PagesForEver, "pages_hold_every_row_while_more_are_created"),
    (ForgetsTheFilter, "every_filter_that_is_set_holds"),
    (ListsOldStatuses, "a_status_that_changes_changes_its_list"),
    (TakesAnyPosition, "a_position_that_no_page_gave_is_refused"),
    (ShowsBranches, "a_page_shows_everything_but_branches"),
    (ResetsTheLease, "a_reset_takes_no_lease_and_the_holder_has_the_last_word"),
    (ResetsTheLease, "a_held_transaction_that_was_reset_is_claimed_when_its_lease_is_over"),
    (ResetsTheRecordAlone, "a_reset_makes_due_at_once"),
    (ResetsTheEnded, "a_reset_leaves_what_is_terminal_as_it_is"),
    (GuessesTheRest, "many_are_made_due_and_the_rest_is_told"),
    (ResetsWhatIsDueSoon, "many_are_made_due_and_the_rest_is_told"),
    (OverwritesKeys, "a_key_that_exists_is_refused"),
    (UpdatesAnyVersion, "an_update_needs_the_version_that_is_there"),
    (JoinsNames, "keys_and_categories_are_texts_and_no_two_are_confused"),
    (FindsInNoOrder, "key_values_are_found_by_category_by_key_and_by_both"),
    (PagesAllCategories, "pages_of_key_values_hold_every_row_while_more_are_created"),
    (KeepsKeys, "a_cleared_store_is_as_new"),
    (Renumbers, "a_number_of_a_row_stays_and_belongs_to_one_alone"),
    (SaysAWord, "weaknesses_are_told_in_sentences"),
]


def named(check: str) -> StoreCheck:
    """The check with this name."""
    [found] = [known for known in STORE_CHECKS if known.__name__ == check]
    return found


@pytest.mark.parametrize(("broken", "check"), BROKEN)
async def test_the_check_of_a_promise_fails_a_store_that_breaks_it(
    broken: type[MemoryStore], check: str
) -> None:
    """Whoever reads the report finds the promise in a note."""
    with pytest.raises((AssertionError, Conflict)) as caught:
        await check_store(lambda clock: broken(clock), [named(check)])
    assert caught.value.__notes__ == [f"check_store: {check.replace('_', ' ')}"]


async def test_what_is_run_by_default_is_every_check() -> None:
    """A store that breaks one promise of sixty fails as a whole."""
    with pytest.raises(AssertionError):
        await check_store(SaysAWord)


async def test_a_store_of_a_server_is_emptied_for_each_check() -> None:
    """The context manager that ``make`` gives may enter the same tables again."""
    server = MemoryStore()

    class Emptied:
        """Tables that stay; what is in them goes."""

        def __init__(self, clock: ManualClock) -> None:
            server._clock = clock

        async def __aenter__(self) -> Store:
            await server.clear()
            return cast("Store", server)

        async def __aexit__(self, *exc: object) -> None:
            """Nothing to close."""

    await check_store(Emptied, STORE_CHECKS)
