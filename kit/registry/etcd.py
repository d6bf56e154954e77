"""A registry in etcd that kratos services share.

Key ``<namespace>/<name>/<id>``, value as in :mod:`kit.registry.record`, lease of 15 s. Instances
are looked for under ``<namespace>/<name>/``: with the slash, which kratos leaves out, so that an
instance of ``user-admin`` neither travels to nor wakes who watches ``user``. All that kratos and
dtm's drivers write lies below that slash, even the keys with an empty id of dtm-driver-kratos
0.0.10. The name inside the value decides, as it does in kratos: ``user/x`` is another service.

A value that cannot be read is left out and named in the log once; in kratos it hides all others.

Source: go-kratos/kratos contrib/registry/etcd/registry.go, watcher.go.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Self

from kit import log
from kit.clock import Clock
from kit.etcd import (
    EtcdClient,
    EtcdError,
    EtcdOptions,
    KeyValue,
    delete_step,
    follow,
    value_is,
)
from kit.outage import Outage
from kit.registry import RegistryUnavailable, ServiceInstance
from kit.registry.announcement import Announcement
from kit.registry.changes import Changes
from kit.registry.record import decode, encode

DEFAULT_NAMESPACE = "/microservices"
DEFAULT_TTL = 15.0
_PATIENCE = 5.0
_BAD_VALUES_KEPT = 1000

_log = log.get_logger()


class EtcdRegistry:
    """A :class:`~kit.registry.Registrar` and :class:`~kit.registry.Discovery` in etcd.

    Announcements and watches outlive any outage: within one TTL after etcd is back the keys are
    back, and watches give the whole list anew. The log says once that something is interrupted and
    once that it is restored. Belongs to the event loop that first uses it.

    Args:
        etcd: a URL such as ``etcd://h1:2379,h2:2379``, endpoints, or options with user and TLS.
        namespace: what keys begin with.
        ttl: seconds after which the announcements of a dead process go; cut to whole ones.
        patience: seconds that :meth:`register` waits for an etcd that does not answer.
        clock: measures times.

    Raises:
        ValueError: ``etcd`` cannot be read, or ``ttl`` is less than 1.
    """

    def __init__(
        self,
        etcd: EtcdOptions | str | Sequence[str],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        ttl: float = DEFAULT_TTL,
        patience: float = _PATIENCE,
        clock: Clock | None = None,
    ) -> None:
        if not ttl >= 1:
            raise ValueError(f"registry ttl: {ttl} is less than 1 second")
        self._namespace = namespace.rstrip("/")
        self._ttl = int(ttl)
        self._patience = patience
        self._clock = clock
        self._client = EtcdClient(etcd, clock=clock)
        self._outage = Outage("registry", _log, clock)
        self._bad = _BadValues()
        self._announcements: dict[str, Announcement] = {}
        self._watches: dict[Changes, asyncio.Task[None]] = {}
        self._closed = False

    def __str__(self) -> str:
        return f"etcd at {self._client.endpoints}"

    async def __aenter__(self) -> Self:
        """The registry; it connects with its first call."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """Take back what is still announced, end the watches, disconnect; twice is fine."""
        self._closed = True
        announcements = dict(self._announcements)
        self._announcements.clear()
        try:
            outcomes = await asyncio.gather(
                *(announcement.withdraw() for announcement in announcements.values()),
                return_exceptions=True,
            )
            for key, outcome in zip(announcements, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    _log.warning("registry: %s ends with its lease: %s", key, _message(outcome))
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

        A caller that is cancelled while it waits leaves the announcement being tried.

        Raises:
            BadRequest: the name is empty, or a field is not text.
            RegistryUnavailable: etcd did not answer within ``patience``, or refuses us; the
                announcement is still being tried.
        """
        self._refuse_when_closed()
        value, key = encode(instance), self._key(instance)
        announcement = self._announcements.get(key)
        if announcement is None:
            part = self._outage.part(f"registration of {instance.name}/{instance.id}")
            announcement = Announcement(self._client, key, self._ttl, part)
            self._announcements[key] = announcement
        settled = announcement.announce(value)
        try:
            async with asyncio.timeout(self._patience):
                failure = await asyncio.shield(settled)
        except TimeoutError:
            cause = announcement.failure
            text = cause.message if cause else f"etcd at {self._client.endpoints}: no answer yet"
            raise RegistryUnavailable(f"{text}; {key} is still being tried") from cause
        if failure is not None:
            raise RegistryUnavailable(f"{failure.message}; {key} is not announced") from failure

    async def deregister(self, instance: ServiceInstance) -> None:
        """See :meth:`kit.registry.Registrar.deregister`.

        What somebody else put under the key meanwhile stays.

        Raises:
            RegistryUnavailable: etcd did not answer; the announcement ends with its lease.
        """
        self._refuse_when_closed()
        key = self._key(instance)
        announcement = self._announcements.pop(key, None)
        try:
            if announcement is not None:
                await announcement.withdraw()
            else:  # of an earlier life of this process, perhaps
                await self._client.txn([value_is(key, encode(instance))], [delete_step(key)])
        except EtcdError as error:
            raise RegistryUnavailable(f"{error.message}; {key} ends with its lease") from error

    async def get_service(self, name: str) -> list[ServiceInstance]:
        """See :meth:`kit.registry.Discovery.get_service`."""
        self._refuse_when_closed()
        try:
            listing = await self._client.get_prefix(self._prefix(name))
        except EtcdError as error:
            raise RegistryUnavailable(error.message) from error
        return _View(name, self._bad).instances(listing.items)

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

        def report(error: EtcdError | None) -> None:
            if error is None:
                part.up()
            else:
                part.down(error.message)

        view = _View(name, self._bad)
        prefix = self._prefix(name)
        states = follow(self._client, prefix, prefix=True, report=report, clock=self._clock)
        try:
            async with aclosing(states):
                async for state in states:
                    changes.offer(view.instances(state.values()))
        except Exception as error:  # noqa: BLE001  whoever reads the changes has to know
            _log.exception("registry: the watch of %s failed", name)
            changes.close(error)
        finally:
            part.forget()

    def _prefix(self, name: str) -> str:
        return f"{self._namespace}/{name}/"

    def _key(self, instance: ServiceInstance) -> str:
        return self._prefix(instance.name) + instance.id

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise RegistryUnavailable("this registry is closed")


