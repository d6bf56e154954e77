"""TLS for HTTP/2: version 1.2 or later, and ``h2`` agreed on by ALPN.

Source: RFC 9113 §9.2, RFC 7301.
"""

import asyncio
import ssl
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from kit.transport.grpc.engine import ClientTls, ServerTls

_CIPHERS_OF_12 = "ECDHE+AESGCM:ECDHE+CHACHA20"
_BUFFER_BYTES = 16_384  # one record of TLS


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """What a server of this identity accepts.

    Raises:
        ssl.SSLError: certificate or key are not PEM, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _common(context)
    context.num_tickets = 0  # nobody resumes sessions here, and each one takes memory
    _identify(context, tls.certificate, tls.private_key)
    if tls.client_ca is not None:
        context.load_verify_locations(cadata=tls.client_ca.decode("ascii"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@lru_cache(maxsize=64)
def client_context(tls: ClientTls) -> ssl.SSLContext:
    """What a client trusts and shows; one for all connections, as the trusted take 30 kB and more.

    Raises:
        ssl.SSLError: one of its parts is not PEM, or key and certificate do not belong together.
    """
    context = ssl.create_default_context(cadata=None if tls.ca is None else tls.ca.decode("ascii"))
    _common(context)
    if tls.certificate is not None and tls.private_key is not None:
        _identify(context, tls.certificate, tls.private_key)
    return context


def _common(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_OF_12)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["h2"])


def slim(transport: asyncio.BaseTransport) -> None:
    """Take away most of the 256 KiB that asyncio keeps for each TLS connection to read into.

    There is no public way. Where the parts have other names, as in uvloop, nothing happens.
    """
    protocol: Any = getattr(transport, "_ssl_protocol", None)
    if isinstance(getattr(protocol, "_ssl_buffer", None), bytearray):
        protocol.max_size = protocol._ssl_buffer_len = _BUFFER_BYTES  # noqa: SLF001  (see above)
        protocol._ssl_buffer = bytearray(_BUFFER_BYTES)  # noqa: SLF001
        protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)  # noqa: SLF001


def _identify(context: ssl.SSLContext, certificate: bytes, private_key: bytes) -> None:
    # The module takes files only. This one is readable by nobody else, and gone at once.
    with tempfile.TemporaryDirectory(prefix="kit-tls-") as folder:
        path = Path(folder) / "identity.pem"
        path.touch(mode=0o600)
        path.write_bytes(private_key + b"\n" + certificate)
        context.load_cert_chain(path)
