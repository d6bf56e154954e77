"""The registry inside one process keeps the contract of registries."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kit.registry import Discovery, Registrar, ServiceInstance
from kit.registry.memory import MemoryRegistry
from kit.testing.registry import REGISTRY_CHECKS, RegistryCheck, check_registry


@asynccontextmanager
async def both_ends() -> AsyncIterator[tuple[Registrar, Discovery]]:
    async with MemoryRegistry() as registry:
        yield registry, registry


@pytest.mark.parametrize("check", REGISTRY_CHECKS, ids=lambda check: check.__name__)
async def test_memory_registry_keeps_the_contract(check: RegistryCheck) -> None:
    """Each promise of kit.registry.Registrar and Discovery."""
    await check_registry(both_ends, [check])


async def test_closing_ends_the_watches() -> None:
    """Who waits for the next list is told that there will be none; closing twice is fine."""
    registry = MemoryRegistry()
    async with registry.watch("trans") as lists:
        assert await anext(lists) == []
        await registry.aclose()
        await registry.aclose()
        assert [instances async for instances in lists] == []


async def test_an_instance_is_kept_as_it_was_when_it_was_registered() -> None:
    """A caller who changes its dictionary later changes nothing here."""
    metadata = {"weight": "10"}
    registry = MemoryRegistry()
    await registry.register(ServiceInstance("1", "trans", metadata=metadata))
    metadata["weight"] = "20"
    (found,) = await registry.get_service("trans")
    assert found.metadata == {"weight": "10"}
