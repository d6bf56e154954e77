"""What callers of the PostgreSQL store meet while the server is away, and after."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from kit.dtm.core.model import Branch
from kit.dtm.store import Filter, GidExists, Held, LostLease, Store, StoreUnavailable
from kit.dtm.store.postgres import PostgresStore
from kit.dtm.wire import Op, Status
from kit.testing.postgres import PostgresServer, postgres_server
from kit.testing.store import change, finished, stored, transaction
from tests.conformance.store.refusals import refused_in_time

CALLS: dict[str, Callable[[Store, Held], Awaitable[object]]] = {
    "create": lambda store, held: store.create(transaction("new")),
    "load": lambda store, held: store.load("g"),
    "save": lambda store, held: store.save(change(held, "a", take=True)),
    "append": lambda store, held: store.append("g", (Branch("9", Op.TRY, "u"),)),
    "claim": lambda store, held: store.claim("a", 1),
    "renew": lambda store, held: store.renew("a", [("g", 1)]),
    "next_due": lambda store, held: store.next_due(),
    "purge": lambda store, held: store.purge(1, 1),
    "scan": lambda store, held: store.scan("", 1, Filter()),
    "find_kv": lambda store, held: store.find_kv("", ""),
    "create_kv": lambda store, held: store.create_kv("c", "k", "v"),
    "now_ms": lambda store, held: store.now_ms(),
}


@pytest.fixture
async def server() -> AsyncIterator[PostgresServer]:
    async with postgres_server() as running:
        yield running


async def refusals(store: Store, held: Held) -> dict[str, str]:
    """What every call says while the server is away; each within the limit."""

    async def ask(call: Callable[[Store, Held], Awaitable[object]]) -> str:
        return (await refused_in_time(call(store, held))).message

    said = await asyncio.gather(*map(ask, CALLS.values()))
    return dict(zip(CALLS, said, strict=True))


async def test_a_stopped_server_is_told_and_met_again(server: PostgresServer) -> None:
    """No restart of the coordinator is needed, and nothing is written meanwhile."""
    async with PostgresStore(**server.settings) as store:
        await store.create(transaction("g", status=Status.PREPARED))
        held = await stored(store, "g")
        for end in (server.stop, server.kill):
            ended = end()
            if ended is not None:
                await ended
            for said in (await refusals(store, held)).values():
                assert str(server.settings["port"]) in said
            await server.start()
            assert await stored(store, "g") == held
        assert await store.create(transaction("new")) == 1
        assert await store.save(change(held, "a", take=True)) == 2


async def test_a_frozen_server_is_given_up_in_time(server: PostgresServer) -> None:
    """Connections stay open and nobody answers; writes then have an unknown outcome."""
    async with PostgresStore(**server.settings) as store:
        await store.create(transaction("g", status=Status.PREPARED))
        held = await stored(store, "g")
        server.freeze()
        said = await refusals(store, held)
        assert "unknown" in said["create"]
        assert "unknown" not in said["load"]
        server.thaw()
        assert (await stored(store, "g")).tx.gid == "g"
        try:  # the frozen server may have read the request
            assert await store.create(transaction("new")) == 1
        except GidExists:
            assert (await stored(store, "new")).tx == transaction("new")


async def test_a_session_that_the_administrator_ends_is_replaced(server: PostgresServer) -> None:
    """As at a failover: the next call goes to whoever answers now."""
    async with PostgresStore(**server.settings) as store:
        for n in range(3):
            await store.create(transaction(f"g{n}"))
            await stored(store, f"g{n}")
            await server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'kit coordinator'"
            )
            async with asyncio.timeout(20):
                while store._writer.connected:  # the loop hears of it
                    await asyncio.sleep(0.005)
        assert (await stored(store, "g2")).fence == 1


async def test_too_many_connections_are_named(server: PostgresServer) -> None:
    await server.sql("CREATE ROLE few LOGIN PASSWORD 'p' CONNECTION LIMIT 2")
    await server.sql("GRANT CREATE ON DATABASE dtm TO few")
    settings = {**server.settings, "user": "few", "password": "p", "schema": "few"}
    async with PostgresStore(**settings) as store:  # type: ignore[arg-type]
        await store.create(transaction("g"))
        outcomes = await asyncio.gather(
            *(store.load("g") for _ in range(4)), return_exceptions=True
        )
        refused = [o for o in outcomes if isinstance(o, StoreUnavailable)]
        assert refused
        assert "too many connections" in refused[0].message
        assert (await stored(store, "g")).fence == 1


async def test_a_closed_store_refuses(server: PostgresServer) -> None:
    store = PostgresStore(**server.settings)
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.create(transaction("g"))
    async with store:
        pass
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.create(transaction("g"))
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.load("g")


async def test_what_was_acknowledged_survives_a_kill(server: PostgresServer) -> None:
    """Every acknowledged transaction is there after kill -9 of the whole server under load."""
    acknowledged: list[str] = []

    async def write(store: Store, caller: int) -> None:
        for n in range(10_000):
            gid = f"{caller}-{n}"
            try:
                await store.create(transaction(gid))
            except StoreUnavailable:
                return
            acknowledged.append(gid)

    async with PostgresStore(**server.settings) as store:
        writing = asyncio.gather(*(write(store, caller) for caller in range(16)))
        while len(acknowledged) < 500 and not writing.done():
            await asyncio.sleep(0.01)
        server.kill()
        await writing
        assert len(acknowledged) > 16
        await server.start()
        for gid in acknowledged:
            assert (await stored(store, gid)).tx == transaction(gid)


async def test_two_coordinators_write_crosswise_and_nobody_loses(server: PostgresServer) -> None:
    """Both change, claim and end the same transactions at once: exactly one wins each time."""
    gids = [f"g{n:02}" for n in range(40)]

    async def work(store: Store, owner: str, order: list[str]) -> int:
        async def end(gid: str) -> bool:
            held = await stored(store, gid)
            if held.tx.status.terminal:
                return False
            last = change(
                held, owner, *held.tx.branches, tx=finished(held.tx, Status.SUCCEED, 1), take=True
            )
            try:
                await store.save(replace(last, release=True))
            except LostLease:
                return False
            return True

        claimed, *ends = await asyncio.gather(
            store.claim(owner, 5, lease_s=0.001), *map(end, order)
        )
        assert isinstance(claimed, list)
        return sum(ended is True for ended in ends)

    async with (
        PostgresStore(**server.settings) as one,
        PostgresStore(**server.settings) as other,
    ):
        await asyncio.gather(*(one.create(transaction(gid, next_cron_time=0)) for gid in gids))
        ended = 0
        for _ in range(50):
            if ended == len(gids):
                break
            ended += sum(await asyncio.gather(work(one, "a", gids), work(other, "b", gids[::-1])))
        assert ended == len(gids)


async def test_settings_that_lose_commits_are_named() -> None:
    """Each with its way out; the defaults are safe."""
    weak = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
    async with postgres_server(options=weak) as server, PostgresStore(**server.settings) as store:
        assert [text.split(" = ")[0].split()[-1] for text in store.weaknesses] == [
            "fsync", "full_page_writes", "synchronous_commit",
        ]  # fmt: skip
        assert "synchronous_commit = on" in store.weaknesses[2]


async def test_default_settings_have_no_weakness(server: PostgresServer) -> None:
    async with PostgresStore(**server.settings) as store:
        assert store.weaknesses == ()
