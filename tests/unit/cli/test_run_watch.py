"""What counts as a change below a folder, and what does not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.cli import run_watch
from kit.cli.run_watch import TooMuch, Watch, look


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    """Of a root with one file and of a folder of configurations beside it."""
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "code.py").write_text("1")
    (tmp_path / "configs").mkdir()
    watch = Watch([tmp_path / "root"], [tmp_path / "configs"])
    try:
        yield watch
    finally:
        await watch.aclose()


async def changed(watch: Watch) -> set[str]:
    async with asyncio.timeout(20):
        return {path.name for path in await watch.changed()}


async def test_a_change_while_nobody_waits_is_not_lost(watch: Watch, tmp_path: Path) -> None:
    """Written, added, deleted, and in folders that were not there before."""
    root = tmp_path / "root"
    (root / "a" / "code.py").write_text("22")
    (root / "b" / "c").mkdir(parents=True)
    (root / "b" / "c" / "new.proto").write_text("")
    (tmp_path / "configs" / "x.yaml").write_text("a: 1")
    assert await changed(watch) == {"code.py", "new.proto", "x.yaml"}
    (root / "a" / "code.py").unlink()
    assert await changed(watch) == {"code.py"}


async def test_a_change_while_somebody_waits_wakes_him(watch: Watch, tmp_path: Path) -> None:
    """Also below a folder that came while he waited, after what does not count."""
    root = tmp_path / "root"
    waiting = asyncio.create_task(changed(watch))
    await asyncio.sleep(0)
    for name in ("data.db", "notes.md", ".hidden.py"):
        (root / name).write_text("1")
    for name in (".venv", "tests", "__pycache__"):
        (root / name).mkdir()
        (root / name / "code.py").write_text("1")
    (root / "new").mkdir()
    (root / "new" / "code2.py").write_text("1")
    assert await waiting == {"code2.py"}


async def test_what_the_caller_wrote_is_no_change(watch: Watch, tmp_path: Path) -> None:
    """Such as generated code."""
    (tmp_path / "root" / "a_pb2.py").write_text("1")
    watch.accept()
    (tmp_path / "root" / "b.py").write_text("1")
    assert await changed(watch) == {"b.py"}


async def test_a_root_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the ways out; a home folder is easily named by mistake."""
    monkeypatch.setattr(run_watch, "MAX_FILES", 3)
    for number in range(4):
        (tmp_path / f"{number}.py").touch()
    with pytest.raises(TooMuch, match="name the folder of the service, or use --no-reload"):
        look([tmp_path])
