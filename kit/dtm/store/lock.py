"""One process per file."""

import fcntl
import os

from kit.dtm.store import StoreUnavailable


def hold(path: str) -> int:
    """Keep other processes away from the database at ``path`` until :func:`release`, or our end.

    The lock is on ``<path>.lock``, which stays behind: SQLite loses its own locks on the database
    whenever this process closes any descriptor of it, and removing a lock file lets two in.

    Returns:
        What :func:`release` wants.

    Raises:
        StoreUnavailable: another process holds it, or the folder does not allow it.
    """
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise StoreUnavailable(
            f"{path}: there is no folder {folder}; create it, or set Store.Path to a file elsewhere"
        )
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as exc:
        raise StoreUnavailable(
            f"{path}: {exc}; let this user write in {folder}, or set Store.Path to a file elsewhere"
        ) from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        if not isinstance(exc, BlockingIOError):
            raise StoreUnavailable(f"{path}: {exc}; use a file system that can lock files") from exc
        raise StoreUnavailable(
            f"{path} is in use by another process (pid {holder or 'unknown'}); "
            f"stop that one, or set Store.Path to another file"
        ) from exc
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def release(lock: int) -> None:
    """Let others in."""
    os.close(lock)
