"""Uploads in parts."""

import asyncio
import io
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from kit.errors import BadRequest
from kit.transport.http import HttpRequest, Limits, parts
from kit.transport.http.upload import safe_name
from tests.unit.transport.http.shop import shop_side


def request(
    body: bytes, size: int, content_type: str = "multipart/form-data; boundary=b"
) -> Request:
    """A request whose body comes in pieces of ``size`` bytes."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    messages: list[Any] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return messages.pop(0)

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def read(body: bytes, size: int = 1 << 16, **kind: str) -> list[tuple[str, str, bytes]]:
    return [
        (part.name, part.filename, await part.read())
        async for part in parts(request(body, size, **kind))
    ]


def written(contents: list[bytes]) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="%d"\r\n\r\n%s\r\n'
    return b"".join(head % (number, each) for number, each in enumerate(contents)) + b"--b--\r\n"


@given(
    st.lists(st.binary() | st.sampled_from([b"\r\n--", b"\r\n", b"--b", b"\r\n\r\n"]), max_size=4),
    st.integers(1, 40),
)
@settings(max_examples=200, deadline=None)
async def test_parts_are_found_however_the_body_is_cut(contents: list[bytes], size: int) -> None:
    """Also when a part looks like the beginning of a boundary."""
    contents = [each for each in contents if b"\r\n--b" not in b"\r\n" + each]
    if contents:
        found = await read(written(contents), size)
        assert [content for _, _, content in found] == contents


async def test_parts_that_nobody_reads_are_passed_over() -> None:
    """The next one is found all the same."""
    found = [part.name async for part in parts(request(written([b"a" * 500, b"b"]), 7))]
    assert found == ["0", "1"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"--b\r\n",
        b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx",
        b"--b\r\nnothing\r\n\r\nx\r\n--b--",
        b"--b\r\nContent-Type: a/b\r\n\r\nx\r\n--b--",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
        b"--b\r\n" + b"a: b\r\n" * 10_000,
        b"x" * 100_000,
    ],
)
async def test_a_broken_body_is_refused(body: bytes) -> None:
    """As the client's fault."""
    with pytest.raises(BadRequest):
        await read(body)


@pytest.mark.parametrize(
    "kind",
    ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=" + "a" * 71],
)
async def test_another_content_type_is_refused(kind: str) -> None:
    """With what it should be."""
    with pytest.raises(BadRequest, match="boundary"):
        await read(b"", content_type=kind)


@pytest.mark.parametrize("name", ["", ".", "..", "a/", "\x00"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    """What is left of others is a plain name."""
    with pytest.raises(BadRequest):
        safe_name(name)


async def test_a_file_is_uploaded_past_the_limit_for_messages(tmp_path: Path) -> None:
    """By a real client; the route has a limit of its own."""

    async def upload(request: HttpRequest) -> Any:
        sizes = {}
        async for part in parts(request):
            if part.filename:
                sizes[part.filename] = await part.save(tmp_path / safe_name(part.filename))
            else:
                sizes[part.name] = len(await part.read(10))
        return sizes

    def setup(server: Any) -> None:
        server.route("POST", "/upload", upload, body_bytes=8 << 20)

    async with shop_side(setup) as side:
        for count, status in ((5 << 20, 200), (9 << 20, 413)):
            form = aiohttp.FormData(quote_fields=False)
            form.add_field("note", "hello")
            form.add_field(
                "file", io.BytesIO(b"x" * count), filename=f"ü/{count}.bin", content_type="a/b"
            )
            async with side.session.post(f"{side.url}/upload", data=form) as reply:
                assert reply.status == status, await reply.text()
        assert (tmp_path / f"{5 << 20}.bin").stat().st_size == 5 << 20
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("note", "x" * 11, content_type="text/plain")
        async with side.session.post(f"{side.url}/upload", data=form) as reply:
            assert reply.status == 413, "a field has a limit of its own"


async def test_an_upload_has_time_as_long_as_it_comes_steadily() -> None:
    """Three times its deadline; one that drips is cut at the deadline."""

    async def count(request: HttpRequest) -> Any:
        return len(await request.body())

    def setup(server: Any) -> None:
        server.route("POST", "/count", count, body_bytes=1 << 20)

    limits = Limits(body_s=1.0, body_rate=10_000)
    head = b"POST /count HTTP/1.1\r\nhost: a\r\ncontent-length: 60000\r\n\r\n"
    async with shop_side(setup, limits=limits, timeout=0) as side:
        for size, answered in ((5_000, True), (50, False)):
            reader, writer = await side.connect()
            writer.write(head)
            for _ in range(12):
                writer.write(b"x" * size)
                await asyncio.sleep(0.25)
            try:
                answer = await asyncio.wait_for(reader.read(100), 30)
            except ConnectionError:  # written to after the server had hung up
                answer = b""
            assert answer.startswith(b"HTTP/1.1 200") == answered
            assert answered or answer == b""
