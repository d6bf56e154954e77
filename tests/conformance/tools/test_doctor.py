"""``kit doctor``: each failure provoked on real servers, files and interpreters."""

import asyncio
import json
import os
import shutil
import socket
import ssl
import sys
import venv
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib import metadata
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kit.cli.doctor_certs import Pair, check_ca, check_pair
from kit.cli.doctor_ports import check_port
from kit.cli.doctor_python import check_python
from kit.cli.doctor_report import Finding
from kit.cli.doctor_servers import (
    check_coordinator,
    check_etcd,
    check_registration,
    check_target,
)
from kit.etcd import EtcdClient, EtcdOptions
from kit.ports import free_port
from kit.registry import ServiceInstance
from kit.registry.etcd import EtcdRegistry
from kit.testing import Coordinator
from kit.testing.etcd import EtcdServer, etcd_server
from tests.conformance.tools.conftest import Tools
from tests.conformance.tools.services import single

NOWHERE = "configs/config.yaml:1"
NOBODY = frozenset[int]()


def failure(findings: list[Finding] | Finding, check: str) -> str:
    """The text of the one failure, which is of ``check``."""
    found = findings if isinstance(findings, list) else [findings]
    (one,) = (each for each in found if each.state == "failed")
    assert one.check == check
    return one.text


def all_good(findings: list[Finding] | Finding) -> bool:
    found = findings if isinstance(findings, list) else [findings]
    return bool(found) and all(each.state == "ok" for each in found)


