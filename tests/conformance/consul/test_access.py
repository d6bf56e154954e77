"""Tokens, TLS, datacenters, and answers that nobody expects."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from kit.consul import (
    ConsulClient,
    ConsulDenied,
    ConsulOptions,
    ConsulRefused,
    ConsulTls,
    ConsulUnavailable,
)
from kit.registry import RegistryUnavailable, ServiceInstance
from kit.registry.consul import Checks, ConsulRegistry
from kit.testing.consul import ConsulServer, ConsulServerTls, consul_server

TOKEN = "5c1c8a3c-0000-4000-8000-6b6974000001"
INSTANCE = ServiceInstance("1", "trans", endpoints=("grpc://10.0.0.5:9000",))
UNLOOKED = Checks(health_check=False)


@pytest.fixture
async def guarded() -> AsyncIterator[ConsulServer]:
    async with consul_server(token=TOKEN) as server:
        yield server


async def test_a_token_opens_what_is_closed_without_it(guarded: ConsulServer) -> None:
    """Who has none is told at once, and sees nobody; the token is in no message."""
    async with ConsulRegistry(f"consul://{guarded.address}?token={TOKEN}") as registry:
        await registry.register(INSTANCE)
        assert await registry.get_service("trans") == [INSTANCE]
        async with asyncio.timeout(15), ConsulRegistry(guarded.address, patience=60) as stranger:
            with pytest.raises(RegistryUnavailable, match=r"trans/2 is not announced") as caught:
                await stranger.register(ServiceInstance("2", "trans"))
            assert isinstance(caught.value.__cause__, ConsulDenied)
            assert "Permission denied" in caught.value.message
        wrong = ConsulOptions(guarded.address, "5c1c8a3c-1111-4000-8000-6b6974000001")
        async with ConsulRegistry(wrong, patience=60) as mistaken:
            with pytest.raises(RegistryUnavailable, match="ACL not found") as caught:
                await mistaken.get_service("trans")
            assert wrong.token not in caught.value.message


async def test_tls_with_a_certificate_of_ours(tmp_path: Path) -> None:
    """The agent shows its certificate and wants one; who has none, or doubts it, gets no answer."""
    authority = trustme.CA()
    files: dict[str, Path] = {}
    for name, leaf in (
        ("server", authority.issue_cert("127.0.0.1")),
        ("client", authority.issue_cert("client.kit")),
    ):
        leaf.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        leaf.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        files |= {name: tmp_path / f"{name}.pem", f"{name}-key": tmp_path / f"{name}.key"}
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca = tmp_path / "ca.pem"
    tls = ConsulServerTls(files["server"], files["server-key"], ca)
    async with consul_server(tls=tls) as server:
        url = (
            f"consul://{server.tls_address}/x?tls=true&caPath={ca}"
            f"&certPath={files['client']}&certKeyPath={files['client-key']}"
        )
        async with ConsulRegistry(url, checks=UNLOOKED) as registry:
            await registry.register(INSTANCE)
            assert await registry.get_service("trans") == [INSTANCE]
        for options in (
            ConsulOptions(server.tls_address, tls=ConsulTls(ca)),
            ConsulOptions(server.tls_address, tls=ConsulTls()),
            ConsulOptions(server.tls_address),
        ):
            async with ConsulRegistry(options) as registry:
                with pytest.raises(RegistryUnavailable, match=f"consul at {server.tls_address}: "):
                    await registry.get_service("trans")


async def test_another_datacenter_is_asked_for(consul: ConsulServer) -> None:
    """There is only one here: the error shows that the question travelled."""
    async with ConsulRegistry(ConsulOptions(consul.address, datacenter="dc1")) as registry:
        assert await registry.get_service("nobody") == []
    async with ConsulRegistry(ConsulOptions(consul.address, datacenter="mars")) as registry:
        with pytest.raises(RegistryUnavailable, match="No path to datacenter"):
            await registry.get_service("nobody")


async def test_what_consul_does_not_take_is_said(consul: ConsulServer) -> None:
    """In its own words."""
    async with ConsulClient(consul.address) as client:
        with pytest.raises(ConsulRefused, match=r"consul at .*: .*Missing service name.*HTTP 400"):
            await client.put("agent", "service", "register", body={"ID": "x"})


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Something that is no Consul; gives its address."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"SSH-2.0-x\r\n\r\n", "400"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://x/\r\ncontent-length: 0\r\n\r\n", "HTTP 302"),
        (b"HTTP/1.1 500 No\r\ncontent-length: 17\r\n\r\nNo cluster leader", "No cluster leader"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n[",
            "the answer is no JSON",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n[",
            "consul at ",
        ),
    ],
    ids=["not HTTP", "redirect", "no leader", "not JSON", "cut off"],
)
async def test_a_strange_answer_is_an_error_that_names_the_address(
    answer: bytes, message: str
) -> None:
    """And never an empty list, which would look like a service that is gone."""
    async with answering(answer) as address, ConsulRegistry(address) as registry:
        with pytest.raises(RegistryUnavailable) as caught:
            await registry.get_service("trans")
        assert message in caught.value.message
        assert f"consul at {address}: " in caught.value.message


async def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory has a limit."""
    monkeypatch.setattr("kit.consul.client.MAX_ANSWER_BYTES", 1000)
    body = b"[" + b" " * 2000 + b"]"
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2002\r\n\r\n" + body
    )
    async with answering(answer) as address, ConsulRegistry(address) as registry:
        with pytest.raises(RegistryUnavailable, match="more than 1000 bytes"):
            await registry.get_service("trans")


async def test_nobody_there_is_said_with_the_address() -> None:
    """A port that nobody listens on."""
    async with ConsulClient("127.0.0.1:1") as client:
        with pytest.raises(ConsulUnavailable, match=r"consul at 127\.0\.0\.1:1: "):
            await client.get("agent", "self")
