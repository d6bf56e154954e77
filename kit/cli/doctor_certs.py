"""Certificates, judged by a handshake in memory as a peer would make it.

So nothing is parsed here: what OpenSSL refuses a peer refuses, too, and the reason is OpenSSL's.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kit.cli.doctor_report import Finding, failed, good

SOON_DAYS = 14
"""From when on the end of a certificate is told."""

_EXPIRED, _NOT_YET, _HOST, _ADDRESS = 10, 9, 62, 64
"""Of OpenSSL's X509_V_ERR_…"""
_PURPOSE = "unsuitable certificate purpose"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate that a configuration names.

    Attributes:
        where: the key of the configuration.
        cert: a file in PEM form.
        key: its key.
        ca: whom its peers trust; ``None``: the certificate itself.
        hosts: what it is connected to by; empty for that of a client.
    """

    where: str
    cert: Path
    key: Path
    ca: Path | None = None
    hosts: tuple[str, ...] = ()


def check_pair(pair: Pair) -> Finding:
    """Whether files are there and belong together, the time is right, and the names fit."""
    subject = str(pair.cert)
    for file in (pair.cert, pair.key, *([pair.ca] if pair.ca else [])):
        try:
            file.read_bytes()
        except OSError as error:
            why = f"cannot be read: {error.strerror}; see {pair.where}"
            return failed("certificate", str(file), why)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(pair.cert, pair.key, password="")
    except ssl.SSLError as error:
        return failed("certificate", subject, _pair_fault(error, pair))
    try:
        context.load_verify_locations(pair.ca or pair.cert)
    except ssl.SSLError:
        why = f"is no certificate in PEM form; see {pair.where}"
        return failed("certificate", str(pair.ca or pair.cert), why)
    ends: datetime | None = None
    for host in pair.hosts or ("",):
        try:
            try:
                ends = _as_server(pair, host)
            except ssl.SSLCertVerificationError as error:
                if host or error.verify_message != _PURPOSE:
                    raise
                ends = _as_client(pair)
        except ssl.SSLCertVerificationError as error:
            return failed("certificate", subject, _fault(error, host, pair))
        except ssl.SSLError as error:
            return failed("certificate", subject, f"{error.reason}; see {pair.where}")
    return _good(subject, ends, pair)


def check_ca(file: Path, where: str) -> Finding:
    """Whether a file has certificates of authorities, and which is the first that ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(file)
    except ssl.SSLError:
        why = f"is no certificate in PEM form; see {where}"
        return failed("certificate", str(file), why)
    except OSError as error:
        return failed("certificate", str(file), f"cannot be read: {error.strerror}; see {where}")
    ends = [_instant(str(each["notAfter"])) for each in context.get_ca_certs()]
    if not ends:
        return good("certificate", str(file), "can be read")
    if min(ends) < datetime.now(UTC):
        why = f"an authority in it ended on {min(ends):%Y-%m-%d}; get a new one, see {where}"
        return failed("certificate", str(file), why)
    return good("certificate", str(file), f"its authorities last until {min(ends):%Y-%m-%d}")


def fault_of(error: ssl.SSLCertVerificationError, host: str) -> str:
    """Why the certificate of a server was refused, and the way out."""
    match error.verify_code:
        case code if code == _EXPIRED:
            return "its certificate has ended; renew it there"
        case code if code == _NOT_YET:
            return "its certificate is not valid yet; look at both clocks"
        case code if code in (_HOST, _ADDRESS):
            return f"its certificate is not for {host}; use a name it has, or get one for {host}"
        case _:
            return f"its certificate is not trusted: {error.verify_message}; name its authority"


def _pair_fault(error: ssl.SSLError, pair: Pair) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{pair.key} is the key of another certificate; see {pair.where}"
    if error.reason in ("BAD_DECRYPT", "BAD_PASSWORD_READ"):
        return f"{pair.key} is locked with a password; store the key without one"
    return f"certificate or key {pair.key} is not in PEM form; see {pair.where}"


def _fault(error: ssl.SSLCertVerificationError, host: str, pair: Pair) -> str:
    match error.verify_code:
        case code if code == _EXPIRED:
            return f"has ended; renew it, see {pair.where}"
        case code if code == _NOT_YET:
            return f"is not valid yet; look at the clock, see {pair.where}"
        case code if code in (_HOST, _ADDRESS):
            return f"is not for {host}, which its peers connect to; get one with that name"
        case _:
            return f"is not from {pair.ca or 'itself'}: {error.verify_message}; see {pair.where}"


def _good(subject: str, ends: datetime | None, pair: Pair) -> Finding:
    if ends is None:
        return good("certificate", subject, "belongs to its key")
    left = (ends - datetime.now(UTC)).days
    if left < SOON_DAYS:
        text = f"belongs to its key, and ends in {left} days, on {ends:%Y-%m-%d}: renew it soon"
        return good("certificate", subject, text)
    return good("certificate", subject, f"belongs to its key and lasts until {ends:%Y-%m-%d}")


def _as_server(pair: Pair, host: str) -> datetime:
    """When the certificate ends that a client of ``host`` sees; any name will do when it is empty.

    Raises:
        ssl.SSLError: it refuses it.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.cert, pair.key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = bool(host)
    _trust(client, pair)
    return _shake(server, client, host)[1]


def _as_client(pair: Pair) -> datetime:
    """When the certificate ends that a server sees.

    Raises:
        ssl.SSLError: it refuses it.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.cert, pair.key)
    server.verify_mode = ssl.CERT_REQUIRED
    _trust(server, pair)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.load_cert_chain(pair.cert, pair.key)
    return _shake(server, client, "")[0]


def _trust(context: ssl.SSLContext, pair: Pair) -> None:
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(pair.ca or pair.cert)


def _shake(
    server_side: ssl.SSLContext, client_side: ssl.SSLContext, host: str
) -> tuple[datetime, datetime]:
    """Make a handshake in memory; when the certificates end that server and client have seen.

    Raises:
        ssl.SSLError: one of them refuses the other.
    """
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(up, down, server_side=True)
    client = client_side.wrap_bio(down, up, server_hostname=host or None)
    for _ in range(10):  # three rounds are enough
        waiting = 0
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
        if not waiting:
            break
    return _end_of(server), _end_of(client)


def _end_of(side: ssl.SSLObject) -> datetime:
    """When the certificate of the other side ends; far away when it was not asked for."""
    certificate = side.getpeercert()
    return (
        _instant(str(certificate["notAfter"])) if certificate else datetime.max.replace(tzinfo=UTC)
    )


def _instant(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
