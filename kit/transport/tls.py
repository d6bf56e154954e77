"""Who a server or client is and whom it trusts, for every transport.

Version 1.2 of TLS or later. Certificates are read once, when a server or client is made.
"""

import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The identity of a server, in PEM.

    Attributes:
        certificate: the chain, leaf first.
        private_key: its key, not encrypted.
        client_ca: when given, clients must show a certificate signed by it.
        is_secure_query: announce ``grpc://host:port?isSecure=true``, for clients of kratos up to
            2.2, in place of ``grpcs://host:port``, which those from 2.3 on understand. Never both:
            a newer client without TLS would take the old form for plain text.

    Raises:
        ValueError: something is not PEM, or the key is encrypted or not that of the certificate.
    """

    certificate: bytes
    private_key: bytes
    client_ca: bytes | None = None
    is_secure_query: bool = False

    def __post_init__(self) -> None:
        server_context(self, ())

    def endpoint(self, scheme: str, address: str) -> str:
        """The URL to announce for ``address``; ``scheme`` is that of plain text."""
        if self.is_secure_query:
            return f"{scheme}://{address}?isSecure=true"
        return f"{scheme}s://{address}"

    @classmethod
    def from_files(
        cls, certificate: str | Path, private_key: str | Path, client_ca: str | Path | None = None
    ) -> "ServerTls":
        """Read PEM files.

        Raises:
            OSError: one of them cannot be read.
        """
        ca = None if client_ca is None else Path(client_ca).read_bytes()
        return cls(Path(certificate).read_bytes(), Path(private_key).read_bytes(), ca)


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Whom a client trusts and who it is, in PEM.

    Attributes:
        ca: the authorities to trust; ``None`` for those of the machine.
        certificate: the client's own chain, for servers that ask.
        private_key: its key.
        server_name: the name to verify in place of the authority.

    Raises:
        ValueError: something is not PEM, or the key is encrypted, missing or another one's.
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    private_key: bytes | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("tls: a certificate needs its private key, and a key its certificate")
        client_context(self, ())

    @classmethod
    def from_files(
        cls,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        private_key: str | Path | None = None,
        server_name: str | None = None,
    ) -> "ClientTls":
        """Read PEM files.

        Raises:
            OSError: one of them cannot be read.
        """
        return cls(_read(ca), _read(certificate), _read(private_key), server_name)


def _read(file: str | Path | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()


def server_context(tls: ServerTls, protocols: Sequence[str]) -> ssl.SSLContext:
    """What a server of this identity accepts.

    Args:
        tls: the identity.
        protocols: of ALPN, such as ``h2``.

    Raises:
        ValueError: certificate or key cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _common(context, protocols)
    _identify(context, tls.certificate, tls.private_key)
    if tls.client_ca is not None:
        _trust(context, tls.client_ca, "client_ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: ClientTls, protocols: Sequence[str]) -> ssl.SSLContext:
    """What a client trusts and shows.

    Raises:
        ValueError: one of its parts cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca is None:
        context.load_default_certs()
    else:
        _trust(context, tls.ca, "ca")
    _common(context, protocols)
    if tls.certificate is not None and tls.private_key is not None:
        _identify(context, tls.certificate, tls.private_key)
    return context


def _common(context: ssl.SSLContext, protocols: Sequence[str]) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(list(protocols))


def _trust(context: ssl.SSLContext, authorities: bytes, name: str) -> None:
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as exc:
        raise ValueError(f"tls: {name} has no certificate in PEM form: {exc}") from exc


def _identify(context: ssl.SSLContext, certificate: bytes, private_key: bytes) -> None:
    # The module takes files only. This one is readable by nobody else, and gone at once.
    with tempfile.TemporaryDirectory(prefix="kit-tls-") as folder:
        path = Path(folder) / "identity.pem"
        path.touch(mode=0o600)
        path.write_bytes(private_key + b"\n" + certificate)
        try:
            # With a password, or OpenSSL asks whoever sits at the terminal for that of the key.
            context.load_cert_chain(path, password="")
        except ssl.SSLError as exc:
            raise ValueError(
                f"tls: certificate and private key cannot be used: {exc}; both have to be PEM, the "
                "key not encrypted and that of the first certificate"
            ) from exc


__all__ = ["ClientTls", "ServerTls", "client_context", "server_context"]
