"""Server-Sent Events and WebSockets: spec §13."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from kit.errors import Unauthorized
from kit.transport import Handler
from kit.transport.http.streams import END, ERROR
from kit.transport.http.websocket import FrameError, FrameReader, close_payload, frame
from tests.unit.transport.http.shop import shop_side


def refusing(_handler: Handler) -> Handler:
    async def call(_request: Any) -> Any:
        raise Unauthorized("NO_TOKEN", "who are you")

    return call


async def test_a_server_stream_is_events() -> None:
    """Protojson, with the headers that keep proxies from collecting."""
    async with shop_side() as side:
        answer = await side.ask("GET", "/v1/watch?page_size=2")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Accel-Buffering"] == "no"
        events = answer.body.split(b"\n\n")
        assert events[0].startswith(b"event: message\ndata: {")
        assert json.loads(events[1].partition(b"data: ")[2])["id"] == "item\n1"
        assert events[2] == b""
        assert side.seen == ["http /tests.shop.v1.Shop/Watch"]


async def test_an_error_in_a_stream_is_an_event_and_one_before_it_an_answer() -> None:
    """No message at all is an empty answer."""
    async with shop_side() as side:
        answer = await side.ask("GET", "/v1/watch?page_size=5")
        last = answer.body.split(b"\n\n")[-2]
        assert last.startswith(b"event: error\ndata: ")
        assert json.loads(last.partition(b"data: ")[2])["reason"] == "NO_MORE"
        answer = await side.ask("GET", "/v1/watch?page_size=-1")
        assert (answer.status, answer.json["reason"]) == (403, "NEGATIVE")
        answer = await side.ask("GET", "/v1/watch?page_size=x")
        assert (answer.status, answer.json["reason"]) == (400, "CODEC")
        answer = await side.ask("GET", "/v1/watch", accept="text/event-stream")
        assert (answer.status, answer.body) == (200, b"")


async def test_a_stream_has_no_deadline_and_ends_with_its_client() -> None:
    """The method is cancelled."""
    async with shop_side(timeout=0.01) as side:
        async with side.session.get(f"{side.url}/v1/watch?page_size=2&filter.text=slow") as reply:
            assert await reply.content.readline() == b"event: message\n"
            await side.shop.entered.wait()
            assert not side.shop.cancelled.is_set()
            reply.close()
        await asyncio.wait_for(side.shop.cancelled.wait(), 5)


async def test_messages_go_both_ways_over_a_websocket() -> None:
    """A frame each, overlaid by query and path; the end of one side ends the other."""
    async with (
        shop_side() as side,
        side.session.ws_connect(f"{side.url}/v1/chat/s1?color=RED") as ws,
    ):
        await ws.send_str('{"id":"a","shelf":"mine"}')
        reply = json.loads(await ws.receive_str())
        assert (reply["id"], reply["shelf"]) == ("a!", "s1")
        await ws.send_bytes(b'{"id":"b"}')
        assert json.loads(await ws.receive_str())["id"] == "b!"
        await ws.send_str(END)
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
        assert ws.close_code == 1000


async def test_a_client_stream_has_one_reply() -> None:
    """After the half close."""
    async with shop_side() as side, side.session.ws_connect(f"{side.url}/v1/sum") as ws:
        for cents in (1, 2, 3):
            await ws.send_json({"priceCents": cents})
        await ws.send_str(END)
        assert json.loads(await ws.receive_str())["priceCents"] == "6"


async def test_an_error_of_a_websocket_is_a_text_and_close_code_1011() -> None:
    """Code and reason are inside the text; a frame that cannot be read is one of them."""
    async with shop_side() as side:
        for sent, reason in (('{"id":"bad"}', "BAD_WORD"), ("{", "CODEC")):
            async with side.session.ws_connect(f"{side.url}/v1/chat/s") as ws:
                await ws.send_str(sent)
                text = await ws.receive_str()
                assert text.startswith(f"{ERROR}error: code = ")
                assert f"reason = {reason}" in text
                assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
                assert ws.close_code == 1011


async def test_middleware_refuses_a_websocket_after_the_upgrade() -> None:
    """As kratos does, so that a 401 is a WebSocket error."""
    async with (
        shop_side(middleware=[refusing]) as side,
        side.session.ws_connect(f"{side.url}/v1/sum") as ws,
    ):
        assert "reason = NO_TOKEN" in await ws.receive_str()


async def test_a_page_of_another_origin_and_a_plain_get_are_refused() -> None:
    """Before the upgrade, with the words of the upgrader and kratos' error behind them."""
    async with shop_side() as side:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await side.session.ws_connect(f"{side.url}/v1/sum", origin="https://evil.example")
        assert caught.value.status == 403
        async with side.session.ws_connect(f"{side.url}/v1/sum", origin=side.url) as ws:
            await ws.send_str(END)
        answer = await side.ask("GET", "/v1/sum")
        assert answer.status == 400
        assert answer.headers["Sec-Websocket-Version"] == "13"
        assert answer.body.startswith(b"Bad Request\n{")
        assert json.loads(answer.body.partition(b"\n")[2])["code"] == 500
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await side.session.ws_connect(f"{side.url}/nowhere")
        assert caught.value.status == 404


async def test_large_messages_and_pings_pass_and_too_large_ones_end_the_connection() -> None:
    """1009 for more than 4 MiB."""
    async with (
        shop_side() as side,
        side.session.ws_connect(f"{side.url}/v1/chat/s", max_msg_size=0) as ws,
    ):
        await ws.ping(b"x")
        await ws.send_json({"id": "x" * 1_000_000})
        assert len(json.loads(await ws.receive_str())["id"]) == 1_000_001
        await ws.send_str("x" * (5 << 20))
        assert (await ws.receive()).data == 1009


async def test_stop_does_not_wait_for_websockets() -> None:
    """They are told 1001."""
    async with shop_side() as side, side.session.ws_connect(f"{side.url}/v1/sum") as ws:
        await ws.send_json({"priceCents": 1})
        async with asyncio.timeout(3):
            await side.server.stop()
        assert (await ws.receive()).data == 1001


def masked(first: int, payload: bytes, mask: bytes = b"\x01\x02\x03\x04") -> bytes:
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes((first, 128 | len(payload))) + mask + body


def test_frames_are_read_in_pieces_and_fragments_joined() -> None:
    """A control frame may stand between fragments."""
    data = masked(0x01, b"he") + masked(0x89, b"?") + masked(0x80, b"llo")
    reader = FrameReader()
    found = [each for index in range(len(data)) for each in reader.feed(data[index : index + 1])]
    assert found == [(9, b"?"), (1, b"hello")]
    assert frame(1, b"a" * 200)[:4] == b"\x81\x7e\x00\xc8"
    assert len(close_payload(1011, "é" * 100)) <= 125


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01a", 1002),
        (masked(0xC1, b"a"), 1002),
        (masked(0x83, b"a"), 1002),
        (masked(0x80, b"a"), 1002),
        (masked(0x01, b"a") + masked(0x01, b"b"), 1002),
        (masked(0x09, b"a"), 1002),
        (b"\x89\xfe\x00\xc8" + b"\x00" * 204, 1002),
        (b"\x82\xff" + b"\xff" * 8 + b"\x00" * 4, 1009),
    ],
)
def test_frames_that_break_the_protocol_are_refused(data: bytes, code: int) -> None:
    """With the code for it."""
    with pytest.raises(FrameError) as caught:
        FrameReader().feed(data)
    assert caught.value.code == code
