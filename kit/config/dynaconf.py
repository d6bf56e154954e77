"""Configuration that dynaconf has gathered, for who has its files and conventions already.

::

    settings = Dynaconf(settings_files=["settings.toml"], envvar_prefix="SHOP", merge_enabled=True)
    config = Config(DynaconfSource(settings), EnvSource("SHOP_"))

dynaconf writes keys of the first level in capitals, and those that only a variable sets; what is in
capitals is in small letters here: ``SERVER`` is ``server``. What dynaconf does to values before
(``@format``, ``@jinja``, ``@int``) is done; the kit's ``${KEY:default}`` comes after it.

dynaconf is silent about a missing file and replaces whole sections unless ``merge_enabled`` is set.
Here the one is an error, and without the other there is no source.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from kit.config.errors import ConfigError
from kit.config.source import KeyValue
from kit.config.waiting import never

_ORIGIN = "dynaconf"
_PATTERN = frozenset("*?[")


class Settings(Protocol):
    """What this source needs of a ``dynaconf.Dynaconf``."""

    def as_dict(self) -> Mapping[str, Any]:
        """All values."""
        ...

    def reload(self) -> None:
        """Read files and environment again."""
        ...

    def find_file(self, filename: str, /) -> str:
        """The path of a file; empty when there is none."""
        ...

    def get(self, key: str, default: Any = None, /) -> Any:
        """One value."""
        ...


class DynaconfSource:
    """A :class:`~kit.config.Source` of the values of a ``Dynaconf`` object.

    Args:
        settings: made with ``merge_enabled=True``; read again at each load.

    Raises:
        ValueError: it was made without.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.get("MERGE_ENABLED_FOR_DYNACONF"):
            raise ValueError(
                "dynaconf config: a second file would replace whole sections of the first; write "
                "Dynaconf(..., merge_enabled=True)"
            )
        self._settings = settings

    async def load(self) -> Sequence[KeyValue]:
        """One item with all values.

        Raises:
            ConfigError: dynaconf cannot read a file, or a file that it was told to read is missing.
        """
        return await asyncio.to_thread(self._load)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[None]]:
        """Nothing is reported: dynaconf does not watch. A file that changes is a ``FileSource``."""
        yield never()

    def _load(self) -> list[KeyValue]:
        self._refuse_missing_files()
        try:
            self._settings.reload()
            values = self._settings.as_dict()
        except Exception as error:  # each of its loaders has its own
            message = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError.of(message, _ORIGIN) from error
        text = json.dumps(_with_small_keys(values), default=str)
        return [KeyValue(_ORIGIN, text.encode(), "json", _ORIGIN, lines=False)]

    def _refuse_missing_files(self) -> None:
        named = self._settings.get("SETTINGS_FILE_FOR_DYNACONF") or ()
        files = named.replace(";", ",").split(",") if isinstance(named, str) else list(named)
        for file in filter(None, (str(file).strip() for file in files)):
            if not _PATTERN & set(file) and not self._settings.find_file(file):
                raise ConfigError.of(f"no such file: {file}", _ORIGIN)


def _with_small_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key.lower() if key.isupper() else key: _with_small_keys(item)
            for key, item in ((str(key), item) for key, item in value.items())
        }
    if isinstance(value, list | tuple):
        return [_with_small_keys(item) for item in value]
    return value
