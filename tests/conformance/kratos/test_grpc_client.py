"""The kit's client against plain grpcio servers; kratos-wire §5."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from kit import errors
from kit.errors.codes import GrpcCode
from kit.metadata import Metadata
from kit.ports import free_port
from kit.registry import ServiceInstance
from kit.transport import CallInfo, Handler, current_call
from kit.transport.grpc import ClientTls, GrpcClient, RpcError

Behaviour = Any


class Handlers(grpc.GenericRpcHandler):
    """Every method does the same; there is no health service."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def service(self, details: Any) -> Any:
        return None if details.method.startswith("/grpc.health.") else self._handler


@asynccontextmanager
async def plain_server(
    behaviour: Behaviour, kind: Any = grpc.unary_unary_rpc_method_handler, credentials: Any = None
) -> AsyncIterator[str]:
    """A grpc.aio server that gives and takes bytes."""
    server = grpc.aio.server(handlers=[Handlers(kind(behaviour))])
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


class Registry:
    """A discovery whose list the test sets."""

    def __init__(self, *instances: ServiceInstance) -> None:
        self._lists: asyncio.Queue[list[ServiceInstance]] = asyncio.Queue()
        self.put(*instances)

    def put(self, *instances: ServiceInstance) -> None:
        self._lists.put_nowait(list(instances))

    async def get_service(self, name: str) -> list[ServiceInstance]:
        raise AssertionError("the client watches")

    @asynccontextmanager
    async def watch(self, name: str) -> AsyncIterator[AsyncIterator[list[ServiceInstance]]]:
        async def changes() -> AsyncIterator[list[ServiceInstance]]:
            while True:
                yield await self._lists.get()

        yield changes()


def at(address: str, **metadata: str) -> ServiceInstance:
    return ServiceInstance(address, "trans", "v1", metadata, (f"grpc://{address}",))


class Answering:
    """Answers with its own name and counts."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.calls: list[dict[str, Any]] = []

    async def answer(self, request: bytes, context: Any) -> bytes:
        self.calls.append(
            {"metadata": context.invocation_metadata(), "left": context.time_remaining()}
        )
        return request + self.name.encode()


async def test_bytes_and_metadata_arrive_and_the_deadline_is_always_sent() -> None:
    """`grpc-timeout` is present on unary calls, at most 2 s by default."""
    answering = Answering("!")
    async with plain_server(answering.answer) as address, GrpcClient(address) as client:
        await client.unary("/s.S/M", b"connects", timeout=30)
        metadata: list[tuple[str, str | bytes]] = [("k", "1"), ("k", "2"), ("b-bin", b"\0")]
        assert await client.unary("/s.S/M", b"hi", metadata=metadata) == b"hi!"
        await client.unary("/s.S/M", b"", timeout=30)
    _, first, second = answering.calls
    assert [pair for pair in first["metadata"] if pair[0] != "user-agent"] == metadata
    assert 1.5 < first["left"] <= 2.1
    assert 29 < second["left"] <= 30.1


async def test_without_a_limit_no_deadline_is_sent() -> None:
    answering = Answering()
    async with plain_server(answering.answer) as address, GrpcClient(address, timeout=0) as client:
        await client.unary("/s.S/M", b"")
    assert answering.calls[0]["left"] is None


async def test_a_kit_error_of_the_peer_comes_back_as_it_was() -> None:
    """Reason and metadata out of the first ErrorInfo; the gRPC status stays readable."""

    async def refuse(_request: bytes, context: Any) -> bytes:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason="NO_MONEY", metadata={"account": "1"}))
        status = status_pb2.Status(code=10, message="30 cents are missing", details=[detail])
        await context.send_initial_metadata((("x-head", "1"),))
        await context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError

    async with plain_server(refuse) as address, GrpcClient(address) as client:
        with pytest.raises(RpcError) as caught:
            await client.unary("/s.S/M", b"")
    error = caught.value
    assert error == errors.Conflict("NO_MONEY")
    assert (error.status, error.code) == (GrpcCode.ABORTED, 409)
    assert (error.message, error.metadata) == ("30 cents are missing", {"account": "1"})
    assert tuple(error.headers) == (("x-head", "1"),)


async def test_a_plain_status_has_no_reason_and_keeps_its_code() -> None:
    async def refuse(_request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not yet")
        raise AssertionError

    async with plain_server(refuse) as address, GrpcClient(address) as client:
        with pytest.raises(RpcError) as caught:
            await client.unary("/s.S/M", b"")
    error = caught.value
    assert (error.status, error.code) == (GrpcCode.FAILED_PRECONDITION, 400)
    assert (error.reason, error.message) == ("", "not yet")


async def test_middleware_sees_the_call_and_its_answer() -> None:
    seen: list[CallInfo] = []

    def look(handler: Handler) -> Handler:
        async def call(request: Any) -> Any:
            info = current_call()
            assert info is not None
            info.request_headers.set("x-added", "1")
            seen.append(info)
            return await handler(request + b"+")

        return call

    async def answer(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("x-reply", "2"),))
        added = dict(context.invocation_metadata())["x-added"]
        return request + str(added).encode()

    async with plain_server(answer) as address:
        async with GrpcClient(address, middleware=[look]) as client:
            assert await client.unary("/s.S/M", b"a") == b"a+1"
        assert current_call() is None
    [info] = seen
    assert (info.side, info.operation, info.endpoint) == ("client", "/s.S/M", address)
    assert info.peer == address
    assert info.reply_headers == Metadata([("x-reply", "2")])


async def test_cancelling_the_caller_cancels_the_call() -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_request: bytes, _context: Any) -> bytes:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with plain_server(hang) as address, GrpcClient(address) as client:
        call = asyncio.create_task(client.unary("/s.S/M", b""))
        await entered.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await cancelled.wait()


async def test_an_answer_that_does_not_decode_is_internal() -> None:
    def decode(data: bytes) -> Any:
        raise ValueError("garbage")

    async with plain_server(Answering().answer) as address, GrpcClient(address) as client:
        method = client.unary_unary("/s.S/M", response_deserializer=decode)
        with pytest.raises(RpcError, match="failed to unmarshal the received message: garbage"):
            await method(b"")


async def test_nobody_at_the_address_is_unavailable_and_named() -> None:
    async with GrpcClient("127.0.0.1:1") as client:
        with pytest.raises(RpcError) as caught:
            await client.unary("/s.S/M", b"")
    assert caught.value.status is GrpcCode.UNAVAILABLE
    assert caught.value.message.startswith("127.0.0.1:1: no connection to 127.0.0.1:1: ")
    assert "Connection refused" in caught.value.message


async def test_the_authority_is_the_service_name() -> None:
    """kratos-wire §5: also the name that TLS verifies."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        registry = Registry(at(f"127.0.0.1:{listener.getsockname()[1]}"))
        async with GrpcClient("discovery:///trans", discovery=registry) as client:
            call = asyncio.create_task(client.unary("/s.S/M", b""))
            connection, _ = await loop.sock_accept(listener)
            with connection:
                await loop.sock_sendall(connection, b"\0\0\0\x04\0\0\0\0\0")  # empty SETTINGS
                data = b""
                async with asyncio.timeout(5):
                    while b"/s.S/M" not in data:
                        data += await loop.sock_recv(connection, 65536)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
    assert b":authority\x05trans" in data or b"\x41\x05trans" in data


