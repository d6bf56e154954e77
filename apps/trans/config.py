"""The keys of ``configs/config.yaml``; their form is that of kratos' service template."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from kit.compat import Compat
from kit.config import Duration
from kit.consul import ConsulOptions, ConsulTls
from kit.etcd import EtcdOptions, EtcdTls
from kit.log import Form, Level
from kit.transport.grpc.engines import EngineName
from kit.transport.host import ListenAddress


class Listener(BaseModel):
    """Where calls come in, and how many seconds a method is given."""

    network: Literal["tcp"] = "tcp"
    addr: str = "0.0.0.0:9000"
    timeout: Duration = 1.0

    @field_validator("addr")
    @classmethod
    def _is_address(cls, addr: str) -> str:
        ListenAddress.parse(addr)
        return addr


class GrpcListener(Listener):
    """``engine`` is what speaks HTTP/2, to coordinators as well."""

    engine: EngineName = "grpcio"


class Servers(BaseModel):
    """``http`` is read because the template has it; this service serves gRPC only."""

    grpc: GrpcListener = Field(default_factory=GrpcListener)
    http: Listener | None = None


class Tls(BaseModel):
    """Files in PEM form."""

    ca: str = ""
    cert: str = ""
    key: str = ""


class Etcd(BaseModel):
    """The etcd in which the service is announced."""

    endpoints: list[str] | str
    user: str = ""
    password: SecretStr = SecretStr("")
    tls: Tls | None = None

    @field_validator("endpoints")
    @classmethod
    def _are_addresses(cls, endpoints: list[str] | str) -> list[str] | str:
        EtcdOptions.of(endpoints)
        return endpoints

    @model_validator(mode="after")
    def _fits_together(self) -> "Etcd":
        self.options()
        return self

    def options(self) -> EtcdOptions:
        """What the registry is made of; ``user`` and ``tls`` win over those of a URL."""
        url = EtcdOptions.of(self.endpoints)
        return EtcdOptions(
            url.endpoints,
            self.user or url.username,
            self.password.get_secret_value() or url.password,
            EtcdTls(self.tls.ca, self.tls.cert, self.tls.key) if self.tls else url.tls,
        )


class Consul(BaseModel):
    """The agent at which the service is announced."""

    address: str = "127.0.0.1:8500"
    token: SecretStr = SecretStr("")
    tls: Tls | None = None
    datacenter: str = ""
    namespace: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> "Consul":
        options = self.options()
        if options.tls:
            options.tls.context()  # the files are there, and are what they should be
        return self

    def options(self) -> ConsulOptions:
        """What the registry is made of; ``token`` and ``tls`` win over those of a URL."""
        url = ConsulOptions.of(self.address)
        return ConsulOptions(
            url.address,
            self.token.get_secret_value() or url.token,
            ConsulTls(self.tls.ca, self.tls.cert, self.tls.key) if self.tls else url.tls,
            self.datacenter or url.datacenter,
            self.namespace or url.namespace,
        )


class Registry(BaseModel):
    """Where to announce the service; nowhere without ``etcd`` and ``consul``."""

    etcd: Etcd | None = None
    consul: Consul | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "Registry":
        if self.etcd and self.consul:
            raise ValueError("etcd and consul are both set; leave out one of them")
        return self


class Log(BaseModel):
    """How the log is written."""

    level: str = "info"
    format: Form | None = None

    @field_validator("level")
    @classmethod
    def _is_level(cls, level: str) -> str:
        Level.parse(level)
        return level


_HOST = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]*)(:[0-9]{1,5})?")


class Database(BaseModel):
    """Where the accounts are. No error tells the source, which may hold a password."""

    driver: Literal["sqlite", "postgres", "mysql"] = "sqlite"
    source: SecretStr = SecretStr("./trans.db")

    @model_validator(mode="after")
    def _is_a_source(self) -> "Database":
        source = self.source.get_secret_value()
        schemes = {"postgres": ("postgres://", "postgresql://"), "mysql": ("mysql://",)}
        wanted = schemes.get(self.driver, ())
        if not wanted:
            if "://" in source:
                raise ValueError("source is a URL, and driver sqlite wants a path; name its driver")
            return self
        form = f"{wanted[0]}user:password@host:port/database"
        if not source.startswith(wanted):
            raise ValueError(f"source does not start with {wanted[0]}; write {form}")
        if not _is_url(source):
            raise ValueError(
                f"source is no URL; write {form}, with % / ? # @ : and [ ] of the password as "
                "%25 %2F %3F %23 %40 %3A and %5B %5D"
            )
        return self

    @property
    def place(self) -> str:
        """The path, or host, port and name; without user and password."""
        source = self.source.get_secret_value()
        if self.driver == "sqlite":
            return source
        parts = urlsplit(source)
        return f"{parts.netloc.rpartition('@')[2]}{parts.path}"


def _is_url(source: str) -> bool:
    """Whether host and port are where they should be, not pieces of a password."""
    try:
        parts = urlsplit(source)
    except ValueError:  # its text has the password
        return False
    hosts = parts.netloc.rpartition("@")[2].split(",")
    rest = f"{parts.path}{parts.fragment}"
    return "@" not in rest and all(_HOST.fullmatch(host) for host in hosts)


class Data(BaseModel):
    """What is stored; ``redis`` is of the template and not used."""

    database: Database = Field(default_factory=Database)
    opening_balance: Annotated[int, Field(ge=0)] = 10_000
    redis: dict[str, object] = Field(default_factory=dict)


class Settings(BaseModel):
    """The whole file."""

    compat: Compat = Compat.V2
    server: Servers = Field(default_factory=Servers)
    registry: Registry = Field(default_factory=Registry)
    log: Log = Field(default_factory=Log)
    data: Data = Field(default_factory=Data)
