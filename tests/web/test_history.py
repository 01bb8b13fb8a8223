"""The history of a job server in memory, with time as an argument: what is told, what is kept, how much it takes."""

from __future__ import annotations

import asyncio
import logging
import struct
import zlib
from collections.abc import Iterable
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_site import START, MemorySite

from geartrain.jobserver.records import Record
from geartrain.web.archive import KIND
from geartrain.web.history import OTHER
from geartrain.web.series import LEVELS, NAMES
from geartrain.wire.packets import CAN_DO, CANT_DO, GRAB_JOB, WORK_COMPLETE, WORK_FAIL

Values = list[float | None]


class Site(MemorySite):
    """One whose history is asked."""

    def told(self, *names: str, function: bytes | None = None, seconds: int = 900, points: int = 900) -> Any:
        answer = self.history.series(names, function, seconds, points)
        assert all(len(values) == len(answer["times"]) for values in answer["values"].values())
        return answer

    def last(self, name: str, count: int, function: bytes | None = None) -> Values:
        return cast(Values, self.told(name, function=function)["values"][name][-count:])


def total(values: Iterable[float | None]) -> float:
    return sum(value for value in values if value is not None)


# ── what is told ────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_second_tells_what_has_happened_in_it() -> None:
    site = Site()
    site.passes()
    site.submit(b"f", 3)
    site.submit(b"g", 2)
    site.passes()
    site.passes()
    site.work(b"f", 2)
    site.passes()
    site.work(b"f", 1, WORK_FAIL)
    site.passes()
    assert site.last("submitted", 5) == [0, 5, 0, 0, 0]
    assert site.last("submitted", 5, b"f") == [0, 3, 0, 0, 0]
    assert site.last("started", 5, b"f") == [0, 0, 0, 2, 1]
    assert site.last("completed", 5, b"f") == [0, 0, 0, 2, 0]
    assert site.last("failed", 5) == [0, 0, 0, 0, 1]
    assert site.last("waiting", 5, b"f") == [None, 3, 3, 1, 0]
    assert site.last("waiting", 5) == [0, 5, 5, 3, 2]
    assert site.last("workers", 5) == [0, 0, 0, 1, 1]
    answer = site.told("submitted")
    assert answer["step"] == 1
    assert answer["times"][-1] == site.wall - 1
    assert answer["values"]["submitted"][:-5] == [None] * 895


def test_workers_that_are_busy_are_counted_once_for_each_function_and_once_in_all() -> None:
    site = Site()
    site.passes()
    for name in (b"f", b"g"):
        site.send("both", CAN_DO, name)
        site.submit(name)
    site.send("other", CAN_DO, b"f")
    site.passes()
    site.send("both", GRAB_JOB)
    site.send("both", GRAB_JOB)
    site.passes()
    site.submit(b"f")
    site.send("other", GRAB_JOB)
    site.passes()
    site.leave("both")
    site.passes()
    assert site.last("busy", 5, b"f") == [None, 0, 1, 2, 1]
    assert site.last("busy", 5, b"g") == [None, 0, 1, 1, 0]
    assert site.last("busy", 5) == [0, 0, 1, 2, 1]
    assert site.last("workers", 5) == [0, 2, 2, 2, 1]


def test_the_oldest_waiting_job_grows_older_without_a_point() -> None:
    site = Site()
    site.passes()
    site.submit(b"f")
    site.passes()
    site.submit(b"f")
    site.submit(b"g")
    site.passes(2)
    before = site.history.bytes
    for _ in range(5):
        site.passes()
    assert site.history.bytes < before + 5 * 300  # those of the whole job server
    assert site.last("oldest", 9, b"f") == [None, 1, None, 3, 4, 5, 6, 7, 8]
    assert site.last("oldest", 7, b"g") == [None, 2, 3, 4, 5, 6, 7]
    assert site.last("oldest", 6) == [3, 4, 5, 6, 7, 8]
    site.work(b"f")
    site.passes()
    assert site.last("oldest", 1, b"f") == [8]
    site.work(b"f")
    site.work(b"g")
    site.passes(0.75)
    began = int(site.wall) + 1
    site.submit(b"g")
    site.passes(0.5)
    assert site.last("oldest", 1) == [0]
    assert site.last("oldest", 1, b"g") == [0]
    for _ in range(120):
        site.passes()
    minutes = site.told("oldest", function=b"g", seconds=6 * 3600, points=360)
    assert minutes["values"]["oldest"][-1] == minutes["times"][-1] + 60 - began > 0


