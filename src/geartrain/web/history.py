"""What has happened over time, for each function and for the whole job server, without any other service.

Once a second the counters of all functions are looked at, and what has been added to them is a point of their
``series``. A function whose counters have not moved and whose gauges are the same costs a look and no point.

**Time** is the time of day, in whole seconds. Nothing is counted while this process stands still, so a look that comes
late tells of the last second before it, and the seconds that had none are a gap. If the clock has been set back, what
it has told of the time to come is dropped.

**Memory** is bounded: beyond ``most`` bytes the functions that have had the fewest jobs of late are folded into one,
``(other)``. What was counted for them is added to its sums; its gauges are theirs from then on. One that has had more
jobs since than others that are not folded begins a series of its own.

**Over a restart** the ``archive`` keeps it; a crash costs half an hour at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from operator import add, sub
from typing import TYPE_CHECKING, Any, Final

from geartrain.jobserver.snapshot import NO_GAUGES, Gauges, Look, Seen, gauges_of, moved_of, sum_up
from geartrain.web.archive import FUNCTION, WHOLE, Archive, is_late
from geartrain.web.archive import OTHER as FOLDED
from geartrain.web.chart import ages, columns_of, last_known, longer, of_known, percentiles, share_of
from geartrain.web.series import (
    BUCKETS,
    FIRST_BUCKET,
    FIRST_GAUGE,
    GAUGES,
    LEVELS,
    NOTHING,
    SUMS,
    WIDTH,
    Block,
    Series,
)
from geartrain.web.turns import in_turns

if TYPE_CHECKING:
    from geartrain.daemon.daemon import Clock
    from geartrain.daemon.extension import Host
    from geartrain.jobserver.model import Function

log: Final = logging.getLogger("geartrain.web")

OTHER: Final = b"(other)"

_PAGE: Final = 100  # functions
_NEWEST: Final = 10  # seconds of which the sums are at hand
_ROUND: Final = 60  # seconds in which each series is seen to once
_SAID_EVERY: Final = 3600  # seconds between lines in the log about functions that are folded
_AFTER: Final = 0.02  # seconds behind a whole one at which it is looked at, so that no timer comes before it
_ENOUGH: Final = 0.9  # of the memory that may be had: folding goes on until then
_ROOM: Final = 0.75  # of it: below this a folded function gets its own series again
_FADING: Final = 0.98  # what is left of a function's traffic after a round


class Track(Seen):
    """What is known of one function's numbers: as they were seen last, and its series once it has one."""

    __slots__ = ("key", "series", "since")

    def __init__(self, key: bytes) -> None:
        super().__init__()
        self.key = key  # in the names of records
        self.since = 0  # from which second on the gauges are these, while there is no series
        self.series: Series | None = None


