"""All checks of ``kit doctor``, one after the other."""

import os
from collections.abc import Sequence
from pathlib import Path

from kit.cli.doctor_certs import check_ca, check_pair
from kit.cli.doctor_look import Look, look_at, look_at_coordinator
from kit.cli.doctor_ports import FREE, check_port
from kit.cli.doctor_python import check_python
from kit.cli.doctor_report import Finding, failed, skipped
from kit.cli.doctor_servers import (
    COORDINATOR_NAME,
    announced_ports,
    check_coordinator,
    check_etcd,
    check_registration,
    check_target,
)
from kit.cli.run_find import Service, python_of
from kit.etcd import EtcdOptions
from kit.registry import ServiceInstance


class Examination:
    """All checks, one after the other.

    Args:
        services: of the folder.
        here: the folder.
        ca: authorities for targets with TLS.
    """

    def __init__(self, services: Sequence[Service], here: Path, ca: Path | None) -> None:
        self._services = services
        self._here = here
        self._ca = ca
        self._findings: list[Finding] = []
        self._alive: dict[EtcdOptions, bool] = {}

    async def examine(
        self,
        *,
        conf: Path | None,
        etcd: EtcdOptions | None,
        coordinator: str | None,
        names: Sequence[str],
        targets: Sequence[str],
    ) -> list[Finding]:
        """What was found."""
        looks = [await look_at(service, conf) for service in self._services]
        roots = list(dict.fromkeys(service.root for service in self._services)) or [self._here]
        own: list[tuple[Look, str]] = []
        for root in roots:
            if found := await look_at_coordinator(root):
                own.append(found)
            extras = {
                extra: where
                for look in (*looks, *(look for look, _ in own))
                if look.root == root
                for extra, where in look.extras.items()
            }
            self._findings += await check_python(python_of(root), root, extras)
        if etcd is None and (text := os.environ.get("ETCD_ENDPOINTS", "")):
            try:
                etcd = EtcdOptions.of(text)
            except ValueError as error:
                self._findings.append(failed("etcd", "ETCD_ENDPOINTS", str(error)))
        if etcd is not None:
            await self._etcd(etcd, "--etcd or ETCD_ENDPOINTS")
        for look in (*looks, *(look for look, _ in own)):
            self._findings += [failed("config", look.name, each) for each in look.problems]
            if look.etcd is not None:
                await self._etcd(look.etcd, look.etcd_where)
        for look in looks:
            await self._service(look, wanted=look.name in names)
        known = {look.name for look in looks}
        await self._named([name for name in names if name not in known])
        await self._coordinators(coordinator, own)
        await self._targets([(target, "--target") for target in targets], etcd)
        return self._findings

    async def _etcd(self, options: EtcdOptions, where: str) -> None:
        if options not in self._alive:
            found = await check_etcd(options, where)
            self._findings += found
            self._alive[options] = any(one.check == "etcd" and one.state == "ok" for one in found)

    async def _service(self, look: Look, *, wanted: bool) -> None:
        instances: list[ServiceInstance] = []
        if look.etcd is not None and self._alive[look.etcd]:
            found, instances = await check_registration(look.etcd, look.name, wanted=wanted)
            self._findings += found
        ports = announced_ports(instances)
        self._findings += [check_port(at, where, look.root, ports) for at, where in look.listens]
        self._findings += [check_pair(pair) for pair in look.pairs]
        self._findings += [check_ca(file, where) for file, where in look.authorities]
        # Its own name among its targets was looked at as a registration.
        own = f"discovery:///{look.name}"
        others = [(target, where) for target, where in look.targets if target != own]
        await self._targets(others, look.etcd)

    async def _named(self, names: Sequence[str]) -> None:
        living = [options for options, alive in self._alive.items() if alive]
        for name in names:
            if not living:
                why = "cannot be looked up: no etcd answers; name one with --etcd"
                self._findings.append(failed("registration", name, why))
            for options in living:
                self._findings += (await check_registration(options, name, wanted=True))[0]

    async def _coordinators(self, given: str | None, own: Sequence[tuple[Look, str]]) -> None:
        instances: list[ServiceInstance] = []
        for options in [options for options, alive in self._alive.items() if alive]:
            found, there = await check_registration(options, COORDINATOR_NAME, wanted=False)
            self._findings += [one for one in found if one.state != "skipped"]
            instances += there
        for look, http in own:
            ports = announced_ports(instances)
            found = [check_port(at, where, look.root, ports) for at, where in look.listens]
            self._findings += found
            if found and found[0].state == "ok" and found[0].text != FREE:
                self._findings += await check_coordinator(http)
        if given is not None:
            self._findings += await check_coordinator(given)
            return
        for instance in instances:
            for endpoint in instance.endpoints:
                self._findings += await check_coordinator(endpoint)
        if not instances:
            why = "none is announced and none was named; kit dev brings one"
            self._findings.append(skipped("coordinator", "-", why))

    async def _targets(self, targets: Sequence[tuple[str, str]], etcd: EtcdOptions | None) -> None:
        self._findings += [
            await check_target(target, where, etcd, self._ca) for target, where in targets
        ]
