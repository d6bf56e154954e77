"""Reaching other machines: a port, a gRPC server, an HTTP server; and why it cannot be done."""

import asyncio
import contextlib
import errno
import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

import grpc
from grpc_health.v1 import health_pb2

from kit.cli.doctor_certs import fault_of

ANSWERS_WITHIN = 3.0
MAX_SKEW_S = 2.0
"""Of two clocks. ``Date`` has whole seconds, so less cannot be told for sure."""
_MAX_HEAD_BYTES = 16 << 10
_HEALTH = "/grpc.health.v1.Health/Check"


class Unreachable(Exception):
    """The text says why, as the end of a sentence, with the way out."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an HTTP server said.

    Attributes:
        status: of HTTP.
        skew: seconds that its clock is ahead of ours; ``None`` when it did not say.
        body: the beginning of it.
    """

    status: int
    skew: float | None
    body: str


async def connect(
    host: str, port: int, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection.

    Raises:
        Unreachable: there is none to be had.
    """
    name = f"{host}:{port}"
    try:
        async with asyncio.timeout(ANSWERS_WITHIN):
            return await asyncio.open_connection(
                host, port, ssl=tls, server_hostname=host if tls else None
            )
    except TimeoutError:
        raise Unreachable(
            f"nothing comes back from {name} in {ANSWERS_WITHIN:g} s; look for a firewall, a wrong"
            " address, or a machine that is down"
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(fault_of(error, host)) from None
    except ssl.SSLError as error:
        raise Unreachable(
            f"{name} does not speak TLS as we do ({error.reason}); is it a plain port?"
        ) from None
    except socket.gaierror:
        raise Unreachable(f"there is no address for {host}; correct the name, or DNS") from None
    except OSError as error:
        if error.errno == errno.ECONNREFUSED or "Connect call failed" in str(error):
            raise Unreachable(
                f"nobody listens at {name}; start it, or correct the address"
            ) from None
        raise Unreachable(f"{name}: {error.strerror or error}") from None


async def knock(host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
    """Connect and leave.

    Raises:
        Unreachable: see :func:`connect`.
    """
    _, writer = await connect(host, port, tls)
    await _leave(writer)


async def fetch(url: str, tls: ssl.SSLContext | None = None) -> Answer:
    """Ask an HTTP server with GET.

    Args:
        url: with the scheme http or https.
        tls: whom to trust for https; the system's authorities by default.

    Raises:
        Unreachable: it did not answer as an HTTP server does.
    """
    parts = urlsplit(url)
    if parts.scheme == "https":
        tls = tls or ssl.create_default_context()
    host, port = parts.hostname or "", parts.port or (443 if tls else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    reader, writer = await connect(host, port, tls if parts.scheme == "https" else None)
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
        async with asyncio.timeout(ANSWERS_WITHIN):
            asked = time.time()
            writer.write(f"{request}Connection: close\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            told = time.time()
            body = await reader.read(_MAX_HEAD_BYTES)
    except TimeoutError:
        raise Unreachable(
            f"{host}:{port} takes connections and does not answer; look whether it hangs"
        ) from None
    except (OSError, EOFError, asyncio.LimitOverrunError):
        raise Unreachable(
            f"{host}:{port} does not answer as an HTTP server; is it another kind of port?"
        ) from None
    finally:
        await _leave(writer)
    return _answer(f"{host}:{port}", head, body, asked, told)


async def ask_health(host: str, port: int, tls: grpc.ChannelCredentials | None = None) -> str:
    """What a gRPC server says to a health check: ``serving``, or that it has none.

    Raises:
        Unreachable: it did not answer, or is not serving.
    """
    await knock(host, port)
    address = f"{host}:{port}"
    options = [("grpc.enable_http_proxy", 0)]
    channel = (
        grpc.aio.secure_channel(address, tls, options)
        if tls
        else grpc.aio.insecure_channel(address, options)
    )
    async with channel:
        check = channel.unary_unary(
            _HEALTH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = await check(health_pb2.HealthCheckRequest(), timeout=ANSWERS_WITHIN)
        except grpc.aio.AioRpcError as error:
            return _health_of(error, address)
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        state = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
        raise Unreachable(f"{address} says {state}; its log tells what it waits for")
    return "serving"


def _health_of(error: grpc.aio.AioRpcError, address: str) -> str:
    match error.code():
        case grpc.StatusCode.UNIMPLEMENTED | grpc.StatusCode.NOT_FOUND:
            return "answers, without a health check"
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return "answers, and its health check wants credentials"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            raise Unreachable(
                f"{address} takes connections and does not answer; look whether it hangs"
            ) from None
        case grpc.StatusCode.UNAVAILABLE:
            raise Unreachable(
                f"{address} takes connections and does not speak gRPC as we do; is it an HTTP port,"
                " or does one side speak TLS and the other not?"
            ) from None
        case code:
            return f"answers with {code.name}"


async def _leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWERS_WITHIN):
            await writer.wait_closed()


def _answer(name: str, head: bytes, body: bytes, asked: float, told: float) -> Answer:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise Unreachable(f"{name} does not answer as an HTTP server; is it another kind of port?")
    fields = {key.lower(): value.strip() for key, _, value in (one.partition(":") for one in lines)}
    skew = None
    if date := fields.get("date"):
        try:
            skew = _skew(parsedate_to_datetime(date).timestamp(), asked, told)
        except ValueError:
            skew = None
    return Answer(int(words[1]), skew, body.decode(errors="replace"))


def _skew(date: float, asked: float, told: float) -> float:
    """Seconds that a clock is ahead for certain, or behind: its ``date`` was cut to seconds.

    >>> _skew(100.0, 100.1, 100.3), _skew(100.0, 95.0, 96.0), _skew(100.0, 105.0, 106.0)
    (0.0, 4.0, -4.0)
    """
    return date - told if date > told else min(0.0, date + 1.0 - asked)


def phrase(status: int) -> str:
    """``404 Not Found``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
