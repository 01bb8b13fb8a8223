"""Which runs are made when, in time that is only told: years, clocks that are set, runs that were missed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cronsim")

from geartrain.daemon.planner import LATE, MOST_MISSED, Planned, Planner, Run
from geartrain.daemon.schedule import Schedule, merge, read_keys, read_schedule, read_words, run_name

BEGIN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
DAY = 86400.0


def schedule(name: str = "test", **keys: str) -> Schedule:
    return read_schedule(name.encode(), read_keys({"function": "f", **keys}), UTC)


class World:
    """A planner, the time, and the runs that were made."""

    def __init__(self, now: float = BEGIN) -> None:
        self.planner = Planner()
        self.now = now
        self.made: list[float] = []

    def put(self, of: Schedule, last: float | None = None) -> Planned:
        return self.planner.put(of, self.now if last is None else last, self.now)

    def go_on(self, until: float) -> None:
        """Let time pass, and make each run when it is due."""
        while 0 < (at := self.planner.next_at()) <= until:
            self.now = max(self.now, at)
            self.look()
        self.now = until

    def look(self) -> None:
        while (run := self.planner.due(self.now)) is not None:
            self.make(run)

    def make(self, run: Run) -> None:
        if run.is_made:
            self.made.append(run.time)
        self.planner.done(run, 1)


def test_a_year_of_runs() -> None:
    world = World()
    world.put(schedule(cron="30 2 * * *", zone="Europe/Berlin"))
    world.go_on(BEGIN + 365 * DAY)
    assert len(world.made) == 365
    shown = {f"{datetime.fromtimestamp(at, ZoneInfo('Europe/Berlin')):%H:%M}" for at in world.made}
    assert shown == {"02:30", "03:00"}


@pytest.mark.parametrize(("zone", "day", "runs"), [
    ("Europe/Berlin", "2026-03-29", 92),
    ("Europe/Berlin", "2026-10-25", 100),
    ("America/New_York", "2026-03-08", 92),
    ("America/New_York", "2026-11-01", 100),
    ("Australia/Lord_Howe", "2026-10-04", 94),
    ("Australia/Lord_Howe", "2026-04-05", 98),
])  # fmt: skip
def test_the_nights_in_which_clocks_are_changed(zone: str, day: str, runs: int) -> None:
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    for keys, count in (({"cron": "*/15 * * * *"}, runs), ({"cron": "30 2 * * *"}, 1), ({"every": "15m"}, runs)):
        world = World(begin.timestamp() - 1)
        world.put(schedule(zone=zone, **keys))
        world.go_on(begin.replace(hour=23, minute=59).timestamp())
        assert len(world.made) == count
        assert len({run_name(run) for run in world.made}) == count


def test_intervals_are_counted_from_1970() -> None:
    world = World(BEGIN + 0.05)
    world.put(schedule(every="0.2s"))
    world.go_on(BEGIN + 1)
    assert world.made == [BEGIN + n / 5 for n in range(1, 6)]
    assert schedule(every="7d").next_after(0.0) == 7 * DAY
    assert run_name(schedule(every="100ms").next_after(BEGIN + 0.25)) == "2026-01-01T00:00:00.300Z"


@pytest.mark.parametrize("keys", [{"every": "1m"}, {"cron": "* * * * *"}])
def test_runs_missed_while_the_server_was_down(keys: Mapping[str, str]) -> None:
    made = {}
    for missed in ("none", "one", "all"):
        world = World()
        world.put(schedule(**keys, missed=missed), last=BEGIN - 600)
        world.look()
        made[missed] = [at - BEGIN for at in world.made]
    assert made == {"none": [], "one": [0.0], "all": [-540.0 + 60 * n for n in range(10)]}


@pytest.mark.parametrize("keys", [{"every": "1m"}, {"cron": "* * * * *"}, {"cron": "* 2,3,4 * * *"}])
def test_very_many_missed_runs_are_bounded(keys: Mapping[str, str]) -> None:
    for missed, most in (("none", 0), ("one", 1), ("all", MOST_MISSED)):
        world = World(BEGIN + 4 * 3600)
        world.put(schedule(**keys, missed=missed), last=BEGIN - 300 * DAY)
        world.look()
        assert world.made == sorted(set(world.made))
        assert most // 3 <= len(world.made) <= most
        if most:
            assert world.made[-1] == world.now


def test_a_run_that_was_missed_is_told() -> None:
    world = World()
    planned = world.put(schedule(every="1m", missed="one"), last=BEGIN - 600)
    run = world.planner.due(BEGIN)
    assert run is not None
    assert (run.planned, run.time, run.skipped) == (planned, BEGIN, (BEGIN - 540, BEGIN))
    assert world.planner.due(BEGIN) is None  # one after the other


def test_a_little_late_is_not_missed() -> None:
    world = World()
    world.put(schedule(every="1s", missed="none"))
    world.now += 10.5
    world.look()
    assert world.made == [BEGIN + n for n in range(1, 11)]
    world.now += LATE + 100
    world.look()
    assert world.made[10:] == []
    world.now += 1
    world.look()
    assert len(world.made) == 11


def test_a_clock_that_is_set_repeats_no_run() -> None:
    world = World()
    world.put(schedule(every="1m", missed="all"))
    for moment in (0, 60, 120, -3600, 0, 60, 120, 180, 100, 7380, 180, 7380, 7440):
        world.now = BEGIN + moment
        world.look()
    assert world.made == [BEGIN + 60 * n for n in range(1, 125)]


def test_a_refused_run_is_tried_again() -> None:
    world = World()
    world.put(schedule(every="10s", missed="none"))
    world.now += 10
    tries = []
    for _ in range(12):
        run = world.planner.due(world.now)
        assert run is not None
        assert (run.time, run.is_made) == (BEGIN + 10, True)
        world.planner.refused(run, world.now)
        assert world.planner.due(world.now) is None
        tries.append(world.planner.next_at() - world.now)
        world.now = world.planner.next_at()
    assert tries == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
    world.look()
    late = [at for at in world.made if at > BEGIN + 10]
    assert world.made[0] == BEGIN + 10
    assert all(world.now - at <= LATE for at in late)  # what came due meanwhile was missed
    world.go_on(world.now + 30)
    assert len(world.made) == len(late) + 4


def test_pause_and_resume() -> None:
    world = World()
    planned = world.put(schedule(every="10s", missed="all"))
    world.go_on(BEGIN + 20)
    world.planner.pause(planned)
    assert world.planner.next_at() == 0
    world.now += 100
    world.look()
    world.planner.resume(planned, world.now)
    world.go_on(BEGIN + 140)
    assert world.made == [BEGIN + n for n in (10, 20, 130, 140)]


def test_jitter_follows_from_name_and_run() -> None:
    one, other = schedule("one", every="1m", jitter="30s"), schedule("other", every="1m", jitter="30s")
    delays = [one.delay(BEGIN + 60 * n) for n in range(1000)]
    assert delays == [schedule("one", every="1m", jitter="30s").delay(BEGIN + 60 * n) for n in range(1000)]
    assert delays != [other.delay(BEGIN + 60 * n) for n in range(1000)]
    assert 0 <= min(delays) < 1
    assert 29 < max(delays) < 30
    world = World()
    world.put(one)
    made: list[float] = []
    while len(made) < 100:
        world.now = world.planner.next_at()
        run = world.planner.due(world.now)
        assert run is not None
        made.append(run.time)
        assert world.now == run.time + one.delay(run.time)
        world.planner.done(run)
    assert made == [BEGIN + 60 * n for n in range(1, 101)]


def test_a_run_within_its_jitter_at_a_restart_is_not_missed() -> None:
    of = schedule(every="1h", jitter="1h", missed="none")
    at = BEGIN + 3600 + of.delay(BEGIN + 3600)
    world = World(at - 1)
    world.put(of, last=BEGIN)
    world.go_on(at + 1)
    assert world.made == [BEGIN + 3600]


def test_ten_thousand_schedules_cost_a_heap() -> None:
    world = World()
    for number in range(10_000):
        world.put(schedule(str(number), every="1h", jitter="1h"))
    looked = 0
    world.go_on(BEGIN + 3600)
    for _ in range(10_000):
        world.planner.next_at()
        looked += world.planner.due(world.now) is None
    assert looked == 10_000
    world.go_on(BEGIN + 7200)
    assert len(world.made) == 10_000


def test_changes_leave_nothing_behind() -> None:
    world = World()
    for _ in range(3):
        world.put(schedule(every="10s"))
    planned = world.put(schedule(every="1m"))
    world.planner.change(planned, schedule(every="1m", priority="high"))
    world.go_on(BEGIN + 60)
    assert world.made == [BEGIN + 60]
    run = world.planner.due(BEGIN + 120)
    assert run is not None
    world.planner.remove(b"test")
    world.planner.done(run)
    assert world.planner.next_at() == 0
    assert world.planner.coming(world.put(schedule(cron="0 0 1 1 *")), 5) == [
        datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in range(2027, 2032)
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from(["wait", "set", "restart", "refuse", "pause"]), st.integers(-7200, 7200)), max_size=40
    ),
    st.sampled_from([{"every": "1m"}, {"every": "7m", "jitter": "5m"}, {"cron": "*/5 * * * *"}]),
    st.sampled_from(["none", "one", "all"]),
)
@settings(max_examples=200, deadline=None)
def test_no_run_is_made_twice_whatever_happens(steps: list[tuple[str, int]], keys: dict[str, str], missed: str) -> None:
    world = World()
    of = schedule(**keys, missed=missed)
    planned = world.put(of)
    for step, by in steps:
        if step == "wait":
            world.go_on(world.now + abs(by))
        elif step == "set":
            world.now += by
            world.look()
        elif step == "restart":
            world.planner = Planner()
            world.now += abs(by)
            planned = world.put(of, planned.last)
            world.look()
        elif step == "pause":
            world.planner.pause(planned)
            world.now += abs(by)
            world.planner.resume(planned, world.now)
        elif (run := world.planner.due(world.now + abs(by))) is not None:
            world.now += abs(by)
            world.planner.refused(run, world.now)
    assert world.made == sorted(set(world.made))
    assert len({of.unique(run, 64) for run in world.made}) == len(world.made)


# ── what a schedule says ────────────────────────────────────────────────────────────────────────────────────────


def test_words_are_read_and_written() -> None:
    words = [b"cron=30%202%20*%20*%20*", b"function=f%20g", b"workload=%00%ff%0a", b"missed=none", b"jitter=5m"]
    read = read_schedule(b"n", read_words(words), ZoneInfo("Europe/Berlin"))
    assert (read.function, read.workload, read.missed, read.jitter) == (b"f g", b"\0\xff\n", "none", 300.0)
    assert read.zone_name == "Europe/Berlin"
    again = read_schedule(b"n", read_words(read.words.encode().split()), ZoneInfo("Europe/Berlin"))
    assert again.given == read.given


@given(st.dictionaries(st.sampled_from(["function", "workload"]), st.binary(min_size=1), min_size=2))
def test_any_bytes_are_written_as_one_word(values: dict[str, bytes]) -> None:
    read = read_schedule(b"n", {**values, "every": b"1s"}, UTC)
    assert read_words(read.words.encode().split()) == read.given
    assert read.words.isprintable()


def test_keys_are_merged() -> None:
    before = {"cron": b"@daily", "function": b"f", "priority": b"high"}
    assert merge({"every": b"5m"}, before) == {"every": b"5m", "function": b"f", "priority": b"high"}
    assert merge({"priority": b""}, before) == {"cron": b"@daily", "function": b"f"}
    assert merge({"every": b"5m"}, {}) == {"every": b"5m"}


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "write either cron= or every="),
        ({"cron": "@daily", "every": "5m"}, "write either cron= or every="),
        ({"every": "5m", "function": ""}, "function= is missing"),
        ({"every": "soon"}, "every=soon: write a time such as"),
        ({"every": "0"}, "every=0: it is 100ms to 3650d"),
        ({"every": "99ms"}, "it is 100ms to 3650d"),
        ({"every": "100.5ms"}, "every=100.5ms: whole milliseconds"),
        ({"every": "4000d"}, "it is 100ms to 3650d"),
        ({"every": "5m", "jitter": "6m"}, "jitter=6m: it is at most as long as every=5m"),
        ({"cron": "*/90 * * * *"}, "cron: the minute '*/90'"),
        ({"every": "5m", "priority": "urgent"}, "priority=urgent: it is one of high, normal, low"),
        ({"every": "5m", "missed": "some"}, "missed=some: it is one of none, one, all"),
        ({"every": "5m", "overlap": "no"}, "overlap=no: it is one of allow, skip"),
        ({"cron": "@daily", "zone": "Berlin"}, "zone=Berlin: no such time zone is known here"),
        ({"cron": "@daily", "zone": "../../etc/passwd"}, "no such time zone is known here"),
        ({"every": "5m", "speed": "9"}, "'speed' is no key: write cron, every"),
    ],
)
def test_bad_values_are_named(keys: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        schedule(**keys)
    assert told in str(refused.value)


def test_names_have_a_form() -> None:
    for name in ("", "a b", "a\nb", "a\0", "x" * 129):
        with pytest.raises(ValueError, match="a schedule's name"):
            schedule(name, every="1m")
    with pytest.raises(ValueError, match="'nonsense': write key=value"):
        read_words([b"nonsense"])


def test_missing_zone_data_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import zoneinfo

    monkeypatch.setattr("importlib.resources.open_binary", _nothing)
    monkeypatch.setattr("importlib.resources.files", _nothing)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        with pytest.raises(ValueError, match="no time zone data: install the package tzdata, or pip install tzdata"):
            schedule(cron="@daily", zone="Europe/Berlin")
    finally:
        zoneinfo.reset_tzpath(to=before)


def _nothing(*_: object, **__: object) -> None:
    raise FileNotFoundError


def test_the_unique_of_a_run_has_a_limit() -> None:
    at = datetime(2026, 11, 28, 6, 30, tzinfo=UTC).timestamp()
    assert schedule("nightly", every="1m").unique(at, 64) == b"schedule:nightly:2026-11-28T06:30:00Z"
    long = [schedule("x" * 127 + end, every="1m").unique(at, 64) for end in "ab"]
    assert all(len(unique) == 64 and unique.endswith(b":2026-11-28T06:30:00Z") for unique in long)
    assert long[0] != long[1]
    for longest in (10, 41, 42, 43, 63):
        short = {schedule("x" * 127 + end, every="1m").unique(at + when, longest) for end in "ab" for when in (0, 60)}
        assert len(short) == 4
        assert {len(unique) for unique in short} == {longest}
