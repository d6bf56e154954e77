"""Says in one line that a Python is too old, before anything that needs a newer one is imported."""

import sys

OLDEST = (3, 11)


def check(version: tuple[int, ...]) -> None:
    """End the process with status 2 when ``version`` is below :data:`OLDEST`."""
    if version < OLDEST:
        wanted, found = (".".join(map(str, each[:3])) for each in (OLDEST, version))
        sys.stderr.write(f"kit: Python {wanted} or newer is needed, this is {found}\n")
        raise SystemExit(2)


check(sys.version_info[:3])
