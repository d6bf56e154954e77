"""The load generator, in a process of its own: raw bytes, all clients on one connection.

The yardstick, ``echo``, is bare grpc.aio at both ends. Transactions come over the lean engine's
client: it shares the cores with the coordinator and costs an eighth of grpc.aio's. ``light-echo``
calls the echo server in that way as well, to show what the client makes of it.

Arguments: target of the echo server, of the coordinator, of the branch sink. Each line of stdin is
``KIND CLIENTS SECONDS`` with KIND ``echo``, ``light-echo``, ``msg``, ``saga`` or ``tcc``; the
answer is a line of JSON, see :class:`Round`. The first line of stdout says that it is ready. Every
client makes one call after another. Gids are such as NewGid gives; those of the KIND ``random`` are
random, as a client may make them, and it is a msg otherwise.
"""

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

import grpc.aio

from kit.dtm.pb import dtm_pb2
from kit.dtm.server.gid import new_gid
from kit.transport.grpc.engine import Keepalive, Limits
from kit.transport.lean.client import LeanConnection

PAYLOAD = bytes(64)
BRANCH_PAYLOAD = b"\x08\x1e\x10\x01"  # 30 cents of account 1

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Round:
    """What one measurement gave.

    Attributes:
        count: calls that were answered.
        seconds: from the first to the last.
        p50_ms: the median of the waits.
        p99_ms: 99 % of them were shorter.
    """

    count: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds


def submission(
    sink: str, trans_type: str = "msg", steps: bool = True, gid: str = ""
) -> dtm_pb2.DtmRequest:
    """A transaction with two branches and WaitResult, under ``gid`` or a new one."""
    urls = [f"{sink}/api.trans.v1.Trans/{name}" for name in ("TransOut", "TransIn")]
    rows = [{"action": url, "compensate": f"{url}Revert"} for url in urls] if steps else []
    return dtm_pb2.DtmRequest(
        Gid=gid or new_gid(time.time_ns() // 1_000_000),
        TransType=trans_type,
        TransOptions=dtm_pb2.DtmTransOptions(WaitResult=True),
        Steps=json.dumps(rows),
        BinPayloads=[BRANCH_PAYLOAD] * len(rows),
    )


def transactions(connection: LeanConnection, sink: str) -> dict[str, Call]:
    """A whole transaction of each kind, from its first call to its result."""
    # Messages of protobuf that stand one behind the other are one message: all but the gid is
    # encoded once.
    rest = {}
    for kind in ("msg", "saga", "tcc"):
        request = submission(sink, kind, steps=kind != "tcc")
        request.ClearField("Gid")
        rest[kind] = request.SerializeToString()
    urls = {"confirm": f"{sink}/bench.Busi/Confirm", "cancel": f"{sink}/bench.Busi/Undo"}
    branches = [
        dtm_pb2.DtmBranchRequest(
            TransType="tcc", BranchID=branch_id, Data=urls, BusiPayload=BRANCH_PAYLOAD
        ).SerializeToString()
        for branch_id in ("01", "02")
    ]

    async def call(method: str, message: bytes) -> None:
        await connection.unary(f"/dtmgimp.Dtm/{method}", message, (), None)

    def submitting(kind: str, gid: Callable[[], bytes] = ordered_gid) -> Call:
        return lambda: call("Submit", gid() + rest[kind])

    async def tcc() -> None:
        gid = ordered_gid()  # the field has the same number in both messages
        await call("Prepare", gid + rest["tcc"])
        for branch in branches:
            await call("RegisterBranch", gid + branch)
        await call("Submit", gid + rest["tcc"])

    return {
        "msg": submitting("msg"),
        "random": submitting("msg", random_gid),
        "saga": submitting("saga"),
        "tcc": tcc,
    }


def ordered_gid() -> bytes:
    """A gid such as NewGid gives, as the field of a message."""
    return _gid_field(new_gid(time.time_ns() // 1_000_000))


def random_gid() -> bytes:
    """A gid as a client may make it, as the field of a message."""
    return _gid_field(uuid.uuid4().hex)


def _gid_field(gid: str) -> bytes:
    return dtm_pb2.DtmRequest(Gid=gid).SerializeToString()


async def measure(call: Call, clients: int, seconds: float) -> Round:
    """Let ``clients`` call for ``seconds``."""
    waits: list[float] = []
    began = time.perf_counter()
    end = began + seconds

    async def client() -> None:
        while (start := time.perf_counter()) < end:
            await call()
            waits.append(time.perf_counter() - start)

    await asyncio.gather(*(client() for _ in range(clients)))
    took = time.perf_counter() - began
    waits.sort()
    p50, p99 = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
    return Round(len(waits), took, p50 * 1e3, p99 * 1e3)


async def main(echo: str, coordinator: str, sink: str) -> None:
    """Measure what stdin asks for until it closes."""
    to_echo, to_coordinator = (
        LeanConnection(address, authority=None, tls=None, limits=Limits(), keepalive=Keepalive())
        for address in (echo, coordinator)
    )
    channel = grpc.aio.insecure_channel(echo)
    bare_echo = channel.unary_unary("/bench.Echo/Call")
    calls: dict[str, Call] = {
        "echo": lambda: bare_echo(PAYLOAD),
        "light-echo": lambda: to_echo.unary("/bench.Echo/Call", PAYLOAD, (), None),
        **transactions(to_coordinator, sink),
    }
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        kind, clients, seconds = line.split()
        done = await measure(calls[kind], int(clients), float(seconds))
        print(json.dumps(asdict(done)), flush=True)
    await channel.close()
    await to_echo.close()
    await to_coordinator.close()


if __name__ == "__main__":
    from kit.app.command import run

    run(main(*sys.argv[1:]))
