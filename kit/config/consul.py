"""Configuration in Consul's key-value store: a key, or a folder of keys.

The text after the last dot of a key is its format: ``app/trans.yaml``. A key without one is a
single value whose last element is the dotted path.

Source: go-kratos/kratos contrib/config/consul/config.go, watcher.go.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Self

from kit.config.errors import ConfigError
from kit.config.source import MAX_ITEM_BYTES, KeyValue
from kit.config.waiting import each
from kit.consul import ConsulClient, ConsulError, ConsulOptions, follow
from kit.log import get_logger
from kit.outage import Outage

_ALL = {"recurse": "1"}

_log = get_logger()


class ConsulSource:
    """A :class:`~kit.config.Source` of keys in Consul. Belongs to one event loop.

    Args:
        consul: a URL such as ``consul://127.0.0.1:8500``, ``host:port``, or options with token,
            TLS, datacenter and namespace.
        path: a key such as ``app/trans.yaml``, or a folder such as ``app``: every key below it, in
            the order of their bytes. A slash at its beginning or end means nothing.

    Raises:
        ValueError: ``consul`` cannot be read, or ``path`` is empty.
    """

    def __init__(self, consul: ConsulOptions | str, path: str) -> None:
        self._path = path.strip("/")
        if not self._path:
            raise ValueError("consul config: path is empty; name a key such as app/trans.yaml")
        self._client = ConsulClient(consul)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cut the connections; may be called twice."""
        await self._client.aclose()

    async def load(self) -> Sequence[KeyValue]:
        """The items as they are now.

        Raises:
            ConfigError: Consul does not answer, nothing is there, or an item is too large.
        """
        try:
            listing = await self._client.get("kv", self._path, query=_ALL)
        except ConsulError as error:
            raise ConfigError.of(error.message, f"consul {self._path}") from error
        pairs = self._pairs(listing.value)
        if not pairs:
            raise ConfigError.of(
                f"there is no such key, and none below it, at {self._client.options.address}",
                f"consul {self._path}",
            )
        return [_item(key, pair) for key, pair in pairs.items()]

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[None]]:
        """One element for each change; an outage of Consul is survived, with one log line."""
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

        def report(error: ConsulError | None) -> None:
            if error is None:
                part.up()
            else:
                part.down(error.message)
                watching.set()  # who loads now hears of what comes later

        last: dict[str, int] | None = None
        states = follow(self._client, "kv", self._path, query=_ALL, report=report)
        try:
            async with aclosing(states):
                async for state in states:
                    seen = {key: pair["ModifyIndex"] for key, pair in self._pairs(state).items()}
                    # The first state is no change, unless Consul was away when the block was
                    # entered: who loaded meanwhile may have seen another one.
                    if seen != last and watching.is_set():
                        changed.set()
                    last = seen
                    watching.set()
        except Exception:
            watching.set()  # nobody waits for a watch that will not come
            _log.exception("config: the watch of %s failed", self._path)
            raise

    def _pairs(self, listed: Any) -> dict[str, Mapping[str, Any]]:
        """The key itself and those below it, out of all that begin alike; no empty folders."""
        return {
            pair["Key"]: pair
            for pair in listed or ()
            if (pair["Key"] == self._path or pair["Key"].startswith(f"{self._path}/"))
            and not pair["Key"].endswith("/")
        }


def _item(key: str, pair: Mapping[str, Any]) -> KeyValue:
    value = base64.b64decode(pair["Value"] or "")
    if len(value) > MAX_ITEM_BYTES:
        raise ConfigError.of(
            f"{len(value)} bytes are too many; at most {MAX_ITEM_BYTES}", f"consul {key}"
        )
    name = key.rpartition("/")[2]
    form = name.rpartition(".")[2] if "." in name else ""
    return KeyValue(name, value, form, f"consul {key}")
