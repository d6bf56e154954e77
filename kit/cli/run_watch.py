"""What changed below some folders: code, protos, configuration.

An event of the system only says that it is time to look. What counts is the difference between two
looks, so editors that write beside and rename, folders that come and go, and files that a build
writes and takes back are no special cases. Hidden folders, environments, tests and builds are not
looked at, and files of other kinds, such as a database, change nothing.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from watchfiles import awatch

from kit.cli.run_find import NOT_CODE

CODE, PROTO = ".py", ".proto"
CONFIG = (".yaml", ".yml", ".json", ".toml")
MAX_FOLDERS = 4_000
"""Below one root; each costs a watch of the system."""
MAX_FILES = 20_000

_DEBOUNCE_MS, _STEP_MS = 50, 10
_LOOK_INTERVAL_MS = 1_000

Look: TypeAlias = Mapping[Path, tuple[int, ...]]


class TooMuch(Exception):
    """More folders or files than can be watched; the text names the root."""


def look(roots: Iterable[Path], configs: Iterable[Path] = ()) -> tuple[Look, frozenset[Path]]:
    """The files below ``roots`` that count, with what tells one state from another; the folders.

    Args:
        roots: whose code and protos count.
        configs: files, and folders whose files count, wherever they are.

    Raises:
        TooMuch: see :data:`MAX_FOLDERS` and :data:`MAX_FILES`.
    """
    files: dict[Path, tuple[int, ...]] = {}
    folders: set[Path] = set()
    for root in roots:
        for place, below, names in os.walk(root):
            below[:] = [name for name in below if name not in NOT_CODE and name[0] != "."]
            folders.add(Path(place))
            for name in names:
                if name.endswith((CODE, PROTO)) and name[0] != ".":
                    _add(files, Path(place, name))
            if len(folders) > MAX_FOLDERS or len(files) > MAX_FILES:
                raise TooMuch(
                    f"{root} has more than {MAX_FOLDERS} folders or {MAX_FILES} source files;"
                    " name the folder of the service, or use --no-reload"
                )
    for config in configs:
        inside = config.is_dir()
        folders.add(config if inside else config.parent)
        for file in config.iterdir() if inside else [config]:
            if file.suffix in CONFIG or not inside:
                _add(files, file)
    return files, frozenset(folder for folder in folders if folder.is_dir())


class Watch:
    """Tells what changed since the last time it was asked.

    Args:
        roots: whose code and protos count.
        configs: files, and folders whose files count, wherever they are.

    Raises:
        TooMuch: see :data:`MAX_FOLDERS` and :data:`MAX_FILES`.
    """

    def __init__(self, roots: Iterable[Path], configs: Iterable[Path] = ()) -> None:
        self._roots, self._configs = tuple(roots), tuple(configs)
        self._before, self._folders = look(self._roots, self._configs)
        self._events: AsyncGenerator[object] | None = None

    async def changed(self) -> frozenset[Path]:
        """Wait until files were written, added or deleted, also while nobody waited; which ones.

        Raises:
            TooMuch: there are more of them by now.
        """
        while True:
            now, folders = look(self._roots, self._configs)
            if folders != self._folders:
                self._folders = folders
                await self.aclose()
            before, self._before = self._before, now
            different = {
                path for path in before.keys() | now.keys() if before.get(path) != now.get(path)
            }
            if different:
                return frozenset(different)
            await self._event()

    def accept(self) -> None:
        """Take what is there now for known, as the caller has written it, except for protos.

        Those are written by people, also while code is made of what they were before.
        """
        now, _ = look(self._roots, self._configs)
        known = {path: state for path, state in now.items() if path.suffix != PROTO}
        seen = {path: state for path, state in self._before.items() if path.suffix == PROTO}
        self._before = known | seen

    async def aclose(self) -> None:
        """Stop watching; :meth:`changed` begins again."""
        if self._events is not None:
            await self._events.aclose()
            self._events = None

    async def _event(self) -> None:
        """Return at an event, and after a second without one: some file systems send none."""
        if self._events is None:
            self._events = awatch(
                *self._folders,
                watch_filter=None,
                debounce=_DEBOUNCE_MS,
                step=_STEP_MS,
                rust_timeout=_LOOK_INTERVAL_MS,
                yield_on_timeout=True,
                recursive=False,
                ignore_permission_denied=True,
            )
        try:
            await anext(self._events)
        except (OSError, RuntimeError, StopAsyncIteration):
            # A folder is gone, or the system has no watch left: look now and then.
            self._events = None
            await asyncio.sleep(_LOOK_INTERVAL_MS / 1000)


def _add(files: dict[Path, tuple[int, ...]], file: Path) -> None:
    try:
        seen = file.stat()
    except OSError:  # in the middle of a replacement
        return
    files[file] = (seen.st_ino, seen.st_size, seen.st_mtime_ns)
