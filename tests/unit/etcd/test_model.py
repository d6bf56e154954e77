"""Ranges, pauses and outages."""

from collections.abc import Iterator
from io import StringIO

import pytest
import structlog

import kit.log
from kit.etcd import Backoff, Outage
from kit.etcd.model import prefix_range
from kit.testing import ManualClock


@pytest.mark.parametrize(
    ("prefix", "first", "end"),
    [
        ("/a/", b"/a/", b"/a0"),
        (b"a\xff", b"a\xff", b"b"),
        (b"\xff\xff", b"\xff\xff", b"\0"),
        ("", b"\0", b"\0"),
        ("é", b"\xc3\xa9", b"\xc3\xaa"),
    ],
)
def test_a_prefix_is_the_range_of_all_keys_that_begin_with_it(
    prefix: str | bytes, first: bytes, end: bytes
) -> None:
    """An end of one zero byte means "to the last key" (etcd clientv3 op.go, getPrefix)."""
    assert prefix_range(prefix) == (first, end)


def test_pauses_double_up_to_the_ceiling_and_start_anew_when_reset() -> None:
    """Each lies between half of its step and the step."""
    backoff = Backoff(0.2, 1.0)
    for step in (0.2, 0.4, 0.8, 1.0, 1.0):
        assert step / 2 <= backoff.pause() <= step
    backoff.reset()
    assert backoff.pause() <= 0.2


def test_a_ceiling_below_the_first_pause_holds() -> None:
    """A short lease asks for short pauses."""
    assert Backoff(0.2, 0.1).pause() <= 0.1


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
