"""How to reach an etcd: its members, who we are, what we trust."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_PORT = 2379
_PLAIN_SCHEMES = frozenset({"etcd", "discovery", "http"})
_FORMS = "write host:2379, https://host:2379 or etcd://h1:2379,h2:2379"


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """Files in PEM form for an encrypted connection.

    Attributes:
        ca: the authorities that etcd's certificate must come from; empty: gRPC's own list.
        cert: our certificate, for an etcd that wants one; its names are not looked at by etcd
            unless user certificates are on.
        key: the key of ``cert``.
    """

    ca: str | Path = ""
    cert: str | Path = ""
    key: str | Path = ""

    def __post_init__(self) -> None:
        if bool(self.cert) != bool(self.key):
            missing = "key" if self.cert else "cert"
            raise ValueError(f"etcd tls: {missing} is missing; cert and key go together")


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """What an :class:`~kit.etcd.EtcdClient` needs to know.

    Attributes:
        endpoints: ``host:port`` of the members, tried in this order.
        username: empty for an etcd without authentication.
        password: of ``username``.
        tls: ``None`` for plain text.
        timeout: seconds that one call may take, over all members that are tried.
        keepalive: seconds after which a silent connection is asked whether it still lives; the
            answer may take half of that, at most 5 s. etcd cuts clients that ask more often than
            its ``--grpc-keepalive-min-time``, 5 s by default.
    """

    endpoints: tuple[str, ...] = (f"127.0.0.1:{DEFAULT_PORT}",)
    username: str = ""
    password: str = field(default="", repr=False)
    tls: EtcdTls | None = None
    timeout: float = 3.0
    keepalive: float = 10.0

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise ValueError(f"etcd endpoints: none given; {_FORMS}")
        for endpoint in self.endpoints:
            if _host_port(endpoint) != endpoint:
                raise ValueError(f"etcd endpoint {endpoint!r}: not host:port; {_FORMS}")
        for name in ("timeout", "keepalive"):
            if not (seconds := getattr(self, name)) > 0:
                raise ValueError(f"etcd {name}: {seconds} is not more than 0 seconds")

    @classmethod
    def of(cls, etcd: "EtcdOptions | str | Sequence[str]") -> "EtcdOptions":
        """Options from what people write: options, a URL, or endpoints as a list or between commas.

        A URL has the form ``etcd://user:password@h1:2379,h2:2379``; ``etcds://`` and ``https://``
        mean TLS. Its path, which in a target names a service, is not looked at. The query may say
        ``tls=true``, ``caPath=``, ``certPath=`` and ``certKeyPath=``, as in a target of
        dtm-driver-kratos. A missing port is 2379.

        Raises:
            ValueError: it has none of these forms; the message says what is wrong.

        >>> EtcdOptions.of("etcd://h1:2379,h2/trans").endpoints
        ('h1:2379', 'h2:2379')
        >>> EtcdOptions.of(["http://127.0.0.1:2379"]).endpoints
        ('127.0.0.1:2379',)
        """
        if isinstance(etcd, EtcdOptions):
            return etcd
        if isinstance(etcd, str):
            if etcd.count("://") <= 1:
                return _from_text(etcd)
            etcd = etcd.split(",")  # http://h1:2379,http://h2:2379, as etcdctl takes them
        parts = [_from_text(text) for text in etcd]
        if not parts:
            raise ValueError(f"etcd endpoints: none given; {_FORMS}")
        first = parts[0]
        for part, text in zip(parts, etcd, strict=True):
            if (part.username, part.password, part.tls) != (
                first.username,
                first.password,
                first.tls,
            ):
                raise ValueError(
                    f"etcd endpoint {_masked(text)!r}: all members need the same scheme and user"
                )
        endpoints = tuple(endpoint for part in parts for endpoint in part.endpoints)
        return cls(endpoints, first.username, first.password, first.tls)


def _from_text(text: str) -> EtcdOptions:
    """Options of one URL, or of endpoints between commas."""
    url = urlsplit(text if "://" in text else f"etcd://{text}")
    if url.scheme not in _PLAIN_SCHEMES | {"etcds", "https"}:
        raise ValueError(
            f"etcd endpoint {_masked(text)!r}: unknown scheme {url.scheme!r}; {_FORMS}"
        )
    user, _, hosts = url.netloc.rpartition("@")
    name, _, password = user.partition(":")
    query = {key: values[-1] for key, values in parse_qs(url.query).items()}
    files = [query.get(key, "") for key in ("caPath", "certPath", "certKeyPath")]
    wanted = query.get("tls", "").lower() == "true" or url.scheme in {"etcds", "https"}
    return EtcdOptions(
        tuple(_host_port(host) for host in hosts.split(",")),
        unquote(name),
        unquote(password),
        EtcdTls(*files) if wanted else None,
    )


def _host_port(text: str) -> str:
    """``text`` as ``host:port``, with the default port when it names none."""
    text = text.strip()
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or "/" in host or "@" in host or (":" in host) != bracketed:
        raise ValueError(f"etcd endpoint {_masked(text)!r}: not host:port; {_FORMS}")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"etcd endpoint {_masked(text)!r}: {port!r} is not a port; {_FORMS}")
    return f"{host}:{port}"


def _masked(text: str) -> str:
    """``text`` without the user and the password of a URL."""
    head, scheme_end, rest = text.rpartition("://")
    return f"{head}{scheme_end}{rest.rpartition('@')[2]}"
