"""Durations as Go writes them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("1s", 1.0),
        ("0.2s", 0.2),
        (".5s", 0.5),
        ("5.s", 5.0),
        ("1m", 60.0),
        ("1h2m3.5s", 3723.5),
        ("100ms", 0.1),
        ("5us", 5e-6),
        ("5µs", 5e-6),
        ("7ns", 7e-9),
        ("-1.5s", -1.5),
        ("+1s", 1.0),
        (" 1s ", 1.0),
        ("1m1ms", 60.001),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    """Go's time.ParseDuration."""
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    "text",
    ["", " ", "1", "s", "1x", "1 s", "1s x", "--1s", "-", "1e3s", "1.2.3s", "s1", "1sm", "1d"],
)
def test_what_is_no_duration_is_refused_with_the_way_out(text: str) -> None:
    """A bare number too: its unit would be a guess."""
    with pytest.raises(ValueError, match="is not a duration; write for example 500ms"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (90, "90s"),
        (100, "100s"),
        (0.2, "200ms"),
        (0.0005, "0.5ms"),
        (1e-9, "0.000001ms"),
        (-0.25, "-250ms"),
        (1e12, "1000000000000s"),
    ],
)
def test_a_duration_is_written_short(seconds: float, text: str) -> None:
    """Milliseconds below a second, never an exponent."""
    assert format_duration(seconds) == text


@given(st.floats(min_value=-1e9, max_value=1e9))
def test_what_is_written_is_read_back(seconds: float) -> None:
    """To the nanosecond."""
    assert math.isclose(
        parse_duration(format_duration(seconds)), seconds, rel_tol=1e-12, abs_tol=1e-9
    )
