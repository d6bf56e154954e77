"""What every kind of transaction has: a client, a gid, options, and numbers for its branches.

Source: dtm-labs/dtm client/dtmcli/dtmimp/trans_base.go (TransBase, BranchIDGen).
"""

from dataclasses import replace

from kit.dtm.client.checks import check_gid, check_options
from kit.dtm.client.client import DtmClient
from kit.dtm.client.errors import InvalidCall
from kit.dtm.client.messages import Operation, TransRequest
from kit.dtm.client.tracing import trace_headers
from kit.dtm.core.model import Options
from kit.dtm.wire import TransType

MAX_CHILDREN = 99
MAX_PARENT_CHARS = 20

_DEFAULTS = Options()


class BranchIds:
    """The ids of the branches below one: ``01``, ``02``, … behind its own.

    >>> ids = BranchIds("02")
    >>> ids.next(), ids.next()
    ('0201', '0202')
    """

    def __init__(self, parent: str = "") -> None:
        self._parent = parent
        self._last = 0

    def next(self) -> str:
        """The next id.

        Raises:
            InvalidCall: there are 99 already, or the nesting is too deep; in dtm's words.
        """
        if self._last >= MAX_CHILDREN:
            raise InvalidCall(
                "branch id is larger than 99; use several transactions, or nest branches"
            )
        if len(self._parent) >= MAX_PARENT_CHARS:
            raise InvalidCall("total branch id is longer than 20; nest branches less deeply")
        self._last += 1
        return f"{self._parent}{self._last:02d}"


class GlobalTransaction:
    """A transaction on its way to the coordinator.

    Args:
        client: the coordinator.
        gid: any text of the caller's that is unique, such as the number of an order; without one
            the coordinator makes it when the transaction is first sent.
        options: what is asked of the coordinator.

    Raises:
        InvalidCall: ``gid`` or ``options`` cannot be sent.
    """

    trans_type: TransType

    def __init__(self, client: DtmClient, gid: str = "", options: Options | None = None) -> None:
        self.client = client
        self.gid = check_gid(gid) if gid else ""
        self.options = _DEFAULTS if options is None else check_options(options)

    def request(self) -> TransRequest:
        """What is sent; the same for prepare, submit and abort.

        Raises:
            InvalidCall: there is no gid yet.
        """
        return TransRequest(check_gid(self.gid), self.trans_type, self.sent_options())

    def sent_options(self) -> Options:
        """The options, with the headers of the caller's trace for the branches."""
        trace = trace_headers()
        if not trace:
            return self.options
        return replace(self.options, branch_headers={**trace, **self.options.branch_headers})

    async def send(self, operation: Operation, *, rollback_reason: str = "") -> None:
        """Send this transaction, with a gid of the coordinator's when it has none."""
        if not self.gid:
            self.gid = await self.client.new_gid()
        request = self.request()
        if rollback_reason:
            request = replace(request, rollback_reason=rollback_reason)
        await self.client.send(operation, request)
