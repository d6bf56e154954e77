"""Binding, announcing, serving and stopping; kratos-wire §2.2, §2.3, §4.8, §4.11, §22 row 8."""

import asyncio
import errno
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from api.trans.v1 import trans_pb2, trans_pb2_grpc
from kit.ports import free_port
from kit.testing.grpc import running
from kit.transport.grpc import ClientTls, GrpcClient, GrpcServer, Limits, ServerTls

CHECK = "/grpc.health.v1.Health/Check"
IN = "/api.trans.v1.Trans/TransIn"


@pytest.mark.parametrize("host", ["0.0.0.0", "", "[::]"])
async def test_a_wildcard_takes_both_families_and_prints_as_in_go(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    server = GrpcServer(address=f"{host}:{port}")
    async with running(server):
        for address in ("127.0.0.1", "[::1]"):
            async with grpc.aio.insecure_channel(f"{address}:{port}") as channel:
                assert await channel.unary_unary(CHECK)(b"") == b"\x08\x01"
        assert server.endpoint is not None
        assert server.endpoint.endswith(f":{port}")
        assert "0.0.0.0" not in server.endpoint
        assert "[::]" not in server.endpoint
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"INFO msg=[gRPC] server listening on: [::]:{port}",
        "INFO msg=[gRPC] server stopping",
    ]


async def test_a_host_is_bound_printed_and_announced_as_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    server = GrpcServer(address=f"localhost:{port}")
    async with running(server) as address, grpc.aio.insecure_channel(address) as channel:
        await channel.unary_unary(CHECK)(b"")
    assert server.endpoint == f"grpc://localhost:{port}"
    printed = capsys.readouterr().err.splitlines()[0]
    assert printed == f"INFO msg=[gRPC] server listening on: 127.0.0.1:{port}"


async def test_a_taken_port_is_an_error_that_names_the_address() -> None:
    """grpcio by default shares the port in silence."""
    async with running(GrpcServer(address="127.0.0.1:0")) as address:
        for text in (address, f"0.0.0.0:{address.rpartition(':')[2]}"):
            second = GrpcServer(address=text)
            with pytest.raises(OSError, match="address already in use") as caught:
                await second.listen()
            assert caught.value.errno == errno.EADDRINUSE
            assert address.rpartition(":")[2] in str(caught.value)


async def test_an_address_of_another_machine_is_an_error_that_names_it() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.77:9000") as caught:
        await GrpcServer(address="192.0.2.77:9000").listen()
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("address", ["9000", "h:port", "::1:9000", "h:99999"])
async def test_an_address_that_is_none_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(ValueError, match=r"is not host:port; write for example 0\.0\.0\.0:9000"):
        GrpcServer(address=address)


async def test_a_server_that_never_served_gives_its_port_back() -> None:
    address = f"127.0.0.1:{free_port()}"
    first = GrpcServer(address=address)
    await first.listen()
    await first.stop()
    async with running(GrpcServer(address=address)):
        pass


async def test_a_given_endpoint_is_announced() -> None:
    server = GrpcServer(address="127.0.0.1:0", endpoint="grpc://trans.example:443")
    assert server.endpoint is None
    async with running(server):
        assert server.endpoint == "grpc://trans.example:443"


async def test_a_running_call_finishes_and_new_ones_are_refused(serve: Any, failure: Any) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait(_request: Any, _context: Any) -> trans_pb2.Response:
        entered.set()
        await leave.wait()
        return trans_pb2.Response()

    server = GrpcServer(address="127.0.0.1:0")
    channel = await serve(wait, server)
    call = trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo())
    await entered.wait()
    stopping = asyncio.create_task(server.stop(grace=10.0))
    address = (server.endpoint or "").removeprefix("grpc://")
    refused = False
    while not refused:  # the listener closes a moment after stop() began
        async with grpc.aio.insecure_channel(address) as late:
            try:
                await late.unary_unary(CHECK)(b"", timeout=2.0)
            except grpc.aio.AioRpcError as error:
                refused = error.code() is grpc.StatusCode.UNAVAILABLE
    assert not stopping.done()
    leave.set()
    assert await call == trans_pb2.Response()
    await stopping