async def test_tls_verifies_the_service_name_and_takes_grpcs_endpoints() -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("trans")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(leaf.private_key_pem.bytes(), chain)])
    async with plain_server(Answering().answer, credentials=credentials) as address:
        endpoints = (f"grpc://{address}", f"grpcs://{address}")
        registry = Registry(ServiceInstance("a", "trans", endpoints=endpoints))
        trust = ClientTls(ca=ca.cert_pem.bytes())
        async with GrpcClient("discovery:///trans", discovery=registry, tls=trust) as client:
            assert await client.unary("/s.S/M", b"x") == b"x"


async def test_calls_spread_by_weight_over_the_instances() -> None:
    light, heavy = Answering("l"), Answering("h")
    async with plain_server(light.answer) as one, plain_server(heavy.answer) as two:
        registry = Registry(at(one, weight="100"), at(two, weight="300"))
        async with GrpcClient("discovery:///trans", discovery=registry) as client:
            for _ in range(8):
                await client.unary("/s.S/M", b"")
    assert (len(light.calls), len(heavy.calls)) == (2, 6)


async def test_new_instances_are_called_and_gone_ones_are_not() -> None:
    old, new = Answering("old"), Answering("new")
    async with plain_server(old.answer) as one, plain_server(new.answer) as two:
        registry = Registry(at(one))
        async with GrpcClient("discovery:///trans", discovery=registry) as client:
            assert await client.unary("/s.S/M", b"") == b"old"
            registry.put(at(two))
            async with asyncio.timeout(5):
                while await client.unary("/s.S/M", b"") != b"new":
                    pass
            before = len(old.calls)
            for _ in range(4):
                await client.unary("/s.S/M", b"")
    assert len(old.calls) == before


async def test_an_empty_list_keeps_the_addresses(capsys: pytest.CaptureFixture[str]) -> None:
    async with plain_server(Answering("here").answer) as address:
        registry = Registry(at(address))
        async with GrpcClient("discovery:///trans", discovery=registry) as client:
            await client.unary("/s.S/M", b"")
            registry.put()
            async with asyncio.timeout(5):
                while "Zero endpoint found,refused to write" not in capsys.readouterr().err:
                    await client.unary("/s.S/M", b"")
            assert await client.unary("/s.S/M", b"") == b"here"


async def test_a_static_list_fails_over() -> None:
    async with (
        plain_server(Answering("up").answer) as address,
        GrpcClient(f"direct:///127.0.0.1:1,{address}") as client,
    ):
        for _ in range(4):
            assert await client.unary("/s.S/M", b"") == b"up"


SERVER = """
import asyncio, sys
import grpc, grpc.aio
class H(grpc.GenericRpcHandler):
    def service(self, details):
        async def answer(request, context):
            return sys.argv[2].encode()
        return grpc.unary_unary_rpc_method_handler(answer)
async def main():
    server = grpc.aio.server(handlers=[H()], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:" + sys.argv[1])
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()
asyncio.run(main())
"""


