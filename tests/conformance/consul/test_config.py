"""Configuration in a real Consul."""

import asyncio
from collections.abc import Callable

import pytest
from pydantic import BaseModel

from kit.config import Config, ConfigError, ConsulSource
from kit.consul import ConsulClient, ConsulOptions
from kit.testing.consul import ConsulServer

from .conftest import eventually


class Settings(BaseModel):
    addr: str
    timeout: int = 1


async def put(client: ConsulClient, key: str, text: str) -> None:
    await client.put("kv", key, body=text.encode())


async def test_a_folder_is_read_in_the_forms_its_names_say(
    consul: ConsulServer, client: ConsulClient
) -> None:
    """Merged in the order of the keys; what only begins alike is not in it, nor is the folder."""
    await put(client, "one/a.yaml", "addr: h:1\ntimeout: 2")
    await put(client, "one/b.toml", "timeout = 3")
    await put(client, "one/", "")
    await put(client, "one-more/c.yaml", "timeout: 4")
    async with ConsulSource(consul.address, "/one/") as source:
        config = Config(source)
        await config.load()
        assert config.scan(Settings) == Settings(addr="h:1", timeout=3)
        assert [item.key for item in await source.load()] == ["a.yaml", "b.toml"]


async def test_a_key_is_read_alone(consul: ConsulServer, client: ConsulClient) -> None:
    """Its neighbours that begin alike are not."""
    await put(client, "app/trans.yaml", "addr: h:1")
    await put(client, "app/trans.yaml.bak", "addr: h:2")
    async with ConsulSource(consul.address, "app/trans.yaml") as source:
        (item,) = await source.load()
    assert (item.key, item.format, item.origin) == (
        "trans.yaml",
        "yaml",
        "consul app/trans.yaml",
    )


async def test_what_is_wrong_names_the_key_and_the_line(
    consul: ConsulServer, client: ConsulClient
) -> None:
    """A wrong value, a key that does not exist, and nobody there."""
    await put(client, "two.yaml", "addr: h:1\ntimeout: soon")
    async with ConsulSource(consul.address, "two.yaml") as source:
        config = Config(source)
        await config.load()
        with pytest.raises(ConfigError, match=r"consul two.yaml:2: timeout: .*soon"):
            config.scan(Settings)
    async with ConsulSource(consul.address, "three.yaml") as source:
        with pytest.raises(ConfigError, match=r"consul three\.yaml: there is no such key"):
            await Config(source).load()
    async with ConsulSource("127.0.0.1:1", "three.yaml") as source:
        with pytest.raises(ConfigError, match=r"consul three\.yaml: consul at 127\.0\.0\.1:1: "):
            await Config(source).load()
    with pytest.raises(ValueError, match="path is empty"):
        ConsulSource(consul.address, "/")


async def test_an_observer_hears_of_a_change(consul: ConsulServer, client: ConsulClient) -> None:
    """A put while the configuration is watched arrives; nonsense does not, and is logged."""
    await put(client, "four/a.yaml", "addr: h:1")
    async with ConsulSource(consul.address, "four") as source:
        config = Config(source)
        await config.load()
        config.scan(Settings)
        heard: asyncio.Queue[object] = asyncio.Queue()
        config.watch("addr", lambda _, value: heard.put_nowait(value and value.raw))
        async with config.watching(), asyncio.timeout(20):
            await put(client, "four/a.yaml", "addr: h:2")
            assert await heard.get() == "h:2"
            await put(client, "four/b.yaml", "addr: h:3")
            assert await heard.get() == "h:3"
            await client.delete("kv", "four/b.yaml")
            assert await heard.get() == "h:2"
        assert heard.empty()


async def test_a_wrong_or_deleted_key_leaves_the_old_configuration(
    consul: ConsulServer, client: ConsulClient, lines: Callable[[], list[str]]
) -> None:
    """And the log says which, with its line."""
    await put(client, "five.yaml", "addr: h:1")
    async with ConsulSource(consul.address, "five.yaml") as source:
        config = Config(source)
        await config.load()
        config.scan(Settings)

        async def look() -> str:
            return "\n".join(lines())

        async with config.watching():
            await put(client, "five.yaml", "addr: h:2\ntimeout: [")
            await eventually(look, lambda text: "the old one stays: consul five.yaml:" in text)
            await client.delete("kv", "five.yaml")
            await eventually(look, lambda text: "there is no such key" in text)
            assert config.value("addr").raw == "h:1"
            await put(client, "five.yaml", "addr: h:9")
            await eventually(look, lambda text: "config is right again" in text)
        assert config.value("addr").raw == "h:9"


async def test_changes_made_while_consul_was_away_arrive(
    own_consul: ConsulServer, client: ConsulClient, lines: Callable[[], list[str]]
) -> None:
    """One line when it goes, one when it is back."""
    await put(client, "six.yaml", "addr: h:1")
    options = ConsulOptions(own_consul.address, timeout=1.0)
    async with ConsulSource(options, "six.yaml") as source:
        config = Config(source)
        await config.load()
        heard: asyncio.Queue[object] = asyncio.Queue()
        config.watch("addr", lambda _, value: heard.put_nowait(value and value.raw))

        async def look() -> str:
            return "\n".join(lines())

        async with config.watching(), asyncio.timeout(30):
            await eventually(look, lambda text: "config loaded: six.yaml" in text)
            own_consul.kill()
            await eventually(look, lambda text: "config: six.yaml interrupted: " in text)
            await own_consul.start()
            await put(client, "six.yaml", "addr: h:2")
            assert await heard.get() == "h:2"
            await eventually(look, lambda text: "config: six.yaml restored after " in text)
