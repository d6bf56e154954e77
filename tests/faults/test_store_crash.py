"""kill -9 takes nothing back that was acknowledged (design.md §4, G1)."""

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from kit.dtm.store import StoreUnavailable
from kit.dtm.store.sqlite import SqliteStore
from kit.dtm.wire import BranchStatus, Status
from kit.testing.store import stored

LIVES = 8
WRITER = Path(__file__).with_name("store_writer.py")


@contextmanager
def writing(path: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process that writes into the store until it is killed."""
    process = subprocess.Popen(
        [sys.executable, str(WRITER), str(path), name], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        output(process).close()


def output(process: subprocess.Popen[str]) -> IO[str]:
    """Its lines."""
    assert process.stdout is not None
    return process.stdout


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """Complete with its branches, in every life of the process; nothing is there by halves."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"SEED={seed} pytest {__file__}")
    rng = random.Random(seed)
    path = tmp_path / "coordinator.db"
    told: dict[str, str] = {}
    for life in range(LIVES):
        with writing(path, f"life{life}") as process:
            lines = output(process)
            for _ in range(rng.choice((1, rng.randrange(2, 300), rng.randrange(300, 3_000)))):
                told.update(_told(lines.readline()))
            with pytest.raises(StoreUnavailable, match=rf"\(pid {process.pid}\)"):
                await SqliteStore(path).__aenter__()
            process.kill()
            for line in lines:  # what it said until the signal came
                told.update(_told(line))
        await _check(path, told)
    assert len(told) > LIVES


def _told(line: str) -> dict[str, str]:
    word, gid = line.split()
    return {gid: word}


async def _check(path: Path, told: dict[str, str]) -> None:
    async with SqliteStore(path) as store:
        for gid, word in told.items():
            held = await stored(store, gid)
            assert held.tx.status is Status.SUCCEED or word == "created", gid
            assert held.owner == "", gid
    # The whole file, behind the store's back: acknowledged or not, nothing is there by halves.
    words: dict[str, list[str]] = {}
    for gid, word in _rows(path, "SELECT gid, status FROM trans_branch_op"):
        words.setdefault(gid, []).append(word)
    ended = dict(_rows(path, "SELECT gid, status = 'succeed' FROM trans_global"))
    assert words.keys() == ended.keys()
    for gid, found in words.items():
        word = BranchStatus.SUCCEED if ended[gid] else BranchStatus.PREPARED
        assert found == [word] * int(gid.rsplit("-", 1)[1]), gid
    assert _rows(path, "PRAGMA integrity_check") == [("ok",)]


def _rows(path: Path, query: str) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
