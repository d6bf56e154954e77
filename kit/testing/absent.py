"""What a test does without the server it needs."""

import os
from typing import NoReturn


def absent(server: str, install: str) -> NoReturn:
    """Skip the running test and name the way out; fail it where ``REQUIRE_SERVERS=1`` is set.

    Args:
        server: what is missing.
        install: the command that brings it.
    """
    import pytest  # here: who only starts servers needs no pytest

    message = f"{server} is not installed; {install}"
    if os.environ.get("REQUIRE_SERVERS") == "1":
        pytest.fail(f"{message} (REQUIRE_SERVERS=1)", pytrace=False)
    pytest.skip(message)
