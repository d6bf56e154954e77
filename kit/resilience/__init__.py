"""Rules that keep a service up when others are slow, away or too eager; none of them does I/O.

===========================  ======================================================================
:class:`SreBreaker`          stops calling a target in proportion to how often it fails
:class:`BbrLimiter`          refuses calls once the processor is busy and the line is full
:class:`TokenBucket`         refuses calls above a rate
:class:`RetryBudget`         bounds how much of the load may be repeated calls
:class:`BackOff`             pauses between tries
===========================  ======================================================================

All belong to one event loop; none of them waits or takes a lock.
"""

from kit.resilience.backoff import BackOff
from kit.resilience.bbr import BbrLimiter
from kit.resilience.breaker import BREAKER_V2, BREAKER_V3, BreakerRule, SreBreaker
from kit.resilience.bucket import TokenBucket
from kit.resilience.budget import RetryBudget
from kit.resilience.cpu import CpuMeter, container_cpu, process_cpu
from kit.resilience.limiter import Done, Limiter

__all__ = [
    "BREAKER_V2",
    "BREAKER_V3",
    "BackOff",
    "BbrLimiter",
    "BreakerRule",
    "CpuMeter",
    "Done",
    "Limiter",
    "RetryBudget",
    "SreBreaker",
    "TokenBucket",
    "container_cpu",
    "process_cpu",
]
