"""Asking a branch: what is asked of a caller, and what it gives.

One module a protocol; :class:`kit.dtm.server.caller.BranchCaller` picks among them.
"""

from typing import Protocol

from kit.dtm.core import Branch, Transaction
from kit.dtm.wire import Result
from kit.value import value

MAX_TEXT = 4_096
"""Characters that are kept of what a branch says about its answer."""


@value
class BranchAnswer:
    """What became of a call.

    Attributes:
        text: what the branch said, or why it could not be asked.
        code: the gRPC code of the answer, or the one that comes nearest; ``None`` for success. A
            target that did not answer at all has UNAVAILABLE or DEADLINE_EXCEEDED.
    """

    result: Result
    text: str = ""
    code: int | None = None


class Caller(Protocol):
    """Asks branches."""

    async def call(self, tx: Transaction, branch: Branch, limit: float) -> BranchAnswer:
        """Ask ``branch``, ``limit`` seconds at most; raises nothing but ``CancelledError``."""
        ...
