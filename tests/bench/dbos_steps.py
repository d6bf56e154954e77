"""A durable workflow of ``dbos`` with two steps, in a process of its own: a yardstick.

Arguments: URL of its database, target of the branch sink. Each step calls the sink over grpc.aio as
a branch is called, and its result is on the disk before the next one begins. Each line of stdin is
``CLIENTS SECONDS``; the answer is a line of JSON, see :class:`tests.bench.load.Round`. The first
line of stdout says that it is ready.
"""

import asyncio
import json
import sys
from dataclasses import asdict

import grpc.aio
from dbos import DBOS

from tests.bench.load import BRANCH_PAYLOAD, measure


async def main(database: str, sink: str) -> None:
    """Measure what stdin asks for until it closes."""
    DBOS(config={"name": "bench", "system_database_url": database, "log_level": "ERROR"})
    async with grpc.aio.insecure_channel(sink) as channel:
        calls = [
            channel.unary_unary(f"/api.trans.v1.Trans/{name}") for name in ("TransOut", "TransIn")
        ]

        @DBOS.step()
        async def branch(number: int) -> int:
            await calls[number](BRANCH_PAYLOAD)
            return number

        @DBOS.workflow()
        async def transfer() -> int:
            return await branch(0) + await branch(1)

        DBOS.launch()
        await transfer()
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            clients, seconds = line.split()
            done = await measure(transfer, int(clients), float(seconds))
            print(json.dumps(asdict(done)), flush=True)
        DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
