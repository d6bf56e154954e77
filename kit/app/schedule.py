"""When work is due: at intervals, or as cron says.

Instants are seconds since the epoch. A cron line follows the clocks on the wall of its zone: where
they are put forward, what would have been due in the missing hour is due at its end; where they are
put back, lines with fixed hours are due in the first of the two hours only, and lines for every
hour in both.

Source: crontab(5) of Vixie cron.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

MINUTE_S = 60
_YEARS = 9
"""No line waits longer: from 29 February 2096 to that of 2104 it is eight."""


class Schedule(Protocol):
    """Tells when work is due."""

    def after(self, now: float) -> float:
        """The first instant after ``now``; both in seconds since the epoch."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """At whole multiples of ``seconds``: all instances of a service agree on the instants.

    Raises:
        ValueError: ``seconds`` is not above 0.

    >>> Every(15).after(32.0)
    45.0
    """

    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"schedule every {self.seconds} s: more than 0 is needed")

    def after(self, now: float) -> float:
        """The next multiple."""
        due = (now // self.seconds + 1) * self.seconds
        return due if due > now else due + self.seconds


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    first: int
    last: int
    words: tuple[str, ...] = ()


_MINUTE = _Field("minute", 0, 59)
_HOUR = _Field("hour", 0, 23)
_DAY = _Field("day of the month", 1, 31)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = _Field("month", 1, 12, _MONTHS)
_WEEKDAY = _Field("day of the week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
_FIELDS = (_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY)

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Cron:
    """A line of five fields: minute, hour, day of the month, month, day of the week.

    Fields are ``*``, numbers, names, ranges ``1-5``, lists ``1,3``, steps ``*/10``; the nicknames
    ``@hourly``, ``@daily``, ``@weekly``, ``@monthly`` and ``@yearly`` stand for whole lines. When
    both days are given one of them suffices, as in cron.

    Args:
        line: the fields.
        zone: whose clocks count, such as ``Europe/Vienna``; UTC by default.

    Raises:
        ValueError: the line cannot be understood or is never due, or nobody knows the zone.

    >>> datetime.fromtimestamp(Cron("30 2 * * mon-fri").after(0), UTC).isoformat()
    '1970-01-01T02:30:00+00:00'
    """

    def __init__(self, line: str, *, zone: str = "UTC") -> None:
        self.line = line
        fields = _NICKNAMES.get(line.strip().lower(), line).split()
        if len(fields) != len(_FIELDS):
            raise ValueError(
                f"cron line {line!r} has {len(fields)} fields; write minute, hour, day of the "
                'month, month and day of the week, such as "*/10 * * * *"'
            )
        values = [_parsed(line, field, text) for field, text in zip(_FIELDS, fields, strict=True)]
        self._minutes, self._hours, self._days, self._months, weekdays = values
        self._weekdays = frozenset(day % 7 for day in weekdays)
        self._either_day = not fields[2].startswith("*") and not fields[4].startswith("*")
        self._every_hour = len(self._hours) == 24
        self._zone = _zone(zone)
        self.after(0.0)  # refuses 30 February

    def after(self, now: float) -> float:
        """The first whole minute after ``now`` that the line names.

        Raises:
            ValueError: there is none.
        """
        at = (int(now // MINUTE_S) + 1) * MINUTE_S
        end = at + _YEARS * 366 * 86_400
        while at < end:
            local = datetime.fromtimestamp(at, self._zone)
            if self._skipped_is_due(at, local):
                return float(at)
            if not self._is_day(local):
                at = self._midnight_after(local, at)
            elif local.hour not in self._hours:
                at += (60 - local.minute) * MINUTE_S
            elif local.minute not in self._minutes or (local.fold and not self._every_hour):
                at += MINUTE_S
            else:
                return float(at)
        raise ValueError(f"cron line {self.line!r} is never due: there is no such day")

    def _is_day(self, local: datetime) -> bool:
        if local.month not in self._months:
            return False
        day, weekday = local.day in self._days, local.isoweekday() % 7 in self._weekdays
        return day or weekday if self._either_day else day and weekday

    def _midnight_after(self, local: datetime, at: int) -> int:
        day = local.date() + timedelta(days=1)
        midnight = datetime(day.year, day.month, day.day, tzinfo=self._zone)
        return max(int(midnight.timestamp()), at + MINUTE_S)

    def _skipped_is_due(self, at: int, local: datetime) -> bool:
        """Whether clocks were put forward to ``local`` over a minute that the line names."""
        if self._every_hour:
            return False
        before = datetime.fromtimestamp(at - MINUTE_S, self._zone)
        missing = local.replace(tzinfo=None) - before.replace(tzinfo=None)
        skipped = [
            before + timedelta(minutes=minute)
            for minute in range(1, int(missing.total_seconds()) // MINUTE_S)
        ]
        return any(
            self._is_day(wall) and wall.hour in self._hours and wall.minute in self._minutes
            for wall in skipped
        )


def _parsed(line: str, field: _Field, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        span, slash, step = part.partition("/")
        try:
            every = int(step) if slash else 1
            if span == "*":
                first, last = field.first, field.last
            else:
                begin, dash, end = span.partition("-")
                first = _number(field, begin)
                # a lone number with a step runs on to the end, as in cron
                last = _number(field, end) if dash else field.last if slash else first
        except ValueError:
            every = first = last = -1
        if every < 1 or not field.first <= first <= last <= field.last:
            raise ValueError(
                f"cron line {line!r}: {part!r} is no {field.name}; "
                f"{field.first} to {field.last}, such as {field.first}-{field.first + 2} or */2"
            )
        found.update(range(first, last + 1, every))
    return frozenset(found)


def _number(field: _Field, text: str) -> int:
    return field.words.index(text) + field.first if text in field.words else int(text)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"cron zone {name!r}: this machine does not know it") from error
