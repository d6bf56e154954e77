"""What a peer of the lean engine may do, and what it may make this side keep.

One connection holds at most, in bytes:

=========================================  ====================================================
messages that are not complete or not read  ``buffered_bytes``
metadata of its calls                       ``streams_per_connection * header_list_bytes``
a header block that is being received       ``2 * header_list_bytes``
header blocks that came twice                64 of 512 bytes, and 128 texts of 128 bytes
what was written and not yet taken          64 KiB and one message a call, then it is not read
=========================================  ====================================================

and the messages that its handlers work on. Beyond these, the connection or the call ends. Small
fields take three times what they count: each is an object of Python.
``tests/conformance/lean/test_memory.py`` attacks each of them and measures the process. An idle
connection takes 5 to 6 kB, with TLS 22 kB on the server and 28 kB on the client
(``tests/bench/idle.py``).
"""

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Guard:
    """Limits that a well-behaved peer never meets; times are in seconds.

    Attributes:
        header_list_bytes: metadata of one call, 32 bytes a pair included, as grpcio limits it.
        continuations: frames that one header block may be spread over.
        stream_window: what a peer may send ahead on one call; not less than 65,535, which it may
            send before it hears of a limit.
        connection_window: what it may send ahead on all of them.
        buffered_bytes: incomplete and unread messages of one connection.
        control_burst: PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown and empty frames at once,
            beside one for every stream.
        control_rate: the same per second; each DATA frame sent, and each call that this side fails,
            allows ``updates_per_data`` more.
        updates_per_data: see there.
        resets_burst: calls that a client may take back at once, beside one for every stream; those
            whose deadline has come do not count.
        resets_rate: the same per second.
        ping_strikes: pings that may come before their time.
        handshake: from the connection to the first SETTINGS.
        stall: a request that does not grow, or an answer that is not taken, for so long is given
            up.
    """

    header_list_bytes: int = 16_384
    continuations: int = 16
    stream_window: int = 1 << 20
    connection_window: int = 1 << 24
    buffered_bytes: int = 1 << 26
    control_burst: int = 1_000
    control_rate: float = 100.0
    updates_per_data: int = 4
    resets_burst: int = 1_000
    resets_rate: float = 200.0
    ping_strikes: int = 2
    handshake: float = 10.0
    stall: float = 60.0


class Allowance:
    """So many at once, and so many a second from then on; the clock is read only in need."""

    __slots__ = ("_burst", "_left", "_rate", "_since")

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._left = float(burst)
        self._since = time.monotonic()

    def add(self, more: int) -> None:
        """Allow ``more``."""
        self._left = min(self._left + more, self._burst)

    def take(self) -> bool:
        """Whether one more is within it."""
        self._left -= 1
        if self._left >= 0:
            return True
        now = time.monotonic()
        self._left = min(self._left + (now - self._since) * self._rate, self._burst)
        self._since = now
        return self._left >= 0
