"""What is fuzzed; each target makes its inputs out of dice and gives how many it took."""

import random
from collections.abc import Callable
from typing import NamedTuple

from tests.fuzz import frames_and_h2, hpack_blocks
from tests.fuzz.interleavings import Loop


class Target(NamedTuple):
    """Something to fuzz.

    Attributes:
        name: for reports.
        run: one connection's worth; raises when something is wrong.
        share: of all inputs.
        quick: connections in CI.
    """

    name: str
    run: Callable[[random.Random], int]
    share: int
    quick: int


TARGETS = (
    Target("header blocks are read as hpack reads them", hpack_blocks.read, 30, 2_500),
    Target("hpack reads what is written", hpack_blocks.written, 15, 1_000),
    Target("frames are taken as h2 takes them", frames_and_h2.against_h2, 30, 3_000),
    Target("bytes may come in any pieces", frames_and_h2.segmented, 20, 2_500),
    Target("both roles end every call in any order of things", Loop().talk, 5, 400),
)
