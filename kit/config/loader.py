"""The configuration of a process: loaded, read, kept up to date.

Source: go-kratos/kratos config/config.go, config/reader.go, config/value.go.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from kit.config.errors import ConfigError, Problem
from kit.config.formats import parse
from kit.config.names import find_key, variable_name
from kit.config.placeholders import resolve
from kit.config.scan import scan
from kit.config.source import KeyValue, Source
from kit.config.tree import Node, Origin, Path, Plain, merge, split
from kit.config.types import Duration
from kit.log import get_logger

T = TypeVar("T")

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Value:
    """What stood at a path when it was asked for; it does not change with the configuration."""

    _root: Node
    _path: Path
    _node: Node

    @property
    def raw(self) -> Plain:
        """The value as it was written, placeholders replaced."""
        return self._node.plain()

    @property
    def origin(self) -> str:
        """Where it was written, such as ``configs/config.yaml:2``."""
        return str(self._node.origin)

    def scan(self, kind: type[T]) -> T:
        """The value as a ``kind``: a model, or any type that pydantic can check.

        Raises:
            ConfigError: it does not fit.
        """
        return scan(self._root, self._path, kind)

    def as_bool(self) -> bool:
        """True or false, also from ``true``, ``yes``, ``on``, ``1`` and their opposites."""
        return self.scan(bool)

    def as_int(self) -> int:
        """A whole number, also from text."""
        return self.scan(int)

    def as_float(self) -> float:
        """A number, also from text."""
        return self.scan(float)

    def as_str(self) -> str:
        """Text; a number that was not written as text is refused."""
        return self.scan(str)

    def as_duration(self) -> float:
        """Seconds, from ``1s``, ``200ms``, ``1h2m``."""
        return self.scan(Duration)


Observer: TypeAlias = Callable[[str, Value | None], object]
"""Is called with the path and the new value; ``None`` when the key is gone."""


class Config:
    """Several sources as one tree; later sources win.

    Args:
        sources: in the order in which they are merged.
        environ: what placeholders may name beside keys; ``os.environ`` by default.
    """

    def __init__(self, *sources: Source, environ: Mapping[str, str] | None = None) -> None:
        self._sources = sources
        self._environ = os.environ if environ is None else environ
        self._root: Node | None = None
        self._scanned: dict[tuple[Path, type[object]], None] = {}
        self._observers: list[tuple[str, Observer]] = []
        self._complaint = ""

    async def load(self) -> None:
        """Read all sources. Each file or key read is one log line.

        Raises:
            ConfigError: everything that is wrong in any of them; what was loaded before stays.
        """
        items, root = await self._read()
        for item in items:
            if item.format != "env":  # hundreds, and no secrets of other programs
                _log.info("config loaded: %s format: %s", item.key, item.format)
        self._root = root

    def scan(self, kind: type[T], path: str = "") -> T:
        """The configuration, or what stands at ``path``, as a model.

        Keys the model does not know are refused, unless its ``model_config`` says otherwise with
        ``extra``. From now on a changed configuration has to fit this model, too.

        Raises:
            ConfigError: everything that does not fit.
        """
        result = scan(self._loaded(), split(path), kind)
        self._scanned[split(path), kind] = None
        return result

    def value(self, path: str) -> Value:
        """What stands at ``path``.

        Raises:
            ConfigError: there is no such key.
        """
        found = self.find(path)
        if found is None:
            raise ConfigError.of("key not found", path=path)
        return found

    def find(self, path: str) -> Value | None:
        """What stands at ``path``; ``None`` when there is no such key."""
        return _find(self._loaded(), split(path))

    def watch(self, path: str, observer: Observer) -> None:
        """Call ``observer`` each time the value at ``path`` has changed, inside :meth:`watching`.

        The key may appear later and go again. What the observer raises is logged.
        """
        self._observers.append((path, observer))

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Keep up to date while the block runs.

        When a source reports a change all are read again, so that keys which were deleted are gone.
        A configuration with anything wrong in it, or that a model scanned before refuses, is
        logged and not taken: the old one stays.
        """
        changed = asyncio.Event()
        changed.set()  # what happened between load and here
        async with AsyncExitStack() as stack:
            tasks = [
                asyncio.create_task(_forward(changes, changed))
                for source in self._sources
                for changes in [await stack.enter_async_context(source.watch())]
            ]
            tasks.append(asyncio.create_task(self._reload_after(changed)))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _loaded(self) -> Node:
        if self._root is None:
            raise RuntimeError("the configuration is read before it was loaded")
        return self._root

    async def _read(self) -> tuple[list[KeyValue], Node]:
        items: list[KeyValue] = []
        problems: list[Problem] = []
        tree = Node({}, Origin("config"))
        for source in self._sources:
            try:
                loaded: Sequence[KeyValue] = await source.load()
            except ConfigError as error:
                problems += error.problems
                continue
            for item in loaded:
                try:
                    tree = _placed(tree, item) if item.format == "env" else merge(tree, parse(item))
                    items.append(item)
                except ConfigError as error:
                    problems += error.problems
        tree, unresolved = resolve(tree, self._environ)
        if problems or unresolved:
            raise ConfigError([*problems, *unresolved])
        return items, tree

    async def _reload_after(self, changed: asyncio.Event) -> None:
        while True:
            await changed.wait()
            changed.clear()
            try:
                await self._reload()
            except ConfigError as error:
                self._complain([str(problem) for problem in error.problems])
            except Exception as error:  # noqa: BLE001  a source that is away must not end the watch
                self._complain([f"{type(error).__name__}: {error}"])

    async def _reload(self) -> None:
        _, root = await self._read()
        for keys, kind in self._scanned:
            scan(root, keys, kind)
        if self._complaint:
            self._complaint = ""
            _log.info("config is right again")
        before, self._root = self._loaded(), root
        if before.plain() == root.plain():
            return
        _log.info("config reloaded")
        for path, observer in tuple(self._observers):
            old, new = _find(before, split(path)), _find(root, split(path))
            if (old and old.raw) != (new and new.raw) or (old is None) != (new is None):
                try:
                    observer(path, new)
                except Exception:  # noqa: BLE001  one observer's fault is not the next one's
                    _log.exception("observer of config %s failed", path or "(all)")

    def _complain(self, problems: Sequence[str]) -> None:
        """Log ``problems`` once, not at each look at the same broken file."""
        complaint = "\n".join(problems)
        if complaint != self._complaint:
            self._complaint = complaint
            for problem in problems:
                _log.error("config not reloaded, the old one stays: %s", problem)


