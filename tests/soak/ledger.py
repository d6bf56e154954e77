"""What became of each call: one byte an id, in files that outlive a killed process."""

import mmap
from collections import Counter
from pathlib import Path
from types import TracebackType

UNSENT = 0x80
"""The engine said that the call certainly was not processed."""


class Bytes:
    """One byte for each id, shared by all who open ``path``; what is in it survives kill -9."""

    def __init__(self, path: Path, size: int) -> None:
        with path.open("a+b") as file:
            file.truncate(size)
            self.at = mmap.mmap(file.fileno(), size)

    def __enter__(self) -> mmap.mmap:
        return self.at

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.at.close()


def judged(ran: mmap.mmap, told: mmap.mmap, issued: int) -> tuple[Counter[int], list[str]]:
    """Outcomes by kind, and what must not be.

    Args:
        ran: how often a handler began with each id.
        told: the outcome that the caller got, 0 for none: status plus 1, and :data:`UNSENT`.
        issued: how many ids were given out.
    """
    outcomes = Counter(told[:issued])
    pairs = Counter(zip(told[:issued], ran[:issued], strict=True))
    wrong = []
    for (outcome, times), count in sorted(pairs.items()):
        if outcome == 0:
            wrong.append(f"{count} calls have no outcome")
        if times > 1:
            wrong.append(f"{count} calls were processed {times} times (outcome {outcome:#x})")
        if outcome == 1 and times == 0:
            wrong.append(f"{count} calls succeeded that nobody processed")
        if outcome & UNSENT and times:
            wrong.append(f"{count} calls were processed and called unsent (outcome {outcome:#x})")
    return outcomes, wrong
