"""Cron expressions: what is refused, which minutes match, and the two nights in which clocks are changed."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("cronsim")

from geartrain.daemon.cron import Cron

BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"
LORD_HOWE = "Australia/Lord_Howe"  # by half an hour: 02:00 is 02:30 in spring, 02:00 is 01:30 in autumn
SPRING = {BERLIN: "2026-03-29", NEW_YORK: "2026-03-08", LORD_HOWE: "2026-10-04"}
AUTUMN = {BERLIN: "2026-10-25", NEW_YORK: "2026-11-01", LORD_HOWE: "2026-04-05"}


def runs(expression: str, zone: str, day: str) -> list[str]:
    """The times of a day's runs on the clocks there; a second run at the same time has a star."""
    found: list[str] = []
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    end = (begin + timedelta(days=1)).timestamp()
    cron = Cron(expression, ZoneInfo(zone))
    at = cron.next_after(begin.timestamp() - 1)
    while at < end:
        shown = datetime.fromtimestamp(at, ZoneInfo(zone))
        found.append(f"{shown:%H:%M}" + "*" * shown.fold)
        at = cron.next_after(at)
    return found


def hours(step: int, *left_out: int) -> list[str]:
    return [f"{hour:02}:00" for hour in range(0, 24, step) if hour not in left_out]


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
def test_the_nights_of_an_hour(zone: str) -> None:
    spring, autumn = SPRING[zone], AUTUMN[zone]
    twice = "02" if zone == BERLIN else "01"
    assert runs("30 2 * * *", zone, spring) == ["03:00"]
    assert runs("*/15 2 * * *", zone, spring) == ["03:00"]
    assert runs("30 2,3 * * *", zone, spring) == ["03:00", "03:30"]
    assert runs("0 2,3 * * *", zone, spring) == ["03:00"]
    assert runs("0 */2 * * *", zone, spring) == hours(2, 2)
    assert runs("0 * * * *", zone, spring) == hours(1, 2)
    assert len(runs("*/15 * * * *", zone, spring)) == 92
    assert runs(f"30 {twice} * * *", zone, autumn) == [f"{twice}:30"]
    assert runs(f"*/15 {twice} * * *", zone, autumn) == [f"{twice}:{minute}" for minute in ("00", "15", "30", "45")]
    assert len(runs("0 0-23 * * *", zone, autumn)) == 24
    assert len(runs("0 * * * *", zone, autumn)) == 25
    assert len(runs("*/15 * * * *", zone, autumn)) == 100


def test_every_second_hour_in_autumn() -> None:
    assert runs("0 */2 * * *", BERLIN, AUTUMN[BERLIN]) == ["00:00", "02:00", "02:00*", *hours(2)[2:]]
    assert runs("0 */2 * * *", NEW_YORK, AUTUMN[NEW_YORK]) == hours(2)  # 01:00 is the hour that comes twice there


def test_the_nights_of_half_an_hour() -> None:
    assert runs("15 2 * * *", LORD_HOWE, SPRING[LORD_HOWE]) == ["02:30"]
    assert runs("*/15 2 * * *", LORD_HOWE, SPRING[LORD_HOWE]) == ["02:30", "02:45"]
    assert runs("15 * * * *", LORD_HOWE, SPRING[LORD_HOWE])[:4] == ["00:15", "01:15", "03:15", "04:15"]
    assert len(runs("*/15 * * * *", LORD_HOWE, SPRING[LORD_HOWE])) == 94
    assert runs("45 1 * * *", LORD_HOWE, AUTUMN[LORD_HOWE]) == ["01:45"]
    assert runs("45 */1 * * *", LORD_HOWE, AUTUMN[LORD_HOWE])[:4] == ["00:45", "01:45", "01:45*", "02:45"]
    assert len(runs("*/15 * * * *", LORD_HOWE, AUTUMN[LORD_HOWE])) == 98


def test_a_fixed_hour_runs_every_day_of_many_years() -> None:
    for zone in (BERLIN, NEW_YORK, LORD_HOWE):
        cron = Cron("30 2 * * *", ZoneInfo(zone))
        at = datetime(2020, 1, 1, tzinfo=ZoneInfo(zone)).timestamp()
        days = []
        while (at := cron.next_after(at)) < datetime(2031, 1, 1, tzinfo=ZoneInfo(zone)).timestamp():
            days.append(datetime.fromtimestamp(at, ZoneInfo(zone)).date())
        assert len(days) == len(set(days)) == (days[-1] - days[0]).days + 1


def test_the_day_of_month_and_the_weekday() -> None:
    """Both must match if one of them begins with a star; else one is enough."""

    def first(expression: str) -> list[int]:
        cron = Cron(expression, UTC)
        at = datetime(2026, 1, 1, tzinfo=UTC).timestamp() - 1
        return [datetime.fromtimestamp(at := cron.next_after(at), UTC).day for _ in range(4)]

    assert first("0 0 13 * *") == [13, 13, 13, 13]
    assert first("0 0 * * 1") == [5, 12, 19, 26]
    assert first("0 0 13 * 1") == [5, 12, 13, 19]
    assert first("0 0 */2 * 1") == [5, 19, 9, 23]
    assert first("0 0 * * 7") == first("0 0 * * 0") == first("0 0 * * sun") == [4, 11, 18, 25]
    assert first("0 0 * * Mon-Fri") == [1, 2, 5, 6]
    assert first("0 0 * * 5-7") == [2, 3, 4, 9]


