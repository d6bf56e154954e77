"""One service that is kept registered at a Consul agent for as long as somebody wants it there.

A round looks whether the agent has the service as we want it, registers it when not, and passes its
check. So it is mended whatever happened: the agent lost its data, somebody deregistered the service
or registered another one under its id, the check expired. kratos notices a check that is gone.

An agent knows services by id alone, whatever their name. Where another service has ours - two
services that take the host name for it, as kratos' template does - we go by ``<name>-<id>``: in
kratos each registration would replace the other.

Source: go-kratos/kratos contrib/registry/consul/client.go, Register.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kit.consul import (
    ConsulClient,
    ConsulDenied,
    ConsulError,
    ConsulRefused,
    ConsulUnavailable,
    Listing,
)
from kit.outage import OutagePart
from kit.registry.catalog import Entry
from kit.registry.upkeep import Upkeep

_NO_CHECK = "does not have associated TTL"
"""agent/agent.go, updateTTLCheck: how older agents say, with status 500, that there is none."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What Consul is asked to look at, in seconds.

    Attributes:
        heartbeat: a check that the process passes every half of ``ttl``.
        ttl: without a heartbeat for so long the instance is found no more.
        health_check: Consul connects to each endpoint every ``interval``.
        interval: between connections.
        timeout: for each of them.
        deregister_after: of being found no more, when Consul forgets the instance; at least 60.
    """

    heartbeat: bool = True
    ttl: float = 20.0
    health_check: bool = True
    interval: float = 10.0
    timeout: float = 5.0
    deregister_after: float = 600.0

    def __post_init__(self) -> None:
        for name, least in (
            ("ttl", 1),
            ("interval", 1),
            ("timeout", 0.1),
            ("deregister_after", 60),
        ):
            if not (seconds := getattr(self, name)) >= least:
                raise ValueError(f"registry {name}: {seconds} is less than {least} seconds")


class Registration(Upkeep[Entry]):
    """Keeps an entry at the agent from :meth:`announce` until :meth:`withdraw`.

    Args:
        client: stays open.
        entry: its name and id are those of all entries that are announced.
        checks: what Consul looks at.
        part: told when the registration is lost and when it is back.
    """

    errors = ConsulError
    refusals = (ConsulDenied, ConsulRefused)

    def __init__(
        self, client: ConsulClient, entry: Entry, checks: Checks, part: OutagePart
    ) -> None:
        super().__init__(f"{entry.name}/{entry.id}", part, checks.ttl / 2)
        self._client = client
        self._checks = checks
        self._id = entry.id
        self.standing: Entry | None = None
        """What was last seen at the agent, under the id that it has there."""
        self._sent: Entry | None = None
        self._sending: asyncio.Task[Listing] | None = None  # awaited by withdraw

    async def withdraw(self) -> None:
        """Stop, and deregister unless somebody else registered under our id meanwhile.

        Raises:
            ConsulError: no answer; the instance goes when its checks fail.
        """
        await self.stop(ConsulError(self._client.options.address, f"{self.name} was withdrawn"))
        if self._sending is not None:
            # Cancelled half-way it might arrive after what takes it back.
            await asyncio.gather(self._sending, return_exceptions=True)
        if self._sent is not None:
            await take_back(self._client, self._sent)

    async def uphold(self, value: Entry) -> float:
        """See :meth:`Upkeep.uphold`."""
        held = await self._held(value.name)
        entry = value.known_by(self._id)
        contested = False
        if held is None or not entry.stands_in(held):
            contested = self._tell_loss(entry, held)
            await self._register(entry)
        if self._checks.heartbeat and not await self._passed():
            self.part.down(f"the check of {self._id} was removed")
            await self._register(entry)
            await self._passed()
        self.standing = entry
        if not contested:
            self.part.up()
        return self._checks.ttl / 2

    async def _held(self, name: str) -> Mapping[str, Any] | None:
        """What the agent has under our id, once that is of no other service."""
        held = await held_by(self._client, self._id)
        if held is not None and held.get("Service") != name:
            self._id = f"{name}-{self._id}"
            held = await held_by(self._client, self._id)
        return held

    def _tell_loss(self, entry: Entry, held: Mapping[str, Any] | None) -> bool:
        """Say what happened to the registration; whether somebody else replaced it."""
        if self.standing != entry:
            return False  # it is we who change it
        if held is None:
            self.part.down(f"{self._id} was deregistered")
            return False
        # Told as restored only when it still stands a round later: two processes with one id
        # would otherwise fill the log.
        self.part.down(f"{self._id} was overwritten; does another process use this id?")
        return True

    async def _register(self, entry: Entry) -> None:
        body = {"ID": entry.id, **entry.fields, "Checks": self._check_definitions(entry)}
        # The checks of an earlier life may be others.
        query = {"replace-existing-checks": "true"}
        put = self._client.put("agent", "service", "register", body=body, query=query)
        sending = self._sending = asyncio.create_task(put)
        self._sent = entry
        await asyncio.shield(sending)

    def _check_definitions(self, entry: Entry) -> list[dict[str, object]]:
        """Passing at first: the servers listen, and peers need not wait for Consul to look."""
        checks = self._checks
        common = {
            "Status": "passing",
            "DeregisterCriticalServiceAfter": _go(checks.deregister_after),
        }
        found: list[dict[str, object]] = []
        if checks.health_check:
            found += [
                {
                    "TCP": address,
                    "Interval": _go(checks.interval),
                    "Timeout": _go(checks.timeout),
                    **common,
                }
                for address in entry.addresses
            ]
        if checks.heartbeat:
            found.append({"CheckID": self._check_id, "TTL": _go(checks.ttl), **common})
        return found

    @property
    def _check_id(self) -> str:
        return f"service:{self._id}"

    async def _passed(self) -> bool:
        """Pass the check; false when there is none."""
        try:
            listing = await self._client.put("agent", "check", "pass", self._check_id)
        except ConsulUnavailable as error:
            if _NO_CHECK in error.message:
                return False
            raise
        return not listing.missing


async def held_by(client: ConsulClient, id: str) -> Mapping[str, Any] | None:  # noqa: A002  its name
    """The service that the agent knows by ``id``."""
    found: Mapping[str, Any] | None = (await client.get("agent", "service", id)).value
    return found


async def take_back(client: ConsulClient, entry: Entry) -> bool:
    """Deregister ``entry`` if it is what the agent has under its id; whether it was."""
    held = await held_by(client, entry.id)
    if held is None or not entry.stands_in(held):
        return False
    await client.put("agent", "service", "deregister", entry.id)
    return True


def _go(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
