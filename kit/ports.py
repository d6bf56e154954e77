"""Ports for servers that are started next, each given to one process of the machine at a time."""

import os
import random
import socket
from collections import deque

PORTS = range(20_000, 30_000)
"""Below the ports that outgoing connections and port 0 get: one of those could be taken before its
server starts, or while it is down."""
_MARK_ABOVE = 30_000
_TRIED = 100
_KEPT = 200

_marks: deque[int] = deque()
"""Descriptors of the marks of this process, the oldest first."""


def free_port(within: range = PORTS, *, and_above: int = 0) -> int:
    """A port of loopback that nobody listens on, with TCP or UDP.

    Between this answer and the server's start another process could be given the same port. So
    each is marked by a UDP socket on the port 30,000 above, until this process ends or has taken
    200 more.

    Args:
        within: where to look; what is given has to lie below 35,536, as its mark is a port, too.
        and_above: the port that much higher has to be free as well, and is given too.

    Raises:
        RuntimeError: 100 ports tried at random were taken.
    """
    for port in random.sample(within, _TRIED):
        wanted = (port, port + and_above) if and_above else (port,)
        if all(map(_is_free, wanted)) and _mark(wanted):
            return port
    raise RuntimeError(
        f"no free port among {_TRIED} tried between {within.start} and {within.stop}"
    )


def _is_free(port: int) -> bool:
    try:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def _mark(ports: tuple[int, ...]) -> bool:
    """Mark all of ``ports``, or none when another process has one of them."""
    marks: list[int] = []
    for port in ports:
        mark = socket.socket(type=socket.SOCK_DGRAM)
        try:
            mark.bind(("127.0.0.1", port + _MARK_ABOVE))
        except OSError:
            mark.close()
            for taken in marks:
                os.close(taken)
            return False
        marks.append(mark.detach())
    _marks.extend(marks)
    while len(_marks) > _KEPT:
        os.close(_marks.popleft())
    return True
