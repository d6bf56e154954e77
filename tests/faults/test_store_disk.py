"""What the SQLite store makes of a full disk, a failing one, and power loss (design.md §4, §5)."""

import asyncio
import gc
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest

from kit.dtm.core.model import Branch, Transaction
from kit.dtm.store import Held, StoreUnavailable
from kit.dtm.store.connection import Connection
from kit.dtm.store.sqlite import SqliteStore
from kit.dtm.wire import Op, Status
from kit.testing.store import change, finished, stored, transaction

SECTOR = 512


@dataclass
class Disk:
    """A file system below SQLite whose faults a test switches on.

    Attributes:
        room: bytes that a file may have; ``None`` for no limit.
        writing, syncing: SQLite's code for how that fails; 0 while it works.
        failures: how many of the next writes or syncs fail.
        synced: what each file held when it was last synced.
        unsynced: what was done to it since: (offset, bytes), or (length, None) where it was cut.
    """

    room: int | None = None
    writing: int = 0
    syncing: int = 0
    failures: int = 1_000_000
    fired: list[str] = field(default_factory=list)
    synced: dict[str, bytes] = field(default_factory=dict)
    unsynced: dict[str, list[tuple[int, bytes | None]]] = field(default_factory=dict)

    def connect(self, path: str) -> Connection:
        """A connection on this disk."""
        return apsw.Connection(path, vfs="faulty")

    def works_again(self) -> None:
        """Switch every fault off."""
        self.room, self.writing, self.syncing, self.failures = None, 0, 0, 1_000_000

    def fail(self, what: str, code: int) -> None:
        """Fail with ``code`` unless that is 0 or enough has failed."""
        if code and self.failures:
            self.failures -= 1
            self.fired.append(what)
            raise apsw.exception_for(code)

    def after_power_loss(self, rng: random.Random) -> dict[str, bytes]:
        """What may be found of each file: all that was synced, and of the rest any sectors."""
        found = {}
        for path, content in self.synced.items():
            image = bytearray(content)
            for offset, data in self.unsynced.get(path, ()):
                if data is None:
                    del image[offset:]
                    continue
                for start in range(0, len(data), SECTOR):
                    if rng.random() < 0.5:
                        sector, at = data[start : start + SECTOR], offset + start
                        image.extend(bytes(max(0, at + len(sector) - len(image))))
                        image[at : at + len(sector)] = sector
            found[path] = bytes(image)
        return found


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self.disk = disk
        self.name = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self.disk.room is not None and offset + len(data) > self.disk.room:
            self.disk.fail("full", apsw.SQLITE_FULL)
        self.disk.fail("write", self.disk.writing)
        self.disk.unsynced.setdefault(self.name, []).append((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self.disk.unsynced.setdefault(self.name, []).append((newsize, None))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self.disk.fail("sync", self.disk.syncing)
        super().xSync(flags)
        image = bytearray(self.disk.synced.get(self.name, b""))
        for offset, data in self.disk.unsynced.pop(self.name, ()):
            if data is None:
                del image[offset:]
            else:
                image.extend(bytes(max(0, offset + len(data) - len(image))))
                image[offset : offset + len(data)] = data
        self.disk.synced[self.name] = bytes(image)


class _FileSystem(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        super().__init__("faulty", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:  # noqa: N802
        return _File(self.disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self.disk.synced.pop(filename, None)
        self.disk.unsynced.pop(filename, None)
        super().xDelete(filename, syncdir)


@pytest.fixture
def disk() -> Iterator[Disk]:
    """One that works, to begin with."""
    disk = Disk()
    file_system = _FileSystem(disk)
    yield disk
    disk.works_again()
    gc.collect()  # a connection that was abandoned goes while its file system is there
    file_system.unregister()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "coordinator.db"


def large(gid: str) -> Transaction:
    """A transaction that fills two pages."""
    return transaction(gid, branches=(Branch("01", Op.ACTION, "u", bytes(8_000)),))


async def create_together(store: SqliteStore, name: str, number: int = 30) -> list[object]:
    """Outcomes of creating so many transactions at once."""
    return await asyncio.gather(
        *(store.create(large(f"{name}-{n}")) for n in range(number)), return_exceptions=True
    )


async def check_outcomes(store: SqliteStore, name: str, outcomes: list[object]) -> None:
    """See to it that every success is there, whole, and of every failure nothing."""
    for n, outcome in enumerate(outcomes):
        gid = f"{name}-{n}"
        held = await store.load(gid)
        if outcome == 1:
            assert held == Held(large(gid), 1)
        else:
            assert isinstance(outcome, StoreUnavailable)
            assert held is None


async def test_a_full_disk_refuses_and_forgets_nothing(path: Path, disk: Disk) -> None:
    """The group fails and each request is tried alone: those that fit are stored."""
    async with SqliteStore(path, connect=disk.connect) as store:
        assert await create_together(store, "before") == [1] * 30
        disk.room = path.with_name("coordinator.db-wal").stat().st_size + 150_000
        outcomes = await create_together(store, "full", 60)
        assert disk.fired.count("full") > 1
        refusals = [outcome for outcome in outcomes if outcome != 1]
        assert 1 in outcomes
        assert "the disk is full, free some space" in refusals[0].message
        await check_outcomes(store, "full", outcomes)
        held = await stored(store, "before-0")
        disk.room = 0
        with pytest.raises(StoreUnavailable):
            await store.save(change(held, "a", take=True))
        assert await stored(store, "before-0") == held
        disk.works_again()
        assert await create_together(store, "after") == [1] * 30
        assert await store.save(change(held, "a", take=True)) == 2
    async with SqliteStore(path) as store:
        await check_outcomes(store, "full", outcomes)
        await check_outcomes(store, "after", [1] * 30)


async def test_a_database_at_its_size_limit_works_again_after_a_purge(path: Path) -> None:
    """SQLite gives the whole transaction up in the middle of a group; each is then tried alone."""

    def limited(name: str) -> Connection:
        connection = apsw.Connection(name)
        connection.execute("PRAGMA max_page_count = 60").fetchall()
        return connection

    big = (Branch("01", Op.ACTION, "u", bytes(30_000)),)
    async with SqliteStore(path, connect=limited) as store:
        outcomes = await asyncio.gather(
            *(store.create(transaction(f"g{n}", branches=big)) for n in range(12)),
            return_exceptions=True,
        )
        kept = [n for n, outcome in enumerate(outcomes) if outcome == 1]
        assert 0 < len(kept) < 12
        for n, outcome in enumerate(outcomes):
            held = await store.load(f"g{n}")
            assert held == (Held(transaction(f"g{n}", branches=big), 1) if n in kept else None)
            assert outcome == 1 or isinstance(outcome, StoreUnavailable)
        for n in kept:
            held = await stored(store, f"g{n}")
            ended = finished(held.tx, Status.SUCCEED, 1)
            await store.save(change(held, "a", tx=ended, take=True, release=True))
        assert await store.purge(2, 100) == len(kept)
        assert await store.create(transaction("again", branches=big)) == 1


async def test_a_group_that_cannot_be_written_is_tried_one_by_one(path: Path, disk: Disk) -> None:
    """An I/O error that passes costs nobody anything."""
    async with SqliteStore(path, connect=disk.connect) as store:
        disk.writing, disk.failures = apsw.SQLITE_IOERR_WRITE, 1
        outcomes = await create_together(store, "g")
        assert disk.fired == ["write"]
        assert outcomes == [1] * 30
        await check_outcomes(store, "g", outcomes)


async def test_a_disk_that_cannot_be_written_is_unavailable_until_it_can(
    path: Path, disk: Disk
) -> None:
    """Nothing is stored, nobody dies, and reading goes on."""
    async with SqliteStore(path, connect=disk.connect) as store:
        await create_together(store, "before")
        disk.writing = apsw.SQLITE_IOERR_WRITE
        outcomes = await create_together(store, "broken")
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 30
        await check_outcomes(store, "broken", outcomes)
        await check_outcomes(store, "before", [1] * 30)
        disk.works_again()
        assert await create_together(store, "broken") == [1] * 30


async def test_a_failed_fsync_is_fatal_and_never_retried(path: Path, disk: Disk) -> None:
    """Who waits is told that it may have been written; nothing is, from then on."""
    told: list[str] = []
    async with SqliteStore(path, connect=disk.connect, on_fatal=told.append) as store:
        await store.create(transaction("before"))
        disk.syncing = apsw.SQLITE_IOERR_FSYNC
        outcomes = await create_together(store, "g")
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 30
        assert all("may have been written" in outcome.message for outcome in outcomes)
        disk.works_again()
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="start the process again"):
                await store.create(transaction("later"))
        assert len(told) == 1
        assert told[0].startswith(f"{path}: ")
        assert disk.fired == ["sync"]
    assert disk.fired == ["sync"]


def test_a_failed_fsync_ends_the_process(path: Path) -> None:
    """By default: with code 1 and the reason; the next process finds what was acknowledged."""
    program = f"""
        import asyncio, sys
        import apsw
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_store_disk import Disk, _FileSystem
        from kit.dtm.store.sqlite import SqliteStore
        from kit.testing.store import transaction

        async def main():
            disk = Disk()
            file_system = _FileSystem(disk)
            async with SqliteStore({str(path)!r}, connect=disk.connect) as store:
                print(await store.create(transaction("acknowledged")), flush=True)
                disk.syncing = apsw.SQLITE_IOERR_FSYNC
                await store.create(transaction("unknown"))
                print("not reached")

        asyncio.run(main())
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == "1\n"
    assert ended.stderr.startswith(f"fatal: {path}: ")
    assert "start the process again" in ended.stderr

    async def next_process() -> None:
        async with SqliteStore(path) as store:
            assert await stored(store, "acknowledged") == Held(transaction("acknowledged"), 1)

    asyncio.run(next_process())


async def acknowledged_before_power_loss(
    path: Path, disk: Disk, rng: random.Random, synchronous: str
) -> list[str]:
    """Run some groups, lose power in the middle, put what is left in place of the file."""
    acknowledged: list[str] = []
    wanted, enough = rng.randrange(1, 900), asyncio.Event()

    async def client(name: str) -> None:
        for n in range(1_000):
            gid = f"{name}-{n}"
            await store.create(transaction(gid))
            acknowledged.append(gid)
            if len(acknowledged) == wanted:
                enough.set()

    store = SqliteStore(path, connect=disk.connect, synchronous=synchronous)
    async with store:
        clients = [asyncio.create_task(client(f"c{n}")) for n in range(8)]
        await enough.wait()
        found, left = disk.after_power_loss(rng), list(acknowledged)
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    for name, content in found.items():
        Path(name).write_bytes(content)  # noqa: ASYNC240
    return left


async def lost(path: Path, gids: list[str]) -> list[str]:
    """Which of ``gids`` are not stored as they were written."""
    async with SqliteStore(path) as store:
        return [gid for gid in gids if await store.load(gid) != Held(transaction(gid), 1)]


async def test_what_was_acknowledged_survives_power_loss(path: Path, disk: Disk) -> None:
    """Whichever unsynced sectors the disk had written by itself."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"SEED={seed} pytest {__file__}")
    rng = random.Random(seed)
    for _ in range(6):
        left = await acknowledged_before_power_loss(path, disk, rng, "full")
        assert await lost(path, left) == []
        shutil.rmtree(path.parent)
        path.parent.mkdir()


async def test_the_power_loss_test_sees_a_store_that_does_not_sync(path: Path, disk: Disk) -> None:
    """With synchronous=normal the same loss takes acknowledged transactions along."""
    left = await acknowledged_before_power_loss(path, disk, random.Random(1), "normal")
    assert left
    assert await lost(path, left) != []
