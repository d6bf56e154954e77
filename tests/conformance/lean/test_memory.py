"""What one connection can make a server keep: attacks over a real socket, memory measured.

The bounds are those of ``kit/transport/lean/guard.py``. The server is a process of its own.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import hpack
import pytest

from kit.transport.lean.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    frame,
    header_frames,
    settings,
    window_update,
)
from kit.transport.lean.headers import integer, literal
from kit.transport.lean.messages import pack_prefix
from tests.conformance.lean.raw import Peer, dialled
from tests.soak.peer import anonymous_kb

MB = 1_000_000
OPEN_WINDOW = window_update(0, 2**31 - 1 - 65_535)


def request(method: str) -> bytes:
    fields = ((":method", "POST"), (":scheme", "http"), (":path", f"/soak.Soak/{method}"))
    return b"".join(literal(*pair) for pair in (*fields, ("content-type", "application/grpc")))


def many_small_fields() -> Iterator[bytes]:
    """1,000 calls that never end, each with as many fields as a header list may have."""
    for number in range(1_000):
        fields = b"".join(literal(f"{chr(97 + n % 26)}{number}-{n}", "") for n in range(370))
        block = request("Echo") + fields
        yield header_frames(2 * number + 1, block, end=False, largest=16_384)


def small_messages() -> Iterator[bytes]:
    """12 streams full of messages of one byte that nobody reads: the echoes are not taken."""
    messages = (pack_prefix(0, 1) + b"x") * 2_700
    for stream_id in range(1, 25, 2):
        yield frame(HEADERS, END_HEADERS, stream_id, request("Talk"))
        for _ in range(60):
            yield frame(DATA, 0, stream_id, messages)


def unfinished_messages() -> Iterator[bytes]:
    """100 calls whose messages are announced as 4 MB and come in part."""
    for stream_id in range(1, 201, 2):
        yield frame(HEADERS, END_HEADERS, stream_id, request("Echo"))
        yield frame(DATA, 0, stream_id, pack_prefix(0, 4_000_000) + bytes(16_000))
    for stream_id in range(1, 201, 2):
        for _ in range(60):
            yield frame(DATA, 0, stream_id, bytes(16_384))


def unfinished_block() -> Iterator[bytes]:
    """Headers that do not end."""
    yield frame(HEADERS, 0, 1, bytes(16_384)) + frame(CONTINUATION, 0, 1, bytes(16_000))


def ever_new_headers() -> Iterator[bytes]:
    """Blocks full of small fields, and Huffman's texts: all to be remembered, no two alike."""
    coder = hpack.Encoder().huffman_coder
    for number in range(4_000):
        block = request("Echo")
        if number % 2:
            small = (b"\0\x03" + b"%03d" % ((number * 7 + n) % 1_000) + b"\0" for n in range(62))
            block += b"".join(small)
        else:
            text = coder.encode(b"%0150d" % number)
            block += b"\0\x01x" + integer(len(text), 0x7F, 0x80) + text
        yield frame(HEADERS, END_HEADERS | 1, 2 * number + 1, block)


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[tuple[int, str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.soak.peer", "0", str(folder / "ran"), "1000", "asyncio"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process.pid, f"127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.terminate()
        await process.wait()


async def swallow(peer: Peer) -> None:
    """Read on, or the server would not read either."""
    try:
        while await peer.reader.read(65_536):
            pass
    except ConnectionError:
        pass  # it has had enough


@pytest.mark.parametrize(
    ("attack", "window", "bound"),
    [
        pytest.param(many_small_fields, 65_535, 110 * MB, id="header lists of small fields"),
        pytest.param(small_messages, 0, 80 * MB, id="small messages that are not read"),
        pytest.param(unfinished_messages, 65_535, 90 * MB, id="messages that do not end"),
        pytest.param(unfinished_block, 65_535, 2 * MB, id="a header block that does not end"),
        pytest.param(ever_new_headers, 65_535, 4 * MB, id="headers that are always new"),
    ],
)
async def test_an_attack_is_kept_within_its_bound(
    attack: object, window: int, bound: int, tmp_path: Path
) -> None:
    async with server(tmp_path) as (pid, address):
        async with dialled(address, PREFACE + settings({INITIAL_WINDOW_SIZE: 65_535})) as warm:
            warm.writer.write(frame(HEADERS, END_HEADERS | 1, 1, request("Echo")))
            await warm.until(HEADERS)
        before = anonymous_kb(pid)
        most = 0
        hello = PREFACE + settings({INITIAL_WINDOW_SIZE: window}) + OPEN_WINDOW
        async with dialled(address, hello) as peer:
            reading = asyncio.create_task(swallow(peer))
            try:
                for data in attack():  # type: ignore[operator]
                    peer.writer.write(data)
                    await peer.writer.drain()
                    most = max(most, anonymous_kb(pid) - before)
            except ConnectionError:
                pass  # it has had enough
            for _ in range(20):
                await asyncio.sleep(0.05)
                most = max(most, anonymous_kb(pid) - before)
            reading.cancel()
        print(f"{attack.__name__}: {most} KiB")  # type: ignore[attr-defined]
        assert most * 1024 < bound
