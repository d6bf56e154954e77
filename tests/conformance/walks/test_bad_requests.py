"""What the coordinator refuses: it names field, value and way out, and stores nothing."""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from kit.dtm.pb.dtm_pb2 import DtmRequest
from kit.ports import free_port
from tests.branches import Branches, serving, submission, submit
from tests.engines import ENGINES, speaking
from tests.processes import processes

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVALID = grpc.StatusCode.INVALID_ARGUMENT
Spoil = Callable[[DtmRequest], object]


@dataclass
class Deployed:
    """A coordinator, its database, and a server for branches."""

    channel: grpc.aio.Channel
    branches: Branches
    database: Path

    def request(self, gid: str) -> DtmRequest:
        """A good one with two steps."""
        urls = [self.branches.url(name) for name in ("TransOut", "TransIn")]
        return submission(gid, *urls, wait_result=True)

    def stored(self) -> list[str]:
        """All gids in the database."""
        uri = f"file:{self.database}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            return [gid for (gid,) in connection.execute("SELECT gid FROM trans_global")]

    async def refusal(self, data: bytes) -> grpc.aio.AioRpcError:
        """How a Submit fails."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await submit(self.channel, data)
        return caught.value


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def deployed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Deployed]:
    folder = tmp_path_factory.mktemp("coordinator")
    port = free_port()
    async with (
        processes(folder) as run,
        serving() as branches,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        with speaking(request.param):
            coordinator = await run.coordinator(port)
        yield Deployed(channel, branches, folder / "coordinator.db")
        assert "Traceback" not in coordinator.output


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(
            lambda r: setattr(r, "Gid", ""), ["Gid", "empty", "NewGid"], id="an empty gid"
        ),
        pytest.param(
            lambda r: setattr(r, "Gid", "x" * 2048), ["Gid", "2048", "128"], id="a gid of 2 kB"
        ),
        pytest.param(
            lambda r: setattr(r, "TransType", "sage"),
            ["TransType", "'sage'", "msg"],
            id="an unknown type",
        ),
        pytest.param(
            lambda r: r.BinPayloads.pop(), ["BinPayloads", "1 for 2 steps"], id="fewer payloads"
        ),
        pytest.param(
            lambda r: setattr(r, "Steps", "[{"), ["Steps", "not JSON"], id="steps cut short"
        ),
        pytest.param(
            lambda r: setattr(r, "Steps", json.dumps([{}, {}])),
            ["Steps[0].action", "missing"],
            id="steps without action",
        ),
        *(
            pytest.param(
                lambda r, name=name: setattr(r.TransOptions, name, -1),
                [f"TransOptions.{name}", "-1", "0"],
                id=f"a negative {name}",
            )
            for name in ("RetryInterval", "TimeoutToFail", "RequestTimeout", "RetryLimit")
        ),
    ],
)
async def test_a_request_that_can_never_work(
    deployed: Deployed, spoil: Spoil, said: list[str], request: pytest.FixtureRequest
) -> None:
    """INVALID_ARGUMENT names the field and the value; nothing is stored, the gid stays free."""
    gid = request.node.callspec.id.replace(" ", "-")
    spoiled = deployed.request(gid)
    spoil(spoiled)
    before = deployed.stored()

    refused = await deployed.refusal(spoiled.SerializeToString())
    assert refused.code() is INVALID
    for word in said:
        assert word in (refused.details() or "")
    assert deployed.stored() == before

    await submit(deployed.channel, deployed.request(gid))
    assert deployed.branches.count(gid) == {"01": 1, "02": 1}


async def test_a_malformed_message(deployed: Deployed) -> None:
    """Bytes that do not decode get the status and the text of grpc-go."""
    before = deployed.stored()
    refused = await deployed.refusal(b"\xff\xff\xff")
    assert refused.code() is grpc.StatusCode.INTERNAL
    assert (refused.details() or "").startswith("grpc: error unmarshalling request:")
    assert deployed.stored() == before


async def test_a_body_of_5_mib(deployed: Deployed) -> None:
    """RESOURCE_EXHAUSTED; the connection goes on."""
    spoiled = deployed.request("large")
    spoiled.BinPayloads[0] = bytes(5 << 20)
    refused = await deployed.refusal(spoiled.SerializeToString())
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "large" not in deployed.stored()
    await submit(deployed.channel, deployed.request("large"))
    assert deployed.stored().count("large") == 1
