"""Clients without a registry: fixed lists, and names with several addresses, over real sockets."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from kit.registry import RegistryUnavailable
from kit.transport import dns
from kit.transport.grpc import ClientTls, GrpcClient
from kit.transport.http import HttpClient

CALLS = 20
ENGINES = ["grpcio", "lean"]


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ``trans.kit`` resolves to; the test changes it. Looked up ten times a second."""
    found: list[str] = []

    async def lookup(host: str, port: int) -> Sequence[str]:
        assert host == "trans.kit"
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return list(found)

    monkeypatch.setattr(dns, "_system_lookup", lookup)
    monkeypatch.setattr(dns.DnsDiscovery.__init__, "__kwdefaults__", {
        "every": 0.1, "lookup": None, "clock": None,
    })  # fmt: skip
    return found


class Handlers(grpc.GenericRpcHandler):
    def __init__(self, name: bytes) -> None:
        self._name = name

    def service(self, details: Any) -> Any:
        if not details.method.startswith("/a.B/"):
            return None  # no health service above all

        async def answer(_request: bytes, _context: Any) -> bytes:
            return self._name

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def grpc_server(host: str, port: int = 0, credentials: Any = None) -> AsyncIterator[int]:
    """A plain grpc.aio server that answers with its host."""
    server = grpc.aio.server(handlers=[Handlers(host.encode())], options=[("grpc.so_reuseport", 0)])
    if credentials is None:
        bound = server.add_insecure_port(f"{host}:{port}")
    else:
        bound = server.add_secure_port(f"{host}:{port}", credentials)
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(None)


async def asked(client: GrpcClient, calls: int = CALLS) -> set[bytes]:
    return {await client.unary("/a.B/C", b"", timeout=10) for _ in range(calls)}


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_fixed_list_is_balanced_and_survives_the_loss_of_a_server(engine: Any) -> None:
    """Both spellings; an address that nobody listens on costs no call."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(grpc_server("127.0.0.1"))
        second = AsyncExitStack()
        port = await second.enter_async_context(grpc_server("127.0.0.2"))
        target = f"static:///127.0.0.1:{first},127.0.0.2:{port}"
        client = await stack.enter_async_context(GrpcClient(target, engine=engine))
        assert await asked(client) == {b"127.0.0.1", b"127.0.0.2"}
        await second.aclose()
        assert await asked(client) == {b"127.0.0.1"}


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_address_of_a_name_is_called_and_new_ones_are_found(
    engine: Any, addresses: list[str]
) -> None:
    """No call fails while addresses come and go, nor when the name is gone for a while."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(grpc_server("127.0.0.1"))
        await stack.enter_async_context(grpc_server("127.0.0.2", port))
        addresses[:] = ["127.0.0.1"]
        client = await stack.enter_async_context(
            GrpcClient(f"dns:///trans.kit:{port}", engine=engine)
        )
        assert await asked(client) == {b"127.0.0.1"}
        addresses[:] = ["127.0.0.1", "127.0.0.2"]
        async with asyncio.timeout(10):
            while len(await asked(client, 2)) < 2:
                pass
        addresses[:] = ["127.0.0.2"]
        async with asyncio.timeout(10):
            while await asked(client, 2) != {b"127.0.0.2"}:
                pass
        addresses.clear()
        assert await asked(client) == {b"127.0.0.2"}


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_system_is_asked_for_names(engine: Any) -> None:
    """``localhost`` is often two addresses of which one has a listener."""
    async with (
        grpc_server("127.0.0.1") as port,
        GrpcClient(f"dns:///localhost:{port}", engine=engine) as client,
    ):
        assert await asked(client) == {b"127.0.0.1"}


async def test_a_name_that_does_not_exist_is_said(addresses: list[str]) -> None:
    """With the name and the reason, within the timeout of the call."""
    assert addresses == []
    async with (
        GrpcClient("dns:///trans.kit:1", timeout=3.0) as grpc_client,
        HttpClient("dns:///trans.kit:1", timeout=3.0) as http_client,
    ):
        for call in (grpc_client.unary("/a.B/C", b""), http_client.request("GET", "/x")):
            with pytest.raises(RegistryUnavailable) as caught:
                await call
            assert "DNS (trans.kit: Name or service not known)" in caught.value.message


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_certificate_has_to_be_for_the_name(engine: Any, addresses: list[str]) -> None:
    """Not for the address that it resolved to."""
    authority = trustme.CA()
    ca = authority.cert_pem.bytes()

    def credentials(name: str) -> Any:
        leaf = authority.issue_cert(name)
        chain = leaf.cert_chain_pems[0].bytes()
        return grpc.ssl_server_credentials([(leaf.private_key_pem.bytes(), chain)])

    addresses[:] = ["127.0.0.1"]
    for name, right in (("trans.kit", True), ("other.kit", False)):
        async with (
            grpc_server("127.0.0.1", credentials=credentials(name)) as port,
            GrpcClient(f"dns:///trans.kit:{port}", tls=ClientTls(ca=ca), engine=engine) as client,
        ):
            if right:
                assert await asked(client, 2) == {b"127.0.0.1"}
            else:
                with pytest.raises(
                    Exception, match=r"(?i)certificate|handshake|peer name|Hostname"
                ):
                    await client.unary("/a.B/C", b"", timeout=5)


@asynccontextmanager
async def http_server(
    host: str, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Answers with its address and the Host that it was asked for."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        wanted = next(line for line in head.splitlines() if line.lower().startswith("host:"))
        body = f"{host} {wanted.partition(':')[2].strip()}".encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
            % (len(body), body)
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, host, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def test_http_calls_every_address_of_a_name_and_names_it(addresses: list[str]) -> None:
    """``Host`` is the name; an address without a listener costs no call."""
    addresses[:] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    async with (
        http_server("127.0.0.1") as port,
        http_server("127.0.0.2", port),
        HttpClient(f"dns:///trans.kit:{port}", timeout=10) as client,
    ):
        bodies = {(await client.request("GET", "/")).body.decode() for _ in range(CALLS)}
    assert bodies == {f"127.0.0.{last} trans.kit:{port}" for last in (1, 2)}


async def test_https_asks_for_a_certificate_of_the_name(addresses: list[str]) -> None:
    """Server name and check are those of the name."""
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("trans.kit").configure_cert(serving)
    addresses[:] = ["127.0.0.1"]
    async with (
        http_server("127.0.0.1", tls=serving) as port,
        HttpClient(f"https://dns:///trans.kit:{port}", tls=trusting, timeout=10) as client,
    ):
        answer = await client.request("GET", "/")
    assert answer.body.decode() == f"127.0.0.1 trans.kit:{port}"


async def test_http_goes_through_a_fixed_list(addresses: list[str]) -> None:
    """Failover as with a registry."""
    async with (
        http_server("127.0.0.1") as port,
        HttpClient(f"static:///127.0.0.1:{port},127.0.0.3:{port}", timeout=10) as client,
    ):
        for _ in range(6):
            assert (await client.request("GET", "/")).body.startswith(b"127.0.0.1 ")
