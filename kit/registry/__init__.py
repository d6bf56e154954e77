"""Where services announce themselves and find each other.

A :class:`Registrar` announces an instance, a :class:`Discovery` finds the instances of a name.
Implementations stand beside this file: :mod:`kit.registry.memory` for one process,
:mod:`kit.registry.etcd` and :mod:`kit.registry.consul` for the field. Whatever implements these
Protocols can be checked with ``kit.testing.check_registry``.

Source: go-kratos/kratos registry/registry.go.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from kit.errors import ServiceUnavailable


@dataclass(frozen=True, slots=True)
class ServiceInstance:
    """One running process of a service.

    Attributes:
        id: unique among the instances of ``name``.
        name: the service, the second element of its registry key.
        version: free text, such as ``git describe`` gives.
        metadata: text to text; ``weight`` is read by the balancers. ``None`` and empty differ
            in JSON.
        endpoints: URLs such as ``grpc://10.0.0.5:9000``, one a server.
    """

    id: str
    name: str
    version: str = ""
    metadata: Mapping[str, str] | None = field(default_factory=dict)
    endpoints: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash((self.name, self.id))


class RegistryUnavailable(ServiceUnavailable):
    """The registry did not answer."""

    def __init__(self, message: str = "") -> None:
        super().__init__("REGISTRY_UNAVAILABLE", message)


class Registrar(Protocol):
    """Announces a service instance and takes the announcement back."""

    async def register(self, instance: ServiceInstance) -> None:
        """Announce ``instance`` and keep it announced until it is deregistered.

        Registering an id again replaces what was announced under it. When the registry does not
        answer, the announcement is retried in the background until it succeeds: the service serves
        meanwhile.

        Raises:
            RegistryUnavailable: the registry did not answer in the time it is given; the
                announcement is still being retried, as it is when the caller's own deadline
                comes first and cancels the call.
        """
        ...

    async def deregister(self, instance: ServiceInstance) -> None:
        """Take the announcement back; not an error when there is none.

        Raises:
            RegistryUnavailable: the registry did not answer; the announcement ends with its lease.
        """
        ...


class Discovery(Protocol):
    """Finds the instances of a service."""

    async def get_service(self, name: str) -> list[ServiceInstance]:
        """The instances announced under exactly ``name``, ordered by id.

        Raises:
            RegistryUnavailable: the registry did not answer before the caller's deadline.
        """
        ...

    def watch(self, name: str) -> AbstractAsyncContextManager[AsyncIterator[list[ServiceInstance]]]:
        """The instances of ``name`` now, even when there are none, and again after each change.

        ``async with discovery.watch("trans") as changes: async for instances in changes: ...``
        stands for kratos' ``Next`` and ``Stop``. The iterator survives an outage of the registry:
        it says nothing until the registry is back, and then the whole list. Equal lists are not
        repeated. Waiting for the next list may be cancelled and done again.
        """
        ...
