"""etcd, the coordinator, what is announced, the clocks, and the targets of a configuration."""

import dataclasses
import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from kit.cli.doctor_net import (
    ANSWERS_WITHIN,
    MAX_SKEW_S,
    Answer,
    Unreachable,
    ask_health,
    fetch,
    knock,
    phrase,
)
from kit.cli.doctor_report import Finding, failed, good, skipped
from kit.etcd import EtcdClient, EtcdDenied, EtcdError, EtcdOptions, EtcdTokenInvalid
from kit.registry import RegistryUnavailable, ServiceInstance
from kit.registry.etcd import EtcdRegistry

COORDINATOR_NAME = "dtmservice"
_DATABASES = {
    "postgres": 5432,
    "postgresql": 5432,
    "mysql": 3306,
    "redis": 6379,
    "rediss": 6379,
    "mongodb": 27017,
}


async def check_etcd(options: EtcdOptions, where: str) -> list[Finding]:
    """Each member by itself: does it answer a read that needs its quorum, and what time has it."""
    findings: list[Finding] = []
    for endpoint in options.endpoints:
        alone = dataclasses.replace(options, endpoints=(endpoint,), timeout=ANSWERS_WITHIN)
        findings.append(await _member(alone, endpoint, where))
        if findings[-1].state == "ok" and options.tls is None:
            findings.append(await _clock(f"etcd at {endpoint}", f"http://{endpoint}/version"))
    return findings


async def _member(options: EtcdOptions, endpoint: str, where: str) -> Finding:
    host, _, port = endpoint.rpartition(":")
    try:
        await knock(host.strip("[]"), int(port))
        async with EtcdClient(options) as client:
            await client.get("health")
    except Unreachable as error:
        why = f"{error}; kit dev brings an etcd, {where} names this one"
        return failed("etcd", endpoint, why)
    except EtcdTokenInvalid as error:
        return failed("etcd", endpoint, f"{error.detail}; write them at {where}")
    except EtcdDenied as error:
        if "permission denied" in error.detail:  # of the key asked for; the answer came
            return good("etcd", endpoint, "answers, user and password fit")
        return failed("etcd", endpoint, f"{error.detail}; correct them at {where}")
    except (EtcdError, ValueError, OSError) as error:
        detail = error.detail if isinstance(error, EtcdError) else str(error)
        why = (
            f"takes connections and does not answer a read ({detail}); it hangs, has lost its"
            f" quorum, or one side speaks TLS and the other not, see {where}"
        )
        return failed("etcd", endpoint, why)
    return good("etcd", endpoint, "answers, and has a quorum")


async def check_registration(
    options: EtcdOptions, name: str, *, wanted: bool
) -> tuple[list[Finding], list[ServiceInstance]]:
    """Who is announced as ``name``, and whether somebody listens there.

    Args:
        options: of a registry that answers.
        name: of the service.
        wanted: it is a failure that nobody is announced.
    """
    try:
        async with EtcdRegistry(options) as registry:
            instances = await registry.get_service(name)
    except (RegistryUnavailable, EtcdError) as error:
        return [failed("registration", name, f"cannot be looked up: {error.message}")], []
    if not instances:
        why = "is not announced"
        if wanted:
            start = "kit dev brings one" if name == COORDINATOR_NAME else f"kit run {name}"
            return [failed("registration", name, f"{why}; start it, {start}")], []
        return [skipped("registration", name, f"{why}: it does not run")], []
    findings: list[Finding] = []
    for instance in instances:
        for endpoint in instance.endpoints:
            parts = urlsplit(endpoint)
            try:
                await knock(parts.hostname or "", parts.port or 0)
            except (Unreachable, ValueError) as error:
                why = (
                    f"{instance.id} is announced at {endpoint}, and {error}; a dead process is"
                    " forgotten after its lease of 15 s, a wrong host is set by the address it"
                    " listens on"
                )
                findings.append(failed("registration", name, why))
            else:
                text = f"{instance.id} is announced at {endpoint}, and listens there"
                findings.append(good("registration", name, text))
        if not instance.endpoints:
            why = f"{instance.id} is announced without an endpoint; give it a server"
            findings.append(failed("registration", name, why))
    return findings, instances


async def check_coordinator(address: str) -> list[Finding]:
    """Ping, version and clock over HTTP, or health over gRPC.

    Args:
        address: ``http://host:port``, ``grpc://host:port`` or ``host:port``, which is gRPC.
    """
    if not address.startswith(("http://", "https://")):
        return [await _grpc("coordinator", address.removeprefix("grpc://"))]
    base = address.rstrip("/").removesuffix("/api/dtmsvr")
    try:
        answer = await fetch(f"{base}/api/ping")
        if answer.status != 200 or "pong" not in answer.body:
            why = (
                f"answers {phrase(answer.status)} to /api/ping, as no coordinator does; is it"
                " another program's port?"
            )
            return [failed("coordinator", address, why)]
        version = await fetch(f"{base}/api/dtmsvr/version")
    except Unreachable as error:
        return [failed("coordinator", address, str(error))]
    found = re.search(r'"version"\s*:\s*"([^"]+)"', version.body)
    text = f"answers, version {found[1] if found else 'unknown'}"
    return [
        good("coordinator", address, text),
        _clock_of(f"coordinator at {urlsplit(address).netloc}", answer),
    ]


