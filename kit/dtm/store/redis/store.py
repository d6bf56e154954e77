"""A store in Redis 5 or newer, for any number of coordinators.

Theory of operation
    Each operation is one script (:mod:`kit.dtm.store.redis.scripts`) and therefore atomic. What is
    asked for while a pipeline is under way leaves together with the next one; with ``appendfsync
    always`` Redis brings a whole pipeline to the disk before it answers the first of it.

    Redis answers before its replicas have what it wrote: a failover to a replica may lose the last
    writes. Whoever cannot bear that takes PostgreSQL or MySQL.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Self

import structlog

from kit.clock import Clock
from kit.dtm.core.model import Branch, Transaction
from kit.dtm.store import (
    BranchExists,
    Change,
    Filter,
    GidExists,
    Held,
    KeyValue,
    KvChanged,
    LostLease,
    StoreCorrupt,
    StoreUnavailable,
)
from kit.dtm.store.group import Group
from kit.dtm.store.redis import scripts
from kit.dtm.store.redis.link import Link, Request, run_script
from kit.dtm.store.redis.records import (
    branch_field,
    branch_text,
    capped,
    entry,
    entry_name,
    entry_text,
    global_text,
    held,
)
from kit.dtm.store.redis.scripts import MAX_ROWS, Script
from kit.dtm.store.redis.wire import Reply, pack
from kit.dtm.store.rules import ended_at, refuse_misuse, refuse_twins, row_position

DEFAULT_PORT = 6_379

EXPIRED_AT_ONCE = 64
"""Finished transactions that are read in one pipeline for :meth:`RedisStore.expired`."""

log = structlog.get_logger(__name__)


class RedisStore:
    """A :class:`kit.dtm.store.Store` in Redis.

    Args:
        host: of the server; ``h1:p1,h2:p2`` are nodes of a cluster.
        port: for a host that names none.
        clock: leases and due times are measured with; ``None`` is the server's own, the right one
            wherever several coordinators share it.
        user: empty is Redis' ``default``.
        password: empty: none is sent.
        prefix: of every key; with a cluster it must contain a hash tag, as ``{a}`` does.

    Raises:
        ValueError: ``host`` or ``prefix`` cannot be used.
    """

    def __init__(
        self,
        host: str,
        port: int = DEFAULT_PORT,
        clock: Clock | None = None,
        *,
        user: str = "",
        password: str = "",
        prefix: str = "{a}",
    ) -> None:
        addresses = [_address(part, port) for part in host.split(",")]
        if len(addresses) > 1:
            _refuse_untagged(prefix)
        self._clock = clock
        self._prefix = prefix
        self._link = Link(addresses, prefix, user, password)
        self._group: Group[Request, Reply] | None = None
        self._weaknesses: tuple[str, ...] = ()

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """See :attr:`kit.dtm.store.Store.weaknesses`; as the server was set when it was opened."""
        return self._weaknesses

    async def __aenter__(self) -> Self:
        """See :meth:`kit.dtm.store.Store.__aenter__`.

        Raises:
            ValueError: it is a cluster, and the prefix has no hash tag.
        """
        self._group = Group(f"the store in {self._link.address}", self._link.run)
        try:
            await self._refuse_cluster_without_tag()
            self._weaknesses = await self._find_weaknesses()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """See :meth:`kit.dtm.store.Store.__aexit__`."""
        if self._group is not None:
            await self._group.aclose()
        self._link.close()

    async def create(self, tx: Transaction, *, owner: str = "", lease_s: float = 10.0) -> int:
        """See :meth:`kit.dtm.store.Store.create`.

        After :class:`~kit.dtm.store.StoreUnavailable` with an unknown outcome it may be asked
        again: it then says whether the gid is there.
        """
        refuse_twins(tx.gid, tx.branches)
        created = await self._run(
            scripts.CREATE,
            tx.gid,
            owner,
            _ms(lease_s),
            *_columns(tx),
            *_branches(tx.gid, tx.branches),
        )
        if not created:
            raise GidExists(tx.gid)
        return 1

    async def load(self, gid: str) -> Held | None:
        """See :meth:`kit.dtm.store.Store.load`."""
        found = await self._run(scripts.LOAD, gid)
        return held(*found) if found else None

    async def save(self, change: Change) -> int:
        """See :meth:`kit.dtm.store.Store.save`."""
        refuse_misuse(change)
        gid = change.tx.gid
        branches = {branch.key: branch for branch in change.branches}
        fence: int = await self._run(
            scripts.SAVE,
            gid,
            change.fence,
            change.owner,
            int(change.take),
            int(change.force),
            int(change.release),
            _ms(change.lease_s),
            *_columns(change.tx),
            *_branches(gid, tuple(branches.values())),
        )
        if not fence:
            raise LostLease(gid)
        return fence

    async def append(self, gid: str, branches: Sequence[Branch]) -> None:
        """See :meth:`kit.dtm.store.Store.append`."""
        outcome = await self._run(scripts.APPEND, gid, *_branches(gid, branches))
        if outcome == 0:
            raise LostLease(gid)
        if outcome < 0:
            raise BranchExists(gid)

    async def claim(self, owner: str, limit: int, *, lease_s: float = 10.0) -> list[Held]:
        """See :meth:`kit.dtm.store.Store.claim`.

        A transaction that cannot be read is logged as an error and left out, with a lease like the
        others: it is met again when that is over. One whose record is gone is met once.
        """
        assert owner, "a claim names its owner"
        assert limit >= 0, "a negative limit would mean all"
        if not limit:
            return []
        claimed = []
        for gid, record, *lease in await self._run(scripts.CLAIM, owner, _ms(lease_s), limit):
            if record is None:
                log.error("a transaction is gone, was it evicted or deleted?", gid=gid.decode())
                continue
            fence, lease_until, branches = lease
            try:
                claimed.append(held(record, fence, owner.encode(), lease_until, branches))
            except StoreCorrupt as exc:
                name, message = gid.decode(), str(exc.message)
                log.error("a stored transaction cannot be read", gid=name, error=message)  # noqa: TRY400
        return claimed

    async def renew(
        self, owner: str, held: Sequence[tuple[str, int]], *, lease_s: float = 10.0
    ) -> set[str]:
        """See :meth:`kit.dtm.store.Store.renew`."""
        lost: set[str] = set()
        for start in range(0, len(held), MAX_ROWS):
            words = [word for pair in held[start : start + MAX_ROWS] for word in pair]
            gids = await self._run(scripts.RENEW, owner, _ms(lease_s), *words)
            lost.update(gid.decode() for gid in gids)
        return lost

    async def next_due(self) -> int | None:
        """See :meth:`kit.dtm.store.Store.next_due`."""
        found = await self._command("ZRANGE", f"{self._prefix}_w", 0, 0, "WITHSCORES")
        return int(float(found[1])) if found else None

    async def purge(self, finished_before: int, limit: int) -> int:
        """See :meth:`kit.dtm.store.Store.purge`."""
        assert limit >= 0, "a negative limit would mean all"
        purged = 0
        while purged < limit:
            asked = min(limit - purged, MAX_ROWS)
            deleted = await self._run(scripts.PURGE, finished_before, asked)
            purged += deleted
            if deleted < asked:
                break
        return purged

    async def expired(self, finished_before: int, limit: int) -> list[Transaction]:
        """See :meth:`kit.dtm.store.Store.expired`."""
        assert limit >= 0, "a negative limit would mean all"
        gids = await self._run(scripts.EXPIRED, finished_before, limit)
        found: list[Transaction] = []
        for start in range(0, len(gids), EXPIRED_AT_ONCE):
            page = gids[start : start + EXPIRED_AT_ONCE]
            loaded = await asyncio.gather(*(self.load(gid.decode()) for gid in page))
            found += [held.tx for held in loaded if held is not None]
        return found

    async def delete(self, gids: Sequence[str]) -> int:
        """See :meth:`kit.dtm.store.Store.delete`."""
        deleted = 0
        for start in range(0, len(gids), MAX_ROWS):
            deleted += await self._run(scripts.DELETE, *gids[start : start + MAX_ROWS])
        return deleted

    async def scan(self, position: str, limit: int, which: Filter) -> tuple[list[Held], str]:
        """See :meth:`kit.dtm.store.Store.scan`; newest first, at most 1,000 looked at a page."""
        assert limit >= 1, "a page of nothing never ends"
        row_position(position)
        bounds = (which.created_from, which.created_until)
        rows, following = await self._run(
            scripts.SCAN,
            position,
            limit,
            which.status,
            which.trans_type,
            *("" if bound is None else bound for bound in bounds),
        )
        found = [held(record, fence, who, until, []) for record, fence, who, until in rows]
        return found, following.decode()

    async def reset_next_cron_time(self, gid: str) -> bool:
        """See :meth:`kit.dtm.store.Store.reset_next_cron_time`."""
        return bool(await self._run(scripts.RESET_ONE, gid))

    async def reset_cron_time(self, later_than: int, limit: int) -> tuple[int, bool]:
        """See :meth:`kit.dtm.store.Store.reset_cron_time`; the latest come last."""
        assert limit >= 1, "a limit of nothing never ends"
        number, more = await self._run(scripts.RESET_ALL, later_than, limit)
        return number, bool(more)

    async def find_kv(self, cat: str, key: str) -> list[KeyValue]:
        """See :meth:`kit.dtm.store.Store.find_kv`."""
        if cat and key:
            record = await self._command("GET", f"{self._prefix}_kv_{entry_name(cat, key)}")
            return [entry(record)] if record is not None else []
        found: list[KeyValue] = []
        start, position = entry_name(cat, "") if cat else "", ""
        while True:
            records, following = await self._run(scripts.SCAN_KV, position, MAX_ROWS, start)
            found += [kv for kv in map(entry, records) if key in ("", kv.key)]
            if not (position := following.decode()):
                return sorted(found, key=lambda kv: (kv.key, kv.cat))

    async def scan_kv(self, cat: str, position: str, limit: int) -> tuple[list[KeyValue], str]:
        """See :meth:`kit.dtm.store.Store.scan_kv`."""
        assert limit >= 1, "a page of nothing never ends"
        row_position(position)
        records, following = await self._run(scripts.SCAN_KV, position, limit, entry_name(cat, ""))
        return list(map(entry, records)), following.decode()

    async def create_kv(self, cat: str, key: str, value: str) -> None:
        """See :meth:`kit.dtm.store.Store.create_kv`."""
        text = entry_text(cat, key, value, 1)
        if not await self._run(scripts.CREATE_KV, entry_name(cat, key), text):
            raise KvChanged(cat, key)

    async def update_kv(self, read: KeyValue, value: str) -> None:
        """See :meth:`kit.dtm.store.Store.update_kv`."""
        text = entry_text(read.cat, read.key, value, read.version + 1)
        name = entry_name(read.cat, read.key)
        if not await self._run(scripts.UPDATE_KV, name, read.version, text):
            raise KvChanged(read.cat, read.key)

    async def delete_kv(self, cat: str, key: str) -> bool:
        """See :meth:`kit.dtm.store.Store.delete_kv`."""
        return bool(await self._run(scripts.DELETE_KV, entry_name(cat, key)))

    async def clear(self) -> None:
        """See :meth:`kit.dtm.store.Store.clear`; what others keep in this Redis stays."""
        while await self._run(scripts.CLEAR):
            pass

    async def now_ms(self) -> int:
        """See :meth:`kit.dtm.store.Store.now_ms`."""
        if self._clock is not None:
            return self._clock.now_ms()
        seconds, microseconds = await self._command("TIME")
        return int(seconds) * 1_000 + int(microseconds) // 1_000

    async def _run(self, script: Script, *args: str | int) -> Reply:
        now = "" if self._clock is None else self._clock.now_ms()
        return await self._submit(run_script(script, self._prefix, now, *args))

    async def _command(self, *words: str | int) -> Reply:
        return await self._submit(pack(*words))

    async def _submit(self, command: bytes) -> Reply:
        if self._group is None:
            raise StoreUnavailable(f"the store in {self._link.address} is not open")
        asked = asyncio.get_running_loop().time()
        return await self._group.submit(Request(command, asked))

    async def _refuse_cluster_without_tag(self) -> None:
        try:
            about = await self._command("INFO", "cluster")
        except StoreCorrupt:
            return  # a server that does not say is none of a cluster
        if b"cluster_enabled:1" in about:
            _refuse_untagged(self._prefix)

    async def _find_weaknesses(self) -> tuple[str, ...]:
        settings: dict[str, str] = {}
        try:
            for name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"):
                found = await self._command("CONFIG", "GET", name)
                settings.update([(name, found[1].decode())] if found else [])
        except (StoreCorrupt, StoreUnavailable) as exc:
            unknown = (
                f"it is unknown what survives, CONFIG GET is refused ({exc.message}); see to it "
                f"that appendonly is yes, appendfsync always and maxmemory-policy noeviction"
            )
            return (unknown,)
        return tuple(_weaknesses(settings))


def _weaknesses(settings: dict[str, str]) -> list[str]:
    found = []
    if settings.get("appendonly") != "yes":
        found.append(
            "appendonly is no: kill -9 and power loss take every write since the last snapshot; "
            "set appendonly yes and appendfsync always"
        )
    elif settings.get("appendfsync") != "always":
        found.append(
            f"appendfsync is {settings.get('appendfsync')}: power loss takes the last second or "
            "more; set appendfsync always"
        )
    policy = settings.get("maxmemory-policy", "")
    if settings.get("maxmemory") != "0" and policy.startswith("allkeys-"):
        found.append(
            f"maxmemory-policy is {policy}: unfinished transactions are evicted when memory runs "
            "out; set maxmemory-policy noeviction"
        )
    return found


def _columns(tx: Transaction) -> tuple[str | int, ...]:
    """Record, status, due, ended, type and creation of a transaction, as the scripts take them."""
    due = capped(tx.next_cron_time)
    return (
        global_text(tx),
        tx.status,
        "" if due is None else due,
        ended_at(tx) if tx.status.terminal else "",
        tx.trans_type,
        tx.create_time,
    )


def _branches(gid: str, branches: Sequence[Branch]) -> tuple[str | int, ...]:
    """Number, fields and records of branches, as the scripts take them."""
    return (
        len(branches),
        *map(branch_field, branches),
        *(branch_text(gid, branch) for branch in branches),
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)


def _address(text: str, port: int) -> tuple[str, int]:
    """(host, port) of ``host``, ``host:port``, ``[v6]:port`` or a bare v6 address."""
    found = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?|([^\s:]+)(?::(\d+))?", text.strip())
    if found is None:
        raise ValueError(
            f"Store.Host {text!r} is no address; write host, host:port, or several of them "
            f"with commas between"
        )
    own = found[2] or found[4]
    return found[1] or found[3], int(own) if own else port


def _refuse_untagged(prefix: str) -> None:
    if not re.search(r"^[^{]*\{[^}]+\}", prefix):
        raise ValueError(
            f"Store.RedisPrefix {prefix!r} has no hash tag, so a cluster would spread its keys "
            f"over several nodes; put part of it in braces, as in '{{a}}'"
        )
