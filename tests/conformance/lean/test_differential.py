"""The same calls through grpcio on both sides, lean on both, and both mixtures.

A call is recorded as what its caller got and what its handler saw; the record of grpcio speaking to
itself is the one to reach. Calls are random, of a fixed seed.
"""

import asyncio
import contextlib
import hashlib
import random
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from kit.errors.codes import GrpcCode
from kit.transport.grpc.engine import Connection, RawMetadata, RpcFailed, ServerCall
from kit.transport.grpc.engines import EngineName
from tests.conformance.lean.engines_at_work import connected, serving

CALLS = 120
ENDS = ("ok", "ok", "ok", "fails", "fails late", "hangs", "cancelled")
SIZES = (0, 1, 5, 1_000, 16_384, 65_531, 65_536, 300_000)
MESSAGES = (
    "",
    "no",
    "50 % off: \xe4 \u20ac \U0001f600",
    "two\nlines\r\n\ttab",
    "%41%zz%",
    " spaces around ",
    "\x01\x7f",
    "long " * 200,
)
KEYS = ("x-a", "x-a", "x-b.c_d", "x-empty", "x-bytes-bin", "x-bytes-bin", "x-none-bin")


@dataclass(frozen=True)
class Plan:
    """One call: what is sent, what the handler does, how it ends."""

    number: int
    streams: bool
    metadata: RawMetadata
    request: bytes
    headers: RawMetadata
    replies: tuple[bytes, ...]
    end: str
    status: GrpcCode
    message: str
    trailers: RawMetadata


@dataclass
class Record:
    """What was seen of a call."""

    got: list[Any] = field(default_factory=list)
    saw: list[Any] = field(default_factory=list)
    waits: bool = False
    """Whether the handler waits to be cancelled; in a write before that nobody would see it."""


def pairs(dice: random.Random) -> RawMetadata:
    found: list[tuple[str, str | bytes]] = []
    for key in dice.sample(KEYS, dice.choice((0, 0, 1, 3))):
        if key.endswith("-bin"):
            found.append((key, dice.randbytes(0 if "none" in key else dice.randrange(1, 60))))
        else:
            found.append((key, "" if "empty" in key else f"v {dice.random()} ~,;"))
    return tuple(found)


def planned(number: int, dice: random.Random) -> Plan:
    end = dice.choice(ENDS)
    streams = dice.random() < 0.5
    several = dice.randrange(6) if streams else 1
    details = (("grpc-status-details-bin", dice.randbytes(30)),) if dice.random() < 0.5 else ()
    return Plan(
        number,
        streams,
        (("x-number", str(number)), *pairs(dice)),
        dice.randbytes(3_000_000 if number % 40 == 7 else dice.choice(SIZES)),
        pairs(dice) if dice.random() < 0.5 else (),
        tuple(dice.randbytes(dice.choice(SIZES)) for _ in range(several)),
        end,
        GrpcCode(dice.randrange(1, 17)),
        dice.choice(MESSAGES),
        (*pairs(dice), *details),
    )


def digest(message: bytes) -> tuple[int, str]:
    return len(message), hashlib.sha256(message).hexdigest()[:16]


def comparable(metadata: RawMetadata) -> list[tuple[str, Any]]:
    """grpcio keeps the order only of values that have the same key."""
    return sorted((pair for pair in metadata if pair[0] != "user-agent"), key=lambda pair: pair[0])


async def handle(plan: Plan, call: ServerCall, record: Record) -> None:
    """What the handler of a call does ahead of its answer."""
    record.saw.append(("metadata", comparable(call.metadata), call.deadline is not None))
    if plan.headers:
        await call.send_initial_metadata(plan.headers)
    if plan.end == "fails":
        raise RpcFailed(plan.status, plan.message, plan.trailers)
    if plan.end in ("hangs", "cancelled") and not plan.streams:
        await wait_for_ever(record)


async def wait_for_ever(record: Record) -> None:
    record.waits = True
    try:
        await asyncio.Event().wait()
    finally:
        record.saw.append("cancelled")


async def ended(plan: Plan, record: Record) -> None:
    if plan.end in ("hangs", "cancelled"):
        await wait_for_ever(record)
    if plan.end == "fails late":
        raise RpcFailed(plan.status, plan.message, plan.trailers)


