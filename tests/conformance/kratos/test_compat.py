"""One word for the process: ``compat`` v2 or v3; kratos-wire §9.3, §11.3, §18.2, §22."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import kit.compat
from api.trans.v1 import trans_pb2_grpc
from kit.compat import Compat
from kit.config import Config, ConfigError, FileSource
from kit.errors import Error
from kit.errors.codes import GrpcCode
from kit.testing.grpc import running
from kit.transport.grpc import GrpcClient, GrpcServer, RpcError
from tests.unit.transport.http.shop import shop_side

LIST = "/kratos.api.Metadata/ListServices"
SENT = '{"id": "7", "price_cents": 5, "color": 1}'


@pytest.fixture
def v3() -> Iterator[None]:
    kit.compat.use(Compat.V3)
    yield
    kit.compat.use(Compat.V2)


class Trans(trans_pb2_grpc.TransServicer):
    async def TransIn(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise Error(412, "STALE", "somebody was faster")


async def refusal() -> RpcError:
    """How a 412 arrives, and whether Metadata is there."""
    server = GrpcServer(address="127.0.0.1:0")
    trans_pb2_grpc.add_TransServicer_to_server(Trans(), server.services)
    async with running(server) as address, GrpcClient(address) as client:
        with pytest.raises(RpcError) as caught:
            await client.unary("/api.trans.v1.Trans/TransIn", b"", timeout=10)
        if kit.compat.chosen() is Compat.V2:
            await client.unary(LIST, b"", timeout=10)
        else:
            with pytest.raises(RpcError, match=r"unknown service kratos\.api\.Metadata"):
                await client.unary(LIST, b"", timeout=10)
    return caught.value


@pytest.mark.usefixtures("engine")
async def test_under_v2_412_is_unknown_and_json_is_protobufs() -> None:
    error = await refusal()
    assert (error.status, error.code, error.reason) == (GrpcCode.UNKNOWN, 500, "STALE")
    async with shop_side() as side:
        told = (await side.json("POST", "/v1/items", SENT)).json
    assert told == {"id": "7", "priceCents": "5", "color": "RED", "shelf": ""}


@pytest.mark.usefixtures("engine")
async def test_under_v3_412_is_failed_precondition_and_json_is_that_of_structs(
    v3: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """protojson is the mapping in both; the lines have attributes."""
    error = await refusal()
    assert (error.status, error.code) == (GrpcCode.FAILED_PRECONDITION, 412)
    lines = capsys.readouterr().err
    assert "INFO addr=127.0.0.1:" in lines
    assert "msg=[gRPC] server listening\n" in lines
    async with shop_side() as side:
        told = (await side.json("POST", "/v1/items", SENT)).json
        assert told == {"id": "7", "price_cents": 5, "color": 1}
        same = await side.ask(
            "POST", "/v1/items", SENT, content_type="application/protojson",
            accept="application/protojson",
        )  # fmt: skip
        assert same.json["priceCents"] == "5"


class Settings(BaseModel):
    compat: Compat = Compat.V2


async def test_the_word_may_stand_in_the_configuration_of_a_service(tmp_path: Path) -> None:
    """A wrong one is told with its place."""
    file = tmp_path / "config.yaml"
    for text, wanted in (("compat: v3\n", Compat.V3), ("", Compat.V2)):
        file.write_text(text or "{}")
        config = Config(FileSource(file))
        await config.load()
        assert config.scan(Settings).compat is wanted
    file.write_text("compat: v4\n")
    config = Config(FileSource(file))
    await config.load()
    with pytest.raises(ConfigError, match=r"config.yaml:1: compat: .*'v2' or 'v3'"):
        config.scan(Settings)
    with pytest.raises(ValueError, match="compat 'v4' is not known; write v2 or v3"):
        kit.compat.use("v4")
