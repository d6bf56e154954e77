"""A process to be killed: creates and finishes transactions, and tells of each once it is durable.

Arguments: path of the database, a name for this life. Lines: ``created GID`` and ``finished GID``,
where GID ends with the number of branches.
"""

import asyncio
import os
import random
import sys
from dataclasses import replace

from kit.dtm.core.model import Branch, Transaction
from kit.dtm.store import Change
from kit.dtm.store.sqlite import SqliteStore
from kit.dtm.wire import BranchStatus, Op, Status, TransType

CLIENTS = 16


def tell(line: str) -> None:
    """In one write, so that no line is torn by the end of the process."""
    os.write(1, f"{line}\n".encode())


async def client(store: SqliteStore, name: str, number: int) -> None:
    """Run transactions one after another for ever."""
    rng = random.Random(f"{name}-{number}")
    serial = 0
    while True:
        serial += 1
        count = rng.randrange(1, 6)
        payload = rng.randbytes(rng.choice((0, 10, 6_000)))
        gid = f"{name}-{number}-{serial}-{count}"
        branches = tuple(Branch(f"{n:02}", Op.ACTION, "u", payload) for n in range(count))
        tx = Transaction(gid, TransType.MSG, Status.SUBMITTED, branches=branches)
        fence = await store.create(tx, owner=name)
        tell(f"created {gid}")
        done = tuple(replace(branch, status=BranchStatus.SUCCEED) for branch in branches)
        ended = replace(tx, status=Status.SUCCEED, finish_time=1)
        await store.save(Change(ended, done, fence, name, release=True))
        tell(f"finished {gid}")


async def main(path: str, name: str) -> None:
    """Until killed."""
    async with SqliteStore(path) as store, asyncio.TaskGroup() as clients:
        for number in range(CLIENTS):
            clients.create_task(client(store, name, number))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
