"""What the configuration of a service says, read as the service reads it but without its model."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kit.cli.run_find import Service
from kit.config import Config, EnvSource, FileSource
from kit.config.names import variable_name
from kit.config.tree import Plain, Scalar

USUAL_ETCD = ("127.0.0.1:2379", "localhost:2379")


@dataclass(frozen=True, slots=True)
class Written:
    """One value.

    Attributes:
        path: its keys, joined with dots; elements of a list have the path of the list.
        value: text, a number, a truth value or nothing.
    """

    path: str
    value: Scalar


async def read_conf(conf: Path, prefix: str = "") -> Config:
    """A loaded configuration, with placeholders replaced.

    Args:
        conf: as in ``-conf``.
        prefix: of the environment variables that come on top; empty: none do.

    Raises:
        ConfigError: something is wrong in it.
    """
    config = Config(FileSource(conf), EnvSource(f"{prefix}_", environ=None if prefix else {}))
    await config.load()
    return config


def written(tree: Plain, path: tuple[str, ...] = ()) -> Iterator[Written]:
    """The single values of a configuration.

    >>> [(one.path, one.value) for one in written({"a": {"b": [1, 2]}})]
    [('a.b', 1), ('a.b', 2)]
    """
    if isinstance(tree, dict):
        for key, below in tree.items():
            yield from written(below, (*path, key))
    elif isinstance(tree, list):
        for below in tree:
            yield from written(below, path)
    else:
        yield Written(".".join(path), tree)


def etcd_endpoints(config: Config) -> list[str]:
    """What stands at ``registry.etcd.endpoints``: a list, or text with commas."""
    found = config.find("registry.etcd.endpoints")
    return [
        part.strip()
        for one in written(found.raw if found else [])
        if isinstance(one.value, str)
        for part in one.value.split(",")
        if part.strip()
    ]


def where(config: Config, path: str) -> str:
    """A key and the place it was written at, ``server.grpc.addr in configs/config.yaml:3``."""
    found = config.find(path)  # nothing for a key that has dots itself
    return f"{path} in {found.origin}" if found is not None else path


async def overrides(service: Service, etcd: str) -> dict[str, str]:
    """Variables that lead a service to another etcd than the one its configuration names.

    Every value that names the usual or the configured etcd is replaced, so that targets such as
    ``discovery://127.0.0.1:2379/dtmservice`` follow.

    Args:
        service: reads variables that begin with its name, ``TRANS_`` for ``trans``.
        etcd: ``host:port,…``.

    Raises:
        ConfigError: its configuration cannot be read.
    """
    variables = {"ETCD_ENDPOINTS": etcd}
    if service.conf is None:
        return variables
    config = await read_conf(service.conf)
    known = [*dict.fromkeys([*etcd_endpoints(config), *USUAL_ETCD])]
    if known[0] == etcd:
        return variables
    named = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, known))})(?!\d)")
    values: dict[str, list[str]] = {}
    for one in written(config.value("").raw):
        values.setdefault(one.path, []).append("" if one.value is None else str(one.value))
    for path, texts in values.items():
        led = [named.sub(etcd, text) for text in texts]
        name = f"{service.environment_prefix}_{variable_name(tuple(path.split('.')))}"
        if led != texts and name not in os.environ:
            variables[name] = ",".join(dict.fromkeys(led))
    return variables