async def check_target(
    target: str, where: str, etcd: EtcdOptions | None, ca: Path | None
) -> Finding:
    """Whether a service, a page or a database can be reached.

    Args:
        target: a URL: ``discovery:///name``, ``grpc://``, ``grpcs://``, ``http://``, ``https://``,
            or that of a database.
        where: what named it.
        etcd: where ``discovery:///name`` is looked up.
        ca: authorities to trust for TLS, beside the system's.
    """
    parts = urlsplit(target)
    shown = _without_password(target)
    try:
        if parts.scheme in ("discovery", "etcd"):
            return await _discovered(target, shown, where, etcd)
        port = parts.port or _DATABASES.get(parts.scheme) or 0
        host = parts.hostname or ""
        tls = ssl.create_default_context()
        if ca is not None:
            tls.load_verify_locations(ca)
        if parts.scheme in ("http", "https"):
            answer = await fetch(target, tls)
            text = f"answers {phrase(answer.status)}"
            if answer.status >= 500:
                return failed("target", shown, f"{text}; its log tells why")
            return good("target", shown, text)
        if parts.scheme in _DATABASES:
            await knock(host, port)
            return good("target", shown, "takes connections")
        if parts.scheme == "grpcs":
            await knock(host, port, tls)
            said = await ask_health(host, port, _credentials(ca))
        else:
            said = await ask_health(host, port)
        return good("target", shown, said)
    except Unreachable as error:
        return failed("target", shown, f"{error}; {where} names it")
    except (ValueError, OSError) as error:
        return failed("target", shown, f"{error}; correct it at {where}")


def _credentials(ca: Path | None) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(ca.read_bytes() if ca else None)


def is_target(text: str) -> bool:
    """Whether a value of a configuration is something to reach.

    >>> is_target("discovery:///trans"), is_target("postgres://u:p@db/x"), is_target("./trans.db")
    (True, True, False)
    """
    scheme, found, rest = text.partition("://")
    known = {"discovery", "etcd", "grpc", "grpcs", "http", "https", *_DATABASES}
    return bool(found and rest) and scheme in known


async def _discovered(target: str, shown: str, where: str, etcd: EtcdOptions | None) -> Finding:
    parts = urlsplit(target)
    name = parts.path.strip("/").partition("/")[0]
    if not name:
        return failed("target", shown, f"names no service; correct it at {where}")
    if parts.netloc:
        etcd = EtcdOptions.of(target)
    if etcd is None:
        why = f"no registry is configured to look it up in; write host:port into {where}"
        return failed("target", shown, why)
    findings, _ = await check_registration(etcd, name, wanted=True)
    worst = next((one for one in findings if one.state == "failed"), None)
    if worst is not None:
        return failed("target", shown, f"{name} {worst.text}; {where} names it")
    return good("target", shown, f"{len(findings)} endpoints of {name} listen")


async def _grpc(check: str, address: str) -> Finding:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return failed(check, address, "is not host:port; write for example 127.0.0.1:36790")
    try:
        return good(check, address, await ask_health(host.strip("[]"), int(port)))
    except Unreachable as error:
        return failed(check, address, str(error))


async def _clock(name: str, url: str) -> Finding:
    try:
        return _clock_of(name, await fetch(url))
    except Unreachable as error:
        return skipped("clock", name, f"cannot be asked: {error}")


def _clock_of(name: str, answer: Answer) -> Finding:
    if answer.skew is None:
        return skipped("clock", name, "does not tell the time")
    if abs(answer.skew) > MAX_SKEW_S:
        side = "ahead of" if answer.skew > 0 else "behind"
        why = (
            f"is {abs(answer.skew):.0f} s {side} this machine; let both follow NTP, for example"
            " timedatectl set-ntp true"
        )
        return failed("clock", name, why)
    return good("clock", name, f"differs by less than {MAX_SKEW_S:g} s from this machine")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return url.replace(f"{parts.netloc.rpartition('@')[0]}@", "", 1) if "@" in parts.netloc else url


def announced_ports(instances: Iterable[ServiceInstance]) -> frozenset[int]:
    """The ports of the endpoints."""
    ports = (urlsplit(endpoint).port for each in instances for endpoint in each.endpoints)
    return frozenset(port for port in ports if port)
