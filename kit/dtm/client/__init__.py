"""The client of a dtm coordinator, over gRPC.

::

    async with DtmClient("discovery:///dtmservice", discovery=registry) as client:
        msg = Msg(client, await client.new_gid())
        msg.add("discovery:///trans/api.trans.v1.Trans/TransOut", AdjustInfo(Amount=30, UserID=1))
        msg.add("discovery:///trans/api.trans.v1.Trans/TransIn", AdjustInfo(Amount=30, UserID=2))
        await msg.submit()

Nothing is repeated by itself. What a call raises says what is known::

    kit.dtm.errors.Failure     the coordinator answered ABORTED
    kit.dtm.errors.Ongoing     the coordinator answered FAILED_PRECONDITION
    DtmUnavailable             anything else: the result is unknown, and prepare, submit and abort
                               may be repeated with the same gid

Source: dtm-labs/dtm client/dtmgrpc.
"""

from kit.dtm.client.client import DtmClient, DtmUnavailable
from kit.dtm.client.msg import Msg, Payload

__all__ = ["DtmClient", "DtmUnavailable", "Msg", "Payload"]
