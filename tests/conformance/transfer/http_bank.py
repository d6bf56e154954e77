"""A bank over HTTP for tests, as its users would write one, and clients that never rest.

Run ``-m tests.conformance.transfer.http_bank serve`` or ``… transfer``; both are killed at random.

The bank makes trouble on purpose: a call is refused, answered 425 or 500, carried out with its
answer lost, or it arrives once more, a while later, as from a proxy that repeats.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiosqlite
import asyncmy
import asyncpg
import uvicorn
import yarl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kit.dtm.barrier import BranchBarrier, barrier_from_request
from kit.dtm.barrier.results import install_results
from kit.dtm.barrier.table import acreate_table
from kit.dtm.client import DtmClient, Msg, Options, Saga, tcc, xa, xa_local_transaction
from kit.dtm.client.workflow import Workflow, Workflows
from kit.dtm.errors import DtmError, Failure, Ongoing
from kit.errors import Error

OPENING = 10_000
USERS = (1, 2, 3, 4, 5, 6)
WAIT_S = 2
"""For a lock, then the call is unknown and comes again."""

Connection = Any
Money = dict[str, int]


class Database:
    """Accounts in SQLite, PostgreSQL or MariaDB."""

    def __init__(self, driver: str, source: str) -> None:
        self.driver = driver
        self._source = source

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        if self.driver == "sqlite":
            async with aiosqlite.connect(self._source, timeout=WAIT_S) as lite:
                yield lite
        elif self.driver == "postgres":
            limits = {"lock_timeout": f"{WAIT_S}s"}
            post = await asyncpg.connect(self._source, server_settings=limits)
            try:
                yield post
            finally:
                await post.close()
        else:
            url = yarl.URL(self._source)
            maria = await asyncmy.connect(
                host=url.host,
                port=url.port,
                user=url.user,
                password=url.password or "",
                db=url.path.removeprefix("/"),
                autocommit=True,
                init_command=f"SET innodb_lock_wait_timeout = {WAIT_S}",
            )
            try:
                yield maria
            finally:
                await maria.ensure_closed()

    async def execute(self, connection: Connection, text: str) -> int:
        """Run ``text``; how many rows it changed."""
        if self.driver == "postgres":
            return int((await connection.execute(text)).split()[-1])
        if self.driver == "sqlite":
            return int((await connection.execute(text)).rowcount)
        async with connection.cursor() as cursor:
            await cursor.execute(text)
            return int(cursor.rowcount)

    async def create(self) -> None:
        async with self.connect() as connection:
            await acreate_table(connection)
            with contextlib.suppress(
                sqlite3.OperationalError, asyncpg.DuplicateTableError, asyncmy.errors.Error
            ):  # of a bank before
                statement = (
                    "CREATE TABLE user_account "
                    "(user_id INTEGER PRIMARY KEY, balance INTEGER, trading_balance INTEGER)"
                )
                if self.driver == "sqlite":
                    await connection.execute(statement)
                    await connection.execute("PRAGMA journal_mode = WAL")
                elif self.driver == "postgres":
                    await connection.execute(statement)
                else:
                    async with connection.cursor() as cursor:
                        await cursor.execute(statement)
                rows = ", ".join(f"({user}, {OPENING}, 0)" for user in USERS)
                await self.execute(connection, f"INSERT INTO user_account VALUES {rows}")
                if self.driver == "sqlite":
                    await connection.commit()


EFFECTS = {
    "out": "balance = balance - {amount}",
    "in": "balance = balance + {amount}",
    "try-out": "trading_balance = trading_balance + {amount}",
    "confirm-out": "balance = balance - {amount}, trading_balance = trading_balance - {amount}",
    "cancel-out": "trading_balance = trading_balance - {amount}",
    "confirm-in": "balance = balance + {amount}",
}
EFFECTS |= {"undo-out": EFFECTS["in"], "undo-in": EFFECTS["out"]}
EFFECTS |= {"xa-out": EFFECTS["out"], "xa-in": EFFECTS["in"]}
CHECKED = {"out", "try-out", "xa-out"}
"""They need the money to be there."""

FORWARD = {"action", "try"}
"""Ops that may be refused."""


class Bank:
    """The branches; ``trouble`` is how likely each kind of trouble is."""

    def __init__(self, database: Database, client: DtmClient, trouble: float, seed: int) -> None:
        self._database = database
        self._client = client
        self._trouble = trouble
        self._rng = random.Random(seed)
        self._repeats: set[asyncio.Task[None]] = set()

    def app(self, workflows: Workflows) -> Starlette:
        async def workflow(request: Request) -> Response:
            result = await workflows.execute_by_query(request.query_params, await request.body())
            return Response(result.body, result.status, media_type="application/json")

        app = Starlette(
            routes=[
                Route("/workflow", workflow, methods=["POST"]),
                Route("/branch/{name}", self.branch, methods=["POST"]),
            ]
        )
        install_results(app)
        return app

    async def branch(self, request: Request) -> Response:
        name, body = request.path_params["name"], await request.body()
        money = json.loads(body) if body else {}  # the second phase of xa brings none
        barrier = barrier_from_request(request)
        if self._often():

            async def again() -> None:
                await asyncio.sleep(self._rng.uniform(0, 1.5))
                with contextlib.suppress(Exception):  # nobody hears the answer
                    await self._act(name, barrier_from_request(request), money, request)

            repeat = asyncio.create_task(again())
            self._repeats.add(repeat)
            repeat.add_done_callback(self._repeats.discard)
        if self._often():
            raise Ongoing("later")
        if barrier.op in FORWARD and barrier.trans_type != "msg" and self._often():
            raise Failure("refused at random")
        await self._act(name, barrier, money, request)
        return JSONResponse({}, status_code=500 if self._often() else 200)

    async def _act(self, name: str, barrier: BranchBarrier, money: Money, request: Request) -> None:
        async def business(connection: Connection) -> None:
            await self._move(connection, name, money)

        if barrier.trans_type == "xa":
            url = request.query_params.get("phase2_url", "")
            await xa_local_transaction(
                self._client, barrier, self._database.connect, business, phase2_url=url
            )
            return
        async with self._database.connect() as connection:
            await barrier.acall(connection, lambda: business(connection))

    async def _move(self, connection: Connection, name: str, money: Money) -> None:
        if name not in EFFECTS:  # try and cancel of who receives: nothing to set aside
            return
        amount, user = int(money["amount"]), int(money["to" if name.endswith("in") else "from"])
        enough = f" AND balance - trading_balance >= {amount}" if name in CHECKED else ""
        effect = EFFECTS[name].format(amount=amount)
        text = f"UPDATE user_account SET {effect} WHERE user_id = {user}{enough}"
        if not await self._database.execute(connection, text):
            raise Failure(f"balance of user {user} too low")

    def _often(self) -> bool:
        return self._rng.random() < self._trouble


def workflows_of(client: DtmClient, bank: str) -> Workflows:
    """The transfer as a workflow: run by the client, and by the bank when that has died."""
    workflows = Workflows(client, f"{bank}/workflow")

    # A refused call may come once more, so a branch that said no is undone as well.
    @workflows.register("transfer", compensate_error_branch=True)
    async def transfer(wf: Workflow, data: bytes) -> None:
        money = json.loads(data)
        for name in ("out", "in"):
            undo = f"{bank}/branch/undo-{name}"
            branch = wf.new_branch().on_rollback(lambda phase, url=undo: phase.post(url, money))
            await branch.post(f"{bank}/branch/{name}", money)

    return workflows


async def by_msg(client: DtmClient, bank: str, gid: str, money: Money) -> None:
    sent = Msg(client, gid)
    for name in ("out", "in"):
        sent.add(f"{bank}/branch/{name}", money)
    await sent.submit()


async def by_saga(client: DtmClient, bank: str, gid: str, money: Money) -> None:
    saga = Saga(client, gid, Options(wait_result=True))
    for name in ("out", "in"):
        saga.add(f"{bank}/branch/{name}", f"{bank}/branch/undo-{name}", money)
    await saga.submit()


async def by_tcc(client: DtmClient, bank: str, gid: str, money: Money) -> None:
    async with tcc(client, gid) as t:
        for name in ("out", "in"):
            urls = (f"{bank}/branch/{op}-{name}" for op in ("try", "confirm", "cancel"))
            await t.call_branch(money, *urls)


async def by_xa(client: DtmClient, bank: str, gid: str, money: Money) -> None:
    async with xa(client, gid) as x:
        for name in ("out", "in"):
            await x.call_branch(money, f"{bank}/branch/xa-{name}")


async def by_workflow(client: DtmClient, bank: str, gid: str, money: Money) -> None:
    await workflows_of(client, bank).execute("transfer", gid, money)


BY: dict[str, Callable[[DtmClient, str, str, Money], Awaitable[None]]] = {
    "msg": by_msg,
    "saga": by_saga,
    "tcc": by_tcc,
    "xa": by_xa,
    "workflow": by_workflow,
}


async def serve(given: argparse.Namespace) -> None:
    database = Database(given.driver, given.source)
    await database.create()
    async with DtmClient(given.dtm) as client:
        workflows = workflows_of(client, f"http://127.0.0.1:{given.port}")
        app = Bank(database, client, given.trouble, given.seed).app(workflows)
        config = uvicorn.Config(app, port=given.port, log_level="error")
        await uvicorn.Server(config).serve()


async def transfer(given: argparse.Namespace) -> None:
    """Transfers, so many at a time, and what became of each as far as its caller knows."""
    rng = random.Random(given.seed)
    turns = iter(range(given.count))
    modes = given.modes.split(",")

    async def one(client: DtmClient, number: int) -> None:
        mode = modes[number % len(modes)]
        source, target = rng.sample(USERS, 2)
        # a message is never undone, so only what is there may be sent
        amount = 5 if mode == "msg" else rng.choice((7, 30, 30, OPENING * 9))
        gid = f"{mode}-{given.seed}-{number}"
        try:
            await BY[mode](
                client, given.bank, gid, {"from": source, "to": target, "amount": amount}
            )
        except Failure:
            print(f"{gid} failed", flush=True)
        except (DtmError, Error) as exc:
            print(f"{gid} unknown: {exc.message}", flush=True)
        else:
            print(f"{gid} done", flush=True)

    async def worker(client: DtmClient) -> None:
        for number in turns:
            await one(client, number)

    async with DtmClient(given.dtm, timeout=6) as client, asyncio.TaskGroup() as group:
        for _ in range(given.workers):
            group.create_task(worker(client))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("serve", "transfer"))
    parser.add_argument("--dtm", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--driver", default="sqlite")
    parser.add_argument("--source", default="")
    parser.add_argument("--trouble", type=float, default=0.0)
    parser.add_argument("--bank", default="")
    parser.add_argument("--modes", default=",".join(BY))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--workers", type=int, default=3)
    given = parser.parse_args()
    asyncio.run(serve(given) if given.what == "serve" else transfer(given))


if __name__ == "__main__":
    main()
