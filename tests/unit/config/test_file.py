"""Files and folders, read and watched as editors and deployments change them."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

import kit.log
from kit.config import MAX_ITEM_BYTES, Config, ConfigError, FileSource, KeyValue
from kit.config import file as file_module


async def test_a_file_is_one_item(tmp_path: Path) -> None:
    """Key: the name without folders; format: what follows the last dot."""
    path = tmp_path / "my.config.yaml"
    path.write_text("a: 1")
    assert await FileSource(path).load() == [
        KeyValue("my.config.yaml", b"a: 1", "yaml", str(path))
    ]  # fmt: skip


async def test_a_folder_is_its_plain_files_by_name(tmp_path: Path) -> None:
    """Hidden files, editors' leftovers and sub-folders are skipped; a link to a file is a file."""
    for name in ("b.yaml", "a.json", "C.toml", ".hidden.yaml", "b.yaml~", "#b.yaml#", "plain"):
        (tmp_path / name).write_text("")
    (tmp_path / "sub.yaml").mkdir()
    (tmp_path / "sub.yaml" / "x.yaml").write_text("")
    (tmp_path / "link.yml").symlink_to(tmp_path / "b.yaml")
    (tmp_path / "dangling.yml").symlink_to(tmp_path / "nowhere")
    items = await FileSource(str(tmp_path)).load()
    assert [(item.key, item.format) for item in items] == [
        ("C.toml", "toml"),
        ("a.json", "json"),
        ("b.yaml", "yaml"),
        ("link.yml", "yml"),
        ("plain", ""),
    ]
    assert items[0].origin == f"{tmp_path}/C.toml"


