"""TLS for HTTP/2: the ciphers that it allows, and ``h2`` agreed on by ALPN.

Source: RFC 9113 §9.2, RFC 7301.
"""

import ssl

from kit.transport import tls
from kit.transport.tls import ClientTls, ServerTls

_CIPHERS_OF_12 = "ECDHE+AESGCM:ECDHE+CHACHA20"
_PROTOCOLS = ("h2",)


def server_context(identity: ServerTls) -> ssl.SSLContext:
    """What a server accepts; see :func:`kit.transport.tls.server_context`."""
    context = tls.server_context(identity, _PROTOCOLS)
    context.set_ciphers(_CIPHERS_OF_12)
    return context


def client_context(identity: ClientTls) -> ssl.SSLContext:
    """What a client trusts and shows; see :func:`kit.transport.tls.client_context`."""
    context = tls.client_context(identity, _PROTOCOLS)
    context.set_ciphers(_CIPHERS_OF_12)
    return context
