"""A process with a workflow that dies where it is told to: ``python -m … DTM PORT LOG DIES_AT``.

Each thing that it does is a line of the file LOG. With the gid as a further argument it begins a
workflow, otherwise it only serves those that the coordinator calls back.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from kit.dtm.barrier import BranchBarrier
from kit.dtm.client import DtmClient
from kit.dtm.client.workflow import Phase, Workflow, Workflows
from kit.errors import Error
from kit.testing.grpc import running
from kit.transport.grpc import GrpcServer
from tests.engines import chosen, speaking


async def main(dtm: str, port: str, log: Path, dies_at: str, gid: str = "") -> None:
    def note(line: str) -> None:
        with log.open("a") as file:
            file.write(f"{line}\n")
        if line == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def step(name: str) -> Callable[[BranchBarrier | Phase], Awaitable[None]]:
        async def act(_: BranchBarrier | Phase) -> None:
            note(name)

        return act

    server = GrpcServer(address=f"127.0.0.1:{port}")
    async with DtmClient(dtm) as client, running(server):
        workflows = Workflows(client, f"127.0.0.1:{port}")
        workflows.serve_on(server)

        @workflows.register("transfer")
        async def transfer(wf: Workflow, data: bytes) -> bytes:
            await wf.new_branch().on_commit(step("commit out")).do(step("out"))
            note("between")
            await wf.new_branch().on_commit(step("commit in")).do(step("in"))
            return data

        print("ready", flush=True)
        if gid:
            try:
                await workflows.execute("transfer", gid, b"30")
            except Error as exc:
                print(exc.message, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    with speaking(chosen()):
        asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:]))