class _BadValues:
    """Which values were named in the log already."""

    def __init__(self) -> None:
        self._named: dict[bytes, bytes] = {}

    def name(self, item: KeyValue, error: ValueError) -> None:
        if self._named.get(item.key) == item.value:
            return
        if len(self._named) >= _BAD_VALUES_KEPT:
            self._named.clear()
        self._named[item.key] = item.value
        key = item.key.decode(errors="backslashreplace")
        _log.warning("registry: %s is left out: its value is no service instance: %s", key, error)


class _View:
    """The instances of one name among keys; decodes a value once, however often it is shown."""

    def __init__(self, name: str, bad: _BadValues) -> None:
        self._name = name
        self._bad = bad
        self._decoded: dict[bytes, tuple[bytes, ServiceInstance | None]] = {}

    def instances(self, items: Iterable[KeyValue]) -> list[ServiceInstance]:
        """Those whose value says our name, ordered by id."""
        before, self._decoded = self._decoded, {}
        for item in items:
            known = before.get(item.key)
            if known is None or known[0] != item.value:
                known = item.value, self._decode(item)
            self._decoded[item.key] = known
        found = [
            (instance.id, key, instance)
            for key, (_, instance) in self._decoded.items()
            if instance is not None and instance.name == self._name
        ]
        return [instance for *_, instance in sorted(found, key=lambda entry: entry[:2])]

    def _decode(self, item: KeyValue) -> ServiceInstance | None:
        try:
            return decode(item.value)
        except ValueError as error:
            self._bad.name(item, error)
            return None


def _message(error: Exception) -> str:
    return error.message if isinstance(error, EtcdError) else f"{type(error).__name__}: {error}"
