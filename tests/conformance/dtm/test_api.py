"""What every API gives without a transaction: ids, version, metrics, reflection.

Source: dtm-labs/dtm dtmsvr/api_http.go, api_grpc.go, api_json_rpc.go, metrics.go, svr.go.
"""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc_reflection.v1alpha import reflection_pb2

from tests.conformance.dtm.clients import Api
from tests.conformance.dtm.coordinators import Coordinator, accepted, msg

pytestmark = pytest.mark.asyncio(loop_scope="session")

BASE_57 = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
UNIMPLEMENTED = 12


async def test_row_01_new_gid_is_a_short_uuid_that_nobody_else_has(api: Api) -> None:
    """22 characters of dtm's alphabet."""
    gids = [await api.new_gid() for _ in range(20)]
    assert len(set(gids)) == 20
    for gid in gids:
        assert 20 <= len(gid) <= 22
        assert set(gid) <= set(BASE_57)
    assert max(map(len, gids)) == 22


async def test_row_01_new_gid_over_http_has_the_result_word(tm: Coordinator) -> None:
    """Clients look for both keys."""
    reply = await tm.http.get("newGid")
    assert reply.body == {"dtm_result": "SUCCESS", "gid": reply.body["gid"]}


async def test_row_02_version_is_told(tm: Coordinator) -> None:
    """One key."""
    reply = await tm.http.get("version")
    assert reply.code == 200
    assert list(reply.body) == ["version"]
    assert reply.body["version"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_row_02_ping_answers_any_method(tm: Coordinator, method: str) -> None:
    """Probes of every kind."""
    reply = await tm.http.send(method, "/api/ping")
    assert (reply.code, reply.body) == (200, {"msg": "pong"})


async def test_row_02_metrics_have_the_names_of_dtm(tm: Coordinator) -> None:
    """Requests, rounds and branches are counted under dtm's labels."""
    accepted(await tm.http.submit(msg(tm.http, tm.gid("msg"), wait_result=True)))
    accepted(await tm.grpc.submit(msg(tm.grpc, tm.gid("msg"), wait_result=True)))
    text = (await tm.http.send("GET", "/api/metrics")).text
    samples = {
        r"dtm_server_info\{": None,
        r"dtm_server_process_total\{": {"api": "submit", "status": "ok", "type": "http"},
        r"dtm_server_process_total\{(?=.*grpc)": {"api": "submit", "status": "ok", "type": "grpc"},
        r"dtm_server_response_duration_bucket\{": {"api": "submit", "type": "http"},
        r"dtm_transaction_process_total\{": {"model": "msg", "status": "ok"},
        r"dtm_transaction_handled_duration_bucket\{": {"model": "msg"},
        r"dtm_branch_process_total\{": {
            "model": "msg",
            "branchid": "01",
            "branchtype": "action",
            "status": "ok",
        },
    }
    for name, labels in samples.items():
        lines = [line for line in text.splitlines() if re.match(name, line)]
        assert lines, name
        wanted = [f'{key}="{value}"' for key, value in (labels or {}).items()]
        assert any(all(label in line for label in wanted) for line in lines), (wanted, lines)


async def test_row_05_reflection_lists_the_service_and_no_health(tm: Coordinator) -> None:
    """v1alpha, as grpcurl of that time asks."""
    names = await services(tm)
    assert "dtmgimp.Dtm" in names
    assert not [name for name in names if "health" in name.lower()]
    reply = await tm.grpc.call("/grpc.health.v1.Health/Check")
    assert reply.code == UNIMPLEMENTED


async def test_row_05_reflection_shows_the_messages_under_the_names_of_dtm(
    tm: Coordinator,
) -> None:
    """A tool can build a request from them."""
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="dtmgimp.Dtm")
    (reply,) = await reflected(tm, request)
    described = b"".join(reply.file_descriptor_response.file_descriptor_proto)
    for name in (b"DtmRequest", b"CustomedData", b"PrepareWorkflow", b"DtmProgressesReply"):
        assert name in described


async def services(tm: Coordinator) -> list[str]:
    (reply,) = await reflected(tm, reflection_pb2.ServerReflectionRequest(list_services=""))
    return [service.name for service in reply.list_services_response.service]


async def reflected(tm: Coordinator, request: Any) -> list[Any]:
    async def asked() -> AsyncIterator[Any]:
        yield request

    method: Any = tm.grpc.channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return [reply async for reply in method(asked(), timeout=10)]
