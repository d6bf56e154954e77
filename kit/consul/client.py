"""Requests to one agent, and their answers as JSON."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from kit.consul.errors import ConsulDenied, ConsulError, ConsulRefused, ConsulUnavailable
from kit.consul.options import ConsulOptions

MAX_ANSWER_BYTES = 16 << 20
"""Of one answer; some thousand instances are one megabyte."""

_MESSAGE_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Listing:
    """What was asked for, and the state of Consul in which it was so.

    Attributes:
        value: decoded JSON; ``None`` when there is none.
        index: to wait with for another state; 0 when Consul named none.
        missing: there is no such thing.
    """

    value: Any
    index: int
    missing: bool = False


class ConsulClient:
    """Talks to an agent. Belongs to the event loop that first uses it.

    Args:
        consul: a URL such as ``consul://127.0.0.1:8500``, ``host:port``, or options.

    Raises:
        ValueError: ``consul`` cannot be read, or a file of its TLS cannot be used.
    """

    def __init__(self, consul: ConsulOptions | str) -> None:
        self.options = ConsulOptions.of(consul)
        self._tls = self.options.tls.context() if self.options.tls else None
        scheme = "http" if self._tls is None else "https"
        self._base = f"{scheme}://{self.options.address}/v1/"
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cut the connections; may be called twice."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def get(
        self, *path: str, query: Mapping[str, str] | None = None, index: int | None = None
    ) -> Listing:
        """What stands at ``path``, whose parts are escaped here.

        Args:
            path: such as ``"health", "service", name``.
            query: beside datacenter and namespace.
            index: wait until the state is a later one than this; 0 does not wait.

        Raises:
            ConsulError: no answer, or one that says no.
        """
        options = self.options
        wanted = {"dc": options.datacenter, "ns": options.namespace, **(query or {})}
        if path[0] == "agent":
            del wanted["dc"]  # the agent speaks for itself alone
        limit = options.timeout
        if index:
            wanted |= {"index": str(index), "wait": f"{round(options.wait * 1000)}ms"}
            limit += options.wait * 17 / 16  # Consul itself adds up to a sixteenth
        return await self._ask("GET", path, wanted, None, limit)

    async def put(
        self, *path: str, body: object = None, query: Mapping[str, str] | None = None
    ) -> Listing:
        """Send ``body`` as JSON, or as it is when it is bytes, to ``path``.

        Returns:
            What it answered.

        Raises:
            ConsulError: no answer, or one that says no.
        """
        wanted = {"ns": self.options.namespace, **(query or {})}
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
        return await self._ask("PUT", path, wanted, data, self.options.timeout)

    async def delete(self, *path: str, query: Mapping[str, str] | None = None) -> None:
        """Delete what stands at ``path``.

        Raises:
            ConsulError: no answer, or one that says no.
        """
        wanted = {"ns": self.options.namespace, **(query or {})}
        await self._ask("DELETE", path, wanted, None, self.options.timeout)

    async def _ask(
        self,
        verb: str,
        path: tuple[str, ...],
        query: Mapping[str, str],
        data: bytes | None,
        limit: float,
    ) -> Listing:
        address = self.options.address
        if self._closed:
            raise ConsulUnavailable(address, "this client is closed")
        pairs = "&".join(f"{key}={quote(text, safe='')}" for key, text in query.items() if text)
        steps = "/".join(quote(step, safe="/" if path[0] == "kv" else "") for step in path)
        url = URL(f"{self._base}{steps}{'?' if pairs else ''}{pairs}", encoded=True)
        try:
            async with (
                asyncio.timeout(limit),
                self._http().request(verb, url, data=data, allow_redirects=False) as reply,
            ):
                text = await self._read(reply)
        except TimeoutError:
            raise ConsulUnavailable(address, f"no answer in {limit:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ConsulUnavailable(address, str(error) or type(error).__name__) from error
        if reply.status == 404:
            return Listing(None, _index(reply), missing=True)
        if not 200 <= reply.status < 300:
            raise self._refusal(reply.status, text)
        return Listing(self._decoded(reply, text), _index(reply))

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in reply.content.iter_any():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise ConsulError(
                    self.options.address, f"the answer has more than {MAX_ANSWER_BYTES} bytes"
                )
        return bytes(body)

    def _decoded(self, reply: aiohttp.ClientResponse, text: bytes) -> Any:
        if not text or reply.content_type != "application/json":
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConsulError(self.options.address, f"the answer is no JSON: {error}") from error

    def _refusal(self, status: int, text: bytes) -> ConsulError:
        said = " ".join(text[:_MESSAGE_CHARACTERS].decode(errors="replace").split())
        kind: type[ConsulError] = ConsulUnavailable
        if status in {401, 403}:
            kind = ConsulDenied
        elif status in {400, 405, 413}:
            kind = ConsulRefused
        return kind(self.options.address, f"{said or 'no reason given'} (HTTP {status})")

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            token = self.options.token
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls or True, limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
                headers={"X-Consul-Token": token} if token else None,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Content-Type",),
            )
        return self._session


def _index(reply: aiohttp.ClientResponse) -> int:
    text = reply.headers.get("X-Consul-Index", "")
    return int(text) if text.isascii() and text.isdigit() else 0
