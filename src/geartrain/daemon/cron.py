"""A cron expression in a time zone, and the next moment that it means.

Which minutes of a calendar match is cronsim's to say, by the rules of Debian's cron; what has no clear meaning is
refused here before. What becomes of the two nights in which clocks are changed is decided here, by the hour's field:

begins with a star   every matching minute that the clocks show: an hour that comes twice has its runs twice, and one
                     that is left out has none
anything else        each matching minute of the calendar once: the first of two that have the same name, and what is
                     left out comes when the clocks have gone forward, at once and once
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from cronsim import CronSim, CronSimError

MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final[Sequence[tuple[str, int, int, tuple[str, ...], int]]] = (
    # what it is, its least and largest number, its names and the number of the first of them
    ("minute", 0, 59, (), 0),
    ("hour", 0, 23, (), 0),
    ("day of month", 1, 31, (), 0),
    ("month", 1, 12, _MONTHS, 1),
    ("day of week", 0, 7, _DAYS, 0),
)
_TERM: Final = re.compile(r"(\*|[0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?(?:/([0-9]{1,3}))?", re.ASCII)
_SHORT: Final = timedelta(seconds=1)
_LONGEST: Final = 200  # letters of an expression


class Cron:
    """A cron expression. Raises ValueError, with what is wrong, for one that has no clear meaning or never comes."""

    def __init__(self, expression: str, zone: tzinfo) -> None:
        self._expression = MACROS.get(expression.strip().lower(), expression.strip())
        self._zone = zone
        _check(self._expression)
        self._follows_clocks = self._expression.split()[1].startswith("*")
        try:
            _next_in_calendar(self._expression, datetime(2000, 1, 1))
        except (CronSimError, StopIteration):
            raise ValueError(f"{expression!r}: there is no such date") from None

    def next_after(self, moment: float) -> float:
        """The Unix time of the first run after ``moment``; inf: it is beyond all calendars."""
        try:
            if self._follows_clocks:
                return self._next_by_clocks(moment)
            return self._next_by_calendar(moment)
        except (StopIteration, OverflowError, ValueError):  # the year 10000
            return float("inf")

    def _next_by_calendar(self, moment: float) -> float:
        calendar = _calendar_at(moment, self._zone)
        while True:
            calendar = _next_in_calendar(self._expression, calendar)
            # Of two moments that are called so it is the first; where there is none, that at which the clocks went on.
            found = calendar.replace(tzinfo=self._zone).timestamp()
            if _calendar_at(found, self._zone) != calendar:
                found = self._change(calendar.replace(tzinfo=self._zone, fold=1).timestamp(), found)
            if found > moment:
                return found

    def _next_by_clocks(self, moment: float) -> float:
        start = moment
        while True:
            offset = _offset_at(start, self._zone)
            calendar = _next_in_calendar(self._expression, _calendar_at(start, self._zone))
            found = (calendar.replace(tzinfo=UTC) - offset).timestamp()
            gone = self._first_change(start, found)
            if not gone:
                return found
            # The clocks are changed before that: look again from there on, that moment included.
            if _matches(self._expression, _calendar_at(gone, self._zone)):
                return gone
            start = gone

    def _first_change(self, low: float, high: float) -> float:
        """The first moment after ``low`` and up to ``high`` at which the clocks are changed; 0 if there is none.

        Zones change their clocks for weeks at least, but for a few that no longer do, so days are looked at.
        """
        offset = _offset_at(low, self._zone)
        at = low
        while at < high:
            until = min(at + 86400.0, high)
            if _offset_at(until, self._zone) != offset:
                return self._change(at, until)
            at = until
        return 0.0

    def _change(self, low: float, high: float) -> float:
        """The moment between these two at which the clocks are changed, to the second."""
        offset = _offset_at(low, self._zone)
        before, after = int(low), int(high)
        while after - before > 1:
            middle = (before + after) // 2
            if _offset_at(middle, self._zone) == offset:
                before = middle
            else:
                after = middle
        return float(after)


def _calendar_at(moment: float, zone: tzinfo) -> datetime:
    """What the clocks of a zone show, without their zone."""
    return datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)


def _offset_at(moment: float, zone: tzinfo) -> timedelta:
    return datetime.fromtimestamp(moment, zone).utcoffset() or timedelta(0)


def _next_in_calendar(expression: str, calendar: datetime) -> datetime:
    """The first matching minute after this one, as if clocks were never changed. Raises StopIteration if none comes."""
    return next(CronSim(expression, calendar))


def _matches(expression: str, calendar: datetime) -> bool:
    return calendar.second == 0 and _next_in_calendar(expression, calendar - _SHORT) == calendar


def _check(expression: str) -> None:
    """Raise ValueError for what one cron takes and another refuses, or reads differently."""
    if len(expression) > _LONGEST:
        raise ValueError(f"a cron expression has {_LONGEST} letters at most")
    if expression.startswith("@"):
        raise ValueError(f"{expression!r} is not known: write one of {', '.join(MACROS)}, or five fields")
    words = expression.lower().split()
    if len(words) != len(_FIELDS):
        raise ValueError(
            f"{expression!r} has {len(words)} fields, and there must be five: minute, hour, day of month, month and "
            "day of week; for runs within a minute use every=10s"
        )
    for word, (what, low, high, names, first) in zip(words, _FIELDS, strict=True):
        for term in word.split(","):
            _check_term(term, f"the {what} {word!r}", low, high, names, first)


def _check_term(term: str, where: str, low: int, high: int, names: tuple[str, ...], first: int) -> None:
    for letter, meaning in (("#", "the nth such day of a month"), ("l", "the last day"), ("w", "the nearest weekday")):
        if letter in term and term not in names and not set(term) & set("-/"):
            raise ValueError(f"{where}: {letter.upper()} ({meaning}) is not taken, since crons disagree about it")
    match = _TERM.fullmatch(term)
    if match is None or (match[1] == "*" and match[2] is not None):
        raise ValueError(f"{where}: write *, a number, a range such as 1-5, a step such as */10, or more with commas")
    begin, end = low, high
    if match[1] != "*":
        begin = _number(match[1], where, low, high, names, first)
        end = begin if match[2] is None else _number(match[2], where, low, high, names, first)
    elif names == _DAYS:
        end = 6  # Sunday is there once
    if end < begin:
        raise ValueError(f"{where}: a range goes upwards; write two ranges with a comma, and 7 for a Sunday at the end")
    if match[3] is not None:
        if match[1] != "*" and match[2] is None:
            raise ValueError(f"{where}: a step needs a range, such as {begin}-{high}/{match[3]}")
        if not 1 <= int(match[3]) <= end - begin:
            raise ValueError(f"{where}: a step here is 1 to {end - begin}, since the range has no more to step over")


def _number(word: str, where: str, low: int, high: int, names: tuple[str, ...], first: int) -> int:
    if word in names:
        return names.index(word) + first
    if not word.isdigit() or not low <= int(word) <= high:
        also = f" or {names[0]} to {names[-1]}" if names else ""
        raise ValueError(f"{where}: {word!r} is not {low} to {high}{also}")
    return int(word)
