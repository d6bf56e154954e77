"""The seam between :class:`~kit.config.Config` and the places configuration comes from.

Source: go-kratos/kratos config/source.go.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

MAX_ITEM_BYTES = 1 << 20
"""Of one item; what is larger is not configuration but an accident."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One item of configuration, as it was found.

    Attributes:
        key: a file's name without folders, an etcd key, a variable's name: what the log line names.
        value: the bytes, at most :data:`MAX_ITEM_BYTES`.
        format: ``yaml``, ``yml``, ``json`` or ``toml``: ``value`` is a mapping in that form. Empty:
            ``key`` is a dotted path and ``value`` its text. ``env``: ``key`` is the name of an
            environment variable, see :mod:`kit.config.env`.
        origin: what errors call it, such as ``configs/config.yaml``, ``env TRANS_SERVER_GRPC_ADDR``
            or ``etcd /config/trans.yaml``; the line is added to it. Empty: ``key``.
        lines: whether the lines of ``value`` mean something to who wrote it; ``False`` when a
            program made it, and errors do not name them.
    """

    key: str
    value: bytes
    format: str = ""
    origin: str = ""
    lines: bool = True


class Source(Protocol):
    """A place configuration comes from."""

    async def load(self) -> Sequence[KeyValue]:
        """All items as they are now, in the order in which they are merged: later ones win.

        Raises:
            ConfigError: the place does not exist, cannot be read, or an item is too large.
        """
        ...

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[None]]:
        """One element each time something may have changed.

        ``async with source.watch() as changes: async for _ in changes: ...``. What changes after
        the block was entered is reported, so that who enters first and loads then misses nothing;
        several changes may be reported as one. The iterator survives an outage of the place. A
        source that never changes gives an iterator that waits until the block is left.
        """
        ...
