"""Configuration from a file, or from all files of a folder.

What is watched is the folder, because editors and deployments replace files rather than write into
them: write beside and rename, delete and create, turn a symbolic link. An event only says that it
is time to look; a change is reported when a file's identity, size or time of writing differs. For
folders that send no events (network file systems, a folder deleted and made anew) there is a look
every few seconds anyway.

Source: go-kratos/kratos config/file/.
"""

import asyncio
import logging
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from watchfiles import awatch

from kit.config.errors import ConfigError
from kit.config.source import MAX_ITEM_BYTES, KeyValue
from kit.config.waiting import each
from kit.log import get_logger

LOOK_INTERVAL = 5.0
"""Seconds between looks at a folder that says nothing."""

_DEBOUNCE_MS, _STEP_MS = 50, 10
_MAX_FILES = 1_000

_log = get_logger()

# It tells of every write in the folder at INFO, those to a database beside the file among them.
logging.getLogger("watchfiles").setLevel(logging.WARNING)


class FileSource:
    """A file, or all plain files of a folder in the order of their names.

    Hidden files, editors' leftovers (``name~``, ``#name#``) and sub-folders are skipped. The
    extension is the format; a file without one is a single value, its name is the dotted path (so
    mounted Kubernetes config maps and secrets work either way).
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    async def load(self) -> Sequence[KeyValue]:
        """The file or files as they are now.

        Raises:
            ConfigError: there is no such file, it cannot be read, or it is no plain file or folder.
        """
        return await asyncio.to_thread(self._load)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[None]]:
        """One element each time a file was changed, added or deleted."""
        changed = asyncio.Event()
        state = await asyncio.to_thread(self._state)
        looker = asyncio.create_task(self._look(changed, state))  # awaited below
        try:
            yield each(changed)
        finally:
            looker.cancel()
            await asyncio.gather(looker, return_exceptions=True)

    def _load(self) -> list[KeyValue]:
        try:
            files = self._files()
            return [
                KeyValue(file.name, _read(file), file.suffix.removeprefix("."), str(file))
                for file in files
            ]
        except FileNotFoundError as error:
            raise ConfigError.of(f"no such file: {error.filename}", "config") from error
        except OSError as error:
            message = f"cannot read {error.filename or self._path}: {error.strerror}"
            raise ConfigError.of(message, "config") from error

    def _files(self) -> list[Path]:
        if not stat.S_ISDIR(self._path.stat().st_mode):
            return [self._path]
        files = sorted(
            (entry for entry in self._path.iterdir() if _wanted(entry)), key=lambda file: file.name
        )
        if not files:
            raise ConfigError.of(f"no configuration file in the folder {self._path}", "config")
        if len(files) > _MAX_FILES:
            raise ConfigError.of(f"more than {_MAX_FILES} files in {self._path}", "config")
        return files

    def _state(self) -> dict[str, tuple[int, ...]]:
        """What tells one state of the files from another; empty when there are none to see."""
        state: dict[str, tuple[int, ...]] = {}
        try:
            for file in self._files():
                seen = file.stat()
                state[str(file)] = (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)
        except (OSError, ConfigError):
            pass  # in the middle of a replacement, or gone: loading says what is wrong
        return state

    def _folders(self) -> dict[str, int]:
        """Where events come from, also where a symbolic link leads, and which folders these are."""
        folder = self._path if self._path.is_dir() else self._path.parent
        target = self._path.resolve()
        target = target if target.is_dir() else target.parent
        return {str(path): path.stat().st_ino for path in (folder.resolve(), target)}

    async def _look(self, changed: asyncio.Event, state: dict[str, tuple[int, ...]]) -> None:
        """Set ``changed`` whenever the files are in another state than before."""
        complaint = ""
        while True:
            try:
                folders = self._folders()
                async with aclosing(_events(folders)) as events:
                    async for _ in events:
                        complaint = ""
                        state = await self._compare(state, changed)
                        if self._folders() != folders:
                            break  # replaced, or the link leads elsewhere: watch the new ones
            except (OSError, RuntimeError) as error:  # no such folder, or no watch to be had
                if str(error) != complaint:
                    complaint = str(error)
                    _log.warning("%s: no events, looking now and then: %s", self._path, complaint)
                await asyncio.sleep(LOOK_INTERVAL)
            state = await self._compare(state, changed)

    async def _compare(
        self, before: dict[str, tuple[int, ...]], changed: asyncio.Event
    ) -> dict[str, tuple[int, ...]]:
        now = await asyncio.to_thread(self._state)
        if now != before:
            changed.set()
        return now


async def _events(folders: Iterable[str]) -> AsyncGenerator[None, None]:
    """One element when ``folders`` are being watched, at events, every :data:`LOOK_INTERVAL`.

    Who looks at the first element misses nothing that happened while the watch was set up.
    """
    watch = awatch(
        *folders,
        watch_filter=None,
        debounce=_DEBOUNCE_MS,
        step=_STEP_MS,
        rust_timeout=int(LOOK_INTERVAL * 1000),
        yield_on_timeout=True,
        recursive=False,
        ignore_permission_denied=True,
    )
    async with aclosing(watch):
        first = asyncio.ensure_future(anext(watch))
        try:
            await asyncio.sleep(0)  # its first step sets up the watch
            yield
            await first
            yield
            async for _ in watch:
                yield
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)


def _wanted(entry: Path) -> bool:
    name = entry.name
    leftover = name.endswith("~") or (name.startswith("#") and name.endswith("#"))
    return not name.startswith(".") and not leftover and entry.is_file()


def _read(file: Path) -> bytes:
    if not file.is_file() and file.exists():  # a pipe or a device may never end
        raise ConfigError.of(f"{file} is not a plain file", "config")
    with file.open("rb") as stream:
        value = stream.read(MAX_ITEM_BYTES + 1)
    if len(value) > MAX_ITEM_BYTES:
        raise ConfigError.of(f"more than {MAX_ITEM_BYTES} bytes", str(file))
    return value
