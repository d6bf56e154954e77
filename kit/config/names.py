"""Which key the name of an environment variable means.

``SERVER_GRPC_ADDR`` is ``server.grpc.addr`` when there is such a key: words are joined with ``_``,
camel case is split into words (dtm's ``MicroService.EndPoint`` is ``MICRO_SERVICE_END_POINT``). The
keys that exist decide, so ``DATA_REDIS_READ_TIMEOUT`` is ``data.redis.read_timeout`` and nothing
has to be doubled or quoted. Keys of values are meant, not those of whole mappings.

Source: dtm-labs/dtm dtmsvr/config/config_utils.go, toUnderscoreUpper.
"""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from kit.config.tree import Path

T = TypeVar("T")

_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SEPARATORS = re.compile(r"[^A-Z0-9]+")


def variable_name(path: Path) -> str:
    """The name of the variable that means ``path``.

    >>> variable_name(("server", "grpc", "read_timeout"))
    'SERVER_GRPC_READ_TIMEOUT'
    >>> variable_name(("Log", "RotationConfigJSON"))
    'LOG_ROTATION_CONFIG_JSON'
    """
    return "_".join(_SEPARATORS.sub("_", _BOUNDARY.sub("_", key).upper()) for key in path)


def find_key(
    name: str,
    node: T,
    children: Callable[[T], Mapping[str, T] | None],
    *,
    mappings: bool = False,
) -> Path | None:
    """The path below ``node`` that the variable ``name`` means; ``None`` when there is none.

    Args:
        name: without prefix, such as ``SERVER_GRPC_ADDR``.
        node: a tree or a description of one.
        children: what is directly below a node; ``None`` for a value.
        mappings: whether a whole mapping may be meant, too.
    """
    entries = children(node) or {}
    for key in sorted(entries, key=len, reverse=True):  # read_timeout before read
        below, word = entries[key], variable_name((key,))
        if name == word and (mappings or children(below) is None):
            return (key,)
        if word and name.startswith(f"{word}_"):
            rest = find_key(name[len(word) + 1 :], below, children, mappings=mappings)
            if rest is not None:
                return (key, *rest)
    return None
