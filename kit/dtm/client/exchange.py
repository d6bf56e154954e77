"""HTTP requests of the client: bounded in time and size, no redirect, cookie or proxy.

Source: dtm-labs/dtm client/dtmcli/dtmimp/utils.go (GetRestyClient2).
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import punctuation
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from kit.dtm.client.errors import DtmUnavailable, InvalidCall
from kit.dtm.client.payloads import HTTP_SCHEMES
from kit.dtm.client.tracing import trace_headers
from kit.duration import format_duration
from kit.errors.codes import GrpcCode

MAX_BODY = 16 * 1024 * 1024
"""Bytes of an answer that are read."""

MAX_TEXT = 4_096
"""Bytes of an answer that errors repeat."""

JSON = "application/json"
KEEPALIVE_S = 4.0
"""Idle connections are kept for less than servers do (uvicorn: 5 s), so that a request hardly ever
meets one that is being closed."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_CONNECTIONS = 1_000


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer.

    Attributes:
        status: of HTTP.
        body: whole.
    """

    status: int
    body: bytes

    @property
    def text(self) -> str:
        """The body for people, as much as they read."""
        text = self.body[:MAX_TEXT].decode(errors="replace").strip()
        return text or f"HTTP {self.status} without a body"


class HttpExchange:
    """A client of HTTP/1.1; opens its first connection when it is first used.

    Args:
        timeout: seconds for one request; 0 or less for no limit.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout if timeout > 0 else None
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Cut every connection; may be called twice."""
        if self._session is not None:
            await self._session.close()

    async def send(
        self,
        method: str,
        url: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        advice: str = "",
    ) -> HttpReply:
        """Send a request and read its answer.

        Args:
            method: of HTTP.
            url: where to.
            query: added to what ``url`` has, sorted.
            headers: sent along, beside those of the trace.
            body: ``None`` for none.
            advice: what errors say behind the cause.

        Raises:
            DtmUnavailable: nobody answered, not in time, not in HTTP, or far too much.
            InvalidCall: ``url`` is no URL of HTTP.
        """
        target = http_url(url, query)
        sent = {"Content-Type": JSON, **trace_headers(), **(headers or {})}
        what = f"{method} {target.origin()}{target.raw_path}"
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._opened().request(
                    method, target, headers=sent, data=body, allow_redirects=False
                ) as response,
            ):
                return HttpReply(response.status, await _read(response, what))
        except TimeoutError:
            limit = format_duration(self._timeout or 0)
            raise DtmUnavailable(
                f"{what}: no answer in {limit}{advice}", GrpcCode.DEADLINE_EXCEEDED
            ) from None
        except (aiohttp.ClientError, OSError) as exc:
            why = str(exc) or type(exc).__name__
            if isinstance(exc, aiohttp.ClientConnectorError):
                why = f"no connection: {exc.os_error.strerror or exc.os_error}"
            raise DtmUnavailable(f"{what}: {why}{advice}") from exc

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=_MAX_CONNECTIONS, keepalive_timeout=KEEPALIVE_S
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                headers={"User-Agent": "dtm-client"},
            )
        return self._session


def http_url(text: str, query: Mapping[str, str] | None = None) -> URL:
    """``text`` as a URL with ``query`` behind its own, whose encoding stays as it is.

    Raises:
        InvalidCall: it is no URL of HTTP.

    >>> str(http_url("http://h/a%2Fb?x=1#top", {"op": "try", "gid": "g 1"}))
    'http://h/a%2Fb?x=1&gid=g+1&op=try'
    """
    if not text.startswith(HTTP_SCHEMES) or _CONTROL.search(text):
        raise InvalidCall(f"url: {text!r} is not of the form http://host:port/path")
    plain = quote(text.partition("#")[0], safe=punctuation)
    if query:
        join = "&" if "?" in plain else "?"
        plain = f"{plain}{join}{urlencode(sorted(query.items()))}"
    try:
        url = URL(plain, encoded=True)
        str(url.origin())  # reads host and port
    except ValueError as exc:
        raise InvalidCall(f"url: {text!r} is not of the form http://host:port/path: {exc}") from exc
    return url


async def _read(response: aiohttp.ClientResponse, what: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            raise DtmUnavailable(
                f"{what}: an answer of more than {MAX_BODY} bytes, not read", GrpcCode.OUT_OF_RANGE
            )
    return bytes(body)
