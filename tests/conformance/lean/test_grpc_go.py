"""Against grpc-go: the lean client calls a real etcd. More of it is in ``tests/interop``."""

import asyncio
import time

import pytest

from kit.errors.codes import GrpcCode
from kit.etcd.pb import etcd_pb2 as pb
from kit.testing.etcd import etcd_server
from kit.transport.grpc import GrpcClient, RpcError
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
