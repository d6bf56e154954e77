"""Ranges and pauses."""

import pytest

from kit.etcd import Backoff
from kit.etcd.model import prefix_range


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
