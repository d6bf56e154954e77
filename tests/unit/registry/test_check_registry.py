"""The contract suite finds registries that break the contract."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from kit.registry import Discovery, Registrar, ServiceInstance
from kit.registry.memory import MemoryRegistry
from kit.testing.registry import check_registry


class Forgetful(MemoryRegistry):
    """Drops the version."""

    async def register(self, instance: ServiceInstance) -> None:
        await super().register(replace(instance, version=""))


class Unordered(MemoryRegistry):
    """Gives the instances the wrong way round."""

    async def get_service(self, name: str) -> list[ServiceInstance]:
        return (await super().get_service(name))[::-1]


class Nosy(MemoryRegistry):
    """Looks up by prefix, as a plain etcd range does."""

    async def get_service(self, name: str) -> list[ServiceInstance]:
        names = sorted({known for known, _ in self._values if known.startswith(name)})
        return [instance for known in names for instance in self._instances(known)]


class Deaf(MemoryRegistry):
    """Watches that stay at the first list."""

    def _tell(self, name: str) -> None:
        pass


class Repeating(MemoryRegistry):
    """Tells watchers of a change what they know already."""

    def _tell(self, name: str) -> None:
        for changes in self._watchers:
            changes._seen = None
        super()._tell(name)


class Overhearing(MemoryRegistry):
    """Wakes who watches another name."""

    def _tell(self, name: str) -> None:
        super()._tell(name)
        for changes, watched in self._watchers.items():
            if name != watched and name.startswith(watched):
                changes._seen = None
                changes.offer(self._instances(watched))


class Sticky(MemoryRegistry):
    """Never takes anything back."""

    async def deregister(self, instance: ServiceInstance) -> None:
        pass


BROKEN = {
    Forgetful: "what is registered is found as it was",
    Unordered: "nothing and empty differ in metadata",
    Nosy: "names that begin alike are strangers",
    Sticky: "deregistering takes back one instance",
    Deaf: "a watch tells of each change",
    Repeating: "equal lists are not repeated",
    Overhearing: "a neighbour wakes nobody",
}


@pytest.mark.parametrize(("broken", "check"), BROKEN.items())
async def test_a_broken_registry_does_not_pass(
    broken: type[MemoryRegistry], check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each breaks one promise; a check that waits for what never comes counts as broken."""
    monkeypatch.setattr("kit.testing.registry._CHECK_WITHIN", 2.0)

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Registrar, Discovery]]:
        registry = broken()
        yield registry, registry

    with pytest.raises((AssertionError, TimeoutError)) as caught:
        await check_registry(make)
    assert caught.value.__notes__ == [f"check_registry: {check}"]
