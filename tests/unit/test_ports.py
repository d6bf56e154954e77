"""Ports that no two processes get at the same time."""

import random
import socket
import subprocess
import sys

import pytest

from kit.ports import free_port

_TAKE = """
from kit.ports import free_port
print(*(free_port(range(10_000, 10_300)) for _ in range(20)), flush=True)
input()
"""


def test_no_port_is_given_twice_while_its_process_lives() -> None:
    """Four processes take eighty of 300 ports: of ports drawn blindly some would be the same."""
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", _TAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    try:
        taken = [port for taker in takers for port in _line_of(taker).split()]
    finally:
        for taker in takers:
            taker.communicate("\n")
    assert len(taken) == len(set(taken)) == 80


def _line_of(taker: "subprocess.Popen[str]") -> str:
    assert taker.stdout is not None
    return taker.stdout.readline()


def test_a_port_that_somebody_listens_on_is_not_given() -> None:
    start = random.randrange(10_300, 19_900)
    ports = range(start, start + 100)
    taken = []
    try:
        for port in ports[:-1]:
            listener = socket.socket()
            taken.append(listener)
            listener.bind(("127.0.0.1", port))
        assert free_port(ports) == ports[-1]
        with pytest.raises(RuntimeError, match=f"no free port among 100 tried between {start} and"):
            free_port(ports)  # the last one is marked now
    finally:
        for listener in taken:
            listener.close()
