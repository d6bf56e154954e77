"""When a transaction is tried again.

Source: dtm-labs/dtm dtmsvr/trans_status.go (touchCronTime, getNextCronInterval) and trans_class.go.
"""

from kit.dtm.core.model import Policy, Transaction
from kit.dtm.wire import Result

JITTER = 0.1
"""The largest part of an interval that is added at random: retries spread."""


def base_interval(tx: Transaction, policy: Policy) -> int:
    """Seconds before the first retry: the option, else a short timeout, else the server's setting.

    >>> from kit.dtm.core.model import Options, Transaction
    >>> from kit.dtm.wire import Status, TransType
    >>> tx = Transaction("g", TransType.MSG, Status.PREPARED, options=Options(timeout_to_fail=3))
    >>> base_interval(tx, Policy())
    3
    """
    if tx.options.retry_interval > 0:
        return tx.options.retry_interval
    if 0 < tx.options.timeout_to_fail < policy.retry_interval:
        return tx.options.timeout_to_fail
    return policy.retry_interval


def doubled_interval(tx: Transaction, policy: Policy) -> int:
    """Seconds after an answer that says nothing: twice the last, up to the ceiling.

    A base above the ceiling was asked for by the client and stays.
    """
    base = base_interval(tx, policy)
    ceiling = max(policy.retry_max_interval, base)
    return min(max(tx.next_cron_interval, base) * 2, ceiling)


def interval_after(tx: Transaction, answer: Result, policy: Policy) -> int:
    """Seconds after a round with this as its most telling answer: ONGOING keeps the last."""
    if answer is Result.ONGOING:
        return max(tx.next_cron_interval, base_interval(tx, policy))
    return doubled_interval(tx, policy)


def retry_at(now: int, interval: int, jitter: float) -> int:
    """The instant of the next try, ``interval`` seconds and a random part of it from ``now``."""
    return now + round(interval * 1000 * (1 + JITTER * jitter))


def fails_at(tx: Transaction, policy: Policy) -> int:
    """The instant from which a prepared transaction is timed out."""
    timeout = tx.options.timeout_to_fail or policy.timeout_to_fail
    return tx.create_time + timeout * 1000
