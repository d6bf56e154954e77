"""The addresses of a name as instances of a service: for programs that have no registry.

A name is looked up again every few seconds, because nothing else tells of an address that is new:
the pods behind a headless service of Kubernetes come and go without a failing call. While a lookup
fails, or finds nothing, the addresses of the last one stay.

Lookups go through the system, that is ``/etc/hosts`` and what ``/etc/nsswitch.conf`` says. It gives
A and AAAA records; SRV records it does not.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from kit import log
from kit.clock import Clock, SystemClock
from kit.outage import Outage
from kit.registry import RegistryUnavailable, ServiceInstance
from kit.registry.changes import Changes
from kit.resilience import BackOff
from kit.transport.host import join_host_port

Lookup: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Takes a host and a port, gives addresses as text; raises OSError when there are none."""

LOOKUP_EVERY_S = 10.0

_log = log.get_logger()


class DnsDiscovery:
    """A :class:`~kit.registry.Discovery` whose services are names: ``host:port``.

    Args:
        scheme: of the endpoints, such as ``grpc``.
        every: seconds between lookups of a watched name.
        lookup: in place of the system's.
        clock: measures the pauses.
    """

    def __init__(
        self,
        scheme: str,
        *,
        every: float = LOOKUP_EVERY_S,
        lookup: Lookup | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._scheme = scheme
        self._every = every
        self._lookup = lookup or _system_lookup
        self._clock = clock or SystemClock()
        self._outage = Outage("dns", _log, clock)
        self._failure = ""

    def __str__(self) -> str:
        return f"DNS ({self._failure})" if self._failure else "DNS"

    async def get_service(self, name: str) -> list[ServiceInstance]:
        """An instance for each address of ``name``, ordered by address.

        Raises:
            RegistryUnavailable: the lookup failed.
        """
        host, _, port = name.rpartition(":")
        try:
            addresses = await self._lookup(host.strip("[]"), int(port))
        except OSError as error:
            self._failure = f"{host}: {error.strerror or error}"
            raise RegistryUnavailable(self._failure) from error
        self._failure = ""
        texts = sorted({join_host_port(address, int(port)) for address in addresses})
        return [
            ServiceInstance(text, name, endpoints=(f"{self._scheme}://{text}",)) for text in texts
        ]

    @asynccontextmanager
    async def watch(self, name: str) -> AsyncIterator[AsyncIterator[list[ServiceInstance]]]:
        """See :meth:`kit.registry.Discovery.watch`; changes are seen at the next lookup."""
        changes = Changes()
        following = asyncio.create_task(self._follow(name, changes), name=f"lookups of {name}")
        try:
            yield changes
        finally:
            following.cancel()
            await asyncio.wait([following])

    async def _follow(self, name: str, changes: Changes) -> None:
        part = self._outage.part(f"lookup of {name}")
        pauses = BackOff(min(0.5, self._every), self._every)
        failures = 0
        while True:
            try:
                changes.offer(await self.get_service(name))
            except RegistryUnavailable as error:
                part.down(error.message)
                failures += 1
                await self._clock.sleep(pauses.pause(failures))
            else:
                part.up()
                failures = 0
                await self._clock.sleep(self._every)


async def _system_lookup(host: str, port: int) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]
