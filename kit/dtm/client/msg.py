"""Messages: steps that all happen once the first thing, the local transaction, has happened.

Source: dtm-labs/dtm client/dtmgrpc/msg.go, client/dtmcli/trans_msg.go.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias, runtime_checkable

from kit import log
from kit.dtm.barrier import BranchBarrier
from kit.dtm.client.client import DtmClient
from kit.dtm.core.model import Options
from kit.dtm.errors import DtmError, Failure
from kit.dtm.pb.dtm_pb2 import DtmRequest, DtmTransOptions
from kit.dtm.wire import QUERY_BRANCH_ID, TOPIC_PREFIX, Op, TransType

_log = log.get_logger()

_GO_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


@runtime_checkable
class Message(Protocol):
    """A protobuf message of any library that encodes itself."""

    def SerializeToString(self) -> bytes:  # noqa: N802  (protobuf's name)
        """The encoded message."""
        ...


Payload: TypeAlias = Message | bytes
"""What a step is given: a message, or the bytes of one."""


class Msg:
    """One message: build it, then :meth:`submit` it, or :meth:`do_and_submit` it.

    Args:
        client: the coordinator.
        gid: identity of the transaction: ``await client.new_gid()``, or any text of the caller's
            that is unique, such as the number of an order.
        options: what is asked of the coordinator.
    """

    def __init__(self, client: DtmClient, gid: str, options: Options | None = None) -> None:
        self.client = client
        self.gid = gid
        self.options = options or Options()
        self.query_url = ""
        self._actions: list[str] = []
        self._payloads: list[bytes] = []
        self._delay = 0

    def add(self, action: str, payload: Payload) -> "Msg":
        """Append the step that calls ``action``, a URL ending in ``/package.Service/Method``.

        Raises:
            TypeError: ``payload`` is neither a message nor bytes.
        """
        if isinstance(payload, Message):
            payload = payload.SerializeToString()
        if not isinstance(payload, bytes):
            raise TypeError(
                f"payload of step {action!r} is {type(payload).__name__}; "
                "give a protobuf message or bytes"
            )
        self._actions.append(action)
        self._payloads.append(payload)
        return self

    def add_topic(self, topic: str, payload: Payload) -> "Msg":
        """Append a step for every subscriber that ``topic`` has when the message is accepted.

        Raises:
            TypeError: ``payload`` is neither a message nor bytes.
        """
        return self.add(f"{TOPIC_PREFIX}{topic}", payload)

    def delay(self, seconds: int) -> "Msg":
        """Have the steps called no earlier than ``seconds`` after acceptance; whole seconds.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"delay: {seconds} s is negative")
        self._delay = seconds
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
        self.query_url = query_url or self.query_url
        await self.client.call("Prepare", self.request())

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
        await self.client.call("Submit", self.request())

    async def abort(self) -> None:
        """Drop a prepared message.

        Raises:
            Failure: the coordinator refuses, because it was submitted before.
            DtmUnavailable: whether it was dropped is unknown.
        """
        await self.client.call("Abort", self.request())

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
        barrier = BranchBarrier(TransType.MSG, self.gid, QUERY_BRANCH_ID, Op.MSG)
        await self.prepare(query_url)
        try:
            await fn(barrier)
        except Failure:
            await self._settle(commit=False)
            raise
        except Exception:
            await self._ask_and_settle(barrier)
            raise
        await self.submit()

    async def _ask_and_settle(self, barrier: BranchBarrier) -> None:
        try:
            await self.client.query(
                self.query_url,
                gid=barrier.gid,
                branch_id=barrier.branch_id,
                op=barrier.op,
                headers=self.options.branch_headers,
            )
        except Failure:
            await self._settle(commit=False)
        except (DtmError, ValueError) as exc:
            _log.warning(
                "[dtm] msg %s is left to the coordinator, its query does not say: %s",
                self.gid,
                getattr(exc, "message", exc),
            )
        else:
            await self._settle(commit=True)

    async def _settle(self, *, commit: bool) -> None:
        """Submit or abort where another error is on its way; the coordinator asks if it is lost."""
        try:
            await (self.submit() if commit else self.abort())
        except DtmError as exc:
            _log.warning("[dtm] msg %s is left to the coordinator: %s", self.gid, exc.message)

    def request(self) -> DtmRequest:
        """What is sent, the same for prepare, submit and abort.

        Source: dtm-labs/dtm client/dtmgrpc/dtmgimp/types.go, DtmGrpcCall; Go's encoding/json.
        """
        options = self.options
        custom: dict[str, object] = {}
        if options.concurrent:
            custom["concurrent"] = True  # our coordinator's; dtm passes over it
        if self._delay:
            custom["delay"] = self._delay
        return DtmRequest(
            Gid=self.gid,
            TransType=TransType.MSG,
            TransOptions=DtmTransOptions(
                WaitResult=options.wait_result,
                TimeoutToFail=options.timeout_to_fail,
                RetryInterval=options.retry_interval,
                BranchHeaders=options.branch_headers,
                RequestTimeout=options.request_timeout,
                RetryLimit=options.retry_limit,
            ),
            QueryPrepared=self.query_url,
            CustomedData=_go_json(custom) if custom else "",
            BinPayloads=self._payloads,
            Steps=_go_json([{"action": action} for action in self._actions] or None),
        )


def _go_json(value: object) -> str:
    """``value`` as Go's ``json.Marshal`` writes it: no spaces, sorted keys, HTML escaped."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return text.translate(_GO_ESCAPES)
