"""The points of a series: at each level the sums of the level below, whatever comes in whatever order."""

from __future__ import annotations

from array import array
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geartrain.jobserver.counters import SUM_COUNT, Counters
from geartrain.jobserver.histogram import Histogram
from geartrain.web.chart import percentiles
from geartrain.web.series import (
    FIRST_BUCKET,
    FIRST_GAUGE,
    GAUGES,
    LEVELS,
    NOTHING,
    SUMS,
    WIDTH,
    Block,
    Series,
    check,
    unpack,
)

START = 1_764_288_000  # a day begins here, and so does a block of each level

numbers = st.one_of(st.integers(0, 3), st.integers(0, 2**20), st.just(2**32))
changes = st.dictionaries(st.integers(0, FIRST_GAUGE - 1), numbers, max_size=5)
gauges = st.tuples(*[st.integers(0, 2**31)] * len(GAUGES))
looks = st.tuples(st.just("look"), st.one_of(st.just(1), st.integers(1, 700)), changes, gauges)
steps = st.one_of(looks, looks, looks, st.just(("flush",)), st.tuples(st.just("cut"), st.integers(1, 2000)))


def sums_of(change: dict[int, int]) -> list[int]:
    sums = list(NOTHING)
    for column, value in change.items():
        sums[column] = value
    return sums


def as_points(series: Series, number: int) -> dict[int, list[int]]:
    """All points of one level: rows by the second they begin at."""
    seconds, columns = series.points(number, 0, 2**40)
    return {
        second: [columns[column][at] if column in columns else 0 for column in range(WIDTH)]
        for at, second in enumerate(seconds)
    }


def summed_up(points: dict[int, list[int]], step: int) -> dict[int, list[int]]:
    """The same points as those of longer intervals, without any cleverness."""
    longer: dict[int, list[int]] = defaultdict(lambda: [0] * WIDTH)
    for second in sorted(points):
        row = longer[second - second % step]
        for column, value in enumerate(points[second]):
            row[column] = value if column >= FIRST_GAUGE else row[column] + value
    return dict(longer)


def test_a_point_has_room_for_what_counters_tell() -> None:
    assert len(Counters().sums) == SUM_COUNT == FIRST_GAUGE


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40))
def test_each_level_has_the_sums_of_the_one_below(history: list[Any]) -> None:
    series = Series()
    told: dict[int, list[int]] = {}
    now = START + 12345
    for step in history:
        if step[0] == "look":
            _, passed, change, values = step
            now += passed
            row = [min(value, 2**32 - 1) for value in (*sums_of(change), *values)]
            series.add(now, sums_of(change), values)
            told[now] = row
        elif step[0] == "flush":
            series.flush()
        else:
            now -= step[1]
            series.cut(now)
            told = {second: row for second, row in told.items() if second < now}
            now -= 1
    series.flush()
    assert as_points(series, 0) == told
    for number, level in enumerate(LEVELS):
        assert as_points(series, number) == summed_up(told, level.step)
        for packed in series.blocks[number].values():
            check(packed)


def test_gauges_go_on_where_nothing_has_changed_and_nothing_is_known_before_the_first_point() -> None:
    series = Series()
    series.add(START + 5, NOTHING, (1, 2, 3, 1, 0))
    series.add(START + 8, sums_of({0: 4}), (0, 2, 3, 1, 0))
    series.flush()
    _, found = series.window(0, START + 3, 8, [0, FIRST_GAUGE, FIRST_GAUGE + 2])
    assert found[0] == [0, 0, 0, 0, 0, 4, 0, 0]
    assert found[FIRST_GAUGE] == [None, None, 1, 1, 1, 0, 0, 0]
    assert found[FIRST_GAUGE + 2] == [None, None, 3, 3, 3, 3, 3, 3]
    _, later = series.window(0, START + 500, 2, [FIRST_GAUGE, FIRST_GAUGE + 1])
    assert later == {FIRST_GAUGE: [0, 0], FIRST_GAUGE + 1: [2, 2]}


