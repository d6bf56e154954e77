"""TLS for HTTP/2: version 1.2 or later, and ``h2`` agreed on by ALPN.

Source: RFC 9113 §9.2, RFC 7301.
"""

import ssl
import tempfile
from pathlib import Path

from kit.transport.grpc.engine import ClientTls, ServerTls

_CIPHERS_OF_12 = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """What a server of this identity accepts.

    Raises:
        ssl.SSLError: certificate or key are not PEM, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _common(context)
    _identify(context, tls.certificate, tls.private_key)
    if tls.client_ca is not None:
        context.load_verify_locations(cadata=tls.client_ca.decode("ascii"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """What a client trusts and shows.

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
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["h2"])


def _identify(context: ssl.SSLContext, certificate: bytes, private_key: bytes) -> None:
    # The module takes files only. This one is readable by nobody else, and gone at once.
    with tempfile.TemporaryDirectory(prefix="kit-tls-") as folder:
        path = Path(folder) / "identity.pem"
        path.touch(mode=0o600)
        path.write_bytes(private_key + b"\n" + certificate)
        context.load_cert_chain(path)