def test_percentiles_are_those_of_all_jobs_of_an_interval() -> None:
    site = Site()
    site.passes()
    site.submit(b"f", 100)
    site.passes(4)
    site.work(b"f", 99)
    site.passes()
    site.passes()
    site.passes(20)
    site.work(b"f", 1)
    site.passes()
    assert site.last("waiting_time_p50", 23)[:2] == [pytest.approx(3.75), None]  # 4 s, between 2.5 s and 5 s
    assert site.last("waiting_time_p99", 1) == [pytest.approx(29.8)]  # 26 s, between 10 s and 30 s
    assert site.last("running_time_p50", 1) == [pytest.approx(0.0005)]
    site.passes(3600)
    hour = site.told("waiting_time_p50", "waiting_time_p99", "started", seconds=6 * 3600, points=6)
    assert hour["step"] == 3600
    assert hour["values"]["started"][-1:] == [100]


def test_a_heat_map_has_the_jobs_of_each_interval_by_how_long_they_ran() -> None:
    site = Site()
    site.passes()
    site.submit(b"f", 5)
    site.submit(b"g", 1)
    site.work(b"f", 2)
    site.work(b"g", 1)
    site.send("f", GRAB_JOB)
    handle = site.take("f")[12:].split(b"\0")[0]
    site.passes(4)
    site.send("f", WORK_COMPLETE, handle, b"")
    site.passes()
    heat = site.history.heat("running_time", b"f", 900, 900)
    assert (heat["step"], heat["times"][-1]) == (1, site.wall - 1)
    assert heat["counts"][:-6] == [None] * 894
    assert [bucket_counts(counts) for counts in heat["counts"][-6:]] == [{}, None, None, None, {0: 2}, {11: 1}]
    whole = site.history.heat("running_time", None, 900, 900)["counts"]
    assert bucket_counts(whole[-2]) == {0: 3}
    minutes = site.history.heat("running_time", b"f", 900, 15, until=int(site.wall) // 60 * 60 + 60)
    assert minutes["step"] == 60
    assert bucket_counts(minutes["counts"][-1]) == {0: 2, 11: 1}
    assert bucket_counts(site.history.heat("waiting_time", b"f", 900, 900)["counts"][-2]) == {0: 3}
    assert site.history.heat("running_time", b"unknown", 900, 900)["counts"][-1] == [0] * 18


def bucket_counts(counts: list[int] | None) -> dict[int, int] | None:
    return None if counts is None else {place: count for place, count in enumerate(counts) if count}


def test_the_level_follows_from_the_span_and_the_points_from_the_level() -> None:
    site = Site()
    for _ in range(120):
        site.submit(b"f")
        site.passes(10)
    for seconds, points, step in ((900, 900, 1), (900, 90, 10), (901, 900, 10), (21600, 360, 60), (21601, 9999, 300),
                                  (30 * 86400, 720, 3600), (60 * 86400, 30, 86400)):  # fmt: skip
        answer = site.told("submitted", seconds=seconds, points=points)
        assert answer["step"] == step
        assert len(answer["times"]) <= points
        assert all(time % step == 0 for time in answer["times"])
        assert answer["times"] == [] or answer["times"][-1] + step <= site.wall
    assert site.told("submitted", seconds=6 * 3600, points=36)["values"]["submitted"][-2:] == [60, 60]


def test_a_function_that_is_not_known_has_done_nothing() -> None:
    site = Site()
    site.passes()
    assert site.last("submitted", 2, b"none") == [None, 0]
    assert not site.history.knows(b"none")
    with pytest.raises(KeyError):
        site.told("sumbitted")


def test_a_function_that_is_idle_takes_no_points_but_its_workers_are_told() -> None:
    site = Site()
    site.passes()
    before = site.history.bytes
    site.send("worker", CAN_DO, b"f")
    for _ in range(3):
        site.passes()
    assert site.history.bytes < before + 4 * 300  # those of the whole job server
    assert site.last("workers", 4, b"f") == [None, 1, 1, 1]
    site.send("worker", CANT_DO, b"f")
    site.passes()
    assert site.last("workers", 5, b"f") == [None, 1, 1, 1, 0]


def test_a_function_that_was_forgotten_and_has_come_back_counts_from_nothing() -> None:
    site = Site(forget_after=100)
    site.passes()
    site.submit(b"f", 5)
    site.work(b"f", 5)
    site.passes()
    site.leave("f")
    site.passes()
    for _ in range(12):
        site.passes(10)
    assert b"f" not in site.server.functions
    site.submit(b"f", 2)
    site.passes()
    assert site.last("submitted", 1, b"f") == [2]
    assert total(site.told("submitted", function=b"f")["values"]["submitted"]) == 7
    assert total(site.told("submitted")["values"]["submitted"]) == 7
    assert site.last("workers", 1, b"f") == [0]


def test_what_happens_between_two_looks_to_a_function_that_is_forgotten_counts_for_the_whole() -> None:
    site = Site(max_functions=1)
    site.passes()
    for number in range(5):
        site.submit(b"f%d" % number)
        site.work(b"f%d" % number)
        site.leave(f"f{number}")
    site.passes()
    assert site.last("submitted", 1) == [5]
    assert site.last("completed", 1) == [5]
    site.submit(b"f5", 2)
    site.passes()
    assert site.last("submitted", 1) == [2]


# ── clocks and pauses ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_pause_of_the_process_is_a_gap() -> None:
    site = Site()
    site.passes()
    site.submit(b"f")
    site.passes(6)
    assert site.last("submitted", 7) == [0, None, None, None, None, None, 1]
    assert site.last("waiting", 7) == [0, None, None, None, None, None, 1]


def test_a_clock_that_is_set_forwards_by_days_leaves_a_gap() -> None:
    site = Site()
    for _ in range(30):
        site.submit(b"f")
        site.passes()
    site.passes(3 * 86400)
    site.submit(b"f")
    site.passes()
    assert site.last("submitted", 3) == [None, 0, 1]
    days = site.told("submitted", seconds=4 * 86400, points=4 * 288)
    assert total(days["values"]["submitted"]) == 30
    assert sum(value is not None for value in days["values"]["submitted"]) == 1


def test_a_clock_that_is_set_back_drops_what_it_told_of_the_time_to_come() -> None:
    site = Site()
    site.passes()
    for _ in range(99):
        site.submit(b"f")
        site.passes()
    site.passes(-50)
    for _ in range(9):
        site.submit(b"f", 2)
        site.passes()
    assert site.last("submitted", 12, b"f") == [1, 1, 0, *[2] * 9]
    assert total(site.told("submitted", seconds=6 * 3600, points=2160)["values"]["submitted"]) == 48


def test_a_gauge_that_is_the_same_for_longer_than_anything_is_kept_is_told() -> None:
    site = Site()
    site.passes()
    site.submit(b"f")
    site.passes()
    site.passes(40 * 86400)
    for _ in range(120):
        site.passes()
    assert site.last("waiting", 121, b"f") == [1] * 121
    site.submit(b"f")
    site.passes()
    assert site.last("waiting", 122, b"f") == [1] * 121 + [2]
    for _ in range(70):
        site.passes()
    assert site.last("waiting", 192, b"f") == [1] * 121 + [2] * 71


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"f", b"g"]),
            st.integers(0, 3),
            st.integers(0, 3),
            st.one_of(st.just(1.0), st.floats(0.01, 5.0), st.sampled_from([90.0, 4000.0, 3e6, -0.5, -30.0, -90000.0])),
        ),
        max_size=40,
    )
)
def test_whatever_the_clock_does_no_point_is_negative_or_more_than_has_happened(history: list[Any]) -> None:
    site = Site(at=START + 86400)
    site.passes()
    began = site.monotonic()
    done = dict.fromkeys((b"f", b"g"), 0)
    for function, submitted, worked, seconds in history:
        site.submit(function, submitted)
        site.work(function, worked)
        done[function] += submitted
        site.passes(seconds)
    passed = site.monotonic() - began
    for function in (b"f", b"g", None):
        most = sum(done.values()) if function is None else done[function]
        for level in LEVELS:
            answer = site.told(*NAMES, function=function, seconds=level.kept, points=900)
            for name, values in answer["values"].items():
                largest = passed + answer["step"] if name == "oldest" else max(most, 1800)
                assert all(value is None or 0 <= value <= largest for value in values), name
            assert total(answer["values"]["submitted"]) <= most
    for name in ("submitted", "started", "completed", "waiting"):
        for seconds in (900, 6 * 3600):
            of_both = [site.told(name, function=each, seconds=seconds)["values"][name] for each in (b"f", b"g")]
            whole = site.told(name, seconds=seconds)["values"][name]
            for all_of_them, *each in zip(whole, *of_both, strict=True):
                assert all_of_them is None or all_of_them == total(each)


