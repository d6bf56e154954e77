"""A registry inside one process: for tests, and for programs that need no other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from kit.registry import ServiceInstance
from kit.registry.changes import Changes
from kit.registry.record import decode, encode


class MemoryRegistry:
    """A :class:`~kit.registry.Registrar` and :class:`~kit.registry.Discovery` in a dictionary.

    Instances are kept in the form that they have in etcd, so that what would not survive there
    does not survive here either. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], bytes] = {}  # by name and id
        self._watchers: dict[Changes, str] = {}

    async def __aenter__(self) -> Self:
        """The registry."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Forget everything and end the watches; twice is fine."""
        self._values.clear()
        for changes in self._watchers:
            changes.close()

    async def register(self, instance: ServiceInstance) -> None:
        """See :meth:`kit.registry.Registrar.register`.

        Raises:
            BadRequest: the name is empty, or a field is not text.
        """
        self._values[instance.name, instance.id] = encode(instance)
        self._tell(instance.name)

    async def deregister(self, instance: ServiceInstance) -> None:
        """See :meth:`kit.registry.Registrar.deregister`."""
        if self._values.pop((instance.name, instance.id), None) is not None:
            self._tell(instance.name)

    async def get_service(self, name: str) -> list[ServiceInstance]:
        """See :meth:`kit.registry.Discovery.get_service`."""
        return self._instances(name)

    @asynccontextmanager
    async def watch(self, name: str) -> AsyncIterator[AsyncIterator[list[ServiceInstance]]]:
        """See :meth:`kit.registry.Discovery.watch`."""
        changes = Changes()
        changes.offer(self._instances(name))
        self._watchers[changes] = name
        try:
            yield changes
        finally:
            del self._watchers[changes]

    def _instances(self, name: str) -> list[ServiceInstance]:
        keys = sorted(key for key in self._values if key[0] == name)
        return [decode(self._values[key]) for key in keys]

    def _tell(self, name: str) -> None:
        for changes, watched in self._watchers.items():
            if watched == name:
                changes.offer(self._instances(name))
