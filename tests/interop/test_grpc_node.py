"""@grpc/grpc-js as client and server, against both engines."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from google.rpc import error_details_pb2, status_pb2

from kit.errors.codes import GrpcCode
from kit.transport.grpc import GrpcClient, RpcError
from kit.transport.grpc.engine import ClientTls, ServerTls
from kit.transport.grpc.engines import EngineName
from tests.interop import testing_pb2 as pb
from tests.interop import testing_pb2_grpc as pb_grpc
from tests.interop.build import BUILD_WITHIN, HERE, node_packages
from tests.interop.cases import CASES
from tests.interop.interop_service import serving
from tests.interop.peers import run, running

pytestmark = pytest.mark.timeout(BUILD_WITHIN + 120)

ENGINES: tuple[EngineName, ...] = ("lean", "grpcio")
OF_THE_CLIENT = (
    *("empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong"),
    *("empty_stream", "timeout_on_sleeping_server", "cancel_after_begin"),
    *("cancel_after_first_response", "status_code_and_message", "special_status_message"),
    *("custom_metadata", "unimplemented_method", "unimplemented_service"),
    *("client_compressed_unary", "client_compressed_streaming"),
    *("large_messages", "calls_at_once"),
)


def _command(mode: str, *arguments: str) -> tuple[str, ...]:
    node, _ = node_packages()
    return node, str(HERE / "node" / "peer.js"), mode, str(HERE / "testing.proto"), *arguments


def _environment() -> dict[str, str]:
    return os.environ | {"NODE_PATH": node_packages()[1]}


async def play(address: str, case: str, *more: str) -> str:
    status, said = await run(*_command("call", address, case, *more), env=_environment())
    assert status == 0, said
    return said


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", OF_THE_CLIENT)
async def test_the_node_client_is_content_with_the_kit(case: str, engine: EngineName) -> None:
    async with serving(engine) as address:
        await play(address, case)


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_node_client_gets_the_details_of_an_error(engine: EngineName) -> None:
    async with serving(engine) as address:
        seen = json.loads(await play(address, "status_details"))
    assert (seen["code"], seen["message"]) == (GrpcCode.ABORTED, "not now")
    status = status_pb2.Status.FromString(bytes.fromhex(seen["details"]))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("TAKEN", {"shelf": "7"})


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_node_client_is_content_over_tls(engine: EngineName, tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf = ca.issue_cert("peer.test")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    async with serving(engine, ServerTls(chain, leaf.private_key_pem.bytes())) as address:
        for case in ("large_unary", "custom_metadata"):
            await play(address, case, str(tmp_path / "ca.pem"))


@asynccontextmanager
async def node_server(*identity: str) -> AsyncIterator[str]:
    async with running("grpc-js", *_command("serve", *identity), env=_environment()) as peer:
        yield f"127.0.0.1:{(await peer.line()).strip()}"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
async def test_a_client_of_the_kit_is_content_with_the_node_server(
    case: str, engine: EngineName
) -> None:
    async with (
        node_server() as address,
        GrpcClient(address, engine=engine, timeout=30.0) as client,
    ):
        await CASES[case](client)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_client_of_the_kit_gets_the_details_of_an_error(engine: EngineName) -> None:
    status = status_pb2.Status(code=GrpcCode.ABORTED, message="not now")
    info = error_details_pb2.ErrorInfo(reason="TAKEN", metadata={"shelf": "7"})
    status.details.add().Pack(info)
    metadata = (("x-details-bin", status.SerializeToString()),)
    failing = pb.SimpleRequest(response_status=pb.EchoStatus(code=10, message="not now"))
    async with node_server() as address, GrpcClient(address, engine=engine) as client:
        with pytest.raises(RpcError) as caught:
            await pb_grpc.TestServiceStub(client.channel).UnaryCall(failing, metadata=metadata)
    error = caught.value
    assert (error.status, error.code, error.reason) == (GrpcCode.ABORTED, 409, "TAKEN")
    assert (error.message, error.metadata) == ("not now", {"shelf": "7"})


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_client_of_the_kit_is_content_over_tls(engine: EngineName, tmp_path: Path) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("peer.test")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in leaf.cert_chain_pems:
        pem.write_to_path(tmp_path / "cert.pem", append=True)
    tls = ClientTls(ca.cert_pem.bytes(), server_name="peer.test")
    async with (
        node_server(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")) as address,
        GrpcClient(address, engine=engine, timeout=30.0, tls=tls) as client,
    ):
        for case in ("large_unary", "custom_metadata"):
            await CASES[case](client)
