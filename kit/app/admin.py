"""What operators and probes ask a process, on a port that only its own machine reaches.

=============  ==============================================================================
``/healthz``   200 while the process answers at all
``/readyz``    200 between announcement and stop while all checks pass, else 503 and why
``/metrics``   Prometheus' text, when there are metrics
``/loglevel``  when asked for: GET shows the level, PUT changes it, ``{"level":"debug"}`` both ways
=============  ==============================================================================

There is nothing else: kratos' default mux shows profiling pages, this server has these routes. It
speaks HTTP/1.1, one request a connection.

The level is changed from the machine itself only, also where the address is exposed, and only under
a name of the machine: a page in a browser that had its own name resolve to 127.0.0.1 is refused.

Source: the form of ``/loglevel`` is that of go.uber.org/zap, AtomicLevel.ServeHTTP.
"""

import asyncio
import ipaddress
import json
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from kit import log
from kit.app.lifecycle import App, current_app
from kit.app.loglevel import change_level_by_json, level_as_json
from kit.transport.host import ListenAddress, join_host_port

_log = log.get_logger()

MOST_CONNECTIONS = 64
HEAD_BYTES = 8 << 10
BODY_BYTES = 1 << 10
TALK_S = 5.0
"""Seconds for a client to send its request, and again to take the answer."""
FRESH_S = 1.0
"""Seconds that the result of the checks is given again: probes must not load what they ask."""

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

Check: TypeAlias = Callable[[], Awaitable[object]]
"""Asks a dependency; raises when the service cannot work without it being back."""


class Exposition(Protocol):
    """Metrics that can be shown: :class:`kit.middleware.metrics.Metrics` and the coordinator's."""

    def exposition(self) -> bytes:
        """All of them in Prometheus' text form 0.0.4."""
        ...