@contextmanager
def listening() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@asynccontextmanager
async def http_server(reply: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Answers everything with ``reply``; gives its port."""

    talks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.read(65_536):  # else it only knocked
                writer.write(reply)
            await writer.drain()
        except OSError:
            pass  # it has what it wanted
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.create_task(answer(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def reply(body: bytes = b"", status: str = "200 OK", date: datetime | None = None) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    if date:
        head += f"Date: {format_datetime(date, usegmt=True)}\r\n"
    return head.encode() + b"\r\n" + body


async def test_a_healthy_place_is_all_good(tools: Tools, tmp_path: Path, etcd: EtcdServer) -> None:
    """Exit 0, and as JSON the same findings."""
    folder = single(tmp_path / "hello")
    port = free_port()
    with (folder / "configs" / "config.yaml").open("a") as config:
        config.write(f"registry: {{etcd: {{endpoints: ['{etcd.endpoint}']}}}}\n")
        config.write(f"server: {{grpc: {{addr: '127.0.0.1:{port}'}}}}\n")
    async with Coordinator() as coordinator:
        arguments = ("doctor", "--coordinator", coordinator.http_url)
        status, said = await tools.said(folder, *arguments, "-json")
    assert status == 0, said
    answer = json.loads(said)
    assert answer["ok"] is True
    found = {(one["check"], one["state"]) for one in answer["findings"]}
    wanted = {"python", "packages", "etcd", "clock", "port", "coordinator"}
    assert {check for check, state in found if state == "ok"} == wanted
    assert ("registration", "skipped") in found  # it does not run


async def test_failures_are_a_sentence_each_and_exit_1(tools: Tools, tmp_path: Path) -> None:
    """With the key and the line of the configuration that named what failed."""
    folder = single(tmp_path / "hello")
    config = folder / "configs" / "config.yaml"
    closed = free_port()
    with listening() as taken:
        config.write_text(
            "server:\n"
            f"  grpc: {{addr: '127.0.0.1:{taken}'}}\n"
            f"registry: {{etcd: {{endpoints: '127.0.0.1:{closed}'}}}}\n"
            "bank: discovery:///bank\n"
        )
        status, said = await tools.said(folder, "doctor", "--service", "other")
    assert status == 1
    lines = said.splitlines()
    assert (f"failed  port          127.0.0.1:{taken}: is taken by process {os.getpid()} (") in said
    assert f"write another port at server.grpc.addr in {config}:2" in said
    assert f"nobody listens at 127.0.0.1:{closed}; start it" in said
    assert f"registry.etcd.endpoints in {config}:3 names this one" in said
    assert "failed  target        discovery:///bank: bank cannot be looked up" in said
    assert "failed  registration  other: cannot be looked up: no etcd answers" in said
    assert lines[-1].startswith("4 of ")
    config.write_text("server: {grpc: {addr: [}}\n")
    status, said = await tools.said(folder, "doctor")
    assert status == 1
    assert f"failed  config        hello: {config}:1" in said


async def test_bad_usage_is_one_line_and_exit_2(tools: Tools, tmp_path: Path) -> None:
    """Nothing is looked at."""
    for arguments in (
        ("--target", "bank"),
        ("--etcd", "ftp://x"),
        ("--conf", "absent.yaml"),
        ("nowhere",),
    ):
        status, said = await tools.said(tmp_path, "doctor", *arguments)
        assert (status, len(said.splitlines())) == (2, 1), said
        assert said.startswith("kit doctor: ")


async def test_an_etcd_that_hangs_or_refuses_is_told_apart() -> None:
    """From one that is not there, and from one that has the user but not the permission."""
    async with etcd_server(auth=("kit", "secret")) as server:
        right = EtcdOptions((server.endpoint,), "kit", "secret")
        assert all_good(await check_etcd(right, NOWHERE))
        wrong = EtcdOptions((server.endpoint,), "kit", "guess")
        assert "wrong user or password" in failure(await check_etcd(wrong, NOWHERE), "etcd")
        nobody = EtcdOptions((server.endpoint,))
        assert "wants a user and a password" in failure(await check_etcd(nobody, NOWHERE), "etcd")
        server.freeze()
        assert "does not answer a read" in failure(await check_etcd(right, NOWHERE), "etcd")
        server.kill()
        assert "nobody listens" in failure(await check_etcd(right, NOWHERE), "etcd")


async def test_an_announcement_of_a_dead_process_is_found(etcd: EtcdServer) -> None:
    """And a service that has to be announced and is not."""
    options = EtcdOptions.of(etcd.endpoint)
    with listening() as alive:
        async with EtcdRegistry(options) as registry, EtcdClient(options) as client:
            here = ServiceInstance("one", "bank", endpoints=(f"grpc://127.0.0.1:{alive}",))
            await registry.register(here)
            findings, _ = await check_registration(options, "bank", wanted=True)
            assert all_good(findings)
            dead = f'{{"id":"two","name":"bank","endpoints":["grpc://127.0.0.1:{free_port()}"]}}'
            await client.put("/microservices/bank/two", dead)
            findings, _ = await check_registration(options, "bank", wanted=True)
            assert "two is announced at" in failure(findings, "registration")
            await client.delete("/microservices/bank/two")
            await registry.deregister(here)
    findings, _ = await check_registration(options, "bank", wanted=True)
    assert failure(findings, "registration") == "is not announced; start it, kit run bank"


@pytest.mark.usefixtures("engine")
async def test_a_coordinator_is_pinged_and_its_clock_compared() -> None:
    """Whoever stands between and says another time is a clock that is off."""
    async with Coordinator() as coordinator:
        assert all_good(await check_coordinator(coordinator.http_url))
        assert all_good(await check_coordinator(coordinator.grpc_address))
    why = failure(await check_coordinator(coordinator.http_url), "coordinator")
    assert "nobody listens" in why
    now = datetime.now(UTC)
    for ahead, words in ((60, "ahead of this machine"), (-60, "behind this machine")):
        pong = reply(b'{"msg":"pong","version":"v1"}', date=now + timedelta(seconds=ahead))
        async with http_server(pong) as port:
            why = failure(await check_coordinator(f"http://127.0.0.1:{port}"), "clock")
            assert words in why
            assert "NTP" in why
    async with http_server(reply(b"no", "404 Not Found")) as port:
        why = failure(await check_coordinator(f"http://127.0.0.1:{port}"), "coordinator")
        assert "404 Not Found to /api/ping, as no coordinator does" in why


async def test_ports_say_who_has_them(tmp_path: Path) -> None:
    """The service itself may have them: by its folder, or because the registry says so."""
    with listening() as port:
        address = f"127.0.0.1:{port}"
        why = failure(check_port(address, NOWHERE, tmp_path, NOBODY), "port")
        assert f"is taken by process {os.getpid()} (" in why
        assert all_good(check_port(address, NOWHERE, tmp_path, frozenset({port})))
        assert all_good(check_port(address, NOWHERE, Path.cwd(), NOBODY))
    assert all_good(check_port(address, NOWHERE, tmp_path, NOBODY))
    elsewhere = failure(check_port("192.0.2.1:9000", NOWHERE, tmp_path, NOBODY), "port")
    assert "is no address of this machine" in elsewhere
    assert NOWHERE in failure(check_port("9000", NOWHERE, tmp_path, NOBODY), "port")


def issued(folder: Path, ca: trustme.CA, *names: str, days: int = 100, key: str = "") -> Pair:
    """A certificate in ``folder`` and its key, or that of another one."""
    cert = ca.issue_cert(*names, not_after=datetime.now(UTC) + timedelta(days=days))
    stem = f"{names[0]}-{days}"
    cert.cert_chain_pems[0].write_to_path(folder / f"{stem}.pem")
    cert.private_key_pem.write_to_path(folder / f"{stem}.key")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    return Pair(
        f"server.grpc.tls in {NOWHERE}",
        folder / f"{stem}.pem",
        folder / (key or f"{stem}.key"),
        folder / "ca.pem",
        ("127.0.0.1",),
    )


def test_certificates_are_judged_as_peers_do(tmp_path: Path) -> None:
    """End, names, key, authority and form, each with its own sentence."""
    ca, other = trustme.CA(), trustme.CA()
    good = issued(tmp_path, ca, "127.0.0.1")
    assert all_good(check_pair(good))
    assert all_good(check_ca(tmp_path / "ca.pem", NOWHERE))
    soon = check_pair(issued(tmp_path, ca, "127.0.0.1", days=5))
    assert all_good(soon)
    assert "renew it soon" in soon.text
    ended = failure(check_pair(issued(tmp_path, ca, "127.0.0.1", days=-1)), "certificate")
    assert ended.startswith("has ended; renew it")
    names = failure(check_pair(issued(tmp_path, ca, "bank")), "certificate")
    assert names.startswith("is not for 127.0.0.1, which its peers connect to")
    mixed = failure(
        check_pair(issued(tmp_path, ca, "127.0.0.1", key="bank-100.key")), "certificate"
    )
    assert "is the key of another certificate" in mixed
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    foreign = Pair(good.where, good.cert, good.key, tmp_path / "other.pem", good.hosts)
    assert "is not from" in failure(check_pair(foreign), "certificate")
    absent = Pair(good.where, tmp_path / "absent.pem", good.key)
    assert "No such file" in failure(check_pair(absent), "certificate")
    (tmp_path / "text.pem").write_text("hello")
    text = Pair(good.where, good.cert, tmp_path / "text.pem")
    assert "not in PEM form" in failure(check_pair(text), "certificate")
    assert "no certificate in PEM form" in failure(
        check_ca(tmp_path / "text.pem", NOWHERE), "certificate"
    )


async def test_targets_are_reached_or_it_is_said_why(tmp_path: Path) -> None:
    """Over HTTP, TLS and gRPC."""
    ca = trustme.CA()
    pair = issued(tmp_path, ca, "127.0.0.1")
    wrong = issued(tmp_path, ca, "bank")

    async def ask(target: str, authority: Path | None = None) -> Finding:
        return await check_target(target, "--target", None, authority)

    async with http_server(reply(status="404 Not Found")) as port:
        assert (await ask(f"http://127.0.0.1:{port}/x")).text == "answers 404 Not Found"
        plain = failure(await ask(f"https://127.0.0.1:{port}"), "target")
        assert "does not speak TLS as we do" in plain
        strange = failure(await ask(f"grpc://127.0.0.1:{port}"), "target")
        assert "does not speak gRPC as we do; is it an HTTP port" in strange
    async with http_server(reply(status="503 Service Unavailable")) as port:
        assert "503" in failure(await ask(f"http://127.0.0.1:{port}"), "target")
    for shown, words in ((pair, ""), (wrong, "its certificate is not for 127.0.0.1")):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown.cert, shown.key)
        async with http_server(reply(), context) as port:
            finding = await ask(f"https://127.0.0.1:{port}", pair.ca)
            assert words in finding.text
            assert all_good(finding) is not bool(words)
            untrusted = failure(await ask(f"https://127.0.0.1:{port}"), "target")
            assert "its certificate is not trusted" in untrusted
    assert "there is no address for" in failure(await ask("grpc://bank.invalid:9000"), "target")
    assert "no registry is configured" in failure(await ask("discovery:///bank"), "target")
    with listening() as port:
        assert all_good(await ask(f"postgres://user:secret@127.0.0.1:{port}/bank"))
    away = await ask(f"postgres://user:secret@127.0.0.1:{port}/bank")
    assert "nobody listens" in failure(away, "target")
    assert "secret" not in f"{away.subject} {away.text}"


async def test_a_grpc_server_that_is_not_serving_is_a_failure() -> None:
    """One without a health check is reached all the same."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await server.start()
    target = f"grpc://127.0.0.1:{port}"
    assert all_good(await check_target(target, "--target", None, None))
    await servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    why = failure(await check_target(target, "--target", None, None), "target")
    assert "says NOT_SERVING" in why
    await server.stop(None)
    bare = grpc.aio.server()
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    finding = await check_target(f"grpc://127.0.0.1:{port}", "--target", None, None)
    assert finding.text == "answers, without a health check"
    await bare.stop(None)


def copy_metadata(name: str, site: Path) -> None:
    """Make a distribution of ours look installed in ``site``, without its code."""
    here = Path(str(metadata.distribution(name).locate_file("")))
    (info,) = here.glob(f"{name}-*.dist-info")
    shutil.copytree(info, site / info.name)


async def test_the_interpreter_of_the_project_is_what_counts(tmp_path: Path) -> None:
    """Too old for the project, without kit, without kit's packages, or no Python at all."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nrequires-python = ">=3.99"\n')
    findings = await check_python(sys.executable, tmp_path, {})
    why = failure(findings, "python")
    assert (
        f"is Python {sys.version.split()[0]}, and {tmp_path / 'pyproject.toml'} needs >=3.99" in why
    )

    await asyncio.to_thread(venv.create, tmp_path / ".venv", symlinks=True)
    python = str(tmp_path / ".venv" / "bin" / "python")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    bare = failure(await check_python(python, elsewhere, {}), "packages")
    assert bare.startswith(f"kit is not installed for {python}")

    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = tmp_path / ".venv" / "lib" / version / "site-packages"
    copy_metadata("kit", site)
    (site / "click-0.1.dist-info").mkdir()
    (site / "click-0.1.dist-info" / "METADATA").write_text("Name: click\nVersion: 0.1\n")
    findings = await check_python(python, elsewhere, {"postgres": "Store.Driver in x.yaml:3"})
    texts = {one.subject: one.text for one in findings if one.state == "failed"}
    assert "click is 0.1, not click>=8.1" in texts["kit"]
    assert "grpcio is not installed" in texts["kit"]
    assert texts["kit[postgres]"] == (
        "asyncpg is not installed, and Store.Driver in x.yaml:3 needs it;"
        " pip install 'kit[postgres]'"
    )

    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'SyntaxError: old' >&2\nexit 1\n")
    broken.chmod(0o755)
    why = failure(await check_python(str(broken), elsewhere, {}), "python")
    assert why.startswith("does not work: SyntaxError: old; install Python 3.11 or newer")
    why = failure(await check_python(str(tmp_path / "absent"), elsewhere, {}), "python")
    assert "cannot be run: No such file" in why
