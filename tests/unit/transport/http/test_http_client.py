"""The HTTP client against the HTTP server: spec §12, §13."""

import asyncio
import time
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody

from kit.errors import BadRequest, Error, GatewayTimeout, NotFound, ServiceUnavailable
from kit.middleware import metadata
from kit.ports import free_port
from kit.registry import ServiceInstance
from kit.registry.memory import MemoryRegistry
from kit.transport import CallInfo, Kind, call_info
from kit.transport.http import HttpClient
from kit.transport.http.client_streams import Socket, error_in, events
from tests.unit.transport.http import shop_pb2 as pb
from tests.unit.transport.http.shop import SERVICE, noting, shop_side

METHODS = SERVICE.methods_by_name


@pytest.mark.parametrize("codec", ["json", "protojson", "proto", "xml"])
async def test_methods_are_called_by_their_rules(codec: str) -> None:
    """Path, query, body and reply, in every form."""
    async with shop_side() as side, HttpClient(side.url, codec=codec) as client:
        request = pb.GetRequest(id="a/b?c=é", shelf="s t", verbose=True)
        item = await client.invoke(METHODS["Get"], request)
        assert (item.id, item.shelf) == ("a/b?c=é", "s t")
        assert await client.invoke(
            METHODS["Create"], pb.Item(id="1", price_cents=2**60)
        ) == pb.Item(id="1", price_cents=2**60)
        update = pb.UpdateRequest(item=pb.Item(id="7", shelf="x"))
        update.update_mask.paths.append("price_cents")
        assert (await client.invoke(METHODS["Update"], update)).id == "7"
        assert side.shop.asked[-1] == update
        listed = pb.ListRequest(page_size=3, colors=[1, 2])
        listed.filter.labels["a"] = "b"
        await client.invoke(METHODS["List"], listed)
        assert side.shop.asked[-1] == listed
        await client.invoke(METHODS["Delete"], pb.GetRequest(id="1"))


async def test_paths_of_several_segments_parts_of_replies_and_raw_bodies() -> None:
    """Slashes stay where the template wants them."""
    async with shop_side() as side, HttpClient(f"127.0.0.1:{side.port}") as client:
        item = await client.invoke(METHODS["File"], pb.FileRequest(name="files/a b/parts/c/d"))
        assert item.id == "files/a b/parts/c/d"
        assert list((await client.invoke(METHODS["Names"], pb.ListRequest())).names) == ["a", "b"]
        body = await client.invoke(METHODS["Raw"], HttpBody(content_type="a/b", data=b"\x00\x01"))
        assert (body.content_type, body.data) == ("a/b", b"\x01\x00")
        with pytest.raises(BadRequest, match="id is empty"):
            await client.invoke(METHODS["Get"], pb.GetRequest())
        with pytest.raises(ValueError, match="has no google"):
            await client.invoke(METHODS["Unbound"], pb.GetRequest())


async def test_an_error_comes_back_with_reason_and_metadata() -> None:
    """The status wins over the code in the body; a body that is none leaves the rest empty."""
    async with shop_side() as side, HttpClient(side.url) as client:
        with pytest.raises(Error) as caught:
            await client.invoke(METHODS["Get"], pb.GetRequest(id="none"))
        assert caught.value == NotFound("ITEM_NOT_FOUND")
        assert caught.value.metadata == {"id": "none"}
        with pytest.raises(Error) as caught:
            await client.invoke(METHODS["Get"], pb.GetRequest(id="business"))
        assert (caught.value.code, caught.value.reason) == (500, "BUSINESS")
        with pytest.raises(Error) as caught:
            await client.request("GET", "/nowhere")
        assert (caught.value.code, caught.value.reason, caught.value.message) == (404, "", "")


async def test_a_call_is_bound_by_its_time_and_by_that_of_the_call_it_serves() -> None:
    """The message says whose time it was."""
    async with shop_side(timeout=0) as side, HttpClient(side.url, timeout=0.1) as client:
        with pytest.raises(GatewayTimeout) as caught:
            await client.invoke(METHODS["Get"], pb.GetRequest(id="slow"))
        assert "client timeout of 100ms for /tests.shop.v1.Shop/Get" in caught.value.message
        outer = CallInfo(Kind.GRPC, "server", "/a.B/C", limit=1.0, limit_side="server")
        outer.deadline = time.monotonic() + 0.05
        token = call_info.set(outer)
        try:
            with pytest.raises(GatewayTimeout, match="error") as caught:
                await client.invoke(METHODS["Get"], pb.GetRequest(id="slow"), timeout=30)
        finally:
            call_info.reset(token)
        assert "server timeout of 1s" in caught.value.message


