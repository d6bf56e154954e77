"""Outages are told once each way."""

from collections.abc import Iterator
from io import StringIO

import pytest
import structlog

import kit.log
from kit.outage import Outage
from kit.testing import ManualClock


@pytest.fixture
def lines() -> Iterator[StringIO]:
    stream = StringIO()
    kit.log.configure(stream=stream)
    yield stream
    kit.log.configure(records=False)
    structlog.reset_defaults()


def test_an_outage_is_told_once_each_way(lines: StringIO) -> None:
    """Whatever is tried between, and however many parts are interrupted."""
    clock = ManualClock()
    outage = Outage("registry", kit.log.get_logger(), clock)
    first, second = outage.part("watch of a"), outage.part("watch of b")
    first.up()
    first.down("refused")
    second.down("refused")
    first.down("no answer")
    clock.advance(12.34)
    first.up()
    second.up()
    second.up()
    first.down("refused")
    assert lines.getvalue().splitlines() == [
        "WARN msg=registry: watch of a interrupted: refused; trying again",
        "INFO msg=registry: watch of b restored after 12.3 s",
        "WARN msg=registry: watch of a interrupted: refused; trying again",
    ]


def test_a_part_that_is_not_wanted_any_more_keeps_no_outage_open(lines: StringIO) -> None:
    """The one that stays is the last to be restored."""
    outage = Outage("registry", kit.log.get_logger(), ManualClock())
    staying, leaving = outage.part("a"), outage.part("b")
    staying.down("refused")
    leaving.down("refused")
    leaving.forget()
    staying.up()
    assert lines.getvalue().splitlines()[1:] == ["INFO msg=registry: a restored after 0.0 s"]
