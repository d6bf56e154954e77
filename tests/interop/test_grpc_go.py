"""gRPC's own interoperability client and server, written in Go, against both engines."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from kit.transport.grpc import GrpcClient
from kit.transport.grpc.engine import ClientTls, ServerTls
from kit.transport.grpc.engines import EngineName
from tests.interop.build import BUILD_WITHIN, go_program
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
    *("rpc_soak", "channel_soak"),
)
"""All that it has but those for clouds, for load reports (ORCA) and for several servers at once."""


async def _play(case: str, address: str, *more: str) -> None:
    host, _, port = address.rpartition(":")
    command = (go_program("interop_client"), f"--server_host={host}", f"--server_port={port}")
    soak = ("--soak_iterations=50", "--soak_overall_timeout_seconds=60")
    soak = (*soak, "--soak_per_iteration_max_acceptable_latency_ms=30000")
    status, said = await run(*command, f"--test_case={case}", *soak, *more)
    assert status == 0, said


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", OF_THE_CLIENT)
async def test_the_go_client_is_content_with_the_kit(case: str, engine: EngineName) -> None:
    async with serving(engine) as address:
        await _play(case, address)


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_go_client_is_content_over_tls(engine: EngineName, tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf = ca.issue_cert("peer.test")
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    tls = ServerTls(chain, leaf.private_key_pem.bytes())
    flags = ("--use_tls", "--use_test_ca", f"--ca_file={tmp_path}/ca.pem")
    flags = (*flags, "--server_host_override=peer.test")
    async with serving(engine, tls) as address:
        for case in ("empty_unary", "large_unary", "ping_pong", "custom_metadata"):
            await _play(case, address, *flags)


@asynccontextmanager
async def _go_server(*flags: str) -> AsyncIterator[str]:
    """gRPC's server on a port that the system chose, which it tells its log alone."""
    command = (go_program("interop_server"), "--port=0", *flags)
    env = {"GRPC_GO_LOG_SEVERITY_LEVEL": "info"}
    async with running("grpc-go", *command, env=env) as peer:
        line = await peer.complains("interop server listening on")
        yield f"127.0.0.1:{line.rpartition(':')[2]}"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
async def test_a_client_of_the_kit_is_content_with_the_go_server(
    case: str, engine: EngineName
) -> None:
    async with (
        _go_server() as address,
        GrpcClient(address, engine=engine, timeout=30.0) as client,
    ):
        await CASES[case](client)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_client_of_the_kit_is_content_over_tls(engine: EngineName, tmp_path: Path) -> None:
    ca = trustme.CA()
    leaf = ca.issue_cert("peer.test")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    for pem in leaf.cert_chain_pems:
        pem.write_to_path(tmp_path / "cert.pem", append=True)
    flags = ("--use_tls", f"--tls_cert_file={tmp_path}/cert.pem")
    tls = ClientTls(ca.cert_pem.bytes(), server_name="peer.test")
    async with (
        _go_server(*flags, f"--tls_key_file={tmp_path}/key.pem") as address,
        GrpcClient(address, engine=engine, timeout=30.0, tls=tls) as client,
    ):
        for case in ("empty_unary", "large_unary", "ping_pong", "custom_metadata"):
            await CASES[case](client)
