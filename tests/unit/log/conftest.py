from collections.abc import Callable, Iterator
from io import StringIO

import pytest
import structlog

import kit.log


@pytest.fixture
def lines() -> Iterator[Callable[..., Callable[[], list[str]]]]:
    """Configures the log to write into memory; what comes back reads the lines so far."""

    def configure(**settings: object) -> Callable[[], list[str]]:
        stream = StringIO()
        kit.log.configure(stream=stream, **settings)  # type: ignore[arg-type]

        def read() -> list[str]:
            kit.log.flush()
            return stream.getvalue().splitlines()

        return read

    yield configure
    kit.log.configure(records=False)
    structlog.reset_defaults()
