"""Finished transactions are deleted in time, and archived before that where a file is named."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from kit.dtm.core import Branch, Transaction
from kit.dtm.server.retention import purge_for_ever
from kit.dtm.store import Change
from kit.dtm.store.memory import MemoryStore
from kit.dtm.wire import Op, Status, TransType
from kit.testing import ManualClock


async def finished(store: MemoryStore, clock: ManualClock, gid: str) -> None:
    branch = Branch("01", Op.ACTION, "h:1/s/Out", b"\x00\xff")
    tx = Transaction(gid, TransType.MSG, Status.SUBMITTED, branches=(branch,))
    await store.create(tx)
    ended = replace(tx, status=Status.SUCCEED, finish_time=clock.now_ms())
    await store.save(Change(ended, (), 1, "a", take=True, release=True))


async def run_for_a_while(
    store: MemoryStore, clock: ManualClock, archive: str = "", *, gone: str = ""
) -> None:
    """Until the transaction ``gone`` is deleted; a quarter of a second where none shall be."""
    purging = asyncio.create_task(purge_for_ever(store, clock, keep_s=100, archive=archive))
    async with asyncio.timeout(30):
        while gone and await store.load(gone):
            await asyncio.sleep(0.005)
    if not gone:
        await asyncio.sleep(0.25)
    purging.cancel()
    await asyncio.gather(purging, return_exceptions=True)


async def test_what_ended_long_ago_is_deleted_and_what_did_not_end_stays() -> None:
    """Age counts from the end; an unfinished one has none."""
    clock = ManualClock()
    store = MemoryStore(clock)
    await finished(store, clock, "old")
    await store.create(Transaction("unfinished", TransType.MSG, Status.PREPARED))
    clock.advance(60)
    await finished(store, clock, "young")
    clock.advance(60)
    await run_for_a_while(store, clock, gone="old")
    assert await store.load("old") is None
    assert await store.load("young") is not None
    assert await store.load("unfinished") is not None


async def test_with_an_archive_each_is_kept_as_a_line(tmp_path: Path) -> None:
    """With its branches; readable by its owner alone."""
    clock = ManualClock()
    store = MemoryStore(clock)
    await finished(store, clock, "g1")
    clock.advance(200)
    archive = tmp_path / "archive.jsonl"
    await run_for_a_while(store, clock, str(archive), gone="g1")
    assert await store.load("g1") is None
    [line] = archive.read_text().splitlines()
    kept = json.loads(line)
    assert (kept["gid"], kept["status"]) == ("g1", "succeed")
    assert kept["branches"][0]["bin_data"] == "AP8="
    assert archive.stat().st_mode & 0o777 == 0o600


async def test_what_cannot_be_archived_is_not_deleted(tmp_path: Path) -> None:
    """A full or missing disk costs no history."""
    clock = ManualClock()
    store = MemoryStore(clock)
    await finished(store, clock, "g1")
    clock.advance(200)
    await run_for_a_while(store, clock, str(tmp_path / "missing" / "archive.jsonl"))
    assert await store.load("g1") is not None


async def test_half_a_line_that_a_full_disk_left_spoils_no_other(tmp_path: Path) -> None:
    """What is archived after it is deleted from the store, and has to be readable."""
    clock = ManualClock()
    store = MemoryStore(clock)
    await finished(store, clock, "g1")
    clock.advance(200)
    archive = tmp_path / "archive.jsonl"
    archive.write_text('{"gid":"g1","trans_t')
    await run_for_a_while(store, clock, str(archive), gone="g1")
    assert await store.load("g1") is None
    half, line = archive.read_text().splitlines()
    assert half == '{"gid":"g1","trans_t'
    assert json.loads(line)["gid"] == "g1"
