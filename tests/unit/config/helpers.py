"""A source that is a list in memory, which tests may change, and short ways to use it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from io import StringIO

import pytest

from kit.config import Config, ConfigError, KeyValue, Value
from kit.config.waiting import each


class Progress:
    """Lets a test wait for something that other tasks do."""

    def __init__(self) -> None:
        self._more = asyncio.Event()

    def notify(self) -> None:
        self._more.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self._more.clear()
                await self._more.wait()


class ListSource(Progress):
    """Items as given; ``put`` replaces them and reports a change."""

    def __init__(self, *items: KeyValue) -> None:
        super().__init__()
        self.items: Sequence[KeyValue] = items
        self.failure: Exception | None = None
        self.loads = 0
        self._changed = asyncio.Event()

    async def load(self) -> Sequence[KeyValue]:
        self.loads += 1
        self.notify()
        if self.failure is not None:
            raise self.failure
        return self.items

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[None]]:
        yield each(self._changed)

    def put(self, *items: KeyValue, failure: Exception | None = None) -> None:
        self.items, self.failure = items, failure
        self._changed.set()


class Seen(Progress):
    """An observer that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[tuple[str, object]] = []

    def __call__(self, path: str, value: Value | None) -> None:
        self.values.append((path, value and value.raw))
        self.notify()

    async def count(self, count: int) -> list[tuple[str, object]]:
        """The values heard of, when there are ``count``."""
        await self.until(lambda: len(self.values) >= count)
        return self.values


class Log(StringIO, Progress):
    """A stream that can be waited for."""

    def __init__(self) -> None:
        StringIO.__init__(self)
        Progress.__init__(self)

    def write(self, text: str) -> int:
        self.notify()
        return super().write(text)

    async def holds(self, text: str) -> None:
        await self.until(lambda: text in self.getvalue())


def yaml(text: str, name: str = "config.yaml") -> KeyValue:
    return KeyValue(name, text.encode(), "yaml", f"configs/{name}")


def variable(name: str, text: str) -> KeyValue:
    return KeyValue(name, text.encode(), "env", f"env TRANS_{name}")


async def loaded(*items: KeyValue, environ: dict[str, str] | None = None) -> Config:
    config = Config(ListSource(*items), environ=environ or {})
    await config.load()
    return config


async def refused(*items: KeyValue, environ: dict[str, str] | None = None) -> list[str]:
    """The lines that say why a configuration is not loaded."""
    with pytest.raises(ConfigError) as caught:
        await loaded(*items, environ=environ)
    return str(caught.value).splitlines()
