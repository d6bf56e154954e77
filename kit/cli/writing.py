"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kit.cli.usage import WrongUsage

_READABLE = 0o644


def write_files(root: Path, files: Mapping[str, str]) -> list[str]:
    """Write those of ``files`` whose content differs; a reader sees the old or the new one.

    All are written beside their places before the first one is put there.

    Args:
        root: what the names are relative to.
        files: text by name.

    Returns:
        The names that changed.

    Raises:
        WrongUsage: a file or folder cannot be written.
    """
    changed = [name for name in sorted(files) if _read(root / name) != files[name]]
    waiting: list[tuple[Path, Path]] = []
    with told():
        try:
            for name in changed:
                place = root / name
                place.parent.mkdir(parents=True, exist_ok=True)
                number, beside = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
                waiting.append((Path(beside), place))
                with os.fdopen(number, "w", encoding="utf-8") as file:
                    file.write(files[name])
                mode = place.stat().st_mode & 0o777 if place.exists() else _READABLE
                Path(beside).chmod(mode)
            while waiting:
                waiting[-1][0].replace(waiting[-1][1])
                waiting.pop()
        finally:
            for beside_path, _ in waiting:
                beside_path.unlink(missing_ok=True)
    return changed


@contextmanager
def told() -> Iterator[None]:
    """Say what the file system refuses in one line.

    Raises:
        WrongUsage: for an OSError.
    """
    try:
        yield
    except OSError as exc:
        what = exc.filename or "file"
        raise WrongUsage(f"{what}: {exc.strerror or exc}") from exc


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
