"""The load generator, in a process of its own: raw bytes over grpc.aio, for yardstick and product.

Arguments: target of the echo server, of the coordinator, of the branch sink. Each line of stdin is
``KIND CLIENTS SECONDS`` with KIND ``echo``, ``msg``, ``saga`` or ``tcc``; the answer is a line of
JSON, see :class:`Round`. The first line of stdout says that it is ready. Every client makes one
call after another. Gids are such as NewGid gives; those of the KIND ``random`` are random, as a
client may make them, and it is a msg otherwise.
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


def transactions(channel: grpc.aio.Channel, sink: str) -> dict[str, Call]:
    """A whole transaction of each kind, from its first call to its result."""
    prepare, register, submit = (
        channel.unary_unary(f"/dtmgimp.Dtm/{name}")
        for name in ("Prepare", "RegisterBranch", "Submit")
    )

    async def tcc() -> None:
        request = submission(sink, "tcc", steps=False)
        await prepare(request.SerializeToString())
        for branch_id in ("01", "02"):
            branch = dtm_pb2.DtmBranchRequest(
                Gid=request.Gid,
                TransType="tcc",
                BranchID=branch_id,
                Data={"confirm": f"{sink}/bench.Busi/Confirm", "cancel": f"{sink}/bench.Busi/Undo"},
                BusiPayload=BRANCH_PAYLOAD,
            )
            await register(branch.SerializeToString())
        await submit(request.SerializeToString())

    return {
        "msg": lambda: submit(submission(sink).SerializeToString()),
        "random": lambda: submit(submission(sink, gid=uuid.uuid4().hex).SerializeToString()),
        "saga": lambda: submit(submission(sink, "saga").SerializeToString()),
        "tcc": tcc,
    }


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
    async with (
        grpc.aio.insecure_channel(echo) as to_echo,
        grpc.aio.insecure_channel(coordinator) as to_coordinator,
    ):
        echo_call = to_echo.unary_unary("/bench.Echo/Call")
        calls: dict[str, Call] = {
            "echo": lambda: echo_call(PAYLOAD),
            **transactions(to_coordinator, sink),
        }
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            kind, clients, seconds = line.split()
            done = await measure(calls[kind], int(clients), float(seconds))
            print(json.dumps(asdict(done)), flush=True)


if __name__ == "__main__":
    from kit.app.command import run

    run(main(*sys.argv[1:]))