@pytest.mark.parametrize(
    ("macro", "times"),
    [("@hourly", "0 * * * *"), ("@daily", "0 0 * * *"), ("@weekly", "0 0 * * 0"), ("@monthly", "0 0 1 * *"),
     ("@yearly", "0 0 1 1 *"), (" @Daily ", "0 0 * * *")],
)  # fmt: skip
def test_short_names(macro: str, times: str) -> None:
    now = 1_790_000_000.0
    assert Cron(macro, ZoneInfo(BERLIN)).next_after(now) == Cron(times, ZoneInfo(BERLIN)).next_after(now)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * *", "6 fields, and there must be five: minute, hour, day of month, month and day of week"),
        ("@reboot", "write one of @hourly"),
        ("*/90 * * * *", "the minute '*/90': a step here is 1 to 59"),
        ("* */24 * * *", "the hour '*/24': a step here is 1 to 23"),
        ("* * */31 * *", "a step here is 1 to 30"),
        ("* * * */12 *", "a step here is 1 to 11"),
        ("* * * * */7", "a step here is 1 to 6"),
        ("*/0 * * * *", "a step here is 1 to 59"),
        ("1-5/5 * * * *", "a step here is 1 to 4"),
        ("5/15 * * * *", "a step needs a range, such as 5-59/15"),
        ("* 22-2 * * *", "the hour '22-2': a range goes upwards"),
        ("* * * * fri-sun", "a range goes upwards"),
        ("* * * nov-feb *", "a range goes upwards"),
        ("* * * * 5#2", "# (the nth such day of a month) is not taken"),
        ("* * * * fri#2", "# (the nth such day of a month) is not taken"),
        ("* * L * *", "L (the last day) is not taken"),
        ("* * * * 5L", "L (the last day) is not taken"),
        ("* * LW * *", "L (the last day) is not taken"),
        ("* * 15W * *", "W (the nearest weekday) is not taken"),
        ("? * * * *", "write *, a number"),
        ("* * ? * *", "write *, a number"),
        ("*-5 * * * *", "write *, a number"),
        ("1,,2 * * * *", "write *, a number"),
        ("-1 * * * *", "write *, a number"),
        ("60 * * * *", "'60' is not 0 to 59"),
        ("* 24 * * *", "'24' is not 0 to 23"),
        ("* * 0 * *", "'0' is not 1 to 31"),
        ("* * * 13 *", "'13' is not 1 to 12 or jan to dec"),
        ("* * * foo *", "'foo' is not 1 to 12 or jan to dec"),
        ("* * * * 8", "'8' is not 0 to 7 or sun to sat"),
        ("\u0661 * * * *", "write *, a number"),
        ("0 0 30 2 *", "there is no such date"),
        ("0 0 31 4,6,9,11 *", "there is no such date"),
        ("0 0 31 2 */2", "there is no such date"),
        ("1," * 100 + "1 * * * *", "200 letters at most"),
    ],
)
def test_what_has_no_clear_meaning_is_refused(expression: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        Cron(expression, UTC)


def test_the_leap_day_is_waited_for() -> None:
    cron = Cron("0 0 29 2 *", UTC)
    at = datetime(2024, 3, 1, tzinfo=UTC).timestamp()
    assert datetime.fromtimestamp(cron.next_after(at), UTC).year == 2028


def test_the_end_of_the_calendar_is_no_error() -> None:
    for expression in ("0 0 1 1 *", "* * * * *", "0 0 29 2 *"):
        assert Cron(expression, UTC).next_after(datetime(9999, 12, 31, 23, 59, tzinfo=UTC).timestamp()) == math.inf
        assert Cron(expression, ZoneInfo(BERLIN)).next_after(3e11) == math.inf


def _fields() -> st.SearchStrategy[tuple[str, str]]:
    minute = st.sampled_from(["*", "*/15", "*/7", "0", "30", "0,59", "10-20", "1-59/2"])
    hour = st.sampled_from(["*", "*/2", "*/3", "2", "1-3", "0-23", "1,2", "0-23/2"])
    return st.tuples(minute, hour)


def _numbers(field: str, high: int) -> set[int]:
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        low, _, end = span.replace("*", f"0-{high}").partition("-")
        found.update(range(int(low), int(end or low) + 1, int(step or 1)))
    return found


@given(
    _fields(),
    st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, "UTC", "Pacific/Apia", "Asia/Kathmandu"]),
    st.sampled_from([*SPRING.values(), *AUTUMN.values(), "2011-12-30", "2026-06-01"]),
    st.integers(-120, 26 * 60),
)
@example(("*", "2"), "Pacific/Apia", "2011-12-30", 0)  # a day that was left out there
@settings(max_examples=200, deadline=None)
def test_it_is_what_looking_at_each_minute_finds(fields: tuple[str, str], zone: str, day: str, start: int) -> None:
    minutes, at_hours = _numbers(fields[0], 59), _numbers(fields[1], 23)
    clocks = ZoneInfo(zone)
    cron = Cron(f"{fields[0]} {fields[1]} * * *", clocks)
    begin = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) - 86400
    wanted = []
    before = datetime.fromtimestamp(begin - 60, clocks).replace(tzinfo=None, fold=0)
    latest = before
    for moment in range(begin, begin + 4 * 86400, 60):
        shown = datetime.fromtimestamp(moment, clocks).replace(tzinfo=None, fold=0)
        if fields[1].startswith("*"):
            is_run = shown.minute in minutes and shown.hour in at_hours
        else:  # each minute of the calendar once, when the clocks first show it or a later one
            passed = max(int((shown - latest).total_seconds() // 60), 0)
            new = [latest + timedelta(minutes=count + 1) for count in range(passed)]
            is_run = any(one.minute in minutes and one.hour in at_hours for one in new)
            latest = max(latest, shown)
        if is_run:
            wanted.append(float(moment))
    at = float(begin + (1440 + start) * 60)
    for due in [one for one in wanted if one > at][:30]:
        assert cron.next_after(at) == due
        assert cron.next_after(due - 0.5) == due
        at = due
