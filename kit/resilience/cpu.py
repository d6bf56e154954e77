"""How busy the processor is, from 0 to 1000, smoothed over some ten seconds.

Two views. :func:`process_cpu` is kratos v3's, the process's own time: here measured against one
core, because one event loop uses no more. :func:`container_cpu` is kratos v2's: the time that the
cgroup used of what it may use, or the whole machine's where there is no cgroup limit.

Source: go-kratos/aegis internal/cpu (cgroup, psutil), ratelimit/bbr/bbr.go cpuproc.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

FULL = 1000.0
SAMPLE_S = 0.5
DECAY = 0.95

_CGROUP = Path("/sys/fs/cgroup")
_PROC_STAT = Path("/proc/stat")
_IDLE_FIELDS = (3, 4)  # idle and iowait

CpuSeconds: TypeAlias = Callable[[], tuple[float, float]]
"""Seconds used so far, and how many a second of time has: the cores there are."""


def process_cpu() -> tuple[float, float]:
    """What this process used; an event loop has one core."""
    return time.process_time(), 1.0


def container_cpu() -> tuple[float, float]:
    """What the cgroup used and how many cores it may use; the machine's without a limit."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            for line in (_CGROUP / "cpu.stat").read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                if name == "usage_usec":
                    return int(value) / 1e6, int(quota) / int(period)
    except (OSError, ValueError):
        pass  # no cgroup of version 2, or one that sets no limit
    return _machine_cpu()


def _machine_cpu() -> tuple[float, float]:
    first = _PROC_STAT.read_text(encoding="ascii").partition("\n")[0]
    ticks = [int(field) for field in first.split()[1:9]]
    busy = sum(ticks) - sum(ticks[index] for index in _IDLE_FIELDS)
    return busy / os.sysconf("SC_CLK_TCK"), float(os.cpu_count() or 1)


class CpuMeter:
    """Smooths samples of half a second: 95 parts of before to 5 of now.

    It samples when it is asked, not in the background: a service that nobody calls measures
    nothing, and a pause of several samples counts as so many of their mean.

    Args:
        used: :func:`process_cpu` or :func:`container_cpu`.
        monotonic: seconds.
    """

    __slots__ = ("_at", "_monotonic", "_seconds", "_used", "_value")

    def __init__(
        self,
        used: CpuSeconds = process_cpu,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._used = used
        self._monotonic = monotonic
        self._value = 0.0
        self._at = monotonic()
        self._seconds = used()[0]

    def __call__(self) -> float:
        """From 0, idle, to 1000, all that there is."""
        now = self._monotonic()
        passed = now - self._at
        if passed >= SAMPLE_S:
            seconds, cores = self._used()
            load = max((seconds - self._seconds) / (passed * cores) * FULL, 0.0)
            kept = DECAY ** int(passed / SAMPLE_S)
            self._value = min(self._value * kept + load * (1 - kept), FULL)
            self._at, self._seconds = now, seconds
        return self._value
