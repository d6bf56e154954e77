"""TLS for HTTP/2: version 1.2 or later, only the ciphers that RFC 9113 leaves, and ``h2`` by ALPN.

Source: RFC 9113 §9.2, RFC 7301.
"""

import asyncio
import ssl
from functools import lru_cache
from typing import Any

from kit.transport import tls
from kit.transport.tls import ClientTls, ServerTls

_CIPHERS_OF_12 = "ECDHE+AESGCM:ECDHE+CHACHA20"
_PROTOCOLS = ("h2",)
_BUFFER_BYTES = 16_384  # one record of TLS


def server_context(identity: ServerTls) -> ssl.SSLContext:
    """What a server accepts; see :func:`kit.transport.tls.server_context`."""
    context = tls.server_context(identity, _PROTOCOLS)
    _narrow(context)
    context.num_tickets = 0  # nobody resumes sessions here, and each one takes memory
    return context


@lru_cache(maxsize=64)
def client_context(identity: ClientTls) -> ssl.SSLContext:
    """What a client trusts and shows; see :func:`kit.transport.tls.client_context`.

    One for all connections, as the trusted take 30 kB and more.
    """
    context = tls.client_context(identity, _PROTOCOLS)
    _narrow(context)
    return context


def _narrow(context: ssl.SSLContext) -> None:
    context.set_ciphers(_CIPHERS_OF_12)
    context.options |= ssl.OP_NO_RENEGOTIATION


def slim(transport: asyncio.BaseTransport) -> None:
    """Take away most of the 256 KiB that asyncio keeps for each TLS connection to read into.

    There is no public way. Where the parts have other names, as in uvloop, nothing happens.
    """
    protocol: Any = getattr(transport, "_ssl_protocol", None)
    if isinstance(getattr(protocol, "_ssl_buffer", None), bytearray):
        protocol.max_size = protocol._ssl_buffer_len = _BUFFER_BYTES  # noqa: SLF001  (see above)
        protocol._ssl_buffer = bytearray(_BUFFER_BYTES)  # noqa: SLF001
        protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)  # noqa: SLF001
