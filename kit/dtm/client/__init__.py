"""The client of a dtm coordinator, over gRPC, HTTP or JSON-RPC by the address given.

::

    async with DtmClient("discovery:///dtmservice", discovery=registry) as client:
        msg = Msg(client)
        msg.add("discovery:///trans/api.trans.v1.Trans/TransOut", AdjustInfo(Amount=30, UserID=1))
        msg.add("discovery:///trans/api.trans.v1.Trans/TransIn", AdjustInfo(Amount=30, UserID=2))
        await msg.submit()

    async with DtmClient("http://localhost:36789/api/dtmsvr") as client:
        saga = Saga(client, "order-7", Options(wait_result=True))
        saga.add(f"{busi}/out", f"{busi}/out-undo", {"amount": 30})
        await saga.submit()
        async with tcc(client) as t:
            await t.call_branch({"amount": 30}, f"{busi}/try", f"{busi}/ok", f"{busi}/undo")

Code without an event loop uses the same names of :mod:`kit.dtm.client.sync`. What a call raises
says what is known, see :mod:`kit.dtm.client.errors`::

    kit.dtm.errors.Failure     a definite no
    kit.dtm.errors.Ongoing     not yet
    DtmUnavailable             the result is unknown, and prepare, submit and abort may be repeated
                               with the same gid
    InvalidCall                the caller's mistake; nothing was sent

Source: dtm-labs/dtm client/dtmcli, client/dtmgrpc.
"""

from kit.dtm.client.branches import BranchReply
from kit.dtm.client.client import DtmClient, Retry
from kit.dtm.client.errors import (
    CallbackFailed,
    DtmUnavailable,
    InvalidCall,
    PayloadError,
    Refused,
    UnknownTransaction,
    UnknownWorkflow,
    WorkflowChanged,
)
from kit.dtm.client.msg import Msg
from kit.dtm.client.outcome import BranchState, TransactionState
from kit.dtm.client.payloads import Payload
from kit.dtm.client.saga import Saga
from kit.dtm.client.tcc import Tcc, tcc, tcc_from_grpc, tcc_from_query
from kit.dtm.client.xa import Xa, xa, xa_local_transaction
from kit.dtm.core.model import Options

__all__ = [
    "BranchReply",
    "BranchState",
    "CallbackFailed",
    "DtmClient",
    "DtmUnavailable",
    "InvalidCall",
    "Msg",
    "Options",
    "Payload",
    "PayloadError",
    "Refused",
    "Retry",
    "Saga",
    "Tcc",
    "TransactionState",
    "UnknownTransaction",
    "UnknownWorkflow",
    "WorkflowChanged",
    "Xa",
    "tcc",
    "tcc_from_grpc",
    "tcc_from_query",
    "xa",
    "xa_local_transaction",
]
