"""Configuration from several places, merged, checked and watched.

A :class:`Source` gives items, :class:`Config` merges them and reads the result into models::

    config = Config(FileSource("configs/config.yaml"), EnvSource("TRANS_"))
    await config.load()
    settings = config.scan(Settings)

Everything that is wrong is said at once, each problem with its file, line, path and value. This
module holds the Protocol and the value types; the other names are imported when they are first
used.

Source: go-kratos/kratos config/config.go, config/source.go.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from kit.config.errors import ConfigError, Problem
from kit.config.source import MAX_ITEM_BYTES, KeyValue, Source

if TYPE_CHECKING:
    from kit.config.consul import ConsulSource
    from kit.config.dynaconf import DynaconfSource
    from kit.config.env import EnvSource
    from kit.config.etcd import EtcdSource
    from kit.config.file import FileSource
    from kit.config.loader import Config, Observer, Value
    from kit.config.types import Duration

_HOMES = {
    "Config": "kit.config.loader",
    "ConsulSource": "kit.config.consul",
    "Duration": "kit.config.types",
    "DynaconfSource": "kit.config.dynaconf",
    "EnvSource": "kit.config.env",
    "EtcdSource": "kit.config.etcd",
    "FileSource": "kit.config.file",
    "Observer": "kit.config.loader",
    "Value": "kit.config.loader",
}


def __getattr__(name: str) -> object:
    """A name of an implementation, imported now: ``import kit.config`` itself stays light."""
    if home := _HOMES.get(name):
        return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "MAX_ITEM_BYTES",
    "Config",
    "ConfigError",
    "ConsulSource",
    "Duration",
    "DynaconfSource",
    "EnvSource",
    "EtcdSource",
    "FileSource",
    "KeyValue",
    "Observer",
    "Problem",
    "Source",
    "Value",
]
