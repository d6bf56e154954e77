"""One HTTP request and its answer, as bounded as a stranger at the other end requires.

No redirect is followed, no cookie kept, no proxy of the environment used. At most
:data:`MAX_BODY` bytes of an answer are read, compressed or not; of a longer one only the status
counts, and its connection is cut. Connections are kept for :data:`KEEPALIVE_S`, shorter than
servers usually do, so that a request hardly ever meets one that is being closed.
"""

import asyncio
import errno
import re
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from string import punctuation
from urllib.parse import quote

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from yarl import URL

from kit.dtm.server.targets import TargetRefused
from kit.duration import format_duration
from kit.errors.codes import GrpcCode

MAX_BODY = 1024 * 1024
"""Bytes of an answer that are read."""

KEEPALIVE_S = 4.0
MAX_WARM = 200
"""Targets whose connections are kept at once."""

_LOCAL_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL})
_FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32


class ExchangeFailed(Exception):
    """There is no answer.

    Args:
        code: the gRPC code that comes nearest.
    """

    def __init__(self, text: str, code: GrpcCode) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class HttpReply:
    """An answer.

    Attributes:
        body: empty when it was cut.
        cut: the body was too long to be read.
        location: where a redirect leads.
    """

    status: int
    body: bytes
    cut: bool = False
    location: str = ""

    @property
    def text(self) -> str:
        """The body for people, or what is to be said in its place."""
        if 300 <= self.status < 400 and self.location:
            return (
                f"HTTP {self.status} to {self.location}: redirects are not followed; "
                "use the final URL"
            )
        if self.cut:
            return f"HTTP {self.status} with a body of more than {MAX_BODY} bytes, not read"
        return self.body.decode(errors="replace").strip() or f"HTTP {self.status} without a body"


class HttpExchange:
    """A client of HTTP/1.1; opens its first connection when it is first used.

    Args:
        resolver: gives addresses of names; the machine's by default.
        user_agent: how it introduces itself.
    """

    def __init__(
        self, resolver: AbstractResolver | None = None, *, user_agent: str = "dtm-coordinator"
    ) -> None:
        self._resolver = resolver
        self._user_agent = user_agent
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._warm: OrderedDict[URL, float] = OrderedDict()

    async def aclose(self) -> None:
        """Cut every connection; may be called twice."""
        for session in self._sessions.values():
            await session.close()

    async def send(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None, limit: float
    ) -> HttpReply:
        """Send a request and read its answer, ``limit`` seconds at most.

        Args:
            method: GET or POST.
            url: encoded; see :func:`http_url`.
            headers: later spellings of a name replace earlier ones; those that frame the message
                are left out.
            body: ``None`` for none at all.
            limit: in seconds.

        Raises:
            ExchangeFailed: nobody answered, not in time, or not in HTTP.
            TargetRefused: the name leads to addresses that must not be called.
            ValueError: a header cannot be sent.
        """
        sent = _headers(headers)
        try:
            async with asyncio.timeout(limit):
                return await self._exchange(method, url, sent, body)
        except TimeoutError:
            raise ExchangeFailed(
                f"{method} {_place(url)}: no answer in {format_duration(round(limit, 3))}",
                GrpcCode.DEADLINE_EXCEEDED,
            ) from None
        except TargetRefused:
            raise
        except (aiohttp.ClientError, OSError) as error:
            number = getattr(error, "errno", None)
            code = GrpcCode.UNAVAILABLE
            if isinstance(error, aiohttp.InvalidURL):
                code = GrpcCode.UNKNOWN
            elif number in _LOCAL_TROUBLE:
                code = GrpcCode.RESOURCE_EXHAUSTED
            why = str(error) or type(error).__name__
            if isinstance(error, aiohttp.ClientConnectorError):
                why = f"no connection: {error.os_error.strerror or error.os_error}"
            raise ExchangeFailed(f"{method} {_place(url)}: {why}", code) from error

    async def _exchange(
        self, method: str, url: URL, headers: "CIMultiDict[str]", body: bytes | None
    ) -> HttpReply:
        response = await self._session(keep=self._keeps(url)).request(
            method, url, headers=headers, data=body, allow_redirects=False
        )
        try:
            raw = await _read(response)
            location = response.headers.get("Location", "")
            if raw is None:
                return HttpReply(response.status, b"", cut=True, location=location)
            coding = response.headers.get("Content-Encoding", "").lower()
            if coding in ("gzip", "deflate"):
                raw = _inflated(raw)
            return HttpReply(response.status, raw, location=location)
        finally:
            response.close()  # one that was read to its end has given its connection back already

    def _session(self, *, keep: bool) -> aiohttp.ClientSession:
        """The session whose connections are kept after an answer, or not."""
        session = self._sessions.get(keep)
        if session is None:
            session = self._sessions[keep] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=self._resolver,
                    keepalive_timeout=KEEPALIVE_S if keep else None,
                    force_close=not keep,
                    limit=0,  # whoever calls bounds what is in flight, target by target
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                auto_decompress=False,
                headers={"User-Agent": self._user_agent},
                skip_auto_headers=("Content-Type",),
            )
        return session

    def _keeps(self, url: URL) -> bool:
        """Whether the connection may be kept: those of many targets would be many descriptors."""
        now = asyncio.get_running_loop().time()
        place, warm = url.origin(), self._warm
        while warm and next(iter(warm.values())) < now:
            warm.popitem(last=False)
        if place not in warm and len(warm) >= MAX_WARM:
            return False
        warm[place] = now + KEEPALIVE_S
        warm.move_to_end(place)
        return True


