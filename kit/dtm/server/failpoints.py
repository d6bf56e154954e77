"""Places where a test can have the coordinator killed, to see what survives.

``KIT_FAILPOINT=saved:3`` ends the process with SIGKILL, as a power cut would, when it comes to
``saved`` for the third time. Without the variable a failpoint costs one look at a constant.
"""

import os
import signal
import sys

VARIABLE = "KIT_FAILPOINT"

NAMES = ("saving", "saved", "calling", "called", "answering")
"""Before and after a save, before and after a branch call, before a waiting client is answered."""


def parse(text: str) -> tuple[str, int]:
    """The name and the number of the visit that ``text`` arms.

    Raises:
        ValueError: there is no such failpoint.

    >>> parse("saved:3"), parse("called")
    (('saved', 3), ('called', 1))
    """
    name, _, number = text.partition(":")
    if name not in NAMES or not (number or "1").isdecimal():
        raise ValueError(f"{VARIABLE}={text}: use one of {', '.join(NAMES)}, as in saved:3")
    return name, int(number or 1)


_name, _left = parse(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else ("", 0)


def reach(name: str) -> None:
    """Be killed here, when this visit is the armed one."""
    if name == _name:
        _visit()


def _visit() -> None:
    global _left
    _left -= 1
    if _left == 0:
        sys.stderr.write(f"failpoint {_name}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
