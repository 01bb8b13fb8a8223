"""The one time that SUBMIT_JOB_SCHED asks for: the next minute that matches its five fields.

minute 0-59, hour 0-23, day of month 1-31, month 1-12, day of week 0-6 with 0 = Monday; an empty field or ``*`` matches
any. All fields must match. Unlike a cron table it names one moment, and the job runs once.

The fields mean the clocks of a time zone. A minute that these leave out when summer time begins never comes; of the
two that have the same name when it ends, the first that is still ahead is meant.
"""

from __future__ import annotations

import calendar
from datetime import MAXYEAR, date, datetime, tzinfo
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS: Final = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 6),
)
_LEAP_YEAR: Final = 2000
_YEARS: Final = 41  # a leap day on a given weekday may be forty years away


def next_match(fields: list[bytes], wall: float, zone: tzinfo) -> float:
    """The Unix time of the first matching minute after ``wall`` in ``zone``.

    Raises ValueError for a field that is no number in its range, and for a date that never comes.
    """
    minute, hour, day, month, weekday = [
        _field(text, title, low, high) for text, (title, low, high) in zip(fields, FIELDS, strict=True)
    ]
    if day is not None and month is not None and day > calendar.monthrange(_LEAP_YEAR, month)[1]:
        raise _never(day, month, weekday)  # found at once, since nothing bounds how often it is asked
    earliest = wall // 60 * 60 + 60
    for day_found in _dates(datetime.fromtimestamp(earliest, zone).date(), day, month, weekday):
        found = _first_minute(day_found, hour, minute, earliest, zone)
        if found > 0:
            return found
    raise _never(day, month, weekday)


def _never(day: int | None, month: int | None, weekday: int | None) -> ValueError:
    return ValueError(f"No date matches day of month {day}, month {month} and day of week {weekday}")


def _dates(first: date, day: int | None, month: int | None, weekday: int | None) -> Iterator[date]:
    """The matching dates from ``first`` on, as far ahead as it takes to know that there is none."""
    for year in range(first.year, min(first.year + _YEARS, MAXYEAR + 1)):
        for at_month in range(1, 13) if month is None else (month,):
            if (year, at_month) < (first.year, first.month):
                continue
            _, length = calendar.monthrange(year, at_month)
            for at_day in range(1, length + 1) if day is None else (day,):
                if at_day <= length:
                    found = date(year, at_month, at_day)
                    if found >= first and (weekday is None or found.weekday() == weekday):
                        yield found


def _first_minute(day: date, hour: int | None, minute: int | None, earliest: float, zone: tzinfo) -> float:
    """The first matching minute of ``day`` that is not before ``earliest``, as Unix time; 0 if there is none.

    Goes from hour to hour as they really come, and asks the clocks what they show.
    """
    moment = max(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp(), earliest)
    while True:
        shown = datetime.fromtimestamp(moment, zone)
        if shown.date() != day:
            return 0.0
        wanted = shown.minute if minute is None else minute
        if (hour is None or shown.hour == hour) and shown.minute <= wanted:
            return moment + (wanted - shown.minute) * 60
        moment += (60 - shown.minute) * 60


def _field(text: bytes, title: str, low: int, high: int) -> int | None:
    if text in (b"", b"*"):
        return None
    if not text.isdigit() or len(text) > 4 or not low <= int(text) <= high:
        shown = text[:20].decode("utf-8", "replace")
        raise ValueError(f"The {title} of a scheduled job must be {low} to {high} or '*', not '{shown}'")
    return int(text)
