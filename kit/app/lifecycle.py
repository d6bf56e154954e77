"""One lifecycle for the servers of a process.

::

    app = App(name="trans", version="v1.0.0", servers=[server], registrar=registry)
    await app.run()  # until SIGTERM, SIGQUIT or SIGINT

Start: hooks ``before_start``, every server listens, all serve, the instance is announced, hooks
``after_start``. Stop: hooks ``before_stop``, the announcement is taken back, peers get the time to
hear of it, the servers drain side by side, hooks ``after_stop``. Peers therefore never hear of a
port on which nobody listens, and have been told before a port closes. A server that fails takes the
same way out.

Source: go-kratos/kratos app.go, options.go.
"""

import asyncio
import signal
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

from kit import log
from kit.registry import Registrar, RegistryUnavailable, ServiceInstance
from kit.transport import Server

_log = log.get_logger()

Hook: TypeAlias = Callable[[], Awaitable[object]]
"""Is awaited at its place in the lifecycle; :func:`current_app` tells it where it is."""

SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)

_current: ContextVar["App | None"] = ContextVar("kit_app", default=None)


def current_app() -> "App | None":
    """The application in which this task runs: for hooks and handlers; ``None`` outside of one."""
    return _current.get()


class App:
    """Starts servers, announces them, waits for a signal, and takes all of it back.

    Args:
        id: unique among the instances of ``name``; host name and a random suffix by default,
            because two processes of a host must not overwrite each other's announcement.
        name: of the service, under which peers find it.
        version: free text.
        metadata: text to text; ``None`` and empty differ in what the registry holds.
        endpoints: URLs to announce in place of those of the servers.
        servers: what to run; the order is that of the announced endpoints.
        registrar: where to announce; ``None`` for nowhere.
        registrar_timeout: seconds for announcing, and again for taking it back.
        stop_delay: seconds in which the servers still take calls once the announcement is taken
            back: peers hear of that a moment later, and grpcio answers a call that meets its stop
            with CANCELLED (https://github.com/grpc/grpc/issues/41785), which nobody repeats.
        stop_timeout: seconds a server is given to let running calls finish; ``None``: no limit.
        before_start: a failing hook ends the start.
        after_start: a failing hook stops the application.
        before_stop: all are called, whatever they raise.
        after_stop: all are called, whatever they raise.
        signals: which ones stop the application; further ones are ignored while it stops. Empty
            for none, which is needed outside the main thread.
    """

    def __init__(
        self,
        *,
        id: str | None = None,  # noqa: A002  (the field's word, see ServiceInstance)
        name: str = "",
        version: str = "",
        metadata: Mapping[str, str] | None = None,
        endpoints: Sequence[str] = (),
        servers: Sequence[Server] = (),
        registrar: Registrar | None = None,
        registrar_timeout: float = 10.0,
        stop_delay: float = 0.25,
        stop_timeout: float | None = None,
        before_start: Sequence[Hook] = (),
        after_start: Sequence[Hook] = (),
        before_stop: Sequence[Hook] = (),
        after_stop: Sequence[Hook] = (),
        signals: Sequence[signal.Signals] = SIGNALS,
    ) -> None:
        self.id = id or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self.name = name
        self.version = version
        self.metadata = metadata
        self._endpoints = tuple(endpoints)
        self._servers = tuple(servers)
        self._registrar = registrar
        self._registrar_timeout = registrar_timeout
        self._stop_delay = stop_delay
        self._stop_timeout = stop_timeout
        self._before_start = tuple(before_start)
        self._after_start = tuple(after_start)
        self._before_stop = tuple(before_stop)
        self._after_stop = tuple(after_stop)
        self._signals = tuple(signals)
        self._stop_asked = asyncio.Event()
        self._ran = False
        self._started = False

    @property
    def ready(self) -> bool:
        """Whether it works: announced, or tried to be, all ``after_start`` done, end not asked."""
        return self._started and not self._stop_asked.is_set()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The URLs to announce; those of the servers are known once they listen."""
        found = (server.endpoint for server in self._servers)
        return self._endpoints or tuple(endpoint for endpoint in found if endpoint)

    def stop(self) -> None:
        """Ask for the end, from any task of the loop; :meth:`run` returns when all has stopped."""
        self._stop_asked.set()

    async def run(self) -> None:
        """Run until :meth:`stop`, a signal, or the failure of a server.

        A registry that does not answer does not end the process: the registrar keeps trying.

        Raises:
            OSError: a server cannot listen.
            Exception: what a server or a hook raised, or what the registrar refused.
            RuntimeError: the application ran before.
        """
        if self._ran:
            raise RuntimeError("an App runs once; make a new one")
        self._ran = True
        token = _current.set(self)
        try:
            with self._signals_caught():
                await self._run()
        finally:
            _current.reset(token)

    @contextmanager
    def _signals_caught(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in self._signals:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in self._signals:
                loop.remove_signal_handler(number)

    async def _run(self) -> None:
        listening: list[Server] = []
        try:
            for hook in self._before_start:
                await hook()
            for server in self._servers:
                await server.listen()
                listening.append(server)
        except BaseException:
            await self._stop_servers(listening)
            raise
        instance = ServiceInstance(self.id, self.name, self.version, self.metadata, self.endpoints)
        # All of these are awaited in _wind_down.
        serving = [asyncio.create_task(server.serve()) for server in self._servers]
        starting = asyncio.create_task(self._announce(instance))
        failures: list[Exception] = []
        try:
            await self._until_end([*serving, starting])
        except Exception as exc:  # noqa: BLE001  (raised below, once everything is taken back)
            failures.append(exc)
        finally:
            failures += await self._wind_down(instance, serving, starting)
        if failures:
            raise failures[0]

    async def _announce(self, instance: ServiceInstance) -> None:
        if self._registrar is not None:
            try:
                async with asyncio.timeout(self._registrar_timeout):
                    await self._registrar.register(instance)
            except (RegistryUnavailable, TimeoutError) as exc:
                # The registrar warns of its outage itself: once when it begins, once at its end.
                _log.info("[app] serving, but not announced yet: %s", _said(exc))
        for hook in self._after_start:
            await hook()
        self._started = True

    async def _until_end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Return when the end is asked for.

        Raises:
            Exception: one of ``tasks`` failed.
        """
        asked = asyncio.create_task(self._stop_asked.wait())
        pending: set[asyncio.Task[object]] = {asked, *tasks}
        try:
            while not asked.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:  # in their order, when several failed at once
                    if task in done:
                        task.result()
        finally:
            asked.cancel()

    async def _wind_down(
        self,
        instance: ServiceInstance,
        serving: Sequence[asyncio.Task[None]],
        starting: asyncio.Task[None],
    ) -> list[Exception]:
        """Take everything back; gives what went wrong on the way."""
        failures: list[Exception] = []
        self._stop_asked.set()  # also when a server failed: nobody should find it ready
        try:
            starting.cancel()  # announcing must have ended before it is taken back
            await asyncio.wait({starting})
            await self._call_all(self._before_stop, failures)
            await self._take_back(instance, failures)
            failures += await self._stop_servers(self._servers)
            if serving:
                await asyncio.wait(serving)
            await self._call_all(self._after_stop, failures)
        finally:
            for task in serving:
                task.cancel()  # whoever cancels once more does not want to wait for calls
            results = await asyncio.gather(*serving, starting, return_exceptions=True)
        return failures + [result for result in results if isinstance(result, Exception)]

    async def _take_back(self, instance: ServiceInstance, failures: list[Exception]) -> None:
        if self._registrar is None:
            return
        try:
            async with asyncio.timeout(self._registrar_timeout):
                await self._registrar.deregister(instance)
        except (RegistryUnavailable, TimeoutError) as exc:
            _log.warning("[app] the announcement stays until its lease ends: %s", _said(exc))
        except Exception as exc:  # noqa: BLE001  (the servers have to be stopped all the same)
            _log.error("[app] the announcement could not be taken back", exc_info=exc)
            failures.append(exc)
        else:
            await asyncio.sleep(self._stop_delay)

    async def _stop_servers(self, servers: Sequence[Server]) -> list[Exception]:
        stops = (server.stop(self._stop_timeout) for server in servers)
        results = await asyncio.gather(*stops, return_exceptions=True)
        return [result for result in results if isinstance(result, Exception)]

    async def _call_all(self, hooks: Sequence[Hook], failures: list[Exception]) -> None:
        for hook in hooks:
            try:
                await hook()
            except Exception as exc:  # noqa: BLE001  (one hook's fault must not keep the rest up)
                _log.error("[app] a hook failed", exc_info=exc)
                failures.append(exc)


def _said(exc: Exception) -> str:
    """``exc`` in words."""
    return getattr(exc, "message", "") or str(exc) or "no answer in time"