async def test_calls_that_outlast_the_grace_are_cut(
    serve: Any, failure: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    entered = asyncio.Event()

    async def hang(_request: Any, _context: Any) -> trans_pb2.Response:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    server = GrpcServer(address="127.0.0.1:0")
    channel = await serve(hang, server)
    call = trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo())
    await entered.wait()
    await server.stop(grace=0.05)
    assert (await failure(call)).code() is grpc.StatusCode.UNAVAILABLE
    forced = "WARN msg=[gRPC] server couldn't stop gracefully in time, doing force stop"
    assert forced in capsys.readouterr().err.splitlines()


async def test_a_second_stop_may_be_less_patient(serve: Any, failure: Any) -> None:
    entered = asyncio.Event()

    async def hang(_request: Any, _context: Any) -> trans_pb2.Response:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    server = GrpcServer(address="127.0.0.1:0")
    channel = await serve(hang, server)
    call = trans_pb2_grpc.TransStub(channel).TransIn(trans_pb2.AdjustInfo())
    await entered.wait()
    patient = asyncio.create_task(server.stop())
    await server.stop(0)
    await patient
    await failure(call)


async def test_cancelling_serve_cuts_the_server() -> None:
    address = f"127.0.0.1:{free_port()}"
    server = GrpcServer(address=address)
    await server.listen()
    serving = asyncio.create_task(server.serve())
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.unary_unary(CHECK)(b"")
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
    async with running(GrpcServer(address=address)):
        pass


async def test_more_calls_at_once_than_allowed_are_refused(serve: Any, failure: Any) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait(_request: Any, _context: Any) -> trans_pb2.Response:
        entered.set()
        await leave.wait()
        return trans_pb2.Response()

    server = GrpcServer(address="127.0.0.1:0", limits=Limits(concurrent_calls=1))
    stub = trans_pb2_grpc.TransStub(await serve(wait, server))
    first = stub.TransIn(trans_pb2.AdjustInfo())
    await entered.wait()
    error = await failure(stub.TransIn(trans_pb2.AdjustInfo()))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    leave.set()
    await first


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(ca: trustme.CA) -> ServerTls:
    leaf = ca.issue_cert("localhost", "trans")
    return ServerTls(
        b"".join(pem.bytes() for pem in leaf.cert_chain_pems), leaf.private_key_pem.bytes()
    )


async def test_tls_announces_grpcs_and_verifies_the_name(ca: trustme.CA, tls: ServerTls) -> None:
    server = GrpcServer(address="localhost:0", tls=tls)
    async with running(server) as address:
        assert server.endpoint == f"grpcs://{address}"
        trust = ClientTls(ca=ca.cert_pem.bytes())
        async with GrpcClient(address, tls=trust) as client:
            assert await client.unary(CHECK, b"") == b"\x08\x01"


async def test_a_client_without_a_certificate_is_turned_away_when_one_is_asked_for(
    ca: trustme.CA, tls: ServerTls, failure: Any
) -> None:
    asking = ServerTls(tls.certificate, tls.private_key, client_ca=ca.cert_pem.bytes())
    own = ca.issue_cert("client")
    chain = b"".join(pem.bytes() for pem in own.cert_chain_pems)
    async with running(GrpcServer(address="localhost:0", tls=asking)) as address:
        named = ClientTls(ca.cert_pem.bytes(), chain, own.private_key_pem.bytes())
        async with GrpcClient(address, tls=named) as client:
            assert await client.unary(CHECK, b"") == b"\x08\x01"
        nameless = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
        async with grpc.aio.secure_channel(address, nameless) as channel:
            error = await failure(channel.unary_unary(CHECK)(b"", timeout=5.0))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