@asynccontextmanager
async def server_process(name: str, port: str = "0") -> AsyncIterator[tuple[Any, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, port, name, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        bound = (await process.stdout.readline()).decode().strip()
        assert bound, f"{name} does not listen on port {port}"
        yield process, bound
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_killed_instance_is_left_out_at_once_and_comes_back_by_itself() -> None:
    """Two instances, one killed -9: only a call that met the breaking connection may fail."""
    async with AsyncExitStack() as stack:
        killed, one = await stack.enter_async_context(server_process("one", str(free_port())))
        _, two = await stack.enter_async_context(server_process("two"))
        registry = Registry(at(f"127.0.0.1:{one}"), at(f"127.0.0.1:{two}"))
        client = await stack.enter_async_context(
            GrpcClient("discovery:///trans", discovery=registry)
        )
        assert {await client.unary("/s.S/M", b"") for _ in range(4)} == {b"one", b"two"}
        killed.kill()
        await killed.wait()
        answers: list[bytes | GrpcCode] = []
        for _ in range(20):
            try:
                answers.append(await client.unary("/s.S/M", b""))
            except RpcError as error:
                answers.append(error.status)
        assert answers.count(b"two") >= 19
        assert set(answers) <= {b"two", GrpcCode.UNAVAILABLE}
        await stack.enter_async_context(server_process("one", one))
        async with asyncio.timeout(30):
            while await client.unary("/s.S/M", b"") != b"one":
                pass


async def stream_of_three(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
    for number in range(3):
        yield b"%d" % number


async def test_one_message_may_bring_many() -> None:
    kind = grpc.unary_stream_rpc_method_handler
    async with plain_server(stream_of_three, kind) as address, GrpcClient(address) as client:
        call = client.unary_stream("/s.S/M")(b"")
        assert [message async for message in call] == [b"0", b"1", b"2"]
        assert await call.read() is grpc.aio.EOF


async def test_many_messages_may_bring_one() -> None:
    async def join(requests: Any, _context: Any) -> bytes:
        return b"".join([request async for request in requests])

    async def letters() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    kind = grpc.stream_unary_rpc_method_handler
    async with plain_server(join, kind) as address, GrpcClient(address) as client:
        method = client.stream_unary("/s.S/M")
        assert await method(letters()) == b"ab"
        assert await method([b"c", b"d"]) == b"cd"


async def test_messages_may_go_both_ways() -> None:
    async def echo(requests: Any, context: Any) -> AsyncIterator[bytes]:
        context.set_trailing_metadata((("x-count", "2"),))
        async for request in requests:
            yield request.upper()

    kind = grpc.stream_stream_rpc_method_handler
    async with (
        plain_server(echo, kind) as address,
        GrpcClient(address) as client,
        client.stream_stream("/s.S/M")(metadata=[("k", "v")]) as call,
    ):
        for word in (b"a", b"b"):
            await call.write(word)
            assert await call.read() == word.upper()
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert ("x-count", "2") in tuple(await call.trailing_metadata())


async def test_a_stream_that_fails_says_so_after_its_messages() -> None:
    async def fail(_request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"0"
        await context.abort(grpc.StatusCode.DATA_LOSS, "half")

    kind = grpc.unary_stream_rpc_method_handler
    async with plain_server(fail, kind) as address, GrpcClient(address) as client:
        call = client.unary_stream("/s.S/M")(b"")
        assert await anext(call) == b"0"
        with pytest.raises(RpcError, match="half") as caught:
            await anext(call)
    assert caught.value.status is GrpcCode.DATA_LOSS


async def test_leaving_a_stream_cancels_it() -> None:
    cancelled = asyncio.Event()

    async def forever(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"0"
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    kind = grpc.unary_stream_rpc_method_handler
    async with plain_server(forever, kind) as address, GrpcClient(address) as client:
        async with client.unary_stream("/s.S/M")(b"") as call:
            assert await call.read() == b"0"
        await cancelled.wait()


async def test_a_failing_source_of_requests_fails_the_call() -> None:
    """Half a stream must not look like a whole one."""

    async def collect(requests: Any, _context: Any) -> bytes:
        return b"".join([request async for request in requests])

    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise ValueError("no more")

    kind = grpc.stream_unary_rpc_method_handler
    async with plain_server(collect, kind) as address, GrpcClient(address) as client:
        with pytest.raises(ValueError, match="no more"):
            await client.stream_unary("/s.S/M")(broken())


async def test_stream_middleware_sees_each_message() -> None:
    seen: list[bytes] = []

    def note(handler: Handler) -> Handler:
        async def call(message: bytes) -> Any:
            seen.append(message)
            return await handler(message)

        return call

    kind = grpc.unary_stream_rpc_method_handler
    async with (
        plain_server(stream_of_three, kind) as address,
        GrpcClient(address, stream_middleware=[note]) as client,
    ):
        async for _ in client.unary_stream("/s.S/M")(b"?"):
            pass
    assert seen == [b"?", b"0", b"1", b"2"]