def test_gauges_go_on_when_the_points_that_told_them_are_too_old_to_be_kept() -> None:
    series = Series()
    series.add(START, sums_of({0: 1}), (7, 0, 1, 0, 0))
    series.flush()
    series.expire(START + 60 + 900)
    assert not series.blocks[0]
    assert series.blocks[1]
    assert series.window(0, START + 300, 2, [FIRST_GAUGE])[1] == {FIRST_GAUGE: [7, 7]}


def test_each_level_is_kept_for_its_time_and_no_longer() -> None:
    series = Series()
    empty = series.bytes
    for second in range(START, START + 3 * 86400, 7):
        series.add(second, sums_of({0: 1, 1: 1, 2: 1}), (0, 0, 1, 0, 0))
        if second % 60 < 7:
            series.flush()
            series.expire(second)
    end = START + 3 * 86400
    for number, level in enumerate(LEVELS[:2]):
        oldest = min(series.blocks[number])
        assert end - level.kept - level.span - 60 <= oldest <= end - level.kept
    series.flush()
    series.expire(end + 31 * 86400)
    assert series.is_empty
    assert series.bytes == empty


def test_a_block_that_was_changed_is_refused() -> None:
    series = Series()
    series.add(START, sums_of({0: 300, 3: 70000}), (1, 2, 3, 1, 0))
    series.flush()
    packed = series.blocks[0][START]
    check(packed)
    for at in range(len(packed)):
        with pytest.raises(ValueError, match="check sum"):
            check(packed[:at] + bytes((packed[at] ^ 1,)) + packed[at + 1 :])
    for size in range(len(packed)):
        with pytest.raises(ValueError, match=r"check sum|too short"):
            check(packed[:size])
        with pytest.raises(ValueError, match=r"short|column|unpacked"):
            unpack(packed[:size], LEVELS[2].size)


@given(st.binary(max_size=200))
def test_what_is_no_block_can_not_be_unpacked(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"short|column|unpacked"):
        unpack(bytes(20) + data, 60)


def test_the_day_before_is_rounded_where_that_harms_no_percentile() -> None:
    series = Series()
    first = FIRST_BUCKET["waiting_time"]
    series.add(START + 10, sums_of({0: 1001, first: 1001, first + 1: 15, first + 2: 8191}), (1001, 0, 0, 0, 0))
    series.flush()
    series.add(START + 86400, NOTHING, (0, 0, 0, 0, 0))
    series.flush()
    row = as_points(series, 2)[START]
    assert row[0] == row[FIRST_GAUGE] == 1001
    assert row[first : first + 3] == [1024, 15, 8192]
    assert as_points(series, 1)[START + 10][first : first + 3] == [1001, 15, 8191]


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_rounded_count_is_within_a_sixteenth(count: int) -> None:
    block = Block(1)
    block.columns[len(SUMS)] = array("Q", [count])
    block.round()
    assert abs(block.columns[len(SUMS)][0] - count) <= count / 16
    before = block.columns[len(SUMS)]
    block.round()
    assert block.columns[len(SUMS)] == before


@given(st.lists(st.floats(0, 4000), max_size=50), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_that_of_the_histogram(times: list[float], share: float) -> None:
    histogram = Histogram()
    for time in times:
        histogram.add(time)
    buckets = [[0, count] for count in histogram.counts]
    assert percentiles(buckets, 2, share) == [None, histogram.quantile(share) if times else None]


def test_another_series_is_added_and_what_is_the_case_now_stays() -> None:
    series, other = Series(), Series()
    series.add(START + 1, sums_of({0: 1}), (5, 0, 0, 0, 0))
    other.add(START + 1, sums_of({0: 2}), (9, 9, 9, 9, 9))
    other.add(START + 3, sums_of({1: 4}), (9, 9, 9, 9, 9))
    for each in (series, other):
        each.flush()
    for number in range(len(LEVELS)):
        block = series.open_block(number, START)
        other.pour(number, START, block)
        series.close_block(number, START, block)
    points = as_points(series, 0)
    assert {second: (row[0], row[1], row[FIRST_GAUGE]) for second, row in points.items()} == {
        START + 1: (3, 0, 5),
        START + 3: (0, 4, 5),
    }
    assert as_points(series, 1) == summed_up(points, 10)
    assert as_points(series, 2) == summed_up(points, 300)
