"""A global transaction as a value.

Instants are integer milliseconds since the epoch, UTC; intervals and timeouts are whole seconds, as
dtm counts them.
"""

from collections.abc import Mapping
from dataclasses import field, fields, replace
from typing import TypeAlias

from kit.dtm.wire import BranchStatus, Protocol, Result, Status, TransType
from kit.value import value

BranchKey: TypeAlias = tuple[str, str]
"""(branch_id, op): unique inside a transaction."""


@value
class Options:
    """What the client may ask for a transaction. Zero means: the server's setting.

    Attributes:
        wait_result: the API call answers after the first round instead of after acceptance.
        timeout_to_fail: seconds after which a prepared transaction is decided by the coordinator.
        request_timeout: seconds for each branch call.
        retry_interval: seconds before the first retry.
        branch_headers: added to every branch call.
        concurrent: branches of a msg are called all at once; a saga says it in its custom data.
        retry_limit: saga only: answers that say nothing before it gives up; 0 is no limit.
    """

    wait_result: bool = False
    timeout_to_fail: int = 0
    request_timeout: int = 0
    retry_interval: int = 0
    branch_headers: Mapping[str, str] = field(default_factory=dict)
    concurrent: bool = False
    retry_limit: int = 0

    def overlaid(self, later: "Options") -> "Options":
        """These options, with every one that ``later`` sets replaced."""
        given = {f.name: getattr(later, f.name) for f in fields(later) if getattr(later, f.name)}
        return replace(self, **given)


@value
class Branch:
    """One operation of one branch: a row of ``trans_branch_op``.

    Attributes:
        payload: bytes sent as they are.
        finish_time: when it became succeed or failed, in milliseconds.
        create_time: when its row was written; 0 until it was read back from a store.
        update_time: when its row was written last; 0 until it was read back from a store.
    """

    branch_id: str
    op: str
    url: str
    payload: bytes = b""
    status: BranchStatus = BranchStatus.PREPARED
    finish_time: int | None = None
    create_time: int = field(default=0, compare=False)
    update_time: int = field(default=0, compare=False)

    @property
    def key(self) -> BranchKey:
        """Identity inside the transaction."""
        return self.branch_id, self.op


@value
class Round:
    """One attempt to bring a transaction forward; in memory only, a crash leaves none.

    Attributes:
        calling: branches whose answer is awaited.
        failed: the most telling answer of a branch that did not succeed, if any.
        tried: branches that gave no usable answer: not asked again in this round.
    """

    calling: frozenset[BranchKey] = frozenset()
    failed: Result | None = None
    tried: frozenset[BranchKey] = frozenset()


@value
class Transaction:
    """A global transaction: a row of ``trans_global`` with its branches, in creation order.

    Attributes:
        next_cron_interval: seconds that the next retry waits.
        next_cron_time: instant of the next retry; ``None`` once nothing more is to be done.
        rollback_reason: why it failed, for people.
        result: what a workflow gave, as its sender encoded it.
        retry_count: saga: answers so far that count against ``retry_limit``.
        round: what is going on in this process right now; never stored.
    """

    gid: str
    trans_type: TransType
    status: Status
    protocol: Protocol = Protocol.GRPC
    query_prepared: str = ""
    custom_data: str = ""
    options: Options = field(default_factory=Options)
    branches: tuple[Branch, ...] = ()
    create_time: int = 0
    update_time: int = 0
    finish_time: int | None = None
    rollback_time: int | None = None
    next_cron_interval: int = 0
    next_cron_time: int | None = None
    rollback_reason: str = ""
    result: str = ""
    retry_count: int = 0
    round: Round | None = field(default=None, compare=False)


@value
class Policy:
    """The server's settings that decide about time, in seconds; dtm's names and defaults.

    Attributes:
        retry_interval: base of the back-off.
        retry_max_interval: its ceiling.
        timeout_to_fail: age at which a prepared transaction is decided.
        alert_retry_limit: doublings of the interval from which an unknown answer alerts somebody.
    """

    retry_interval: int = 10
    retry_max_interval: int = 300
    timeout_to_fail: int = 35
    alert_retry_limit: int = 3