async def _forward(changes: AsyncIterator[None], changed: asyncio.Event) -> None:
    try:
        async for _ in changes:
            changed.set()
    except Exception as error:  # noqa: BLE001  the other sources are watched on
        _log.error("config is no longer watched at one source", exc_info=error)


def _placed(tree: Node, item: KeyValue) -> Node:
    """``tree`` with an environment variable at the key it means, or under its name at the top."""
    text = item.value.decode("utf-8", "surrogateescape")
    is_mapping = text.lstrip().startswith("{")  # a whole mapping is replaced by JSON only
    path = find_key(item.key, tree, lambda node: node.children, mappings=is_mapping)
    if path is not None:
        return tree.with_value(path, Node(text, Origin(item.origin, untyped=True)))
    if tree.find((item.key,)) is not None:  # a whole mapping of that name
        return tree
    return tree.with_value(
        (item.key,), Node(text, Origin(item.origin, untyped=True, unplaced=True))
    )


def _find(root: Node, path: Path) -> Value | None:
    node = root.find(path)
    if node is None:
        variable = root.find((variable_name(path),))
        if variable is None or not variable.origin.unplaced:
            return None
        node = Node(variable.value, Origin(variable.origin.label, untyped=True))
        root = root.with_value(path, node)
    return Value(root, path, node)
