"""The one time that SUBMIT_JOB_SCHED asks for: the next minute that matches its five fields.

minute 0-59, hour 0-23, day of month 1-31, month 1-12, day of week 0-6 with 0 = Monday; an empty field or ``*`` matches
any. All fields must match. Unlike a cron table it names one moment, and the job runs once.
"""

from __future__ import annotations

import calendar
from datetime import datetime, timedelta, tzinfo
from typing import Final

FIELDS: Final = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 31),
    ("month", 1, 12),
    ("day of week", 0, 6),
)
_YEARS: Final = 40  # any possible combination comes up within a leap year's cycle of weekdays


def next_match(fields: list[bytes], wall: float, zone: tzinfo) -> float:
    """The Unix time of the first matching minute after ``wall`` in ``zone``.

    Raises ValueError for a field that is no number in its range, and for a date that never comes.
    """
    minute, hour, day, month, weekday = [
        _field(text, title, low, high) for text, (title, low, high) in zip(fields, FIELDS, strict=True)
    ]
    start = datetime.fromtimestamp(wall, zone).replace(second=0, microsecond=0) + timedelta(minutes=1)
    for year in range(start.year, start.year + _YEARS):
        for at_month in range(1, 13) if month is None else (month,):
            if (year, at_month) < (start.year, start.month):
                continue
            _, length = calendar.monthrange(year, at_month)
            for at_day in range(1, length + 1) if day is None else (day,):
                if at_day > length:
                    continue
                first = datetime(year, at_month, at_day, tzinfo=zone)
                if first.date() < start.date() or (weekday is not None and first.weekday() != weekday):
                    continue
                found = _first_minute(first, start, hour, minute)
                if found is not None:
                    return found.timestamp()
    raise ValueError(f"No date matches day of month {day}, month {month} and day of week {weekday}")


def _first_minute(day: datetime, start: datetime, hour: int | None, minute: int | None) -> datetime | None:
    """The first matching minute of ``day`` that is not before ``start``."""
    same_day = day.date() == start.date()
    for at_hour in range(24) if hour is None else (hour,):
        if same_day and at_hour < start.hour:
            continue
        for at_minute in range(60) if minute is None else (minute,):
            found = day.replace(hour=at_hour, minute=at_minute)
            if not same_day or (at_hour, at_minute) >= (start.hour, start.minute):
                return found
    return None


def _field(text: bytes, title: str, low: int, high: int) -> int | None:
    if text in (b"", b"*"):
        return None
    if not text.isdigit() or len(text) > 4 or not low <= int(text) <= high:
        shown = text[:20].decode("utf-8", "replace")
        raise ValueError(f"The {title} of a scheduled job must be {low} to {high} or '*', not '{shown}'")
    return int(text)
