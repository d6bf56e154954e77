"""Clients that send too much or too slowly take little memory, and nothing is stored (G11)."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from kit.dtm.pb import dtm_pb2
from tests.conformance.dtm.clients import GrpcApi
from tests.conformance.dtm.coordinators import Coordinators
from tests.faults.stand import stand
from tests.processes import Process

pytestmark = pytest.mark.asyncio(loop_scope="session")

GROWTH_MB = 100.0
HUGE = 64 << 20
CHUNK = 256 << 10
GREEDY = 8
SLOW = 400
BRANCHES = 10_000
CALM_WITHIN_S = 5.0


def peak_mb(process: Process) -> float:
    """The most memory that ``process`` has had."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


@contextlib.asynccontextmanager
async def modest(deployed: Coordinators) -> Any:
    """A coordinator that has to be modest: what it stores and takes is looked at in the end."""
    async with stand(deployed, "sqlite") as place:
        life = await place.begin()
        await life.client.run("warm", "saga")
        before = peak_mb(life.process)
        yield place, life
        grown = peak_mb(life.process) - before
        print(f"{before:.0f} MB and {grown:.0f} MB more at the peak")
        listed = (await life.tm.http.get("all", limit=100)).body["transactions"]
        assert [tx["gid"] for tx in listed] == ["warm"]
        assert grown < GROWTH_MB
        assert "Traceback" not in life.process.output, life.process.output
        assert await life.process.stop() == 0


async def status_of(port: int, head: str, body: Iterable[bytes]) -> int:
    """The status that an HTTP request gets; its sender goes on until it is told, or cut off."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        with contextlib.suppress(OSError):
            writer.write(head.encode())
            for chunk in body:
                writer.write(chunk)
                await writer.drain()

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(20):
            line = await reader.readline()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return int(line.split()[1])


def huge_body() -> Iterable[bytes]:
    """64 MiB of a JSON text."""
    yield b'{"gid": "huge", "trans_type": "saga", "x": "'
    for _ in range(HUGE // CHUNK):
        yield b"a" * CHUNK


def chunked(body: Iterable[bytes]) -> Iterable[bytes]:
    """``body`` in HTTP's chunks."""
    for chunk in body:
        yield f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n"


@pytest.mark.parametrize("path", ["/api/dtmsvr/submit", "/api/json-rpc", "/api/dev/clock"])
async def test_bodies_without_an_end_are_refused_over_http(
    deployed: Coordinators, path: str
) -> None:
    """64 MiB each, several at once, with their length said before and without."""
    print("repeat with: .venv/bin/pytest tests/faults/test_greed.py -k http")
    async with modest(deployed) as (_, life):
        port = life.tm.settings["HttpPort"]
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        known = f"{head}Content-Length: {HUGE + 44}\r\n\r\n"
        unknown = f"{head}Transfer-Encoding: chunked\r\n\r\n"
        statuses = await asyncio.gather(
            *(status_of(port, known, huge_body()) for _ in range(GREEDY)),
            *(status_of(port, unknown, chunked(huge_body())) for _ in range(GREEDY)),
        )
        assert set(statuses) == {413}


@pytest.mark.usefixtures("engine")
async def test_messages_without_measure_are_refused_over_grpc(deployed: Coordinators) -> None:
    """64 MiB each, several at once: RESOURCE_EXHAUSTED."""
    print("repeat with: .venv/bin/pytest tests/faults/test_greed.py -k grpc")
    async with modest(deployed) as (place, life):
        api = GrpcApi(await place.channel(life.tm.settings["GrpcPort"]), place.business)
        message = dtm_pb2.DtmRequest(
            Gid="huge", TransType="msg", BinPayloads=[bytes(HUGE)], Steps='[{"action":"a:1/S/M"}]'
        ).SerializeToString()
        replies = await asyncio.gather(*(api.call("Submit", message) for _ in range(4)))
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert {reply.code for reply in replies} == {exhausted}


@pytest.mark.usefixtures("engine")
async def test_ten_thousand_branches_are_refused(deployed: Coordinators) -> None:
    """By every API; it says how many are taken."""
    print("repeat with: .venv/bin/pytest tests/faults/test_greed.py -k branches")
    async with modest(deployed) as (place, life):
        steps = [{"action": place.business.grpc("a")}] * BRANCHES
        body = {
            "gid": "many",
            "trans_type": "msg",
            "protocol": "grpc",
            "steps": steps,
            "payloads": [""] * BRANCHES,
        }
        over_http = await asyncio.gather(
            *(life.tm.http.post("submit", body) for _ in range(GREEDY))
        )
        assert {reply.code for reply in over_http} == {400}
        assert "at most 1000" in over_http[0].text
        over_json_rpc = await life.tm.json_rpc.call("submit", body)
        assert "at most 1000" in over_json_rpc.text
        message = dtm_pb2.DtmRequest(
            Gid="many", TransType="msg", BinPayloads=[b""] * BRANCHES, Steps=json.dumps(steps)
        )
        over_grpc = await asyncio.gather(
            *(life.client.api.call("Submit", message) for _ in range(GREEDY))
        )
        assert {reply.word for reply in over_grpc} == {"INVALID"}


@pytest.mark.usefixtures("engine")
async def test_connections_that_dawdle_keep_nobody_from_being_served(
    deployed: Coordinators,
) -> None:
    """Hundreds of heads and bodies that come byte by byte; others are answered as always."""
    print("repeat with: .venv/bin/pytest tests/faults/test_greed.py -k dawdle")
    async with modest(deployed) as (_, life):
        port = life.tm.settings["HttpPort"]
        head = b"POST /api/dtmsvr/submit HTTP/1.1\r\nHost: localhost\r\n"
        begun = [head, head + b"Content-Length: 4000000\r\n\r\n" + b"{" * 50_000]
        dawdlers = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", port) for _ in range(SLOW))
        )
        try:
            for number, (_, writer) in enumerate(dawdlers):
                writer.write(begun[number % len(begun)])
            for _ in range(20):
                for _, writer in dawdlers:
                    writer.write(b"x")
                asked = time.monotonic()
                reply = await life.tm.http.get("query", gid="warm")
                assert reply.code == 200, reply
                assert time.monotonic() - asked < CALM_WITHIN_S
                assert (await life.client.api.call("NewGid")).word == "SUCCESS"
        finally:
            for _, writer in dawdlers:
                writer.transport.abort()
