"""Workflows: code whose steps are recorded, so that it can be resumed after any crash.

::

    workflows = Workflows(client, "localhost:9000")
    workflows.serve_on(grpc_server)

    @workflows.register("transfer")
    async def transfer(wf: Workflow, data: bytes) -> None:
        out = wf.new_branch().on_rollback(lambda phase: phase.post(f"{busi}/out-undo", data))
        await out.post(f"{busi}/out", data)
        stub = TransStub(wf.new_branch().grpc(grpc_client))
        await stub.TransIn(AdjustInfo(Amount=30, UserID=2))
        await wf.new_branch().do(write_it_down)

    await workflows.execute("transfer", "order-7", {"amount": 30})

A Failure that leaves the code rolls back, any other error leaves the workflow to be resumed: by the
coordinator, which calls back, or by whoever executes it with the same gid.

Source: dtm-labs/dtm client/workflow.
"""

from kit.dtm.client.workflow.flow import Branch, Phase, Workflow
from kit.dtm.client.workflow.workflows import HttpResult, Workflows
from kit.dtm.client.workflow.xa import XaDatabase, XaResource

__all__ = ["Branch", "HttpResult", "Phase", "Workflow", "Workflows", "XaDatabase", "XaResource"]