# ── what is kept ────────────────────────────────────────────────────────────────────────────────────────────────


def answers(site: Site) -> list[Any]:
    return [
        site.told(*NAMES, function=function, seconds=level.kept, points=1000)
        for function in (b"f", b"g", None)
        for level in LEVELS
    ]


def busy_hours(site: Site, hours: float) -> None:
    for at in range(int(hours * 360)):
        site.submit(b"f", 2)
        site.work(b"f", 2 - at % 2)
        if at % 100 == 0:
            site.submit(b"g")
        site.passes(10)


def test_all_of_it_outlives_a_regular_stop() -> None:
    site = Site(durable=True)
    busy_hours(site, 1.4)
    for _ in range(20):
        site.submit(b"g")
        site.passes()
    site.stop()
    before = answers(site)
    site.begin()
    assert answers(site) == before
    site.passes(5)
    assert site.last("submitted", 7) == [1, 1, 0, None, None, None, 0]
    assert site.last("workers", 7) == [1, 1, 1, None, None, None, 0]
    assert site.last("workers", 1, b"f") == [0]


def test_a_crash_costs_half_an_hour_at_most() -> None:
    site = Site(durable=True)
    busy_hours(site, 3.4)
    site.commit()
    site.begin()
    site.passes()
    for seconds in (6 * 3600, 30 * 86400):
        answer = site.told("submitted", seconds=seconds, points=10_000)
        at = dict(zip(answer["times"], answer["values"]["submitted"], strict=True))
        known = [time for time in at if START <= time < site.wall - 1860]
        assert known
        assert all(at[time] is not None for time in known)
    assert len(site.records) < 40


