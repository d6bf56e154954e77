"""The admin port: what it says, to whom, and that there is nothing else."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

import kit.log
from api.trans.v1 import trans_pb2, trans_pb2_grpc
from kit.app import AdminServer, App
from kit.middleware.metrics import Metrics
from kit.transport.grpc import GrpcServer
from kit.transport.http import HttpServer

SCANNED = (
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/debug/pprof/",
    "/debug/pprof/cmdline",
    "/debug/vars",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/swagger",
    "/q/",
    "/q/swagger-ui",
    "/admin",
    "/status",
    "/health",
    "/server-status",
    "/static/",
    "/favicon.ico",
    "/.git/config",
    "/.env",
    "/actuator",
    "/actuator/env",
    "/api",
    "/v1",
    "/console",
    "/healthz/",
    "/metrics/",
    "/loglevel",
    "//healthz",
    "/healthz/../metrics",
    "/%2e%2e/etc/passwd",
    "/api/metrics",
)
"""What frameworks show by themselves, and ways around a router."""


@asynccontextmanager
async def running(admin: AdminServer) -> AsyncIterator[str]:
    await admin.listen()
    serving = asyncio.create_task(admin.serve())
    try:
        yield admin.url
    finally:
        await admin.stop(0)
        await serving


async def get(url: str, verb: str = "GET") -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.request(verb, url) as reply:
        return reply.status, await reply.text()


async def fine() -> None:
    """A dependency that is there."""


class TestPages:
    async def test_a_process_that_answers_is_healthy(self) -> None:
        async with running(AdminServer(":0")) as url:
            assert await get(f"{url}/healthz") == (200, "ok\n")
            assert await get(f"{url}/healthz?from=kubelet", "HEAD") == (200, "")

    async def test_readiness_names_the_checks_that_fail_and_how(self) -> None:
        async def away() -> None:
            raise ConnectionError("postgres://app:hunter2@db/app refuses us")

        async def hang() -> None:
            await asyncio.Event().wait()

        checks: dict[str, Any] = {"cache": fine, "db": away, "queue": hang}
        async with running(AdminServer(":0", checks=checks, check_timeout=0.05)) as url:
            status, text = await get(f"{url}/readyz")
        assert status == 503
        said = json.loads(text)
        assert said["status"] == "unavailable"
        assert list(said["failed"]) == ["db", "queue"]
        assert said["failed"]["queue"] == "no answer in 0.05 s"
        assert "refuses us" in said["failed"]["db"]
        assert "hunter2" not in text

    async def test_checks_that_pass_are_ready(self) -> None:
        async with running(AdminServer(":0", checks={"db": fine})) as url:
            assert await get(f"{url}/readyz") == (200, '{"status": "ok", "failed": {}}\n')

    async def test_many_probes_ask_a_dependency_once(self) -> None:
        asked: list[int] = []

        async def count() -> None:
            asked.append(1)
            await asyncio.sleep(0.05)

        async with running(AdminServer(":0", checks={"db": count})) as url:
            replies = await asyncio.gather(*(get(f"{url}/readyz") for _ in range(20)))
        assert {status for status, _ in replies} == {200}
        assert len(asked) == 1

    async def test_metrics_are_shown_where_there_are_some(self) -> None:
        metrics = Metrics()
        metrics.watch("queue_length", "Messages that wait.", lambda: 7)
        async with running(AdminServer(":0", metrics=metrics)) as url:
            status, text = await get(f"{url}/metrics")
            assert status == 200
            assert "\nqueue_length 7.0\n" in text
        async with running(AdminServer(":0")) as url:
            assert (await get(f"{url}/metrics"))[0] == 404


class TestReach:
    @pytest.mark.parametrize("address", [":0", "127.0.0.1:0", "localhost:0", "[::1]:0"])
    async def test_it_is_bound_to_loopback(self, address: str) -> None:
        async with running(AdminServer(address)) as url:
            assert urlsplit(url).hostname in {"127.0.0.1", "::1"}

    @pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "10.0.0.1:0", "example.org:0"])
    def test_an_address_that_others_reach_has_to_be_meant(self, address: str) -> None:
        with pytest.raises(ValueError, match="can be reached from other machines"):
            AdminServer(address)

    async def test_meant_it_listens_everywhere(self) -> None:
        async with running(AdminServer("0.0.0.0:0", exposed=True)) as url:
            port = urlsplit(url).port
            assert (await get(f"http://127.0.0.1:{port}/healthz"))[0] == 200

    async def test_a_taken_port_is_named(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
                await AdminServer(f":{port}").listen()


class TestBadClients:
    @pytest.mark.parametrize(
        ("sent", "answer"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 "),
            (b"POST /healthz HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 "),
            (b"GET /healthz\r\n\r\n", b"HTTP/1.1 400 "),
            (b"\x16\x03\x01\r\n\r\n", b"HTTP/1.1 400 "),
            (b"GET /healthz HTTP/1.1\r\nx: " + bytes(20_000) + b"\r\n\r\n", b""),
        ],
    )
    async def test_nonsense_is_refused_and_the_next_one_is_served(
        self, sent: bytes, answer: bytes
    ) -> None:
        async with running(AdminServer(":0")) as url:
            parts = urlsplit(url)
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(sent)
            try:
                assert (await reader.read()).startswith(answer)
            except ConnectionError:
                assert answer == b""
            writer.close()
            assert (await get(f"{url}/healthz"))[0] == 200

    async def test_a_broken_page_is_a_500_without_a_stack(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        class Broken:
            def exposition(self) -> bytes:
                raise LookupError("secret")

        async with running(AdminServer(":0", metrics=Broken())) as url:
            assert await get(f"{url}/metrics") == (500, "see the log\n")
        assert "[admin] /metrics failed" in capsys.readouterr().err


class TestInAnApp:
    async def test_it_is_ready_from_announcement_to_stop_and_never_announced(self) -> None:
        admin = AdminServer(":0")
        seen: list[tuple[str, int]] = []

        def look(when: str) -> Callable[[], Awaitable[None]]:
            async def ask() -> None:
                await asyncio.sleep(0)
                while admin._server is None:  # its task was only begun
                    await asyncio.sleep(0.001)
                seen.append((when, (await get(f"{admin.url}/readyz"))[0]))

            return ask

        async def later() -> None:
            await asyncio.sleep(0.05)
            await look("running")()
            app.stop()

        tasks: list[asyncio.Task[None]] = []

        async def begin() -> None:
            tasks.append(asyncio.create_task(later()))

        app = App(
            name="trans",
            servers=[admin],
            signals=(),
            after_start=[look("starting"), begin],
            before_stop=[look("stopping")],
        )
        await app.run()
        assert seen == [("starting", 503), ("running", 200), ("stopping", 503)]
        assert app.endpoints == ()

    async def test_an_app_one_of_whose_servers_failed_is_not_ready(self) -> None:
        """While the others drain, nobody should send it more."""
        seen: list[bool] = []

        class Broken:
            endpoint = None

            async def listen(self) -> None: ...

            async def serve(self) -> None:
                await started.wait()
                raise LookupError("the queue is gone")

            async def stop(self, grace: float | None = None) -> None: ...

        started = asyncio.Event()

        async def look() -> None:
            seen.append(app.ready)

        async def begin() -> None:
            asyncio.get_running_loop().call_later(0.02, started.set)

        app = App(servers=[Broken()], signals=(), after_start=[begin], before_stop=[look])
        with pytest.raises(LookupError, match="the queue is gone"):
            await app.run()
        assert seen == [False]

    async def test_a_fresh_service_serves_its_declared_routes_and_nothing_else(self) -> None:
        """Every path that frameworks are known to show by themselves is tried on every port."""

        class Trans(trans_pb2_grpc.TransServicer):
            async def TransOut(self, _r: Any, _c: Any) -> trans_pb2.Response:  # noqa: N802
                return trans_pb2.Response()

        async def hello(_request: Any) -> dict[str, str]:
            return {}

        grpc_server = GrpcServer(address="127.0.0.1:0")
        trans_pb2_grpc.add_TransServicer_to_server(Trans(), grpc_server.services)
        http_server = HttpServer(address="127.0.0.1:0")
        http_server.get("/hello/{name}", hello)
        admin = AdminServer(":0", metrics=Metrics())
        found: dict[str, dict[str, int]] = {"http": {}, "admin": {}}

        async def scan() -> None:
            for name, url in (("http", http_server.endpoint), ("admin", admin.url)):
                target = urlsplit(url or "")
                for path in (*SCANNED, "/hello/ann"):
                    reader, writer = await asyncio.open_connection(target.hostname, target.port)
                    writer.write(
                        f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
                    )
                    found[name][path] = int((await reader.read()).split(b" ")[1])
                    writer.close()
            app.stop()

        app = App(servers=[grpc_server, http_server, admin], signals=(), after_start=[scan])
        await app.run()
        served = {
            name: {path for path, status in pages.items() if status == 200}
            for name, pages in found.items()
        }
        assert served == {"http": {"/hello/ann"}, "admin": {"/healthz", "/metrics"}}
        others = {status for pages in found.values() for status in pages.values()} - {200}
        # 503: /readyz of an app that still starts; 301: the router of HTTP cleans paths
        assert others <= {301, 404, 503}
        assert grpc_server._services.names() == [
            "api.trans.v1.Trans",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "kratos.api.Metadata",
        ]


async def put(url: str, body: bytes, host: str | None = None, verb: str = "PUT") -> tuple[int, str]:
    headers = {"Host": host} if host else None
    async with (
        aiohttp.ClientSession() as session,
        session.request(verb, f"{url}/loglevel", data=body, headers=headers) as reply,
    ):
        return reply.status, await reply.text()


@pytest.fixture
def level() -> Iterator[Callable[[], str]]:
    """The level of the log as it is; put back at the end."""
    before = kit.log.get_level()
    yield lambda: kit.log.get_level().name
    kit.log.set_level(before)


class TestLogLevel:
    async def test_it_is_shown_and_changed_in_zaps_form(
        self, level: Callable[[], str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """And the log says who did it."""
        async with running(AdminServer(":0", log_level=True)) as url:
            assert await get(f"{url}/loglevel") == (200, '{"level":"info"}\n')
            assert await put(url, b'{"level":"debug"}') == (200, '{"level":"debug"}\n')
            assert level() == "DEBUG"
            assert await put(url, b'{"level":"ERROR"}') == (200, '{"level":"error"}\n')
            assert level() == "ERROR"
        lines = capsys.readouterr().err.splitlines()
        assert "WARN msg=log level debug, was info: [admin] PUT /loglevel" in lines
        assert "WARN msg=log level error, was debug: [admin] PUT /loglevel" in lines

    async def test_it_is_not_there_unless_asked_for(self, level: Callable[[], str]) -> None:
        async with running(AdminServer(":0")) as url:
            assert (await get(f"{url}/loglevel"))[0] == 404
            assert (await put(url, b'{"level":"debug"}'))[0] == 404
            assert level() == "INFO"

    @pytest.mark.parametrize(
        ("body", "status", "text"),
        [
            (b"", 400, 'send {"level":"debug"}'),
            (b"debug", 400, 'send {"level":"debug"}'),
            (b'{"level":1}', 400, 'send {"level":"debug"}'),
            (b"[" * 1000, 400, 'send {"level":"debug"}'),
            (b'{"level":"loud"}', 400, "log level 'loud' is unknown; use debug, info, warn"),
            (b" " * 2000, 413, "more than 1024 bytes"),
        ],
    )
    async def test_what_cannot_be_understood_changes_nothing(
        self, level: Callable[[], str], body: bytes, status: int, text: str
    ) -> None:
        async with running(AdminServer(":0", log_level=True)) as url:
            answer = await put(url, body)
        assert answer[0] == status
        assert text in answer[1]
        assert level() == "INFO"

    async def test_a_page_that_has_its_name_resolve_to_loopback_is_refused(
        self, level: Callable[[], str]
    ) -> None:
        """The browser sends the page's name as Host; the names of the machine are let in."""
        async with running(AdminServer(":0", log_level=True)) as url:
            for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[", ""):
                status, _ = await put(url, b'{"level":"debug"}', host or "x")
                assert (status, level()) == (403, "INFO"), host
            for host in ("localhost", "127.0.0.1:9", "[::1]:9"):
                assert (await put(url, b'{"level":"debug"}', host))[0] == 200

    async def test_other_verbs_change_nothing(self, level: Callable[[], str]) -> None:
        """A form of a page can POST without asking; OPTIONS, by which it would ask, is refused."""
        async with running(AdminServer(":0", log_level=True)) as url:
            for verb in ("POST", "OPTIONS", "DELETE"):
                assert (await put(url, b'{"level":"debug"}', verb=verb))[0] == 405
            assert level() == "INFO"
