"""Against grpc-go: the lean client calls a real etcd, ghz calls the lean server."""

import asyncio
import json
import shutil
import time
from typing import Any

import grpc
import pytest

from api.trans.v1 import trans_pb2
from kit.errors.codes import GrpcCode
from kit.etcd.pb import etcd_pb2 as pb
from kit.testing.etcd import etcd_server
from kit.transport.grpc import GrpcClient, GrpcServer, RpcError
from kit.transport.grpc.engine import Keepalive
from tests.conformance.lean.engines_at_work import connected


def in_two_seconds() -> float:
    return time.monotonic() + 2.0


async def test_etcd_takes_calls_and_streams() -> None:
    async with etcd_server() as etcd, GrpcClient(etcd.endpoint, engine="lean") as client:
        for number in range(50):
            put = pb.PutRequest(key=b"k%d" % number, value=bytes(number * 1_000))
            await client.unary("/etcdserverpb.KV/Put", put.SerializeToString())
        everything = pb.RangeRequest(key=b"k", range_end=b"l").SerializeToString()
        answers = await asyncio.gather(
            *(client.unary("/etcdserverpb.KV/Range", everything) for _ in range(20))
        )
        assert {len(pb.RangeResponse.FromString(answer).kvs) for answer in answers} == {50}
        watch = client.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        async with watch() as stream:
            create = pb.WatchCreateRequest(key=b"w")
            await stream.write(pb.WatchRequest(create_request=create))
            assert (await stream.read()).created
            put = pb.PutRequest(key=b"w", value=b"seen")
            await client.unary("/etcdserverpb.KV/Put", put.SerializeToString())
            [event] = (await stream.read()).events
            assert event.kv.value == b"seen"
        with pytest.raises(RpcError) as caught:
            await client.unary("/etcdserverpb.KV/Put", pb.PutRequest().SerializeToString())
        assert caught.value.status is GrpcCode.INVALID_ARGUMENT
        assert caught.value.message == "etcdserver: key is not provided"
        with pytest.raises(RpcError) as caught:
            await client.unary("/etcdserverpb.KV/Nothing", b"")
        assert caught.value.status is GrpcCode.UNIMPLEMENTED


async def test_an_etcd_that_hangs_is_found_and_one_that_returns_is_used() -> None:
    """SIGSTOP: the connection stays open and nobody answers."""
    read = pb.RangeRequest(key=b"k").SerializeToString()
    method = "/etcdserverpb.KV/Range"
    keepalive = Keepalive(interval=0.3, timeout=0.3)
    async with etcd_server() as etcd, connected(etcd.endpoint, keepalive=keepalive) as to:
        await to.unary(method, read, (), in_two_seconds())
        etcd.freeze()
        with pytest.raises(Exception, match="keepalive watchdog timeout"):
            await to.unary(method, read, (), time.monotonic() + 10)
        etcd.thaw()
        async with asyncio.timeout(10):
            while not to.ready():
                await asyncio.sleep(0.05)
        await to.unary(method, read, (), in_two_seconds())


async def test_ghz_finds_the_service_by_reflection_and_every_call_succeeds() -> None:
    """grpc-go as a client: 32 calls at once over 4 connections."""
    program = shutil.which("ghz")
    if program is None:
        pytest.skip("ghz is no wheel: go install github.com/bojand/ghz/cmd/ghz@latest")

    async def answer(request: bytes, _context: Any) -> trans_pb2.Response:
        return trans_pb2.Response()

    server = GrpcServer(address="127.0.0.1:0", engine="lean")
    server.add_registered_method_handlers(
        "api.trans.v1.Trans",
        {
            "TransIn": grpc.unary_unary_rpc_method_handler(
                answer, response_serializer=trans_pb2.Response.SerializeToString
            )
        },
    )
    await server.listen()
    serving = asyncio.create_task(server.serve())
    address = (server.endpoint or "").removeprefix("grpc://")
    process = await asyncio.create_subprocess_exec(
        *(program, "--insecure", "--call", "api.trans.v1.Trans.TransIn", "-d", '{"Amount":30}'),
        *("-c", "32", "--connections", "4", "-n", "3000", "-O", "json", address),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    await server.stop(1.0)
    await serving
    report = json.loads(out)
    assert report["statusCodeDistribution"] == {"OK": 3000}
    assert report["errorDistribution"] == {}
