"""Everything that a process may run, in one lifecycle."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from api.trans.v1 import trans_pb2, trans_pb2_grpc
from kit.app import AdminServer, App, Consumer, Every, Job, Jobs
from kit.clock import SystemClock
from kit.dtm.driver.kratos import KratosDriver
from kit.dtm.pb import dtm_pb2
from kit.dtm.server.caller import BranchCaller
from kit.dtm.server.coordinator import Coordinator
from kit.dtm.store.memory import MemoryStore
from kit.middleware.metrics import Metrics
from kit.registry.memory import MemoryRegistry
from kit.transport.grpc import GrpcClient, GrpcServer


@pytest.mark.usefixtures("engine")
async def test_a_service_its_coordinator_jobs_and_consumers_live_and_end_together() -> None:
    """A job submits a saga to the coordinator of its own process, which calls the service."""
    calls: list[str] = []
    transferred = asyncio.Event()

    class Trans(trans_pb2_grpc.TransServicer):
        async def TransOut(self, request: Any, _c: Any) -> trans_pb2.Response:  # noqa: N802
            calls.append(f"out {request.Amount}")
            return trans_pb2.Response()

        async def TransIn(self, request: Any, _c: Any) -> trans_pb2.Response:  # noqa: N802
            calls.append(f"in {request.Amount}")
            transferred.set()
            return trans_pb2.Response()

    async def ended() -> AsyncIterator[str]:
        await transferred.wait()
        yield "transferred"
        await asyncio.Event().wait()

    metrics = Metrics()
    registry = MemoryRegistry()
    clock = SystemClock()
    service = GrpcServer(address="127.0.0.1:0", middleware=[metrics.server()])
    trans_pb2_grpc.add_TransServicer_to_server(Trans(), service.services)

    async with (
        MemoryStore(clock) as store,
        BranchCaller(KratosDriver(), GrpcClient) as caller,
    ):
        coordinator = Coordinator(store, caller, grpc_address="127.0.0.1:0")

        async def submit() -> None:
            assert service.endpoint is not None
            assert coordinator.endpoint is not None
            target = f"{service.endpoint.removeprefix('grpc://')}/api.trans.v1.Trans"
            request = dtm_pb2.DtmRequest(
                Gid="g1",
                TransType="saga",
                TransOptions=dtm_pb2.DtmTransOptions(WaitResult=True),
                Steps=json.dumps(
                    [{"action": f"{target}/{name}"} for name in ("TransOut", "TransIn")]
                ),
                BinPayloads=[trans_pb2.AdjustInfo(Amount=30).SerializeToString()] * 2,
            )
            async with GrpcClient(coordinator.endpoint.removeprefix("grpc://")) as client:
                await client.unary("/dtmgimp.Dtm/Submit", request.SerializeToString())

        said: dict[str, int] = {}
        found: list[int] = []

        async def finish(_message: str) -> None:
            async with aiohttp.ClientSession() as session:
                for page in ("healthz", "readyz", "metrics"):
                    async with session.get(f"{admin.url}/{page}") as reply:
                        said[page] = reply.status
            found.append(len((await registry.get_service("bank"))[0].endpoints))
            app.stop()

        admin = AdminServer(":0", metrics=metrics, checks={"store": store.next_due})
        app = App(
            name="bank",
            servers=[
                service,
                coordinator,
                Jobs(Job("transfer", submit, Every(0.1))),
                Consumer("ends", ended, finish),
                admin,
            ],
            registrar=registry,
            signals=(),
        )
        async with asyncio.timeout(20):
            await app.run()
    assert calls[:2] == ["out 30", "in 30"]
    assert said == {"healthz": 200, "readyz": 200, "metrics": 200}
    assert found == [2], "the service and the coordinator, nothing else"
    assert await registry.get_service("bank") == []
