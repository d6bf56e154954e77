"""When work is due."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.app import Cron, Every

VIENNA = ZoneInfo("Europe/Vienna")


def due(line: str, after: str, *, zone: str = "UTC", count: int = 1) -> list[str]:
    """The next instants after a time of ``zone``, in local time with offset."""
    cron, local = Cron(line, zone=zone), ZoneInfo(zone)
    now = datetime.fromisoformat(after).replace(tzinfo=local).timestamp()
    found = []
    for _ in range(count):
        now = cron.after(now)
        found.append(datetime.fromtimestamp(now, local).isoformat(timespec="minutes"))
    return found


@pytest.mark.parametrize(
    ("line", "after", "wanted"),
    [
        ("* * * * *", "2026-11-24T10:00:00", "2026-11-24T10:01"),
        ("* * * * *", "2026-11-24T10:00:59", "2026-11-24T10:01"),
        ("*/15 * * * *", "2026-11-24T10:45:00", "2026-11-24T11:00"),
        ("5/20 * * * *", "2026-11-24T10:06:00", "2026-11-24T10:25"),
        ("0 6 * * mon-fri", "2026-11-27T06:00:00", "2026-11-30T06:00"),
        ("0 6 * * 7", "2026-11-24T00:00:00", "2026-11-29T06:00"),
        ("0 0 13 * 5", "2026-11-24T00:00:00", "2026-11-27T00:00"),
        ("0 0 13 * *", "2026-11-24T00:00:00", "2026-12-13T00:00"),
        ("0 0 */2 * 2", "2026-11-24T00:00:00", "2026-12-01T00:00"),
        ("30 23 31 dec *", "2026-12-31T23:30:00", "2027-12-31T23:30"),
        ("0 0 29 2 *", "2026-11-24T00:00:00", "2028-02-29T00:00"),
        ("0 0 29 2 *", "2097-01-01T00:00:00", "2104-02-29T00:00"),
        ("1,2,58-59 1-3/2 * * *", "2026-11-24T01:02:00", "2026-11-24T01:58"),
        ("@daily", "2026-11-24T10:00:00", "2026-11-25T00:00"),
        ("@Hourly", "2026-11-24T10:00:00", "2026-11-24T11:00"),
        ("@weekly", "2026-11-24T10:00:00", "2026-11-29T00:00"),
        ("@monthly", "2026-11-24T10:00:00", "2026-12-01T00:00"),
        ("@yearly", "2026-11-24T10:00:00", "2027-01-01T00:00"),
    ],
)
def test_a_line_is_due_when_crontab_says_so(line: str, after: str, wanted: str) -> None:
    assert due(line, after) == [f"{wanted}+00:00"]


def test_in_the_hour_that_is_missing_work_is_due_at_its_end() -> None:
    """29 March 2026, 02:00 is 03:00 in Vienna."""
    assert due("30 2 * * *", "2026-03-28T12:00", zone="Europe/Vienna", count=2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:30+02:00",
    ]
    assert due("30 * * * *", "2026-03-29T01:00", zone="Europe/Vienna", count=2) == [
        "2026-03-29T01:30+01:00",
        "2026-03-29T03:30+02:00",
    ]


def test_in_the_hour_that_comes_twice_fixed_hours_are_due_once_and_all_hours_twice() -> None:
    """25 October 2026, 03:00 is 02:00 again in Vienna."""
    assert due("30 2 * * *", "2026-10-25T00:00", zone="Europe/Vienna", count=2) == [
        "2026-10-25T02:30+02:00",
        "2026-10-26T02:30+01:00",
    ]
    assert due("30 * * * *", "2026-10-25T01:45", zone="Europe/Vienna", count=3) == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:30+01:00",
    ]


@pytest.mark.parametrize("zone", ["Europe/Vienna", "Australia/Lord_Howe", "America/Sao_Paulo"])
@settings(deadline=None)
@given(start=st.integers(1_200_000_000, 1_900_000_000), minute=st.integers(0, 59))
def test_every_day_has_its_run_whatever_clocks_do(zone: str, start: int, minute: int) -> None:
    """Between two runs of a daily line lie 22.5 to 25.5 hours, in every zone."""
    for hour in (0, 2):
        cron = Cron(f"{minute} {hour} * * *", zone=zone)
        first = cron.after(start)
        second = cron.after(first)
        assert start < first <= start + 25.5 * 3600
        assert 22.5 * 3600 <= second - first <= 25.5 * 3600
        assert datetime.fromtimestamp(first, UTC).second == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("* * * *", "has 4 fields"),
        ("60 * * * *", "'60' is no minute"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day of the month"),
        ("* * * foo *", "'foo' is no month"),
        ("* * * * 8", "'8' is no day of the week"),
        ("*/0 * * * *", "'\\*/0' is no minute"),
        ("5-2 * * * *", "'5-2' is no minute"),
        ("-1 * * * *", "'-1' is no minute"),
        ("1, * * * *", "'' is no minute"),
        ("0 0 30 2 *", "is never due"),
    ],
)
def test_a_line_that_is_none_names_the_field(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cron(line)


def test_an_unknown_zone_is_named() -> None:
    with pytest.raises(ValueError, match="cron zone 'Mars/Olympus'"):
        Cron("* * * * *", zone="Mars/Olympus")


@given(st.floats(0.001, 1e6), st.floats(0, 4e9))
def test_intervals_lie_ahead_and_not_further_than_their_length(seconds: float, now: float) -> None:
    following = Every(seconds).after(now)
    assert now < following <= now + seconds * 2
    if seconds > 1:
        assert following <= now + seconds * (1 + 1e-9)


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Every(0)
