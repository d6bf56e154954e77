"""A registry in Consul that kratos services share.

Announcements go to one agent, the one on this machine; instances are looked for in the catalog of
its datacenter, those whose checks pass. :mod:`kit.registry.catalog` has the form of an instance,
:mod:`kit.registry.registration` how it is kept there.

Consul takes ``user`` and ``User`` for one service; here the name has to be the same.

Source: go-kratos/kratos contrib/registry/consul/.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Self

from kit import log
from kit.clock import Clock
from kit.consul import ConsulClient, ConsulError, ConsulOptions, follow
from kit.outage import Outage
from kit.registry import RegistryUnavailable, ServiceInstance
from kit.registry.catalog import Entry, entry_of, instance_of
from kit.registry.changes import Changes
from kit.registry.registration import Checks, Registration, take_back

_PATIENCE = 5.0
_FOUND = {"passing": "1"}

_log = log.get_logger()


class ConsulRegistry:
    """A :class:`~kit.registry.Registrar` and :class:`~kit.registry.Discovery` in Consul.

    Announcements and watches outlive any outage: after at most half a TTL with Consul back the
    instance is back, also in an agent that lost its data, and watches give the whole list anew. The
    log says once that something is interrupted and once that it is restored. Belongs to the event
    loop that first uses it.

    Args:
        consul: a URL such as ``consul://127.0.0.1:8500``, ``host:port``, or options with token,
            TLS, datacenter and namespace.
        checks: what Consul looks at to know whether an instance lives.
        tags: of every instance announced here, beside that of its version.
        patience: seconds that :meth:`register` waits for a Consul that does not answer.
        clock: measures times.

    Raises:
        ValueError: ``consul`` cannot be read.
    """

    def __init__(
        self,
        consul: ConsulOptions | str,
        *,
        checks: Checks | None = None,
        tags: Sequence[str] = (),
        patience: float = _PATIENCE,
        clock: Clock | None = None,
    ) -> None:
        self._client = ConsulClient(consul)
        self._checks = checks or Checks()
        self._tags = tuple(tags)
        self._patience = patience
        self._clock = clock
        self._outage = Outage("registry", _log, clock)
        self._registrations: dict[tuple[str, str], Registration] = {}
        self._watches: dict[Changes, asyncio.Task[None]] = {}
        self._closed = False

    def __str__(self) -> str:
        return f"consul at {self._address}"

    async def __aenter__(self) -> Self:
        """The registry; it connects with its first call."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Take back what is still announced, end the watches, disconnect; twice is fine."""
        self._closed = True
        registrations = list(self._registrations.values())
        self._registrations.clear()
        try:
            outcomes = await asyncio.gather(
                *(registration.withdraw() for registration in registrations),
                return_exceptions=True,
            )
            for registration, outcome in zip(registrations, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    _log.warning(
                        "registry: %s ends with its checks: %s",
                        registration.name,
                        getattr(outcome, "message", "") or repr(outcome),
                    )
        finally:
            tasks = list(self._watches.values())
            for changes, task in self._watches.items():
                changes.close()
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await self._client.aclose()

    async def register(self, instance: ServiceInstance) -> None:
        """See :meth:`kit.registry.Registrar.register`.

        Returns when the instance is in the catalog, where others look for it, or after
        ``patience`` when the agent has it and the catalog does not show it yet. A caller that is
        cancelled while it waits leaves the registration being tried.

        Raises:
            BadRequest: the name is empty, or a field is not text.
            RegistryUnavailable: the agent did not answer within ``patience``, or refuses us; the
                registration is still being tried.
        """
        self._refuse_when_closed()
        entry = entry_of(instance, self._tags)
        key = (entry.name, entry.id)
        registration = self._registrations.get(key)
        if registration is None:
            part = self._outage.part(f"registration of {entry.name}/{entry.id}")
            registration = Registration(self._client, entry, self._checks, part)
            self._registrations[key] = registration
        settled = registration.announce(entry)
        try:
            async with asyncio.timeout(self._patience):
                failure = await asyncio.shield(settled)
                if failure is None and registration.standing is not None:
                    await self._shown(registration.standing, present=True)
        except TimeoutError:
            if settled.done():
                return  # the agent has it; its servers are slow
            cause = registration.failure
            text = cause.message if cause else f"consul at {self._address}: no answer yet"
            raise RegistryUnavailable(
                f"{text}; {registration.name} is still being tried"
            ) from cause
        if failure is not None:
            raise RegistryUnavailable(
                f"{failure.message}; {registration.name} is not announced"
            ) from failure

    async def deregister(self, instance: ServiceInstance) -> None:
        """See :meth:`kit.registry.Registrar.deregister`.

        What somebody else registered under the id meanwhile stays.

        Raises:
            RegistryUnavailable: the agent did not answer; the instance goes when its checks fail.
        """
        self._refuse_when_closed()
        entry = entry_of(instance, self._tags)
        registration = self._registrations.pop((entry.name, entry.id), None)
        try:
            if registration is not None:
                await registration.withdraw()
                entry = registration.standing or entry
            elif not await take_back(self._client, entry):  # of an earlier life, perhaps
                return
        except ConsulError as error:
            raise RegistryUnavailable(
                f"{error.message}; {entry.name}/{entry.id} ends with its checks"
            ) from error
        try:
            async with asyncio.timeout(self._patience):
                await self._shown(entry, present=False)
        except TimeoutError:
            pass  # the agent knows; its servers are slow

    async def get_service(self, name: str) -> list[ServiceInstance]:
        """See :meth:`kit.registry.Discovery.get_service`."""
        self._refuse_when_closed()
        try:
            listing = await self._client.get("health", "service", name, query=_FOUND)
        except ConsulError as error:
            raise RegistryUnavailable(error.message) from error
        return _instances(name, listing.value)

    @asynccontextmanager
    async def watch(self, name: str) -> AsyncIterator[AsyncIterator[list[ServiceInstance]]]:
        """See :meth:`kit.registry.Discovery.watch`."""
        self._refuse_when_closed()
        changes = Changes()
        task = asyncio.create_task(self._follow(name, changes), name=f"watch {name}")
        self._watches[changes] = task
        try:
            yield changes
        finally:
            task.cancel()
            await asyncio.wait([task])
            del self._watches[changes]

    async def _follow(self, name: str, changes: Changes) -> None:
        part = self._outage.part(f"watch of {name}")

        def report(error: ConsulError | None) -> None:
            if error is None:
                part.up()
            else:
                part.down(error.message)

        states = follow(
            self._client,
            "health",
            "service",
            name,
            query=_FOUND,
            report=report,
            clock=self._clock,
        )
        try:
            async with aclosing(states):
                async for state in states:
                    changes.offer(_instances(name, state))
        except Exception as error:  # noqa: BLE001  whoever reads the changes has to know
            _log.exception("registry: the watch of %s failed", name)
            changes.close(error)
        finally:
            part.forget()

    async def _shown(self, entry: Entry, *, present: bool) -> None:
        """Return when the catalog shows ``entry``, or shows it no more.

        An agent tells the catalog right away, but answers before it has.
        """
        states = follow(self._client, "health", "service", entry.name, clock=self._clock)
        async with aclosing(states):
            async for state in states:
                if present == any(entry.stands_in(found["Service"]) for found in state or ()):
                    return

    @property
    def _address(self) -> str:
        return self._client.options.address

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise RegistryUnavailable("this registry is closed")


def _instances(name: str, entries: Any) -> list[ServiceInstance]:
    """Those of exactly this name, ordered by id."""
    found = [
        instance_of(entry["Service"], (entry.get("Node") or {}).get("Address", ""))
        for entry in entries or ()
        if entry["Service"]["Service"] == name
    ]
    return sorted(found, key=lambda instance: instance.id)
