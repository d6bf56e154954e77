"""What there is to be checked in the configurations of a folder."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kit.cli.doctor_certs import Pair
from kit.cli.doctor_servers import is_target
from kit.cli.run_conf import etcd_endpoints, read_conf, where, written
from kit.cli.run_find import Service
from kit.config import Config, ConfigError
from kit.config.tree import Plain
from kit.etcd import EtcdOptions, EtcdTls
from kit.transport.host import ListenAddress

COORDINATOR_CONF = Path("configs", "coordinator.yaml")
_EXTRAS = frozenset({"sqlite", "postgres", "mysql", "redis"})


@dataclass(slots=True)
class Look:
    """What one configuration names.

    Attributes:
        name: of the service, or of the coordinator.
        root: where it runs.
        problems: of the configuration itself, one line each.
        listens: addresses to listen on, with the key and the place of each.
        etcd: where it is announced.
        etcd_where: the key and the place of ``etcd``.
        targets: what it wants to reach, with key and place.
        pairs: its certificates.
        authorities: files of those it trusts, with key and place.
        extras: of kit that it needs, with key and place.
    """

    name: str
    root: Path
    problems: list[str] = field(default_factory=list)
    listens: list[tuple[str, str]] = field(default_factory=list)
    etcd: EtcdOptions | None = None
    etcd_where: str = ""
    targets: list[tuple[str, str]] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    authorities: list[tuple[Path, str]] = field(default_factory=list)
    extras: dict[str, str] = field(default_factory=dict)


async def look_at(service: Service, conf: Path | None) -> Look:
    """What the configuration of a service names.

    Args:
        service: whose.
        conf: a file or folder to take in place of its own.
    """
    look = Look(service.name, service.root)
    conf = conf or service.conf
    if conf is None:
        return look
    try:
        config = await read_conf(conf, service.environment_prefix)
    except ConfigError as error:
        look.problems = [str(problem) for problem in error.problems]
        return look
    name = config.find("name") or config.find("app.name") or config.find("service.name")
    if name is not None and isinstance(name.raw, str):
        look.name = name.raw
    tree = config.value("").raw
    for one in written(tree):
        place = where(config, one.path)
        top, _, _ = one.path.partition(".")
        last = one.path.rpartition(".")[2]
        if not isinstance(one.value, str):
            continue
        if top in ("server", "admin") and last in ("addr", "address"):
            look.listens.append((one.value, place))
        elif top != "registry" and is_target(one.value):
            look.targets.append((one.value, place))
        elif one.path == "data.database.driver" and one.value in _EXTRAS:
            look.extras[one.value] = place
    _add_etcd(look, config)
    for path, mapping in _mappings(tree):
        _add_certificates(look, config, path, mapping)
    return look


async def look_at_coordinator(root: Path) -> tuple[Look, str] | None:
    """What ``configs/coordinator.yaml`` names, and where HTTP is served; ``None`` without one."""
    file = root / COORDINATOR_CONF
    if not file.is_file():
        return None
    look = Look("coordinator", root)
    try:
        config = await read_conf(file)
    except ConfigError as error:
        look.problems = [str(problem) for problem in error.problems]
        return look, ""
    listen = _text(config, "Listen") or "0.0.0.0"  # noqa: S104  (what is configured, not done)
    http = ""
    for key, usual in (("HttpPort", "36789"), ("GrpcPort", "36790")):
        found = config.find(key)
        port = str(found.raw) if found else usual
        place = f"{key} in {found.origin if found else file}"
        look.listens.append((f"{listen}:{port}", place))
        if key == "HttpPort":
            host = "127.0.0.1" if listen in ("0.0.0.0", "::", "") else listen  # noqa: S104
            http = f"http://{host}:{port}"
    if (driver := _text(config, "Store.Driver")) in _EXTRAS:
        look.extras[driver] = where(config, "Store.Driver")
    if target := _text(config, "MicroService.Target"):
        place = where(config, "MicroService.Target")
        try:
            look.etcd, look.etcd_where = EtcdOptions.of(target), place
        except ValueError as error:
            look.problems.append(f"{place}: {error}")
    return look, http


def _add_etcd(look: Look, config: Config) -> None:
    endpoints = etcd_endpoints(config)
    if not endpoints:
        return
    place = where(config, "registry.etcd.endpoints")
    tls = {key: _text(config, f"registry.etcd.tls.{key}") for key in ("ca", "cert", "key")}
    try:
        url = EtcdOptions.of(endpoints)
        files = {key: str(look.root / name) if name else "" for key, name in tls.items()}
        look.etcd = EtcdOptions(
            url.endpoints,
            _text(config, "registry.etcd.user") or url.username,
            _text(config, "registry.etcd.password") or url.password,
            EtcdTls(**files) if any(files.values()) else url.tls,
        )
        look.etcd_where = place
    except ValueError as error:
        look.problems.append(f"{place}: {error}")


def _add_certificates(
    look: Look, config: Config, path: tuple[str, ...], mapping: Mapping[str, Plain]
) -> None:
    place = ".".join(path)
    cert, key, ca = (mapping.get(name) or "" for name in ("cert", "key", "ca"))
    if not all(isinstance(name, str) for name in (cert, key, ca)):
        return
    authority = look.root / str(ca) if ca else None
    if cert and key:
        serves = path[:1] == ("server",)
        look.pairs.append(
            Pair(
                where(config, place),
                look.root / str(cert),
                look.root / str(key),
                # What a server trusts are its clients' authorities, not its own.
                None if serves else authority,
                _hosts(config, path) if serves else (),
            )
        )
    if authority is not None:
        look.authorities.append((authority, where(config, f"{place}.ca")))


def _hosts(config: Config, path: tuple[str, ...]) -> tuple[str, ...]:
    """What clients connect to, as far as the address beside the certificate tells."""
    for name in ("addr", "address"):
        if address := _text(config, ".".join((*path[:-1], name))):
            try:
                listen = ListenAddress.parse(address)
            except ValueError:
                return ()
            return () if listen.wildcard else (listen.host.strip("[]"),)
    return ()


def _mappings(
    tree: Plain, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Plain]]]:
    if isinstance(tree, dict):
        if path:
            yield path, tree
        for key, below in tree.items():
            yield from _mappings(below, (*path, key))


def _text(config: Config, path: str) -> str:
    found = config.find(path)
    return found.raw if found is not None and isinstance(found.raw, str) else ""
