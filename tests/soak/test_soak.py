"""The soak in short: `make soak` runs it for ten million calls."""

import asyncio
import sys

import pytest


@pytest.mark.parametrize("way", ["--asyncio", "--tls"])
async def test_no_call_is_lost_or_answered_twice_whatever_befalls_the_peer(way: str) -> None:
    """Once each: restart, kill -9, both servers frozen; a quarter of the connections is bad."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.soak", way, "--connections", "60"),
        *("--calls", "40000", "--every", "0.7", "--seconds", "12", "--seed", "2"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b"all is as it should be" in output
    assert b"Traceback" not in output, output.decode()