async def test_files_of_a_folder_are_merged_in_order(tmp_path: Path) -> None:
    """Later names win, whatever their form; a file without extension is one value."""
    (tmp_path / "1.yaml").write_text("a: {x: 1, y: 1}")
    (tmp_path / "2.toml").write_text("[a]\ny = 2\n")
    (tmp_path / "3.json").write_text('{"b": [1]}')
    (tmp_path / "a.z").write_text("3\n")
    (tmp_path / "a.z").rename(tmp_path / "token")
    config = Config(FileSource(tmp_path))
    await config.load()
    assert config.value("").raw == {"a": {"x": 1, "y": 2}, "b": [1], "token": "3"}
    assert config.value("a.y").origin == f"{tmp_path}/2.toml:2"


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _large(path: Path) -> None:
    path.write_bytes(b"#" * (MAX_ITEM_BYTES + 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "config: no such file: {path}"),
        (_fifo, "config: {path} is not a plain file"),
        (_socket, "config: {path} is not a plain file"),
        (Path.mkdir, "config: no configuration file in the folder {path}"),
        (_large, "{path}: more than 1048576 bytes"),
        (lambda path: path.symlink_to(path), "config: cannot read {path}: "),
    ],
    ids=["absent", "fifo", "socket", "empty folder", "large", "circular link"],
)
async def test_what_cannot_be_read_is_said(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    """At once, also for a pipe that never ends."""
    path = tmp_path / "c.yaml"
    make(path)
    with pytest.raises(ConfigError) as caught:
        await FileSource(path).load()
    assert str(caught.value).startswith(message.format(path=path))


async def test_a_file_at_the_limit_is_read(tmp_path: Path) -> None:
    """One byte more is refused above."""
    path = tmp_path / "c.yaml"
    path.write_bytes(b"#" * MAX_ITEM_BYTES)
    (item,) = await FileSource(path).load()
    assert len(item.value) == MAX_ITEM_BYTES


async def test_a_file_that_the_system_does_not_read_is_named() -> None:
    """No permission, a broken disk: in the system's own words. (This one fails for root, too.)"""
    with pytest.raises(ConfigError, match="config: cannot read /proc/self/mem: Input/output error"):
        await FileSource("/proc/self/mem").load()


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[Callable[[], "asyncio.Future[None]"]]:
    """Watches ``path``; gives a function that waits for the next change."""
    async with FileSource(path).watch() as changes:

        async def change() -> None:
            async with asyncio.timeout(10):
                await anext(changes)

        yield change  # type: ignore[misc]


def _write(path: Path) -> None:
    path.write_text("a: 22")


def _rename(path: Path) -> None:
    beside = path.with_name("c.yaml.tmp")
    beside.write_text("a: 2")
    beside.rename(path)


def _vim(path: Path) -> None:
    path.rename(path.with_name("c.yaml~"))
    path.write_text("a: 2")
    path.with_name("c.yaml~").unlink()


def _delete(path: Path) -> None:
    path.unlink()


def _recreate(path: Path) -> None:
    path.unlink()
    path.write_text("a: 2")


@pytest.mark.parametrize("edit", [_write, _rename, _vim, _delete, _recreate])
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
async def test_an_edit_is_seen(tmp_path: Path, edit: Callable[[Path], None], folder: bool) -> None:
    """In place, by atomic rename, as vim does it, deleted, deleted and made anew."""
    path = tmp_path / "c.yaml"
    path.write_text("a: 1")
    async with watching(tmp_path if folder else path) as change:
        edit(path)
        await change()


async def test_a_new_file_in_a_folder_is_seen_and_the_next_change_too(tmp_path: Path) -> None:
    """A watch goes on after its first event."""
    (tmp_path / "a.yaml").write_text("a: 1")
    async with watching(tmp_path) as change:
        (tmp_path / "b.yaml").write_text("b: 1")
        await change()
        (tmp_path / "b.yaml").write_text("b: 22")
        await change()


async def test_an_exchanged_link_is_seen(tmp_path: Path) -> None:
    """How Kubernetes updates a mounted config map: ``..data`` is turned to another folder."""
    for version, text in (("v1", "a: 1"), ("v2", "a: 2")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "c.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "c.yaml").symlink_to("..data/c.yaml")
    async with watching(tmp_path / "c.yaml") as change:
        (tmp_path / "..tmp").symlink_to("v2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        await change()
        (tmp_path / "v2" / "c.yaml").write_text("a: 33")
        await change()


async def test_the_target_of_a_link_is_watched(tmp_path: Path) -> None:
    """The file that is edited lies elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "real.yaml"
    target.write_text("a: 1")
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "c.yaml"
    link.symlink_to(target)
    async with watching(link) as change:
        _rename_to(target, "a: 2")
        await change()


def _rename_to(path: Path, text: str) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(text)
    beside.rename(path)


async def test_a_folder_made_anew_is_watched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events are gone with it; the look every now and then finds the new one."""
    monkeypatch.setattr(file_module, "LOOK_INTERVAL", 0.05)
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "c.yaml").write_text("a: 1")
    async with watching(folder / "c.yaml") as change:
        (folder / "c.yaml").unlink()
        folder.rmdir()
        await change()
        folder.mkdir()
        (folder / "c.yaml").write_text("a: 2")
        await change()
        (folder / "c.yaml").write_text("a: 33")
        await change()


async def test_what_is_no_change_of_the_file_is_not_reported(tmp_path: Path) -> None:
    """A neighbour, a leftover; the first thing that is heard is the file's own change."""
    path = tmp_path / "c.yaml"
    path.write_text("a: 1")
    config = Config(FileSource(path))
    await config.load()
    seen: list[object] = []
    done = asyncio.Event()
    config.watch("a", lambda _, value: (seen.append(value and value.raw), done.set()))
    async with watching(path) as change, config.watching():
        heard = asyncio.ensure_future(change())
        (tmp_path / "other.yaml").write_text("a: 5")
        (tmp_path / "c.yaml~").write_text("a: 6")
        await asyncio.wait([heard], timeout=0.3)
        assert not heard.done()
        path.write_text("a: 22")
        await heard
        async with asyncio.timeout(5):
            await done.wait()
    assert seen == [22]


async def test_writes_beside_the_file_are_not_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database may lie there; watchfiles would tell of each of its writes."""
    kit.log.configure()
    path = tmp_path / "c.yaml"
    path.write_text("a: 1")
    async with watching(path) as change:
        (tmp_path / "c.db").write_text("x")
        path.write_text("a: 22")
        await change()
        path.write_text("a: 333")
        await change()
    kit.log.configure(records=False)
    structlog.reset_defaults()
    assert "detected" not in capsys.readouterr().err


async def test_a_watch_ends_with_its_block(tmp_path: Path) -> None:
    """No task and no thread waits on; entering again works."""
    path = tmp_path / "c.yaml"
    path.write_text("a: 1")
    for _ in range(2):
        async with watching(path) as change:
            path.write_text(path.read_text() + " ")
            await change()
    assert asyncio.all_tasks() == {asyncio.current_task()}
