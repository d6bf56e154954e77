"""Messages: steps that all happen once the first thing, the local transaction, has happened.

Source: dtm-labs/dtm client/dtmgrpc/msg.go, client/dtmcli/trans_msg.go.
"""

from collections.abc import Awaitable, Callable
from typing import Self

from kit import log
from kit.dtm.barrier import BranchBarrier
from kit.dtm.client.base import GlobalTransaction
from kit.dtm.client.checks import check_gid, check_url, check_whole
from kit.dtm.client.client import DtmClient
from kit.dtm.client.errors import InvalidCall
from kit.dtm.client.messages import Operation, TransRequest, go_json
from kit.dtm.client.payloads import Payload, payload_for
from kit.dtm.core.model import Options
from kit.dtm.errors import DtmError, Failure
from kit.dtm.wire import QUERY_BRANCH_ID, TOPIC_PREFIX, Op, Protocol, TransType

_log = log.get_logger()


class Msg(GlobalTransaction):
    """One message: build it, then :meth:`submit` it, or :meth:`do_and_submit` it.

    Args:
        client: the coordinator.
        gid: see :class:`~kit.dtm.client.base.GlobalTransaction`.
        options: what is asked of the coordinator.
    """

    trans_type = TransType.MSG

    def __init__(self, client: DtmClient, gid: str = "", options: Options | None = None) -> None:
        super().__init__(client, gid, options)
        self.query_url = ""
        self._actions: list[str] = []
        self._payloads: list[bytes] = []
        self._delay = 0

    def add(self, action: str, payload: Payload = None) -> Self:
        """Append the step that calls ``action``, such as ``host:port/package.Service/Method``.

        Args:
            action: the URL of the branch, or a topic.
            payload: what it is given; see :mod:`kit.dtm.client.payloads`.

        Raises:
            InvalidCall: ``action`` is empty, or cannot be a branch of this client's transactions.
            PayloadError: ``payload`` cannot be encoded.
        """
        protocol = self.client.protocol
        check_url(f"action of step {len(self._actions) + 1}", action, protocol)
        self._payloads.append(payload_for(action, payload, protocol, f"payload of step {action!r}"))
        self._actions.append(action)
        return self

    def add_topic(self, topic: str, payload: Payload = None) -> Self:
        """Append a step for every subscriber that ``topic`` has when the message is accepted.

        Raises:
            InvalidCall: ``topic`` is empty.
            PayloadError: ``payload`` cannot be encoded.
        """
        if not topic:
            raise InvalidCall("topic: it is empty; give the name that subscribers use")
        return self.add(f"{TOPIC_PREFIX}{topic}", payload)

    def delay(self, seconds: int) -> Self:
        """Have the steps called no earlier than ``seconds`` after acceptance; whole seconds.

        Raises:
            InvalidCall: ``seconds`` is negative or not whole.
        """
        self._delay = check_whole("delay", seconds)
        return self

    async def prepare(self, query_url: str = "") -> None:
        """Have the message kept until it is submitted, aborted, or ``query_url`` decides.

        Args:
            query_url: what the coordinator asks when it hears nothing for ``timeout_to_fail``;
                empty keeps the one given before.

        Raises:
            Failure: the coordinator refuses.
            DtmUnavailable: whether it was kept is unknown.
        """
        check_url("query_url", query_url, self.client.protocol, empty=True)
        self.query_url = query_url or self.query_url
        await self.send(Operation.PREPARE)

    async def submit(self) -> None:
        """Hand the message over: from now on its steps happen, whatever happens to us.

        With ``wait_result`` it returns when all have happened.

        Raises:
            Failure: the coordinator refuses; or, with ``wait_result``, the steps have not all
                happened yet: a message never fails once it is accepted.
            Ongoing: with ``wait_result``, a step is not done yet.
            DtmUnavailable: whether it was accepted is unknown; submit again with the same gid. With
                ``wait_result`` it may also be a step that could not be called yet.
        """
        await self.send(Operation.SUBMIT)

    async def abort(self) -> None:
        """Drop a prepared message.

        Raises:
            Failure: the coordinator refuses, because it was submitted before.
            DtmUnavailable: whether it was dropped is unknown.
        """
        await self.send(Operation.ABORT)

    async def do_and_submit(
        self, query_url: str, fn: Callable[[BranchBarrier], Awaitable[object]]
    ) -> None:
        """Run the local transaction ``fn`` and have the steps happen exactly when it commits.

        When ``fn`` fails with anything but Failure it may have committed all the same (the answer
        of the database was lost): then ``query_url`` is asked, and the message submitted or dropped
        accordingly. When that knows nothing either, the coordinator asks it after the timeout.

        Args:
            query_url: a method that says whether ``fn`` committed.
            fn: takes the barrier in which it has to run; Failure rolls back.

        Raises:
            Exception: whatever ``fn`` raised, always, even when the message was submitted.
            DtmError: prepare or submit failed; after a failed prepare ``fn`` was not run.

        Source: dtm-labs/dtm client/dtmgrpc/msg.go, DoAndSubmit.
        """
        await self.prepare(query_url)
        barrier = BranchBarrier(TransType.MSG, self.gid, QUERY_BRANCH_ID, Op.MSG)
        try:
            await fn(barrier)
        except Failure:
            await self._settle(commit=False)
            raise
        except Exception:
            await self._ask_and_settle(barrier)
            raise
        await self.submit()

    async def do_and_submit_db(
        self, query_url: str, connection: object, business: Callable[[], Awaitable[object]]
    ) -> None:
        """As :meth:`do_and_submit`, in one transaction of ``connection`` with the barrier's row.

        Args:
            query_url: a method that answers by ``barrier.aquery_prepared``.
            connection: of a driver that is awaited, see :mod:`kit.dtm.barrier`.
            business: an error rolls back.

        Raises:
            BarrierError: the connection is of no known driver.

        Source: dtm-labs/dtm client/dtmgrpc/msg.go, DoAndSubmitDB.
        """
        await self.do_and_submit(query_url, lambda barrier: barrier.acall(connection, business))

    async def _ask_and_settle(self, barrier: BranchBarrier) -> None:
        try:
            headers = self.options.branch_headers
            await self.client.branches.call(self.query_url, barrier, None, headers=headers)
        except Failure:
            await self._settle(commit=False)
        except DtmError as exc:
            _log.warning(
                "[dtm] msg %s is left to the coordinator, its query does not say: %s",
                self.gid,
                exc.message,
            )
        else:
            await self._settle(commit=True)

    async def _settle(self, *, commit: bool) -> None:
        """Submit or abort where another error is on its way; the coordinator asks if it is lost."""
        try:
            await (self.submit() if commit else self.abort())
        except DtmError as exc:
            _log.warning("[dtm] msg %s is left to the coordinator: %s", self.gid, exc.message)

    def request(self) -> TransRequest:
        """What is sent, the same for prepare, submit and abort.

        ``delay`` is sent with Prepare as well, where Go has it in Submit only: then it also counts
        when the coordinator's question decides.
        """
        custom: dict[str, object] = {}
        if self.options.concurrent and self.client.protocol is Protocol.GRPC:
            custom["concurrent"] = True  # our coordinator's; dtm passes over it
        if self._delay:
            custom["delay"] = self._delay
        return TransRequest(
            check_gid(self.gid),
            self.trans_type,
            self.sent_options(),
            steps=tuple({"action": action} for action in self._actions),
            payloads=tuple(self._payloads),
            query_prepared=self.query_url,
            custom_data=go_json(custom) if custom else "",
        )