async def test_middleware_and_headers_of_a_call() -> None:
    """What middleware adds to the headers is sent."""
    seen: list[str] = []
    sent: list[str] = []

    def noting_header(app: Any) -> Any:
        async def call(scope: Any, receive: Any, send: Any) -> None:
            sent.extend(
                value.decode() for name, value in scope["headers"] if name == b"x-md-global-a"
            )
            await app(scope, receive, send)

        return call

    chain = [noting(seen), metadata.client({"x-md-global-a": "1"})]
    async with (
        shop_side(filters=[noting_header]) as side,
        HttpClient(side.url, middleware=chain) as client,
    ):
        await client.invoke(METHODS["Get"], pb.GetRequest(id="1"), headers=[("x-other", "2")])
        answer = await client.request("get", "/v1/names?page_size=1")
        assert (answer.status, answer.body) == (200, b'["a","b"]')
    assert seen == ["http /tests.shop.v1.Shop/Get", "http /v1/names"]
    assert sent == ["1", "1"]


async def test_nodes_come_from_the_registry_and_a_dead_one_is_passed_over() -> None:
    """One that cannot be reached never got the request."""
    registry = MemoryRegistry()
    async with shop_side() as one, shop_side() as two:
        urls = (one.url, two.url, f"http://127.0.0.1:{free_port()}")
        for number, url in enumerate(urls):
            await registry.register(ServiceInstance(str(number), "shop", endpoints=(url,)))
        async with HttpClient("discovery:///shop", discovery=registry) as client:
            for _ in range(12):
                await client.invoke(METHODS["Get"], pb.GetRequest(id="1"))
        assert len(one.shop.asked) >= 4
        assert len(two.shop.asked) >= 4


async def test_nobody_to_call_is_503() -> None:
    """NODE_NOT_FOUND without instances, UNREACHABLE when none answers."""
    registry = MemoryRegistry()
    async with HttpClient("discovery:///shop", discovery=registry) as client:
        with pytest.raises(ServiceUnavailable) as caught:
            await client.invoke(METHODS["Get"], pb.GetRequest(id="1"))
        assert caught.value.reason == "NODE_NOT_FOUND"
    async with HttpClient(f"127.0.0.1:{free_port()}") as client:
        with pytest.raises(ServiceUnavailable) as caught:
            await client.request("GET", "/")
        assert caught.value.reason == "UNREACHABLE"
    with pytest.raises(ValueError, match="needs a registry"):
        HttpClient("discovery:///shop")
    with pytest.raises(ValueError, match="codec"):
        HttpClient("a:1", codec="cbor")


async def test_an_answer_that_is_too_large_or_none_is_an_error() -> None:
    """Memory is not the peer's to take."""
    async with shop_side() as side:
        async with HttpClient(side.url, receive_bytes=10) as client:
            with pytest.raises(Error, match="ANSWER_TOO_LARGE"):
                await client.invoke(METHODS["Get"], pb.GetRequest(id="1" * 20))
        async with HttpClient(side.url) as client:
            with pytest.raises(Error, match="CODEC"):
                await client.invoke(METHODS["Get"], pb.GetRequest(id="raw"))


async def test_a_stream_of_events_is_read() -> None:
    """Errors before the first message and after it; no time limit."""
    async with shop_side() as side, HttpClient(side.url, timeout=0.01) as client:
        watch = METHODS["Watch"]
        found = [item.id async for item in events(client, watch, pb.ListRequest(page_size=2))]
        assert found == ["0", "item\n1"]
        stream = events(client, watch, pb.ListRequest(page_size=9))
        assert [(await anext(stream)).id for _ in range(3)] == ["0", "item\n1", "2"]
        with pytest.raises(Error) as caught:
            await anext(stream)
        assert (caught.value.code, caught.value.reason) == (404, "NO_MORE")
        with pytest.raises(Error) as caught:
            await anext(events(client, watch, pb.ListRequest(page_size=-1)))
        assert (caught.value.code, caught.value.reason) == (403, "NEGATIVE")


async def test_a_socket_sends_and_receives() -> None:
    """Dialled with the first message; the error's code is read out of its text."""
    async with shop_side() as side, HttpClient(side.url) as client:
        async with Socket(client, METHODS["Chat"]) as chat:
            await chat.write(pb.Item(id="a", shelf="s/1"))
            first = await chat.read()
            assert first is not None
            assert (first.id, first.shelf) == ("a!", "s/1")
            await chat.done_writing()
            assert [item async for item in chat] == []
        async with Socket(client, METHODS["Chat"]) as chat:
            await chat.write(pb.Item(id="bad", shelf="s"))
            with pytest.raises(Error) as caught:
                await chat.read()
            assert (caught.value.code, caught.value.reason) == (403, "BAD_WORD")
        async with Socket(client, METHODS["Sum"]) as total:
            for cents in (1, 2):
                await total.write(pb.Item(price_cents=cents))
            await total.done_writing()
            reply = await total.read()
            assert reply is not None
            assert reply.price_cents == 3
    assert error_in("what").message == "what"


async def test_a_server_that_hangs_up_is_503() -> None:
    """Not an exception of the library below."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, HttpClient(f"127.0.0.1:{port}") as client:
        with pytest.raises(ServiceUnavailable, match="UNREACHABLE"):
            await client.request("GET", "/")
