"""The transfer, end to end: etcd, coordinator, trans and client with their logs side by side.

Run by ``make demo``. Everything listens on loopback, on the usual ports where they are free, keeps
its data in a temporary folder, and is stopped in the end. ``ETCD_ENDPOINTS`` names an etcd to use
in place of an own one. Exit status: 0 after the transfer, 1 when something failed, 130 after
Ctrl-C.
"""

import asyncio
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from kit.cli.dev_stack import READY_WITHIN, Stack, StackError, announced, listens, pick_port, quoted
from kit.cli.run_process import Board

COMMANDS = Path(sys.executable).parent
"""Where the installed ``trans`` and ``client`` are; bin/ leads there too."""
NAMES = ("etcd", "coordinator", "trans", "client")


class Demo(Stack):
    """The transfer service and its client, beside the usual parts."""

    async def trans(self, etcd: str) -> None:
        """Serves and is announced as ``trans``."""
        port = pick_port(9000)
        config = self.folder / "config.yaml"
        config.write_text(
            "server:\n"
            "  grpc:\n"
            f"    addr: 127.0.0.1:{port}\n"
            "    timeout: 1s\n"
            "registry:\n"
            "  etcd:\n"
            f"    endpoints: [{etcd}]\n"
            "data:\n"
            "  database:\n"
            f"    source: {quoted(self.folder / 'trans.db')}\n"
        )

        async def ready() -> bool:
            return await listens(port) and f":{port}" in (await announced(etcd, "trans") or "")

        await self.serve("trans", ready, str(COMMANDS / "trans"), "-conf", str(config))

    async def client(self, etcd: str) -> str:
        """Submit the transfer; the gid.

        Raises:
            StackError: it failed, took too long, or a server ended before.
        """
        client = await self.start(
            "client",
            str(COMMANDS / "client"),
            *("-dtm", f"discovery://{etcd}/dtmservice", "-busi", f"discovery://{etcd}/trans"),
        )
        try:
            async with asyncio.timeout(READY_WITHIN):
                await self.first_end(client)
        except TimeoutError:
            why = f"has no answer after {READY_WITHIN:.0f} s"
            raise StackError(client.describe(why)) from None
        await self.check()
        if client.status != 0:
            raise StackError(client.describe("did not succeed"))
        found = re.search(r"gid[:= ]+(\S+)", "\n".join(client.last))
        return found[1].rstrip(",.;") if found else "?"


@asynccontextmanager
async def demonstration() -> AsyncIterator[Demo]:
    """A place to start processes; all are stopped, the last one first, when the block is left."""
    with tempfile.TemporaryDirectory(prefix="kit-demo-", ignore_cleanup_errors=True) as folder:
        async with AsyncExitStack() as stack:
            yield Demo(Path(folder), Board(NAMES), stack)


async def demonstrate() -> str:
    """Run the transfer; the sentence to close with."""
    async with demonstration() as demo:
        etcd = await demo.etcd()
        await demo.coordinator(etcd)
        await demo.trans(etcd)
        gid = await demo.client(etcd)
    return (
        f"The transfer is done: transaction {gid} succeeded, 30 cents went from account 1 to"
        " account 2.\nGo on with README.md: it starts the same parts by hand, one terminal each."
    )


def main(_: Sequence[str] = ()) -> int:
    """Exit status: see the module."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        print(f"\n{asyncio.run(demonstrate())}")
    except StackError as failure:
        print(f"\ndemo: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