class History:
    """The series of all functions of one job server, and its own."""

    def __init__(self, host: Host, most: int, *, clock: Clock = time) -> None:
        self._host = host
        self._server = host.server
        self._most = most
        self._clock = clock
        self._archive = Archive(host)
        self.bytes = 0  # that all series take
        self._tracks: dict[bytes, Track] = {}
        self._whole = Track(WHOLE)
        self._other = Track(FOLDED)
        self._whole.series = self._new_series()
        self._other.series = self._new_series()
        self._folded = 0  # functions that the job server knows
        self._parted = 0  # tracks of functions that it knows no more
        self._said = 0  # at which second the log was told last that functions were folded
        self._least = 0.0  # the traffic up to which they were folded last
        self._last = 0  # the second that was looked at last
        self._looks = 0
        self._newest: deque[tuple[int, list[int]]] = deque(maxlen=_NEWEST)  # seconds, and what happened in them
        self.counted = 0  # all that has happened since it began
        self._forgotten = self._forgotten_sums()
        # Answers about all functions together by what was asked: of which seconds they are true, and what was told.
        self.told: dict[tuple[str | int, ...], tuple[int, int, bytes]] = {}
        self._round: list[Track] = []
        self._round_at = 0
        self._rounds = 0
        self._task: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Take up what was kept, and look once a second from now on."""
        self.begin()
        self._task = self._host.loop.create_task(self._run())

    def leave(self) -> None:
        """The daemon begins to stop: keep all of it. ``is_drained`` says when that has been done."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._leaving = self._host.loop.create_task(self._save_all())

    @property
    def is_drained(self) -> bool:
        """Whether nothing is left to be kept that is to be kept on leaving."""
        return self._leaving is None or self._leaving.done()

    def stop(self) -> None:
        """The daemon stops."""
        for task in (self._task, self._leaving):
            if task is not None:
                task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(1 + _AFTER - self._clock.time() % 1)
            try:
                await in_turns(self.look(int(self._clock.time()) - 1))
            except Exception:  # the next second may be better, and the job server is to go on in any case
                log.exception("extension_failed", extra={"fields": {"extension": "History", "method": "look"}})

    # ── looking ─────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self, second: int) -> Iterator[None]:
        """See what has happened in a second that has just ended; a generator, which may be left alone for a moment."""
        if second == self._last:
            return
        if second < self._last:
            yield from self._go_back(second)
        is_first = not self._looks
        self._last = second
        self._looks += 1
        folded = list(NOTHING)  # what those have counted that have been folded
        folded_gauges = self._other.gauges
        gone: list[Sequence[int]] = []  # what had been counted for functions that are known no more
        tracks, roll = self._tracks, self._server.function_roll
        self._host.open_iteration()  # so that the job server knows the time
        look = Look(self._server, tracks, self._looks)
        behind, until = 0, roll.last_place
        while page := roll.page(behind, until, _PAGE):
            behind = page[-1].place
            for function in look.strangers(page):
                self._meet(function, second, gone)
            for track, has_counted, row, before in look.changes(page):
                if track.folded and has_counted:
                    folded = list(map(add, folded, row[:FIRST_GAUGE]))
                self._note(track, second, has_counted, row, before)
            yield
        if is_first or look.found + self._parted < len(tracks):
            yield from self._part(second, gone)
        self._count_forgotten(look.sums, gone)
        self.counted += sum(look.sums[: len(SUMS)])
        self._newest.append((second, list(look.sums)))
        server = self._server
        self._whole.gauges = (*self._whole.gauges[:2], int(server.workers), int(server.busy), look.oldest)
        self._other.gauges = (*self._other.gauges[:-1], look.folded_oldest)
        self._add(self._whole, second, look.sums, self._whole.gauges)
        if any(folded) or self._other.gauges != folded_gauges:
            self._add(self._other, second, folded, self._other.gauges)
        yield from self._see_to(second)
        if self.bytes > self._most:
            yield from self._fold(second)

    def _meet(self, function: Function, second: int, gone: list[Sequence[int]]) -> None:
        """There is a function that was not there before, once something has happened to it."""
        track = self._tracks.get(function.name)
        if track is None:
            if not moved_of(function) and gauges_of(self._server, function) == NO_GAUGES:
                return
            track = self._tracks[function.name] = Track(FUNCTION + function.name)
            track.since = second
        elif track.place:
            gone.append(track.sums)
        else:
            self._parted -= 1
        track.begin(function.place)

    def _note(self, track: Track, second: int, has_counted: bool, row: list[int], before: Gauges | None) -> None:
        """A function has another point, with other gauges than before; None: with the same."""
        if before is not None:
            self._whole.gauges = _adjusted(self._whole.gauges, before, track.gauges)
            if track.folded:
                self._other.gauges = _adjusted(self._other.gauges, before, track.gauges)
        if track.folded:
            return
        if track.series is None:
            if not has_counted and track.since == second:
                return  # what has been met just now may stay as it is for long, and then costs nothing
            track.series = self._new_series()
            if track.since < second:
                self._add(track, track.since, NOTHING, track.gauges if before is None else before)
        self.bytes += track.series.add_row(second, row)

    def _add(self, track: Track, second: int, sums: Sequence[int], gauges: Sequence[int]) -> None:
        series = track.series
        assert series is not None
        before = series.bytes
        series.add(second, sums, gauges)
        self.bytes += series.bytes - before

    def _part(self, second: int, gone: list[Sequence[int]]) -> Iterator[None]:
        """Part with functions that the job server does not know any more; what was told of them stays."""
        parted = 0
        for at, (name, track) in enumerate(list(self._tracks.items())):
            if track.look != self._looks:
                if track.place:
                    gone.append(track.sums)
                    track.begin(0)
                before = track.gauges
                if before != NO_GAUGES:
                    track.gauges = NO_GAUGES
                    self._note(track, second, False, [0] * WIDTH, before)
                if track.series is None:
                    self._folded -= track.folded
                    track.folded = False
                    del self._tracks[name]
                else:
                    parted += 1
            if at % _PAGE == _PAGE - 1:
                yield
        self._parted = parted

    def _count_forgotten(self, counted: list[int], gone: list[Sequence[int]]) -> None:
        """Count what has happened to functions between the last look and their end, for the whole job server alone."""
        forgotten = self._forgotten_sums()
        if forgotten == self._forgotten:
            return
        rest = list(map(sub, forgotten, self._forgotten))
        for sums in gone:
            rest = list(map(sub, rest, sums))
        self._forgotten = forgotten
        counted[:] = [before + max(more, 0) for before, more in zip(counted, rest, strict=True)]

    def _forgotten_sums(self) -> list[int]:
        return sum_up(*self._server.forgotten)

    def _go_back(self, second: int) -> Iterator[None]:
        """The clock has been set back: drop all that it has told of the time from then on."""
        self.told.clear()
        for track in (self._whole, self._other, *self._tracks.values()):
            series = track.series
            if series is not None:
                starts = [(number, start) for number in range(len(LEVELS)) for start in series.blocks[number]]
                before = series.bytes
                series.cut(second)
                self.bytes += series.bytes - before
                for number, start in starts:
                    if start not in series.blocks[number]:
                        self._archive.forget(track.key, number, start)
                if series.gauges_before(0, second) != track.gauges:
                    self._add(track, second, NOTHING, track.gauges)  # they are what they are
            track.since = min(track.since, second)
            yield

    # ── seeing to what there is ─────────────────────────────────────────────────────────────────────────────────

    def _new_series(self) -> Series:
        series = Series()
        self.bytes += series.bytes
        return series

    def _see_to(self, second: int) -> Iterator[None]:
        """Pack, drop and keep what has its time, a share of all in each second."""
        if self._round_at >= len(self._round):
            self._round = [self._whole, self._other, *self._tracks.values()]
            self._round_at = 0
            self._rounds += 1
        share = -(-len(self._round) // _ROUND)
        for at, track in enumerate(self._round[self._round_at : self._round_at + share], self._round_at):
            track.traffic *= _FADING
            if track.folded:
                if self.bytes < _ROOM * self._most or track.traffic > 2 * self._least + 1:
                    self._unfold(track, second)
            elif track.series is not None:
                before = track.series.bytes
                if is_late(track.series, second) or (self._rounds + at) % track.series.patience == 0:
                    track.series.flush()
                track.series.expire(second)
                self.bytes += track.series.bytes - before
                self._archive.save(track.key, track.series, second)
                if track.series.is_empty and track is not self._whole and track is not self._other:
                    self._end(track)
                yield
        self._round_at += share
        if self._round_at >= len(self._round):
            self._round = []

    def _end(self, track: Track) -> None:
        """A function has no points any more."""
        assert track.series is not None
        self.bytes -= track.series.bytes
        track.series = None
        track.since = 0  # longer than anything is kept
        if not track.place:
            self._parted -= 1
            del self._tracks[track.key.removeprefix(FUNCTION)]

    # ── folding ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _fold(self, second: int) -> Iterator[None]:
        """Fold the functions with the least traffic, until there is room."""
        # How many bytes those have that have had up to 1, 2, 4 and so on jobs: to find who has few without sorting.
        taken: dict[int, int] = {}
        tracks = list(self._tracks.values())
        for at, track in enumerate(tracks):
            if track.series is not None:
                power = int(track.traffic).bit_length()
                taken[power] = taken.get(power, 0) + track.series.bytes
            if at % (10 * _PAGE) == 0:
                yield
        spare = self.bytes - _ENOUGH * self._most
        most = 0
        for power in sorted(taken):
            most = power
            spare -= taken[power]
            if spare <= 0:
                break
        self._least = float(1 << most >> 1)
        other = self._other.series
        assert other is not None
        self._flush(other)
        blocks: dict[tuple[int, int], Block] = {}  # of the other one, while they are open
        folded = 0
        try:
            for track in tracks:
                if self.bytes <= _ENOUGH * self._most:
                    break
                if track.series is not None and int(track.traffic).bit_length() <= most:
                    folded += 1
                    self._fold_one(track, track.series, blocks)
                    yield
            while blocks:
                self._close_one(blocks)
                yield
        finally:  # also where this is broken off
            while blocks:
                self._close_one(blocks)
        self._add(self._other, second, NOTHING, self._other.gauges)
        if folded and second >= self._said + _SAID_EVERY:
            self._said = second
            log.warning("history_folded", extra={"fields": {"functions": self._folded, "limit": self._most}})

    def _fold_one(self, track: Track, series: Series, blocks: dict[tuple[int, int], Block]) -> None:
        self._flush(series)
        other = self._other.series
        assert other is not None
        for number, of_level in enumerate(series.blocks):
            for start in of_level:
                block = blocks.get((number, start))
                if block is None:
                    block = blocks[number, start] = other.open_block(number, start)
                series.pour(number, start, block)
                self._archive.forget(track.key, number, start)
        self.bytes -= series.bytes
        track.series = None
        if track.place:
            track.folded = True
            self._folded += 1
            self._other.gauges = _adjusted(self._other.gauges, NO_GAUGES, track.gauges)
        else:
            self._parted -= 1
            del self._tracks[track.key.removeprefix(FUNCTION)]

    def _close_one(self, blocks: dict[tuple[int, int], Block]) -> None:
        other = self._other.series
        assert other is not None
        (number, start), block = blocks.popitem()
        before = other.bytes
        other.close_block(number, start, block)
        self.bytes += other.bytes - before

    def _flush(self, series: Series) -> None:
        before = series.bytes
        series.flush()
        self.bytes += series.bytes - before

    def _unfold(self, track: Track, second: int) -> None:
        """Let a function have its own series again."""
        self._other.gauges = _adjusted(self._other.gauges, track.gauges, NO_GAUGES)
        self._add(self._other, second, NOTHING, self._other.gauges)
        self._folded -= 1
        track.folded = False
        track.since = second

    # ── what is kept ────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Take up what was kept; what happens from now on is counted."""
        tracks = {WHOLE: self._whole, FOLDED: self._other}
        for key, number, pieces in self._archive.load():
            track = tracks.get(key)
            if track is None:
                track = tracks[key] = self._tracks[key.removeprefix(FUNCTION)] = Track(key)
            if track.series is None:
                track.series = self._new_series()
            before = track.series.bytes
            for start, packed in pieces:
                track.series.hold(number, start, packed)
            self.bytes += track.series.bytes - before
        for track in self._tracks.values():
            assert track.series is not None
            track.gauges = track.series.last_gauges
            self._whole.gauges = _adjusted(self._whole.gauges, NO_GAUGES, track.gauges)
        self._parted = len(self._tracks)
        assert self._whole.series is not None
        self._last = self._whole.series.last_second
        for function in self._server.functions.values():
            if moved_of(function):
                track = self._tracks.setdefault(function.name, Track(FUNCTION + function.name))
                track.catch_up(function)
                self._parted -= track.series is not None

    def save_all(self) -> Iterator[None]:
        """Keep everything, also what is not complete."""
        if self._server.durable:
            for track in (self._whole, self._other, *self._tracks.values()):
                if track.series is not None:
                    track.series.flush()
                    track.series.expire(self._last)
                    self._archive.save_all(track.key, track.series)
                    yield

    async def _save_all(self) -> None:
        """Keep everything, since the job server stops."""
        try:
            await in_turns(self.look(int(self._clock.time())))
            await in_turns(self.save_all())
        finally:
            self._host.open_iteration()  # at its end the daemon asks whether all is done

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────

    def knows(self, function: bytes) -> bool:
        """Whether there is anything to tell of a function."""
        is_other = function == OTHER and self._folded > 0
        return is_other or function in self._tracks or function in self._server.functions

    def is_folded(self, function: bytes) -> bool:
        """Whether a function has no series of its own at the moment."""
        track = self._tracks.get(function)
        return track is not None and track.folded

    @property
    def until(self) -> int:
        """The second up to which it is known what has happened."""
        return (self._last or int(self._clock.time()) - 1) + 1

    def rates(self, seconds: int) -> dict[str, float]:
        """How often a second each of ``SUMS`` has happened, on average over the last so many seconds (10 at most)."""
        found = [sums for second, sums in self._newest if second > self._last - seconds]
        return {name: sum(sums[at] for sums in found) / seconds for at, name in enumerate(SUMS)}

    def series(
        self, names: Sequence[str], function: bytes | None, seconds: int, points: int, until: int = 0
    ) -> dict[str, Any]:
        """What has happened in the last so many seconds, in so many intervals at most, all of the same length.

        ``names`` are those of ``series.NAMES``; ``function`` None: all functions together. The finest level that is
        kept for so long tells it; the last interval is one that is complete. An answer has ``step``, the seconds of an
        interval, ``times``, the Unix times at which they begin, and ``values`` by name; None: nothing is known, or
        there was no job whose time would be a percentile. ``until``: not in the seconds up to now, but up to this one.
        """
        number, every, step, first, count = self._intervals(seconds, points, until)
        track = self._track(function)
        columns = {name: columns_of(name) for name in names}
        needed = sorted({column for of_name in columns.values() for column in of_name})
        found = self._window(track, number, first, count * every, needed)
        sums = {column: longer(found[column], every) for column in found if column < FIRST_GAUGE}
        known = self._known(number, first, count * every)
        values: dict[str, list[float | None]] = {}
        for name in names:
            if track is not None and track.folded:
                values[name] = [None] * count
            elif name in SUMS:
                values[name] = of_known(sums.get(columns[name][0], [0] * count), known, every)
            elif name in GAUGES:
                gauge = last_known(found[columns[name][0]], known, every)
                values[name] = ages(gauge, first, step) if name == "oldest" else gauge
            else:
                buckets = [sums.get(column) for column in columns[name]]
                values[name] = percentiles(buckets, count, share_of(name))
        return {"step": step, "times": [first + at * step for at in range(count)], "values": values}

    def heat(self, time: str, function: bytes | None, seconds: int, points: int, until: int = 0) -> dict[str, Any]:
        """How many jobs have had which of ``series.TIMES``, by the buckets of a histogram.

        As ``series``, but for ``counts``: for each interval a number for each bucket; None: nothing is known.
        """
        number, every, step, first, count = self._intervals(seconds, points, until)
        track = self._track(function)
        columns = range(FIRST_BUCKET[time], FIRST_BUCKET[time] + BUCKETS)
        found = self._window(track, number, first, count * every, columns)
        none = [0] * count
        rows = zip(*[longer(found[column], every) if column in found else none for column in columns], strict=True)
        known = self._known(number, first, count * every)
        is_folded = track is not None and track.folded
        counts = [
            list(row) if any(known[at * every : (at + 1) * every]) and not is_folded else None
            for at, row in enumerate(rows)
        ]
        return {"step": step, "times": [first + at * step for at in range(count)], "counts": counts}

    def _intervals(self, seconds: int, points: int, until: int) -> tuple[int, int, int, int, int]:
        """The level that tells of so many seconds, and how many of its intervals are one of the answer.

        Of these the seconds, when the first one begins, and how many there are.
        """
        number = next((at for at, level in enumerate(LEVELS) if seconds <= level.kept), len(LEVELS) - 1)
        level = LEVELS[number]
        seconds = min(seconds, level.kept)
        every = max(-(-seconds // (level.step * max(points, 1))), 1)
        step = level.step * every
        count = seconds // step
        return number, every, step, (until or self.until) // step * step - count * step, count

    def _track(self, function: bytes | None) -> Track | None:
        if function is None:
            return self._whole
        return self._tracks.get(function, self._other if function == OTHER else None)

    def _window(
        self, track: Track | None, number: int, first: int, count: int, columns: Sequence[int]
    ) -> dict[int, list[int | None]]:
        if track is not None and track.series is not None:
            self._flush(track.series)
            return track.series.window(number, first, count, columns)[1]
        found: dict[int, list[int | None]] = {}
        for column in columns:
            if column >= FIRST_GAUGE:
                since = first if track is None else track.since
                unknown = min(max(-(-(since - first) // LEVELS[number].step), 0), count)
                gauge = 0 if track is None else track.gauges[column - FIRST_GAUGE]
                found[column] = [*[None] * unknown, *[gauge] * (count - unknown)]
        return found

    def _known(self, number: int, first: int, count: int) -> bytearray:
        """In which intervals somebody has looked."""
        whole = self._whole.series
        assert whole is not None
        self._flush(whole)
        return whole.window(number, first, count, ())[0]


def _adjusted(together: Gauges, before: Gauges, now: Gauges) -> Gauges:
    """Gauges of several functions, after one of these has others than before; each look finds out the oldest anew."""
    waiting, running, workers, busy, _ = map(sub, map(add, together, now), before)
    return waiting, running, workers, busy, together[-1]