async def made(to: Connection, plan: Plan, record: Record) -> None:
    """Make a call and note how it went."""
    patience = 4.0 if plan.end == "hangs" else 60.0
    deadline = time.monotonic() + patience if plan.number % 3 or plan.end == "hangs" else None
    got = record.got
    try:
        if not plan.streams:
            calling = asyncio.ensure_future(
                to.unary("/s.S/Unary", plan.request, plan.metadata, deadline)
            )
            if plan.end == "cancelled":
                while not record.waits:
                    await asyncio.sleep(0.005)
                calling.cancel()
            reply = await calling
            got.append(("reply", digest(reply.message), comparable(reply.headers)))
            got.append(("trailers", comparable(reply.trailers)))
            return
        stream = to.stream("/s.S/Stream", plan.metadata, deadline)
        await stream.write(plan.request)
        await stream.done_writing()
        for _ in plan.replies if plan.end != "fails" else ():
            message = await stream.read()
            assert message is not None
            got.append(("message", digest(message)))
        if plan.end == "cancelled":
            while not record.waits:
                await asyncio.sleep(0.005)
            stream.cancel()
        assert await stream.read() is None
        got.append(("headers", comparable(await stream.headers())))
        got.append(("trailers", comparable(await stream.trailers())))
    except asyncio.CancelledError:
        got.append("cancelled")
    except RpcFailed as failure:
        got.append((failure.status, comparable(failure.trailers), failure.unsent))
        if plan.end != "hangs":
            got.append((failure.message, comparable(failure.headers)))


async def recorded(server: EngineName, client: EngineName) -> list[Record]:
    """All calls, some at once, through one pair of engines."""
    dice = random.Random(8)
    plans = [planned(number, dice) for number in range(CALLS)]
    records = [Record() for _ in plans]

    def of(call: ServerCall) -> tuple[Plan, Record]:
        number = int(dict(call.metadata)["x-number"])
        return plans[number], records[number]

    async def unary(request: bytes, call: ServerCall) -> bytes:
        plan, record = of(call)
        record.saw.append(digest(request))
        await handle(plan, call, record)
        await ended(plan, record)
        call.set_trailing_metadata(plan.trailers)
        return plan.replies[0]

    async def stream(call: ServerCall) -> None:
        plan, record = of(call)
        request = await call.read()
        assert request is not None
        record.saw.append((digest(request), await call.read()))
        await handle(plan, call, record)
        for reply in plan.replies:
            await call.write(reply)
        await ended(plan, record)
        call.set_trailing_metadata(plan.trailers)

    async with (
        serving(unary, stream=stream, engine=server) as (address, _),
        connected(address, engine=client) as to,
    ):
        at_once = asyncio.Semaphore(16)

        async def one(plan: Plan, record: Record) -> None:
            async with at_once:
                await made(to, plan, record)
                if plan.end in ("hangs", "cancelled"):
                    with contextlib.suppress(TimeoutError):  # shown by the record
                        async with asyncio.timeout(20):
                            while "cancelled" not in record.saw:
                                await asyncio.sleep(0.005)

        for hangs in (False, True):  # those with a short deadline once the others have ended
            async with asyncio.TaskGroup() as group:
                for plan, record in zip(plans, records, strict=True):
                    if (plan.end == "hangs") is hangs:
                        group.create_task(one(plan, record))
    return records


@pytest.fixture(scope="module")
def reference() -> list[Record]:
    """grpcio with itself."""
    return asyncio.run(recorded("grpcio", "grpcio"))


@pytest.mark.parametrize(
    ("server", "client"), [("lean", "lean"), ("lean", "grpcio"), ("grpcio", "lean")]
)
async def test_calls_go_as_they_go_through_grpcio(
    server: EngineName, client: EngineName, reference: list[Record]
) -> None:
    found = await recorded(server, client)
    dice = random.Random(8)
    plans = [planned(number, dice) for number in range(CALLS)]
    for plan, record, wanted in zip(plans, found, reference, strict=True):
        about = (plan.number, plan.streams, plan.end, plan.status)
        assert (about, record.got) == (about, wanted.got)
        assert (about, record.saw) == (about, wanted.saw)