class AdminServer:
    """Health, readiness and metrics; a :class:`kit.transport.Server` that is never announced.

    Args:
        address: ``host:port``; without a host it is 127.0.0.1, port 0 lets the system choose.
        checks: what the service needs, by name; asked side by side.
        check_timeout: seconds for each.
        metrics: shown on ``/metrics``; without them that route does not exist.
        exposed: allow an address that other machines reach, as probes of a cluster need it.
        log_level: serve ``/loglevel``, by which who is on this machine changes how much is logged.

    Raises:
        ValueError: ``address`` cannot be understood, or is not a loopback address and ``exposed``
            is not set.
    """

    endpoint: str | None = None
    """Always ``None``: this port is nobody's business but the machine's."""

    def __init__(
        self,
        address: str,
        *,
        checks: Mapping[str, Check] | None = None,
        check_timeout: float = 2.0,
        metrics: Exposition | None = None,
        exposed: bool = False,
        log_level: bool = False,
    ) -> None:
        self._address = ListenAddress.parse(
            f"127.0.0.1{address}" if address.startswith(":") else address
        )
        if not exposed and not _is_loopback(self._address.host):
            raise ValueError(
                f"admin address {address!r} can be reached from other machines; "
                "write 127.0.0.1:port, or set exposed=True if that is meant"
            )
        self._checks = dict(checks or {})
        self._check_timeout = check_timeout
        self._metrics = metrics
        self._log_level = log_level
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._app: App | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._checking: asyncio.Task[dict[str, str]] | None = None
        self._checked_at = 0.0
        self.url = ""
        """``http://host:port`` once it listens."""

    async def listen(self) -> None:
        """Bind the address.

        Raises:
            OSError: the address is taken, is not ours, or needs rights.
        """
        if self._socket is not None:
            return
        host = self._address.resolve()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(
                    socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not self._address.wildcard
                )
            bound.bind((host, self._address.port))
            bound.listen(MOST_CONNECTIONS)
            bound.setblocking(False)
        except OSError as error:
            bound.close()
            where = join_host_port(host, self._address.port)
            raise OSError(
                error.errno, f"[admin] server cannot listen on {where}: {error.strerror}"
            ) from error
        self._socket = bound
        self.url = f"http://{join_host_port(*bound.getsockname()[:2])}"

    async def serve(self) -> None:
        """Answer until :meth:`stop`."""
        await self.listen()
        if self._stopped.is_set():
            return
        self._app = current_app()
        self._server = await asyncio.start_server(self._accept, sock=self._socket, limit=HEAD_BYTES)
        _log.info(f"[admin] server listening on: {self.url.removeprefix('http://')}")
        try:
            await self._stopped.wait()
        finally:
            await self._close()

    async def stop(self, grace: float | None = None) -> None:
        """Close; the short answers that are under way are cut."""
        if self._server is None and self._socket is not None:
            self._socket.close()
        self._stopped.set()

    async def _close(self) -> None:
        assert self._server is not None, "serve has made it"
        self._server.close()
        tasks = [*self._connections, *([self._checking] if self._checking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        # Ends with its connection; those left at the stop are awaited in _close.
        task = asyncio.create_task(self._talk(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TALK_S):
                head = await reader.readuntil(b"\r\n\r\n")
                request = _Request.of(head, writer.get_extra_info("peername"))
                if request is not None and 0 < request.length <= BODY_BYTES:
                    request.body = await reader.readexactly(request.length)
            answer = await self._answer(request)
            async with asyncio.timeout(TALK_S):
                writer.write(answer)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # nobody is left to be told
        finally:
            writer.transport.abort()

    async def _answer(self, request: "_Request | None") -> bytes:
        if request is None:
            return _reply(400, "bad request\n")
        verb, path = request.verb, request.path
        if path not in self._routes():
            return _reply(404, "not found\n")
        if verb == "PUT" and path == "/loglevel":
            return _set_level(request)
        if verb not in {"GET", "HEAD"}:
            return _reply(405, "only GET and HEAD are served here\n")
        try:
            status, body, kind = await self._page(path)
        except Exception as error:  # noqa: BLE001  (one page's fault must not end the others)
            _log.error(f"[admin] {path} failed", exc_info=error)
            status, body, kind = 500, b"see the log\n", _TEXT
        return _reply(status, body, kind, with_body=verb == "GET")

    def _routes(self) -> tuple[str, ...]:
        optional = {"/metrics": self._metrics is not None, "/loglevel": self._log_level}
        return ("/healthz", "/readyz", *(path for path, served in optional.items() if served))

    async def _page(self, path: str) -> tuple[int, bytes, str]:
        if path == "/healthz":
            return 200, b"ok\n", _TEXT
        if path == "/loglevel":
            return 200, level_as_json() + b"\n", _JSON
        if path == "/metrics":
            assert self._metrics is not None, "else there is no such route"
            return 200, self._metrics.exposition(), _METRICS
        failed = await self._failed()
        if self._app is not None and not self._app.ready:
            failed = {"app": "it starts or stops", **failed}
        said = {"status": "unavailable" if failed else "ok", "failed": failed}
        return 503 if failed else 200, json.dumps(said).encode() + b"\n", _JSON

    async def _failed(self) -> dict[str, str]:
        """The checks that fail, and how; one round of them serves all who ask meanwhile."""
        now = time.monotonic()
        running = self._checking
        if running is None or (running.done() and now - self._checked_at >= FRESH_S):
            # Awaited right below, by whoever asks next, or in _close.
            running = self._checking = asyncio.create_task(self._check_all())
        return await asyncio.shield(running)

    async def _check_all(self) -> dict[str, str]:
        names = list(self._checks)
        found = await asyncio.gather(*(self._ask(self._checks[name]) for name in names))
        self._checked_at = time.monotonic()
        return {name: why for name, why in zip(names, found, strict=True) if why}

    async def _ask(self, check: Check) -> str:
        try:
            async with asyncio.timeout(self._check_timeout):
                await check()
        except TimeoutError:
            return f"no answer in {self._check_timeout:g} s"
        except Exception as error:  # noqa: BLE001  (whatever it is, the service is not ready)
            return (
                log.mask_urls(getattr(error, "message", "") or str(error)) or type(error).__name__
            )
        return ""


@dataclass(slots=True)
class _Request:
    """What of a request is looked at."""

    verb: str
    path: str
    host: str
    length: int
    peer: str
    body: bytes = b""

    @classmethod
    def of(cls, head: bytes, peer: tuple[Any, ...]) -> "_Request | None":
        """The request that ``head`` begins; ``None`` when it is none."""
        first, *rest = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return None
        headers = {
            name.strip().lower(): value.strip()
            for name, colon, value in (line.partition(":") for line in rest)
            if colon
        }
        length = headers.get("content-length", "0")
        if not length.isdecimal() or "transfer-encoding" in headers:
            return None
        path = words[1].partition("?")[0]
        return cls(words[0], path, headers.get("host", ""), int(length), str(peer[0]))


def _set_level(request: _Request) -> bytes:
    try:
        host = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        host = ""
    if not (_is_loopback(request.peer) and _is_loopback(host)):
        return _reply(403, "the level is changed from the machine itself, at 127.0.0.1\n")
    if request.length > BODY_BYTES:
        return _reply(413, f"more than {BODY_BYTES} bytes\n")
    try:
        change_level_by_json(request.body, "[admin] PUT /loglevel")
    except ValueError as error:
        return _reply(400, f"{error}\n")
    return _reply(200, level_as_json() + b"\n", _JSON)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _reply(status: int, body: bytes | str, kind: str = _TEXT, *, with_body: bool = True) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"content-type: {kind}\r\n"
        f"content-length: {len(data)}\r\n"
        f"{'allow: GET, HEAD' + chr(13) + chr(10) if status == 405 else ''}"
        "cache-control: no-store\r\n"
        "connection: close\r\n\r\n"
    ).encode()
    return head + data if with_body else head
