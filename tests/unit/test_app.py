"""The lifecycle of an application: order, signals, failures."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable

import pytest

from kit.app import App, current_app
from kit.ports import free_port
from kit.registry import RegistryUnavailable, ServiceInstance
from kit.transport.grpc import GrpcClient, GrpcServer, RpcError


class Diary:
    """A registrar, servers and hooks that write down what is asked of them."""

    def __init__(self, *, refuse: Exception | None = None) -> None:
        self.lines: list[str] = []
        self.instance: ServiceInstance | None = None
        self.refuse = refuse

    async def register(self, instance: ServiceInstance) -> None:
        self.lines.append("register")
        self.instance = instance
        if self.refuse is not None:
            raise self.refuse

    async def deregister(self, instance: ServiceInstance) -> None:
        assert instance == self.instance
        self.lines.append("deregister")

    def hook(self, line: str) -> Callable[[], Awaitable[None]]:
        async def write() -> None:
            self.lines.append(line)

        return write

    def stopper(self) -> Callable[[], Awaitable[None]]:
        async def stop() -> None:
            app = current_app()
            assert app is not None
            app.stop()

        return stop


class PlainServer:
    """A server that serves nothing, and fails when told to."""

    def __init__(self, diary: Diary, name: str, url: str | None = None) -> None:
        self.diary, self.name, self.endpoint = diary, name, url
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def listen(self) -> None:
        self.diary.lines.append(f"{self.name} listens")

    async def serve(self) -> None:
        self.diary.lines.append(f"{self.name} serves")
        await self.end

    async def stop(self, grace: float | None = None) -> None:
        self.diary.lines.append(f"{self.name} stops")
        if not self.end.done():
            self.end.set_result(None)


async def test_the_order_is_listen_serve_announce_and_back() -> None:
    """kratos-wire.md §1.2 and §1.3."""
    diary = Diary()
    servers = [PlainServer(diary, "a", "grpc://h:1"), PlainServer(diary, "b")]
    app = App(
        name="trans",
        servers=servers,
        registrar=diary,
        before_start=[diary.hook("before start")],
        after_start=[diary.hook("after start"), diary.stopper()],
        before_stop=[diary.hook("before stop")],
        after_stop=[diary.hook("after stop")],
    )
    await app.run()
    assert diary.lines == [
        "before start",
        "a listens",
        "b listens",
        "a serves",
        "b serves",
        "register",
        "after start",
        "before stop",
        "deregister",
        "a stops",
        "b stops",
        "after stop",
    ]
    assert diary.instance is not None
    assert diary.instance.endpoints == ("grpc://h:1",)


async def test_calls_are_taken_while_peers_hear_of_the_end() -> None:
    """Whoever has not heard yet that the announcement is taken back is still served."""
    diary = Diary()
    loop = asyncio.get_running_loop()
    told = stopped = 0.0

    class Registrar(Diary):
        async def deregister(self, instance: ServiceInstance) -> None:
            nonlocal told
            told = loop.time()

    class Stopping(PlainServer):
        async def stop(self, grace: float | None = None) -> None:
            nonlocal stopped
            stopped = loop.time()
            await super().stop(grace)

    app = App(
        name="trans",
        servers=[Stopping(diary, "a")],
        registrar=Registrar(),
        after_start=[diary.stopper()],
        stop_delay=0.3,
    )
    await app.run()
    assert stopped - told >= 0.29


async def test_two_applications_of_a_host_have_different_ids() -> None:
    """kratos-wire.md §22 row 26."""
    first, second = App().id, App().id
    assert first != second
    assert first.startswith(f"{socket.gethostname()}-")


async def test_given_endpoints_replace_those_of_the_servers() -> None:
    """Option Endpoint of kratos."""
    diary = Diary()
    server = PlainServer(diary, "a", "grpc://h:1")
    assert App(servers=[server], endpoints=["grpc://nat:2"]).endpoints == ("grpc://nat:2",)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT])
async def test_a_signal_stops_and_a_second_one_is_ignored(number: signal.Signals) -> None:
    """kratos-wire.md §22 row 21."""
    diary = Diary()

    async def send() -> None:
        os.kill(os.getpid(), number)

    app = App(
        servers=[PlainServer(diary, "a")], registrar=diary, after_start=[send], before_stop=[send]
    )
    await app.run()
    assert diary.lines[-2:] == ["deregister", "a stops"]


async def test_a_failing_server_ends_the_others_and_its_announcement() -> None:
    """Its error is what run raises; kratos-wire.md §22 row 18."""
    diary = Diary()
    broken, healthy = PlainServer(diary, "broken"), PlainServer(diary, "healthy")

    async def fail() -> None:
        broken.end.set_exception(LookupError("the queue is gone"))

    app = App(servers=[broken, healthy], registrar=diary, after_start=[fail])
    with pytest.raises(LookupError, match="the queue is gone"):
        await app.run()
    assert diary.lines[-3:] == ["deregister", "broken stops", "healthy stops"]


@pytest.mark.usefixtures("engine")
async def test_a_taken_port_ends_the_start_before_anything_is_announced() -> None:
    """The OSError names the address; the server that listened already lets go of its port."""
    diary = Diary()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        freed = free_port()
        first = GrpcServer(address=f"127.0.0.1:{freed}")
        app = App(servers=[first, GrpcServer(address=f"127.0.0.1:{port}")], registrar=diary)
        with pytest.raises(OSError, match=str(port)):
            await app.run()
    assert diary.lines == []
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", freed))


@pytest.mark.usefixtures("engine")
async def test_an_absent_registry_does_not_keep_a_service_from_serving(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The registrar keeps trying; one line says so."""
    diary = Diary(refuse=RegistryUnavailable("etcd at 127.0.0.1:1: no answer"))
    server = GrpcServer(address="127.0.0.1:0")
    answered: list[str] = []

    async def call() -> None:
        address = (server.endpoint or "").removeprefix("grpc://")
        async with GrpcClient(address) as client:
            with pytest.raises(RpcError) as refused:
                await client.unary("/no.Such/Method", b"")
            answered.append(refused.value.message)

    app = App(servers=[server], registrar=diary, after_start=[call, diary.stopper()])
    await app.run()
    assert answered == ["unknown service no.Such"]
    lines = [line for line in capsys.readouterr().err.splitlines() if "[app]" in line]
    assert lines == [
        "INFO msg=[app] serving, but not announced yet: etcd at 127.0.0.1:1: no answer"
    ]


