"""How to reach a Consul agent: its address, who we are, what we trust."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_PORT = 8500
_PLAIN_SCHEMES = frozenset({"consul", "http"})
_FORMS = "write host:8500, consul://host:8500 or https://host:8501"


@dataclass(frozen=True, slots=True)
class ConsulTls:
    """Files in PEM form for an encrypted connection.

    Attributes:
        ca: the authorities that the agent's certificate must come from; empty: the system's.
        cert: our certificate, for an agent that wants one.
        key: the key of ``cert``.
    """

    ca: str | Path = ""
    cert: str | Path = ""
    key: str | Path = ""

    def __post_init__(self) -> None:
        if bool(self.cert) != bool(self.key):
            missing = "key" if self.cert else "cert"
            raise ValueError(f"consul tls: {missing} is missing; cert and key go together")

    def context(self) -> ssl.SSLContext:
        """For connections of a client.

        Raises:
            ValueError: a file cannot be read or is none of PEM form.
        """
        try:
            context = ssl.create_default_context(cafile=str(self.ca) or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except OSError as error:  # of which ssl.SSLError is one
            files = ", ".join(str(file) for file in (self.ca, self.cert, self.key) if file)
            raise ValueError(f"consul tls: {files}: {error}") from error
        return context


@dataclass(frozen=True, slots=True)
class ConsulOptions:
    """What a :class:`~kit.consul.ConsulClient` needs to know.

    Attributes:
        address: ``host:port`` of the agent, usually the one on this machine.
        token: of the access control; empty for an agent without it.
        tls: ``None`` for plain text.
        datacenter: whose services and keys are read; empty: that of the agent. Announcements are
            always the agent's own.
        namespace: of Consul Enterprise; empty: ``default``.
        timeout: seconds that one request may take, those that wait for a change aside.
        wait: seconds that a request waits for a change at most; Consul cuts it at 600.
    """

    address: str = f"127.0.0.1:{DEFAULT_PORT}"
    token: str = field(default="", repr=False)
    tls: ConsulTls | None = None
    datacenter: str = ""
    namespace: str = ""
    timeout: float = 3.0
    wait: float = 55.0

    def __post_init__(self) -> None:
        if _host_port(self.address) != self.address:
            raise ValueError(f"consul address {self.address!r}: not host:port; {_FORMS}")
        for name in ("timeout", "wait"):
            if not (seconds := getattr(self, name)) > 0:
                raise ValueError(f"consul {name}: {seconds} is not more than 0 seconds")
        if not (self.token.isascii() and self.token.isprintable()):
            raise ValueError("consul token: it has characters that no header can carry")

    @classmethod
    def of(cls, consul: "ConsulOptions | str") -> "ConsulOptions":
        """Options from what people write: options, ``host:port``, or a URL.

        ``https://`` means TLS. A path, which in a target names a service, is not looked at. The
        query may say ``token=``, ``dc=`` and ``ns=``, and ``tls=true``, ``caPath=``, ``certPath=``
        and ``certKeyPath=`` as in a target of dtm-driver-kratos. A missing port is 8500.

        Raises:
            ValueError: it has none of these forms; the message says what is wrong.

        >>> ConsulOptions.of("consul://10.0.0.1/dtmservice?dc=east").address
        '10.0.0.1:8500'
        """
        if isinstance(consul, ConsulOptions):
            return consul
        url = urlsplit(consul if "://" in consul else f"consul://{consul}")
        if url.scheme not in _PLAIN_SCHEMES | {"https"}:
            raise ValueError(
                f"consul address {_masked(consul)!r}: unknown scheme {url.scheme!r}; {_FORMS}"
            )
        if "@" in url.netloc:
            raise ValueError(
                f"consul address {_masked(consul)!r}: consul knows no user; write ?token=..."
            )
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        files = [query.get(key, "") for key in ("caPath", "certPath", "certKeyPath")]
        wanted = query.get("tls", "").lower() == "true" or url.scheme == "https"
        return cls(
            _host_port(unquote(url.netloc)),
            query.get("token", ""),
            ConsulTls(*files) if wanted else None,
            query.get("dc", ""),
            query.get("ns", ""),
        )


def _host_port(text: str) -> str:
    """``text`` as ``host:port``, with the default port when it names none."""
    text = text.strip()
    if "," in text:
        raise ValueError(
            f"consul address {text!r}: name one agent, the one on this machine; it knows the others"
        )
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or "/" in host or "@" in host or (":" in host) != bracketed:
        raise ValueError(f"consul address {text!r}: not host:port; {_FORMS}")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"consul address {text!r}: {port!r} is not a port; {_FORMS}")
    return f"{host}:{port}"


def _masked(text: str) -> str:
    """``text`` without the user of a URL and its query, which may have a token."""
    head, scheme_end, rest = text.partition("?")[0].rpartition("://")
    return f"{head}{scheme_end}{rest.rpartition('@')[2]}"
