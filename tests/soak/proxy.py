"""A TCP proxy in user space that treats each connection as a bad network would.

Run: ``python -m tests.soak.proxy SEED MEAN_SECONDS PORT...``; the first line of stdout has its own
ports, one for each ``PORT`` of loopback that it leads to.
"""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable
from functools import partial

FATES = ("pass", "late", "crumbs", "cut", "torn", "hush", "hole", "client gone", "server gone")
"""What befalls a connection after a while.

=============  ==================================================================================
pass           nothing
late           every piece comes up to 30 ms later, from the start
crumbs         pieces of 1 to 40 bytes, from the start
cut            closed on both sides
torn           closed on both sides in the middle of a piece
hush           nothing passes for up to 3 s, then everything
hole           nothing passes any more, and nobody is told: packets are dropped
client gone    half open: the client's side is closed, the server is not told
server gone    half open: the server's side is closed, the client is not told
=============  ==================================================================================
"""
_PIECE = 16_384
_FORGOTTEN_S = 20.0


class Pipe:
    """One connection through the proxy."""

    def __init__(self, dice: random.Random, mean: float) -> None:
        self._dice = dice
        self.fate = dice.choice(FATES)
        self._mean = mean
        self._passing = asyncio.Event()
        self._passing.set()
        self._tearing = False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, until it ends."""
        dice = self._dice
        try:
            while piece := await reader.read(_PIECE):
                if self.fate == "late":
                    await asyncio.sleep(dice.uniform(0, 0.03))
                await self._passing.wait()
                if writer.is_closing():
                    return
                if self._tearing:
                    writer.write(piece[: dice.randrange(len(piece))])
                    return
                if self.fate == "crumbs" and len(piece) < 2_000:
                    while piece:
                        size = dice.randint(1, 40)
                        writer.write(piece[:size])
                        piece = piece[size:]
                        await asyncio.sleep(0)
                else:
                    writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass  # the other direction sees it as well
        finally:
            if self._passing.is_set():
                writer.close()

    async def befall(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        """What the fate does, when its time has come; returns when the connection is over."""
        dice, fate = self._dice, self.fate
        await asyncio.sleep(dice.expovariate(1 / self._mean))
        match fate:
            case "cut":
                return
            case "torn":
                self._tearing = True
            case "hush":
                self._passing.clear()
                await asyncio.sleep(dice.uniform(0.1, 3.0))
                self._passing.set()
            case "hole" | "client gone" | "server gone":
                self._passing.clear()
                if fate != "hole":
                    (client if fate == "client gone" else server).transport.abort()
                # Whoever was not told has to find out by itself.
                await asyncio.sleep(_FORGOTTEN_S)
                return
        await asyncio.Event().wait()


async def accept(
    dice: random.Random,
    mean: float,
    port: int,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Carry one connection to ``port``, as well or badly as the dice say."""
    try:
        there, back = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.transport.abort()
        return
    pipe = Pipe(dice, mean)
    tasks = [
        asyncio.create_task(pipe.befall(writer, back)),
        asyncio.create_task(pipe.carry(reader, back)),
        asyncio.create_task(pipe.carry(there, writer)),
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(tasks[1:], timeout=0.1)  # what is under way the other way
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in (writer, back):
            end.transport.abort()


async def run(seed: int, mean: float, ports: list[int]) -> None:
    dice = random.Random(seed)
    servers = []
    for port in ports:
        handler: Callable[..., Awaitable[None]] = partial(accept, dice, mean, port)
        servers.append(await asyncio.start_server(handler, "127.0.0.1", 0, backlog=1_024))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), float(sys.argv[2]), [int(port) for port in sys.argv[3:]]))