async def test_a_hanging_registry_is_given_its_time_and_no_more() -> None:
    """A registrar that never returns holds neither the start nor the stop."""
    asked: list[str] = []

    class Hanging:
        async def register(self, instance: ServiceInstance) -> None:
            asked.append("register")
            await asyncio.Event().wait()

        async def deregister(self, instance: ServiceInstance) -> None:
            asked.append("deregister")
            await asyncio.Event().wait()

    app = App(registrar=Hanging(), registrar_timeout=0.01, after_start=[Diary().stopper()])
    await app.run()
    assert asked == ["register", "deregister"]


async def test_what_the_registrar_refuses_ends_the_start_cleanly() -> None:
    """kratos-wire.md §22 row 17: the same error, but nothing is left behind."""
    diary = Diary(refuse=ValueError("name has a slash"))
    app = App(servers=[PlainServer(diary, "a")], registrar=diary)
    with pytest.raises(ValueError, match="slash"):
        await app.run()
    assert diary.lines[-2:] == ["deregister", "a stops"]


async def test_a_failing_hook_of_the_stop_keeps_nothing_up() -> None:
    """Its error is raised at the end."""
    diary = Diary()

    async def fail() -> None:
        raise LookupError("flush failed")

    app = App(
        servers=[PlainServer(diary, "a")],
        registrar=diary,
        after_start=[diary.stopper()],
        before_stop=[fail],
        after_stop=[diary.hook("after stop")],
    )
    with pytest.raises(LookupError):
        await app.run()
    assert diary.lines[-3:] == ["deregister", "a stops", "after stop"]


async def test_a_cancelled_application_takes_its_announcement_back() -> None:
    """And the cancellation leaves."""
    diary, started = Diary(), asyncio.Event()

    async def tell() -> None:
        started.set()

    app = App(servers=[PlainServer(diary, "a")], registrar=diary, after_start=[tell])
    running = asyncio.create_task(app.run())
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert diary.lines[-2:] == ["deregister", "a stops"]


async def test_stop_asked_while_the_registry_hangs_does_not_wait_for_it() -> None:
    """The announcement is called off, then taken back: it may have arrived."""
    diary, asked = Diary(), asyncio.Event()

    class Slow(Diary):
        async def register(self, instance: ServiceInstance) -> None:
            await super().register(instance)
            asked.set()
            await asyncio.Event().wait()

    diary = Slow()
    app = App(registrar=diary, registrar_timeout=60)
    running = asyncio.create_task(app.run())
    await asked.wait()
    app.stop()
    await asyncio.wait_for(running, 5)
    assert diary.lines == ["register", "deregister"]
