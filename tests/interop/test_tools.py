"""ghz and grpcurl against both engines: what others load and look at gRPC servers with."""

import json
from pathlib import Path
from typing import Any

import pytest
import trustme

from api.trans.v1 import trans_pb2, trans_pb2_grpc
from kit.errors import NotFound
from kit.testing.grpc import running
from kit.transport.grpc import GrpcServer
from kit.transport.grpc.engine import ServerTls
from kit.transport.grpc.engines import EngineName
from tests.interop.build import BUILD_WITHIN, go_program
from tests.interop.peers import run

pytestmark = pytest.mark.timeout(BUILD_WITHIN + 120)

ENGINES: tuple[EngineName, ...] = ("lean", "grpcio")


class Trans(trans_pb2_grpc.TransServicer):
    """TransIn succeeds, TransOut fails as it does in the field."""

    async def TransIn(self, _request: Any, _context: Any) -> trans_pb2.Response:  # noqa: N802
        return trans_pb2.Response()

    async def TransOut(self, _request: Any, _context: Any) -> trans_pb2.Response:  # noqa: N802
        raise NotFound("NO_ACCOUNT", "account 7 is not known")


def trans_server(engine: EngineName, tls: ServerTls | None = None) -> GrpcServer:
    server = GrpcServer(address="127.0.0.1:0", engine=engine, timeout=0, tls=tls)
    trans_pb2_grpc.add_TransServicer_to_server(Trans(), server.services)
    return server


@pytest.mark.parametrize("engine", ENGINES)
async def test_ghz_finds_the_service_by_reflection_and_every_call_succeeds(
    engine: EngineName,
) -> None:
    """32 calls at once over 4 connections."""
    call = ("--insecure", "--call", "api.trans.v1.Trans.TransIn", "-d", '{"Amount":30}')
    load = ("-c", "32", "--connections", "4", "-n", "3000", "-O", "json")
    async with running(trans_server(engine)) as address:
        status, said = await run(go_program("ghz"), *call, *load, address)
    assert status == 0, said
    report = json.loads(said)
    assert report["statusCodeDistribution"] == {"OK": 3000}
    assert report["errorDistribution"] == {}


@pytest.mark.parametrize("engine", ENGINES)
async def test_grpcurl_lists_describes_and_calls(engine: EngineName) -> None:
    async with running(trans_server(engine)) as address:

        async def grpcurl(*arguments: str) -> tuple[int, str]:
            return await run(go_program("grpcurl"), "-plaintext", *arguments)

        status, said = await grpcurl(address, "list")
        assert status == 0, said
        assert {"api.trans.v1.Trans", "grpc.health.v1.Health"} <= set(said.split())
        status, said = await grpcurl(address, "describe", "api.trans.v1.Trans.TransIn")
        assert status == 0, said
        assert "rpc TransIn ( .api.trans.v1.AdjustInfo ) returns ( .api.trans.v1.Response )" in said
        status, said = await grpcurl("-d", '{"Amount":30}', address, "api.trans.v1.Trans/TransIn")
        assert (status, json.loads(said)) == (0, {})
        status, said = await grpcurl("-d", "{}", address, "api.trans.v1.Trans/TransOut")
        assert status == 64 + 5, said
        for part in ("Code: NotFound", "Message: account 7 is not known", "NO_ACCOUNT"):
            assert part in said


@pytest.mark.parametrize("engine", ENGINES)
async def test_grpcurl_calls_over_tls(engine: EngineName, tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf = ca.issue_cert("peer.test")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    server = trans_server(engine, ServerTls(chain, leaf.private_key_pem.bytes()))
    flags = ("-cacert", str(tmp_path / "ca.pem"), "-authority", "peer.test")
    async with running(server) as address:
        status, said = await run(
            go_program("grpcurl"), *flags, "-d", "{}", address, "api.trans.v1.Trans/TransIn"
        )
    assert (status, json.loads(said)) == (0, {}), said
