"""JSON over gRPC, sent by a client that speaks HTTP/2 by hand; kratos-wire §4.10."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from kit.testing.grpc import running
from kit.transport.grpc import GrpcServer
from tests.unit.transport.http import shop_pb2 as pb
from tests.unit.transport.http import shop_pb2_grpc


class Shop(shop_pb2_grpc.ShopServicer):
    """Gives back what it got."""

    async def Create(self, request: Any, _context: Any) -> Any:  # noqa: N802
        return request

    async def Sum(self, request_iterator: Any, _context: Any) -> Any:  # noqa: N802
        return pb.Item(price_cents=sum([item.price_cents async for item in request_iterator]))


@asynccontextmanager
async def shop() -> AsyncIterator[str]:
    server = GrpcServer(address="127.0.0.1:0")
    shop_pb2_grpc.add_ShopServicer_to_server(Shop(), server.services)
    async with running(server) as address:
        yield address


async def call(address: str, method: str, *messages: bytes) -> tuple[dict[str, str], list[bytes]]:
    """Header fields and messages of the answer to ``application/grpc+json``."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
    peer = h2.connection.H2Connection(config)
    peer.initiate_connection()
    head = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/tests.shop.v1.Shop/{method}",
        ":authority": "shop",
        "te": "trailers",
        "content-type": "application/grpc+json",
    }
    peer.send_headers(1, list(head.items()))
    body = b"".join(b"\0" + len(each).to_bytes(4, "big") + each for each in messages)
    peer.send_data(1, body, end_stream=True)
    fields: dict[str, str] = {}
    data = b""
    async with asyncio.timeout(10):
        ended = False
        while not ended:
            writer.write(peer.data_to_send())
            for event in peer.receive_data(await reader.read(65_536)):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    fields.update(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    data += event.data
                ended |= isinstance(event, h2.events.StreamEnded)
    writer.close()
    answers = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        answers.append(data[5 : 5 + size])
        data = data[5 + size :]
    return fields, answers


async def test_json_is_answered_in_json_with_every_field() -> None:
    """Names and numbers of enums are read, unknown fields skipped, 64-bit numbers are texts."""
    async with shop() as address:
        sent = b'{"id": "7", "price_cents": "500", "color": "RED", "later": {"x": 1}}'
        fields, [answer] = await call(address, "Create", sent)
    assert fields["grpc-status"] == "0"
    assert fields["content-type"].startswith("application/grpc")
    told = json.loads(answer)
    assert (told["id"], told["priceCents"], told["color"]) == ("7", "500", "RED")
    assert "shelf" in told, "fields without a value are written, too"


async def test_streams_are_in_json_too() -> None:
    async with shop() as address:
        messages = [b'{"priceCents": 2}', b'{"priceCents": "3"}']
        fields, answers = await call(address, "Sum", *messages)
    assert fields["grpc-status"] == "0"
    assert [json.loads(answer)["priceCents"] for answer in answers] == ["5"]


@pytest.mark.parametrize("sent", [b"{", b'{"id": 7}', b'{"color": "MAUVE"}', b'{"id": "7"} x'])
async def test_what_is_not_json_of_the_message_is_internal(sent: bytes) -> None:
    """Wrong types and unknown names of enums among it."""
    async with shop() as address:
        fields, _ = await call(address, "Create", sent)
    assert fields["grpc-status"] == "13"
    assert fields["grpc-message"].startswith("grpc: error unmarshalling request")
