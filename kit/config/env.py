"""Configuration from environment variables.

``EnvSource("TRANS_")`` takes ``TRANS_SERVER_GRPC_ADDR`` as ``SERVER_GRPC_ADDR``, which overrides
``server.grpc.addr`` of the sources before it, or sets it when only the model knows that key (see
:mod:`kit.config.names`). A name with dots, ``TRANS_server.grpc.addr``, is a path as it stands. The
text becomes what the model wants: ``true``, ``8``, ``1s``, for lists ``a,b`` or JSON, for mappings
JSON.

Variables that mean no key are no error, an environment has many: they are values for
``${SERVER_NAME:...}`` only.

Source: go-kratos/kratos config/env/env.go (prefixes; there the names stay flat).
"""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from kit.config.source import KeyValue
from kit.config.waiting import never


class EnvSource:
    """The variables that start with one of ``prefixes``, without it and one ``_``.

    Args:
        prefixes: none takes all variables. That suits dtm's configuration, whose names they are;
            beware that ``PATH`` and its like may be keys, too.
        environ: ``os.environ`` at the time of loading by default.
    """

    def __init__(self, *prefixes: str, environ: Mapping[str, str] | None = None) -> None:
        self._prefixes = prefixes or ("",)
        self._environ = environ

    async def load(self) -> Sequence[KeyValue]:
        """The variables as they are now, by name."""
        environ = os.environ if self._environ is None else self._environ
        return [
            KeyValue(
                key=key,
                value=text.encode("utf-8", "surrogateescape"),
                format="" if "." in key else "env",
                origin=f"env {name}",
            )
            for name, text in sorted(environ.items())
            if (key := self._key(name))
        ]

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[None]]:
        """Nothing changes: a process keeps the environment it was started with."""
        yield never()

    def _key(self, name: str) -> str:
        for prefix in self._prefixes:
            if name.startswith(prefix):
                rest = name[len(prefix) :]
                return rest.removeprefix("_") if prefix else rest
        return ""