def test_memory_has_a_block_once() -> None:
    site = Site(durable=True)
    busy_hours(site, 1)
    records = {id(record.value) for record in site.server.kept_of(KIND)}
    series = site.history._whole.series
    assert series is not None
    complete = [packed for start, packed in series.blocks[1].items() if start + 1800 <= site.wall - 60]
    assert complete
    assert all(id(packed) in records for packed in complete)


def test_records_go_when_their_time_has_come() -> None:
    site = Site(durable=True)
    busy_hours(site, 1)
    assert any(record.value for record in site.server.kept_of(KIND))
    site.passes(32 * 86400)
    for _ in range(70):
        site.passes(60)
    f = [record for record in site.server.kept_of(KIND) if record.key.endswith(b" ff")]
    assert f == []


def test_what_can_not_be_read_is_left_out_with_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(durable=True)
    busy_hours(site, 1)
    site.stop()
    site.begin()
    kept = [name for name, record in site.records.items() if record.value and name[1].startswith(b"10 ")]
    damaged = site.records[kept[0]]
    assert damaged.value is not None
    site.records[kept[0]] = Record(KIND, kept[0][1], damaged.value[:-1] + b"!", damaged.expires)
    before = struct.pack("<I", 7) + damaged.value[8:]  # of a version whose points had other columns
    site.records[kept[1]] = Record(KIND, kept[1][1], struct.pack("<I", zlib.crc32(before)) + before, damaged.expires)
    for key in (b"10 x ff", b"11 0 ff", b"10 7 ff", b"300 0 what", b"1 0 ff", b"", b"10 0"):
        site.records[KIND, key] = Record(KIND, key, b"\0" * 40)
    with caplog.at_level(logging.ERROR):
        site.begin()
    assert sum(record.message == "history_unreadable" for record in caplog.records) == 9
    assert len(site.server.kept_of(KIND)) == len(site.records) - 9
    site.commit()
    site.passes()
    assert total(site.told("submitted", function=b"f", seconds=30 * 86400)["values"]["submitted"]) > 0


