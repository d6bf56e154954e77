"""XA: every branch does its work in an open transaction of its database, then all commit, or none.

Source: dtm-labs/dtm client/dtmcli/xa.go, client/dtmgrpc/xa.go.
"""

from contextlib import AbstractAsyncContextManager

from kit.dtm.client.branches import BranchReply
from kit.dtm.client.checks import check_url
from kit.dtm.client.client import DtmClient
from kit.dtm.client.payloads import Payload, payload_for
from kit.dtm.client.twophase import TwoPhase, running
from kit.dtm.core.model import Options
from kit.dtm.wire import Op, TransType


class Xa(TwoPhase):
    """An xa transaction that is prepared; :func:`xa` makes one."""

    trans_type = TransType.XA

    async def call_branch(self, payload: Payload, url: str) -> BranchReply:
        """Have the branch at ``url`` do its work; it registers itself.

        Args:
            payload: what it is given; see :mod:`kit.dtm.client.payloads`.
            url: called now, and by the coordinator to commit or roll back.

        Raises:
            Failure: the branch says no; let it leave the block, and everything is rolled back.
            Ongoing: the branch is not done yet.
            DtmUnavailable: whether it did its work is unknown.
            InvalidCall: ``url`` cannot be called, or there are too many branches.
            PayloadError: ``payload`` cannot be encoded.
        """
        protocol = self.client.protocol
        check_url("url", url, protocol)
        data = payload_for(url, payload, protocol, f"payload of {url!r}")
        return await self._ask(url, self._ids.next(), Op.ACTION, data, phase2_url=url)


def xa(
    client: DtmClient, gid: str = "", options: Options | None = None
) -> AbstractAsyncContextManager[Xa]:
    """An xa transaction for the length of a block.

    ::

        async with xa(client) as x:
            await x.call_branch(req, f"{busi}/TransOut")
            await x.call_branch(req, f"{busi}/TransIn")

    At its end all branches commit; when it raises, all roll back and the error goes on.

    Args:
        client: the coordinator.
        gid: see :class:`~kit.dtm.client.base.GlobalTransaction`.
        options: what is asked of the coordinator.

    Raises:
        DtmError: prepare or submit failed; after a failed prepare the block was not run.

    Source: dtm-labs/dtm client/dtmcli/xa.go, XaGlobalTransaction2.
    """
    return running(Xa(client, gid, options), tell=False)
