"""Log files: several outputs as one stream, and a file that makes way for a new one when full.

The names of dtm's ``Log.Outputs`` and lumberjack's options, so that a configuration written for dtm
keeps its meaning.

Source: dtm-labs/logger logger.go (InitLog2); natefinch/lumberjack.
"""

import gzip
import io
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a log file makes way, and what happens to the old ones; lumberjack's defaults.

    Attributes:
        max_size: megabytes that a file may grow to.
        max_age: days after which an old file is deleted; 0 keeps it whatever its age.
        max_backups: old files that are kept; 0 keeps all.
        compress: old files become ``.gz``.
    """

    max_size: int = 100
    max_age: int = 0
    max_backups: int = 0
    compress: bool = False


class RotatingFile(io.TextIOBase):
    """A text file to append to; beyond ``rotation.max_size`` it is renamed with its time.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], rotation: Rotation | None = None) -> None:
        self._path = Path(path).absolute()
        self._rotation = rotation
        self._file = self._open()

    def write(self, text: str) -> int:
        """Append ``text``, whole, to the file that has room for it."""
        if self._rotation is not None:
            limit = self._rotation.max_size << 20
            if 0 < self._size < limit < self._size + len(text):
                self._rotate(self._rotation)
            self._size += len(text)
        return self._file.write(text)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        super().close()  # flushes, while there is a file to flush
        self._file.close()

    def _open(self) -> TextIO:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        self._size = os.fstat(descriptor).st_size
        return os.fdopen(descriptor, "w", encoding="utf-8")

    def _rotate(self, rotation: Rotation) -> None:
        self._file.close()
        # UTC with milliseconds: names sort by age, whatever the zone does
        now = time.time()
        stamp = (
            time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}"
        )
        backup = self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")
        self._path.rename(backup)
        self._file = self._open()
        if rotation.compress:
            packed = backup.with_name(f"{backup.name}.gz")
            with backup.open("rb") as source, gzip.open(packed, "wb") as target:
                shutil.copyfileobj(source, target)
            backup.unlink()
        self._forget_old(rotation, now)

    def _forget_old(self, rotation: Rotation, now: float) -> None:
        pattern = f"{self._path.stem}-*{self._path.suffix}*"
        backups = sorted(self._path.parent.glob(pattern), reverse=True)
        for number, backup in enumerate(backups):
            too_many = 0 < rotation.max_backups <= number
            too_old = 0 < rotation.max_age * _DAY_S < now - backup.stat().st_mtime
            if too_many or too_old:
                backup.unlink(missing_ok=True)


class Tee(io.TextIOBase):
    """One stream that writes to several; what one of them cannot take the others still get."""

    def __init__(self, streams: Sequence[TextIO]) -> None:
        self._streams = tuple(streams)

    def write(self, text: str) -> int:
        """Write ``text`` to each.

        Raises:
            OSError: the last trouble that one of them had.
        """
        trouble: Exception | None = None
        for stream in self._streams:
            try:
                stream.write(text)
                stream.flush()
            except (OSError, ValueError) as error:
                trouble = error
        if trouble is not None:
            raise trouble
        return len(text)

    def flush(self) -> None:
        """Nothing waits here."""


def open_outputs(names: str, rotation: Rotation | None = None) -> TextIO | None:
    """The stream that ``names`` say: a comma list of ``stderr``, ``stdout`` and paths of files.

    Args:
        names: what is empty means stderr.
        rotation: for files; ``None`` lets them grow.

    Returns:
        ``None`` for stderr alone, which is what loggers write to by themselves.

    Raises:
        OSError: a file cannot be opened.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if wanted in ([], ["stderr"]):
        return None
    standard = {"stderr": sys.stderr, "stdout": sys.stdout}
    streams = [standard.get(name) or _file(name, rotation) for name in wanted]
    return streams[0] if len(streams) == 1 else _as_text(Tee(streams))


def _file(name: str, rotation: Rotation | None) -> TextIO:
    return _as_text(RotatingFile(name, rotation))


def _as_text(stream: io.TextIOBase) -> TextIO:
    return stream  # type: ignore[return-value]  # TextIO is what the standard streams are typed as
