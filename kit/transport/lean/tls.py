"""TLS for HTTP/2: version 1.2 or later, only the ciphers that RFC 9113 leaves, and ``h2`` by ALPN.

:class:`TlsSocket` stands between a socket and its :class:`~kit.transport.lean.wire.Wire`. The TLS
of asyncio and of uvloop keeps 256 KiB for each connection to read into; here the bytes that the
loop has read go straight to OpenSSL, and what a connection keeps is OpenSSL's own.

A connection ends with an alert when a record is broken, and with ``close_notify`` otherwise. It
takes an end of the socket without one: HTTP/2 says itself where a call ends, so that no answer
which was cut off looks whole.

Source: RFC 9113 §9.2, RFC 7301, RFC 8446 §6.
"""

import asyncio
import ssl
from functools import lru_cache
from typing import cast

from kit.transport import tls
from kit.transport.lean.wire import Wire
from kit.transport.tls import ClientTls, ServerTls

_CIPHERS_OF_12 = "ECDHE+AESGCM:ECDHE+CHACHA20"
_PROTOCOLS = ("h2",)
_RECORD_BYTES = 16_384
"""Plain text of one record, at most. OpenSSL is given no more at once: its buffers never shrink."""
_SEALED_BYTES = _RECORD_BYTES + 22
"""The same in TLS 1.3: records that come one behind the other are taken whole."""


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


class TlsSocket(asyncio.Protocol):
    """A protocol to the socket below, and to the wire above the transport that it writes to.

    Args:
        wire: begins when both sides have agreed.
        context: of :func:`server_context` or :func:`client_context`.
        name: the server's, that its certificate has to show; for clients.
    """

    __slots__ = ("_agreed", "_in", "_open", "_out", "_socket", "_tls", "_wire")

    _socket: asyncio.Transport

    def __init__(self, wire: Wire, context: ssl.SSLContext, name: str | None = None) -> None:
        self._wire = wire
        self._agreed = False  # the handshake is over
        self._open = False  # what is written is sent
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._in, self._out, server_side=not wire.client, server_hostname=name
        )

    # To the socket.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to agree."""
        self._socket = cast("asyncio.Transport", transport)  # uvloop's is of no such class
        self._wire.attach(cast("asyncio.Transport", self))
        if self._wire.client:
            self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        """Bytes came: records, or parts of them."""
        plain: list[bytes] = []
        over: str | None = None
        try:
            for start in range(0, len(data) or 1, _SEALED_BYTES):
                self._in.write(data[start : start + _SEALED_BYTES])
                if self._take(plain):
                    over = "Socket closed"
        except ssl.SSLError as exc:
            over = str(exc)
            self._open = False
        self._flush()  # of the handshake, an alert, or new keys that the peer asked for
        if plain:
            self._wire.data_received(plain[0] if len(plain) == 1 else b"".join(plain))
        if over is not None:
            self._wire.close(over)

    def _take(self, plain: list[bytes]) -> bool:
        """Append what can be read by now; whether the peer said that there is no more."""
        try:
            if not self._agreed:
                self._agree()
            while self._in.pending:
                if not (part := self._tls.read(_RECORD_BYTES)):
                    return True
                plain.append(part)
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still to come
        return False

    def _agree(self) -> None:
        self._tls.do_handshake()
        self._agreed = True
        if self._tls.selected_alpn_protocol() == "h2":
            self._open = True
            self._wire.begin()
        else:
            self._wire.abort("TLS did not agree on h2")

    def eof_received(self) -> bool:
        """The peer has gone; see the module."""
        self._wire.close(
            "Socket closed" if self._agreed else "the peer left amid the TLS handshake"
        )
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._open = False
        self._wire.connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer does not read."""
        self._wire.pause_writing()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._wire.resume_writing()

    def _flush(self) -> None:
        if self._out.pending:
            data = self._out.read()
            if not self._socket.is_closing():
                self._socket.write(data)

    # To the wire.

    def write(self, data: bytes) -> None:
        """Send ``data``, unless TLS has ended."""
        if not self._open:
            return
        records = []
        for start in range(0, len(data), _RECORD_BYTES):
            self._tls.write(data[start : start + _RECORD_BYTES])
            records.append(self._out.read())
        self._socket.writelines(records)

    def close(self) -> None:
        """Close when all is written."""
        if self._open:
            self._open = False
            try:
                self._tls.unwrap()
            except ssl.SSLError:
                pass  # the peer's own close_notify is not waited for
            self._flush()
        self._socket.close()

    def abort(self) -> None:
        """Close at once."""
        self._socket.abort()

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._socket.is_closing()

    def pause_reading(self) -> None:
        """Leave to the peer what it sends."""
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._socket.resume_reading()

    def get_extra_info(self, name: str, default: object = None) -> object:
        """What the socket says, such as ``peername``."""
        return self._socket.get_extra_info(name, default)