def http_url(text: str) -> URL:
    """``text`` as a URL whose encoding stays as it is; its fragment is dropped.

    Raises:
        ValueError: it is no URL of HTTP.

    >>> str(http_url("http://h/a%2Fb?x=%20&y=1+2#top"))
    'http://h/a%2Fb?x=%20&y=1+2'
    """
    if _CONTROL.search(text):
        raise ValueError(f"{text!r}: a URL has no control characters")
    scheme = text.partition("://")[0].lower()
    if scheme not in ("http", "https") or "://" not in text:
        raise ValueError(f"bad url: '{text}'. write http://host:port/path or https://...")
    try:
        url = URL(quote(text.partition("#")[0], safe=punctuation), encoded=True)
        str(url.origin())  # reads host and port
    except ValueError as exc:
        raise ValueError(f"bad url: '{text}'. {exc}") from exc
    if not url.raw_host or "%" in url.raw_host.partition("%25")[0]:
        raise ValueError(f"bad url: '{text}'. its host cannot be read")
    return url


def _headers(headers: Mapping[str, str]) -> "CIMultiDict[str]":
    sent: CIMultiDict[str] = CIMultiDict({"Accept-Encoding": "identity"})
    for key, value in headers.items():
        if not _TOKEN.fullmatch(key):
            raise ValueError(f"header {key!r} is no name of a header; see branch_headers")
        if _CONTROL.search(value.replace("\t", "")):
            raise ValueError(f"the value of header {key} has control characters")
        if key.lower() not in _FRAMING:
            sent[key] = value
    return sent


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The body as it came; ``None`` when it is too long."""
    if (response.content_length or 0) > MAX_BODY:
        return None
    body = b""
    async for chunk in response.content.iter_any():
        body = body + chunk if body else chunk
        if len(body) > MAX_BODY:
            return None
    return body


def _inflated(raw: bytes) -> bytes:
    """The beginning of what is compressed in ``raw``.

    Raises:
        aiohttp.ClientPayloadError: it is not compressed as the header says.
    """
    try:
        return zlib.decompressobj(_GZIP_OR_ZLIB).decompress(raw, MAX_BODY)
    except zlib.error as exc:
        raise aiohttp.ClientPayloadError(f"the body cannot be decompressed: {exc}") from exc


def _place(url: URL) -> str:
    """The URL without what may be secret in it."""
    return str(url.origin().join(URL(url.raw_path, encoded=True)))
