"""Configuration in etcd: one key, or every key under a prefix.

The text after the last dot of a key is its format: ``/config/trans.yaml``. A key without one is a
single value whose last element is the dotted path.

Source: go-kratos/kratos contrib/config/etcd/config.go, watcher.go.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

from kit.config.errors import ConfigError
from kit.config.source import MAX_ITEM_BYTES, KeyValue
from kit.config.waiting import each
from kit.etcd import EtcdClient, EtcdError, EtcdOptions, follow
from kit.etcd import KeyValue as Item
from kit.log import get_logger
from kit.outage import Outage

_log = get_logger()


class EtcdSource:
    """A :class:`~kit.config.Source` of keys in etcd. Belongs to one event loop.

    Args:
        etcd: a URL such as ``etcd://h1:2379,h2:2379``, endpoints, or options with user and TLS.
        path: the key, or with ``prefix`` what keys begin with.
        prefix: take every key that begins with ``path``, in the order of their bytes.

    Raises:
        ValueError: ``etcd`` cannot be read, or ``path`` is empty.
    """

    def __init__(
        self, etcd: EtcdOptions | str | Sequence[str], path: str, *, prefix: bool = False
    ) -> None:
        if not path:
            raise ValueError("etcd config: path is empty; name a key such as /config/trans.yaml")
        self._client = EtcdClient(etcd)
        self._path = path
        self._prefix = prefix

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cut the connection; may be called twice."""
        await self._client.aclose()

    async def load(self) -> Sequence[KeyValue]:
        """The items as they are now.

        Raises:
            ConfigError: etcd does not answer, nothing is there, or an item is too large.
        """
        try:
            listing = await self._client.listing(self._path, prefix=self._prefix)
        except EtcdError as error:
            raise ConfigError.of(error.message, f"etcd {self._path}") from error
        if not listing.items and not self._prefix:
            raise ConfigError.of("there is no such key", f"etcd {self._path}")
        return [self._item(item) for item in listing.items]

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[None]]:
        """One element for each change; an outage of etcd is survived in silence but for the log."""
        changed, watching = asyncio.Event(), asyncio.Event()
        following = asyncio.create_task(self._follow(changed, watching))
        try:
            await watching.wait()
            yield each(changed)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow(self, changed: asyncio.Event, watching: asyncio.Event) -> None:
        part = Outage("config", _log).part(self._path)

        def report(error: EtcdError | None) -> None:
            part.up() if error is None else part.down(error.message)
            watching.set()  # away or not: who loads now hears of what comes later

        last: dict[bytes, tuple[int, bytes]] | None = None
        states = follow(self._client, self._path, prefix=self._prefix, report=report)
        try:
            async for state in states:
                seen = {key: (item.mod_revision, item.value) for key, item in state.items()}
                # The first state is no change, unless etcd was away when the block was entered:
                # who loaded meanwhile may have seen another one.
                if seen != last and watching.is_set():
                    changed.set()
                last = seen
        except Exception:
            watching.set()  # nobody waits for a watch that will not come
            _log.exception("config: the watch of %s failed", self._path)
            raise

    def _item(self, item: Item) -> KeyValue:
        key = item.key.decode(errors="replace")
        if len(item.value) > MAX_ITEM_BYTES:
            size = len(item.value)
            raise ConfigError.of(
                f"{size} bytes are too many; at most {MAX_ITEM_BYTES}", f"etcd {key}"
            )
        name = key.rpartition("/")[2]
        form = name.rpartition(".")[2] if "." in name else ""
        return KeyValue(name, item.value, form, f"etcd {key}")
