"""Configuration in a real etcd."""

import asyncio

import pytest
from pydantic import BaseModel

from kit.config import Config, ConfigError
from kit.config.etcd import EtcdSource
from kit.etcd import EtcdClient, EtcdOptions
from kit.testing.etcd import EtcdServer, etcd_server

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Settings(BaseModel):
    addr: str
    timeout: int = 1


async def test_a_key_is_read_in_the_form_its_name_says(etcd: EtcdServer) -> None:
    """YAML and TOML below a prefix are merged in the order of their keys."""
    async with EtcdClient(EtcdOptions((etcd.endpoint,))) as client:
        await client.put("/config/one/a.yaml", "addr: h:1\ntimeout: 2")
        await client.put("/config/one/b.toml", "timeout = 3")
    async with EtcdSource([etcd.endpoint], "/config/one/", prefix=True) as source:
        config = Config(source)
        await config.load()
        assert config.scan(Settings) == Settings(addr="h:1", timeout=3)


async def test_what_is_wrong_names_the_key_and_the_line(etcd: EtcdServer) -> None:
    """A wrong value, and a key that does not exist."""
    async with EtcdClient(EtcdOptions((etcd.endpoint,))) as client:
        await client.put("/config/two.yaml", "addr: h:1\ntimeout: soon")
    async with EtcdSource([etcd.endpoint], "/config/two.yaml") as source:
        config = Config(source)
        await config.load()
        with pytest.raises(ConfigError, match=r"etcd /config/two.yaml:2: timeout: .*soon"):
            config.scan(Settings)
    async with EtcdSource([etcd.endpoint], "/config/three.yaml") as source:
        with pytest.raises(ConfigError, match="no such key"):
            await Config(source).load()


async def test_an_observer_hears_of_a_change(etcd: EtcdServer) -> None:
    """A put while the configuration is watched arrives; the same text again does not."""
    async with EtcdClient(EtcdOptions((etcd.endpoint,))) as client:
        await client.put("/config/four.yaml", "addr: h:1")
        async with EtcdSource([etcd.endpoint], "/config/four.yaml") as source:
            config = Config(source)
            await config.load()
            heard: asyncio.Queue[object] = asyncio.Queue()
            config.watch("addr", lambda _, value: heard.put_nowait(value and value.raw))
            async with config.watching(), asyncio.timeout(10):
                await client.put("/config/four.yaml", "addr: h:2")
                assert await heard.get() == "h:2"
            assert heard.empty()


async def test_a_change_during_an_outage_is_heard() -> None:
    """Whether etcd goes away while it is watched or is away when the watch begins."""
    async with etcd_server() as server, EtcdClient(server.endpoint) as client:
        await client.put("/five.yaml", "addr: h:1")
        async with EtcdSource(server.endpoint, "/five.yaml") as source:
            async with source.watch() as changes, asyncio.timeout(10):
                await client.put("/five.yaml", "addr: h:2")
                await anext(changes)
                server.kill()
                await server.start()
                await client.put("/five.yaml", "addr: h:3")
                await anext(changes)
            server.kill()
            async with source.watch() as changes, asyncio.timeout(10):
                await server.start()
                await client.put("/five.yaml", "addr: h:4")
                await anext(changes)
            assert [item.value for item in await source.load()] == [b"addr: h:4"]


async def test_an_etcd_that_is_not_there_is_named() -> None:
    """Loading fails with the address; nothing waits for ever."""
    async with EtcdSource(EtcdOptions(("127.0.0.1:1",), timeout=0.5), "/x.yaml") as source:
        with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1"):
            await source.load()