def test_without_a_store_nothing_is_kept() -> None:
    site = Site()
    busy_hours(site, 1)
    for _ in site.history.save_all():
        pass
    assert site.server.kept_of(KIND) == []


def test_a_store_that_takes_nothing_gets_it_later() -> None:
    site = Site(durable=True)
    site.server.store.trouble = "it is down"
    busy_hours(site, 1)
    assert site.server.kept_of(KIND) == []
    site.server.back()
    for _ in range(70):
        site.passes()
    assert len(site.server.kept_of(KIND)) >= 3


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────────────


def a_while(site: Site, busy: int, quiet: int, seconds: int) -> None:
    """Functions of which some have jobs in each second, and the others in turn."""
    for second in range(seconds):
        for number in range(busy):
            site.submit(b"busy%d" % number, 3)
        site.submit(b"quiet%d" % (second % quiet))
        site.passes()


def test_beyond_its_limit_those_with_the_least_traffic_are_folded() -> None:
    site = Site(most=110_000, durable=True)
    site.passes()
    for _ in range(10):
        a_while(site, 3, 200, 50)
        assert site.history.bytes < 120_000
    names = [*(b"busy%d" % number for number in range(3)), *(b"quiet%d" % number for number in range(200))]
    folded = {name for name in names if site.history.is_folded(name)}
    assert not folded & set(names[:3])
    assert len(folded) > 10
    assert site.history.knows(OTHER)
    for name in ("submitted", "waiting"):
        of_each = [site.told(name, function=function)["values"][name] for function in (*names, OTHER)]
        whole = site.told(name)["values"][name]
        if name == "submitted":
            assert [total(each) for each in zip(*of_each, strict=True)] == [total([value]) for value in whole]
        assert total([each[-1] for each in of_each]) == whole[-1]
    ages = [site.last("oldest", 1, function)[0] or 0 for function in (*names, OTHER)]
    assert site.last("oldest", 1) == [max(ages)]
    assert site.last("oldest", 1, OTHER) != [0]
    assert site.told("submitted", function=min(folded))["values"]["submitted"] == [None] * 900
    assert site.history.heat("running_time", min(folded), 900, 900)["counts"] == [None] * 900
    kept = {record.key.split(b" ", 2)[2].removeprefix(b"f") for record in site.server.kept_of(KIND)}
    assert not kept & folded


def test_a_folded_function_that_becomes_busy_has_a_series_of_its_own_again() -> None:
    site = Site(most=120_000)
    site.passes()
    a_while(site, 1, 150, 400)
    folded = next(b"quiet%d" % number for number in range(150) if site.history.is_folded(b"quiet%d" % number))
    for _ in range(90):
        site.submit(folded, 20)
        site.passes()
    assert not site.history.is_folded(folded)
    assert site.last("submitted", 1, folded) == [20]


def test_looking_at_many_functions_leaves_the_loop_its_turns() -> None:
    """Between two turns no more than a hundred functions are looked at, or one series is packed."""
    site = Site(max_functions=5000)
    for number in range(2000):
        site.send("worker", CAN_DO, b"f%d" % number)
    turns = sum(1 for _ in site.history.look(int(site.wall)))
    assert turns >= 20


def test_it_runs_by_itself_and_keeps_all_when_the_daemon_leaves() -> None:
    async def life() -> None:
        site = Site(durable=True)
        site.loop = asyncio.get_running_loop()
        site.history.start()
        site.history.leave()
        assert not site.history.is_drained
        for _ in range(1000):
            await asyncio.sleep(0)
        assert site.history.is_drained
        site.history.stop()
        assert site.server.kept_of(KIND)

    asyncio.run(life())
