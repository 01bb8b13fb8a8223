"""SUBMIT_JOB_SCHED: the next minute that matches, on the clocks of the time zone, in bounded time."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geartrain.jobserver.schedule import next_match

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [UTC, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/Havana"),
         ZoneInfo("Asia/Kolkata"), ZoneInfo("Pacific/Apia")]  # fmt: skip


def unix(text: str, zone: tzinfo, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def shown(moment: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(moment, zone).isoformat(" ", "minutes")


def scheduled(fields: str, after: str, zone: tzinfo = UTC, fold: int = 0) -> str:
    """What the five fields mean after this moment, on the clocks there, with the offset."""
    return shown(next_match([field.encode() for field in fields.split(" ")], unix(after, zone, fold), zone), zone)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("* * * * *", "2027-03-01 12:01+00:00"),
        ("    ", "2027-03-01 12:01+00:00"),
        ("0 * * * *", "2027-03-01 13:00+00:00"),
        ("30 12 * * *", "2027-03-01 12:30+00:00"),
        ("0 12 * * *", "2027-03-02 12:00+00:00"),
        ("59 23 31 12 *", "2027-12-31 23:59+00:00"),
        ("0 0 1 1 *", "2028-01-01 00:00+00:00"),
        ("0 0 * * 0", "2027-03-08 00:00+00:00"),  # Monday is 0; 2027-03-01 is one, but its midnight is over
        ("5 12 * * 0", "2027-03-01 12:05+00:00"),
        ("0 0 * * 6", "2027-03-07 00:00+00:00"),
        ("0 0 13 * 4", "2027-08-13 00:00+00:00"),  # the next Friday the 13th
        ("0 0 31 * *", "2027-03-31 00:00+00:00"),
        ("0 0 29 2 *", "2028-02-29 00:00+00:00"),
        ("0 0 29 2 5", "2048-02-29 00:00+00:00"),  # a leap day that is a Saturday
        ("00 07 09 * *", "2027-03-09 07:00+00:00"),
    ],
)
def test_the_next_minute_that_matches_all_fields(fields: str, expected: str) -> None:
    assert scheduled(fields, "2027-03-01 12:00:30") == expected


def test_the_minute_that_has_begun_is_over() -> None:
    assert scheduled("0 12 * * *", "2027-03-01 12:00:00") == "2027-03-02 12:00+00:00"
    assert scheduled("0 12 * * *", "2027-03-01 11:59:59.9") == "2027-03-01 12:00+00:00"


# ── summer time ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_minute_that_the_clocks_leave_out_is_not_that_day() -> None:
    """On 2027-03-28 in Berlin 02:00 is followed by 03:00."""
    assert scheduled("30 2 * * *", "2027-03-27 12:00", BERLIN) == "2027-03-29 02:30+02:00"
    assert scheduled("30 * * * *", "2027-03-28 01:45", BERLIN) == "2027-03-28 03:30+02:00"
    assert scheduled("* * * * *", "2027-03-28 01:59", BERLIN) == "2027-03-28 03:00+02:00"
    assert scheduled("0 3 28 3 *", "2027-03-27 12:00", BERLIN) == "2027-03-28 03:00+02:00"


def test_a_minute_that_comes_twice_is_meant_the_first_time() -> None:
    """On 2027-10-31 in Berlin 02:59 summer time is followed by 02:00 winter time."""
    assert scheduled("30 2 * * *", "2027-10-30 12:00", BERLIN) == "2027-10-31 02:30+02:00"


def test_the_second_time_is_the_next_one_once_the_first_is_over() -> None:
    assert scheduled("30 2 * * *", "2027-10-31 02:45", BERLIN) == "2027-10-31 02:30+01:00"
    assert scheduled("30 * * * *", "2027-10-31 02:45", BERLIN) == "2027-10-31 02:30+01:00"
    assert scheduled("* * * * *", "2027-10-31 02:59", BERLIN) == "2027-10-31 02:00+01:00"


def test_within_the_second_hour_nothing_is_in_the_past() -> None:
    assert scheduled("* * * * *", "2027-10-31 02:15", BERLIN, fold=1) == "2027-10-31 02:16+01:00"
    assert scheduled("30 * * * *", "2027-10-31 02:15", BERLIN, fold=1) == "2027-10-31 02:30+01:00"
    assert scheduled("10 2 * * *", "2027-10-31 02:15", BERLIN, fold=1) == "2027-11-01 02:10+01:00"


numbers = [st.integers(0, 59), st.integers(0, 23), st.integers(1, 31), st.integers(1, 12), st.integers(0, 6)]
some_fields = st.tuples(
    numbers[0] | st.none(), numbers[1] | st.none(), st.none() | st.integers(1, 28), st.none(), st.none() | numbers[4]
)


@given(some_fields, st.sampled_from(ZONES), st.integers(0, 86400 * 365 * 3), st.booleans())
def test_it_is_the_first_real_minute_that_matches(
    fields: tuple[int | None, ...], zone: tzinfo, offset: int, near_a_change: bool
) -> None:
    """Against a walk through every minute there is."""
    wall = unix("2027-01-01 00:00", UTC) + offset
    if near_a_change:
        change = unix("2027-10-31 02:00", BERLIN) if offset % 2 else unix("2027-03-28 01:00", BERLIN)
        wall = change + offset % 10_000 - 5000
    found = next_match([b"*" if field is None else b"%d" % field for field in fields], wall, zone)
    assert found > wall
    assert found % 60 == 0

    def matches(moment: float) -> bool:
        at = datetime.fromtimestamp(moment, zone)
        values = (at.minute, at.hour, at.day, at.month, at.weekday())
        return all(field in (None, value) for field, value in zip(fields, values, strict=True))

    assert matches(found)
    earlier = range(int(wall) // 60 * 60 + 60, min(int(found), int(wall) + 86400 * 2), 60)
    assert not any(map(matches, earlier))


# ── dates that never come ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("fields", "shown"), [("0 0 30 2 *", "day of month 30, month 2"), ("* * 31 4 3", "31")])
def test_a_date_that_never_comes_is_refused(fields: str, shown: str) -> None:
    with pytest.raises(ValueError, match=shown):
        scheduled(fields, "2027-03-01 12:00")


def test_every_weekday_of_a_leap_day_comes_whenever_one_asks() -> None:
    """2100 is no leap year, so that some combinations are forty years apart."""
    for year in range(2055, 2110):
        for weekday in range(7):
            found = scheduled(f"0 0 29 2 {weekday}", f"{year}-03-01 00:00")
            assert datetime.fromisoformat(found).weekday() == weekday


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ("60 * * * *", "The minute of a scheduled job must be 0 to 59 or '*', not '60'"),
        ("* 24 * * *", "The hour of a scheduled job must be 0 to 23 or '*', not '24'"),
        ("* * 0 * *", "The day of month of a scheduled job must be 1 to 31 or '*', not '0'"),
        ("* * * 13 *", "The month of a scheduled job must be 1 to 12 or '*', not '13'"),
        ("* * * * 7", "The day of week of a scheduled job must be 0 to 6 or '*', not '7'"),
        ("-1 * * * *", "not '-1'"),
        ("*/5 * * * *", "not '*/5'"),
        ("99999999999999999999999999 * * * *", "not '99999999999999999999'"),
        ("\N{SUPERSCRIPT TWO} * * * *", "not '\N{SUPERSCRIPT TWO}'"),
    ],
)
def test_a_field_that_is_no_such_number_is_told(fields: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        scheduled(fields, "2027-03-01 12:00")


@pytest.mark.parametrize("fields", ["0 0 30 2 *", "59 23 29 2 3", "30 2 * * *", "* * 31 * 6", "59 23 31 12 6"])
@pytest.mark.parametrize("zone", [UTC, BERLIN], ids=str)
def test_it_takes_a_moment_at_most(fields: str, zone: tzinfo) -> None:
    """Each such packet holds up everybody else."""
    began = time.thread_time()
    try:
        for month in range(1, 11):
            scheduled(fields, f"2027-{month:02}-28 12:00", zone)
    except ValueError:
        return
    finally:
        assert time.thread_time() - began < 10 * 0.02


def test_the_end_of_the_calendar_is_no_trouble() -> None:
    late = datetime(9998, 12, 31, 23, 59, tzinfo=UTC) - timedelta(days=1)
    with pytest.raises(ValueError, match="No date matches"):
        next_match([b"0", b"0", b"30", b"2", b"*"], late.timestamp(), UTC)
