"""Numbers over time, of one function or of the whole job server, at three levels of detail and in little memory.

A *point* is what is told of one interval: *sums*, which add up (how many jobs were submitted, started and so on, and
how many of those that started had waited, and of those that ended had run, for how long, by the buckets of a
histogram), and *gauges*, the values at its end (how many jobs wait and run, how many workers there are and are busy,
and since when the job has waited that has waited longest: a time, which stays the same while that job waits).

    level           interval   kept for
    1 s             1 s        15 minutes
    10 s            10 s       6 hours
    5 min           300 s      30 days

**A coarser level is made from the finer one**, and is as true: sums and buckets add up, so that a percentile is that of
all jobs of the interval, and not one of percentiles; a gauge is the last one.

**There is a point only where something has changed.** Where there is none nothing has happened, and gauges are what
they were before; so what is idle costs nothing. Where nobody has looked, and nothing is known, the series of the whole
job server has no point: that one has one in each second.

**In memory** points stand in blocks, packed: column by column, those that are not all zero, in as few bytes a number as
will do, compressed. The seconds since the last ``flush`` stand as they came, and are packed together.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import add
from typing import Final

from geartrain.jobserver.histogram import BOUNDS
from geartrain.jobserver.snapshot import NO_GAUGES, Gauges

SUMS: Final = ("submitted", "started", "completed", "failed", "retried", "dead")
TIMES: Final = ("waiting_time", "running_time")
GAUGES: Final = ("waiting", "running", "workers", "busy", "oldest")
PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
NAMES: Final = (*SUMS, *GAUGES, *(f"{time}_{percentile}" for time in TIMES for percentile in PERCENTILES))

# The columns of a point.
BUCKETS: Final = len(BOUNDS) + 1
FIRST_BUCKET: Final = {time: len(SUMS) + BUCKETS * at for at, time in enumerate(TIMES)}
FIRST_GAUGE: Final = len(SUMS) + BUCKETS * len(TIMES)
WIDTH: Final = FIRST_GAUGE + len(GAUGES)
NOTHING: Final = (0,) * FIRST_GAUGE
_GAUGE_COLUMNS: Final = frozenset(range(FIRST_GAUGE, WIDTH))

LARGEST: Final = 2**32 - 1

# A block: its check sum, what its columns mean, and its last gauges, which are asked for most.
_HEAD: Final = struct.Struct(f"<II{len(GAUGES)}I")
_FORMAT: Final = zlib.crc32(repr((1, SUMS, TIMES, BOUNDS, GAUGES)).encode())
_CODES: Final = "BHIQ"  # of arrays whose numbers have 1, 2, 4, 8 bytes
_ROUNDED: Final = 4  # bits of a bucket's count that are kept for long
# As zlib.compress at its fastest, with a window and a table of the size of a block: those that it has of itself take a
# tenth of a millisecond to be made.
_PACKING: Final = (1, zlib.DEFLATED, 13, 5)

# What the interpreter needs for the objects themselves, in bytes.
_BLOCK_COST: Final = 33 + 100  # the bytes object and its place in a dict
_SECOND_COST: Final = 16  # in a list
_SERIES_COST: Final = 700


@dataclass(frozen=True)
class Level:
    """One level of detail: seconds of an interval, intervals in a block, and for how many seconds they are kept."""

    step: int
    size: int
    kept: int

    @property
    def span(self) -> int:
        """The seconds of a block."""
        return self.step * self.size


LEVELS: Final = (Level(1, 60, 900), Level(10, 180, 6 * 3600), Level(300, 288, 30 * 86400))

Columns = Mapping[int, Sequence[int]]


class Block:
    """The points of one stretch of time, unpacked: which intervals have one, and columns of numbers for all of them.

    A column that is not there is all zero.
    """

    def __init__(self, size: int) -> None:
        self.filled = bytearray(size)
        self.columns: dict[int, array[int]] = {}

    def add(self, places: Sequence[int], columns: Columns) -> None:
        """Add points at these places, in order of time: to what is there already."""
        first, end = places[0], places[-1] + 1
        in_a_row = end - first == len(places)
        gauges = _GAUGE_COLUMNS & (columns.keys() | self.columns.keys())
        for number in columns.keys() | gauges:
            given = columns.get(number) or (0,) * len(places)
            mine = self.columns.get(number)
            if mine is None:
                mine = self.columns[number] = array("B", bytes(len(self.filled)))
            before = mine[first:end]
            is_sum = number not in gauges and any(before)
            if in_a_row:
                values = list(map(add, before, given)) if is_sum else given
            else:
                values = before.tolist()
                for place, value in zip(places, given, strict=True):
                    values[place - first] = values[place - first] + value if is_sum else value
            self.put(number, first, values)
        for place in places:
            self.filled[place] = 1

    def put(self, number: int, place: int, values: Sequence[int]) -> None:
        """Have these numbers from a place on in a column that there is."""
        mine = self.columns[number]
        try:
            narrow = array(mine.typecode, values)
        except OverflowError:
            narrow = as_array(values)
            mine = self.columns[number] = array(narrow.typecode, mine)
        mine[place : place + len(values)] = narrow

    def cut(self, place: int) -> None:
        """Drop all points from this place on."""
        rest = len(self.filled) - place
        self.filled[place:] = bytes(rest)
        for column in self.columns.values():
            column[place:] = array(column.typecode, bytes(rest * column.itemsize))

    def round(self) -> None:
        """Keep no more of the buckets' counts than percentiles need: their first bits, which are packed far better."""
        for number, column in self.columns.items():
            if len(SUMS) <= number < FIRST_GAUGE and max(column) >> _ROUNDED:
                self.columns[number] = as_array([_round(value) if value >> _ROUNDED else value for value in column])

    def pack(self) -> bytes:
        """The same in few bytes."""
        parts: list[bytes | bytearray] = [self.filled]
        for number, column in self.columns.items():
            if any(column):
                parts.append(bytes((number, _CODES.index(column.typecode))))
                parts.append(_swapped(column).tobytes())
        last = self.filled.rfind(1)
        gauges = [
            min(self.columns[number][last], LARGEST) if number in self.columns else 0
            for number in range(FIRST_GAUGE, WIDTH)
        ]
        packer = zlib.compressobj(*_PACKING)
        packed = _HEAD.pack(0, _FORMAT, *gauges)[4:] + packer.compress(b"".join(parts)) + packer.flush()
        return zlib.crc32(packed).to_bytes(4, "little") + packed


def unpack(packed: bytes, size: int, wanted: Collection[int] = range(WIDTH)) -> Block:
    """A block that was packed, or some columns of it. Raises ValueError if it is none of this size."""
    block = Block(size)
    most = size + WIDTH * (2 + 8 * size)
    try:
        numbers = memoryview(zlib.decompressobj().decompress(packed[_HEAD.size :], most))
    except zlib.error as error:
        raise ValueError(f"it can't be unpacked: {error}") from None
    if len(numbers) < size:
        raise ValueError("it is too short")
    block.filled[:] = numbers[:size]
    at = size
    while at < len(numbers):
        number, power = numbers[at], numbers[at + 1] if at + 1 < len(numbers) else 0
        if number >= WIDTH or power >= len(_CODES):
            raise ValueError("it has a column that there is not")
        end = at + 2 + (size << power)
        if end > len(numbers):
            raise ValueError("one of its columns is too short")
        if number in wanted:
            block.columns[number] = _swapped(array(_CODES[power], numbers[at + 2 : end].tobytes()))
        at = end
    return block


def as_array(values: Sequence[int]) -> array[int]:
    """The same numbers, in as few bytes each as will do."""
    largest = max(values)
    return array(_CODES[(largest > 0xFF) + (largest > 0xFFFF) + (largest > LARGEST)], values)


def _swapped(column: array[int]) -> array[int]:
    """A column in the order of bytes that packed ones have, or back: little-endian."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column


def check(packed: bytes) -> None:
    """Raises ValueError for what can't be a block, or has been changed since it was packed."""
    if len(packed) < _HEAD.size:
        raise ValueError("it is too short")
    found, format, *_ = _HEAD.unpack_from(packed)
    if found != zlib.crc32(packed[4:]):
        raise ValueError("its check sum is wrong")
    if format != _FORMAT:
        raise ValueError("it is of another version")


def last_gauges(packed: bytes) -> Gauges:
    """The gauges at the end of a block."""
    _, _, waiting, running, workers, busy, oldest = _HEAD.unpack_from(packed)
    return waiting, running, workers, busy, oldest


class Series:
    """All points of one function, or of the whole job server."""

    __slots__ = ("_before", "_rows", "_seconds", "blocks", "bytes", "saved_at", "unsaved")

    def __init__(self) -> None:
        self._seconds: list[int] = []  # since the last flush
        self._rows: array[int] = array("B")  # wider ones as soon as a number asks for it
        self.blocks: tuple[dict[int, bytes], ...] = ({}, {}, {})  # of each level, packed, by the second they begin at
        self._before: tuple[int, ...] | None = (
            None  # the gauges of the last block of the coarsest level that was dropped
        )
        self.unsaved: set[tuple[int, int]] = set()  # blocks of the coarser levels: the level and the second
        self.saved_at = 0  # at which second it was asked last which of them are to be kept; 0: never
        self.bytes = _SERIES_COST

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def add(self, second: int, sums: Sequence[int], gauges: Sequence[int]) -> None:
        """The point of one second; one that is there already is added to."""
        self.add_row(second, [*sums, *gauges])

    def add_row(self, second: int, row: list[int]) -> int:
        """The same, sums and gauges in one list; how many bytes more it takes."""
        rows = self._rows
        more = 0
        try:
            rows.fromlist(row)
        except OverflowError:
            rows = as_array([min(value, LARGEST) for value in row])
            more = (rows.itemsize - self._rows.itemsize) * WIDTH * len(self._seconds)
            self._rows = array(rows.typecode, self._rows)
            self._rows += rows
        self._seconds.append(second)
        more += _SECOND_COST + rows.itemsize * WIDTH
        self.bytes += more
        return more

    @property
    def patience(self) -> int:
        """How much longer seconds may stand as they came where they take little memory: a factor."""
        return 4 // self._rows.itemsize

    def flush(self) -> None:
        """Pack the seconds that have come, and add them to the intervals of the coarser levels."""
        if not self._seconds:
            return
        seconds, rows = self._seconds, self._rows
        self.bytes -= (_SECOND_COST + rows.itemsize * WIDTH) * len(seconds)
        self._seconds = []
        self._rows = array("B")
        columns = {number: column for number in range(WIDTH) if any(column := rows[number::WIDTH])}
        self.add_points(0, seconds, columns)

    def add_points(self, level: int, seconds: Sequence[int], columns: Columns) -> None:
        """Add points of one level, in order of time, and the same to the coarser ones."""
        for number in range(level, len(LEVELS)):
            seconds, columns = coarser(seconds, columns, LEVELS[number].step)
            self._put(number, seconds, columns)

    def _put(self, number: int, seconds: Sequence[int], columns: Columns) -> None:
        """Add points of one level, which begin at these seconds."""
        level = LEVELS[number]
        begin = 0
        while begin < len(seconds):
            start = seconds[begin] - seconds[begin] % level.span
            end = bisect_left(seconds, start + level.span, begin)
            block = self._block(number, start)
            if block is None:
                block = Block(level.size)
                self._round_before(number, start)
            places = [(second - start) // level.step for second in seconds[begin:end]]
            block.add(places, {column: values[begin:end] for column, values in columns.items()})
            self._hold(number, start, block.pack())
            begin = end

    def _block(self, number: int, start: int, wanted: Collection[int] = range(WIDTH)) -> Block | None:
        packed = self.blocks[number].get(start)
        if packed is None:
            return None
        try:
            return unpack(packed, LEVELS[number].size, wanted)
        except ValueError:  # its check sum was right, so somebody has made it
            return None

    def _hold(self, number: int, start: int, packed: bytes) -> None:
        self.drop(number, start)
        self.blocks[number][start] = packed
        self.bytes += len(packed) + _BLOCK_COST
        if number > 0:
            self.unsaved.add((number, start))

    def _round_before(self, number: int, start: int) -> None:
        """A block begins: the one before it is complete, and is packed for good."""
        if number < len(LEVELS) - 1:
            return
        before = max((one for one in self.blocks[number] if one < start), default=start)
        block = self._block(number, before)
        if block is not None:
            block.round()
            self._hold(number, before, block.pack())

    def hold(self, number: int, start: int, packed: bytes) -> None:
        """Take over a block that was kept; points that are there already stay as they are."""
        if start not in self.blocks[number]:
            self._hold(number, start, packed)
            self.unsaved.discard((number, start))

    def drop(self, number: int, start: int) -> None:
        """Hold a block no longer."""
        packed = self.blocks[number].pop(start, None)
        if packed is not None:
            self.bytes -= len(packed) + _BLOCK_COST
            self.unsaved.discard((number, start))

    def expire(self, second: int) -> None:
        """Drop what is older than its level keeps."""
        for number, level in enumerate(LEVELS):
            blocks = self.blocks[number]
            old = [start for start in blocks if start + level.span + level.kept <= second]
            if old:
                if number == len(LEVELS) - 1:
                    self._before = last_gauges(blocks[max(old)])
                for start in old:
                    self.drop(number, start)

    def cut(self, second: int) -> None:
        """Drop all points from this second on, since the clock has gone back behind them.

        The coarser interval that has it within is made anew from what is left of it at the finer level.
        """
        self.flush()
        for number, level in enumerate(LEVELS):
            first = second - second % level.step
            blocks = self.blocks[number]
            for start in [start for start in blocks if start + level.span > first]:
                block = self._block(number, start) if start < first else None
                self.drop(number, start)
                if block is not None:
                    block.cut((first - start) // level.step)
                    if any(block.filled):
                        self._hold(number, start, block.pack())
            if number > 0 and first < second:
                self._put(number, *coarser(*self.points(number - 1, first, second), level.step))

    def open_block(self, number: int, start: int) -> Block:
        """A block to add sums to, and to hold again then (``close_block``): gauges stand at all its places."""
        level = LEVELS[number]
        block = self._block(number, start) or Block(level.size)
        _, columns = self.window(number, start, level.size, range(FIRST_GAUGE, WIDTH))
        for column, gauges in columns.items():
            block.columns[column] = as_array([gauge or 0 for gauge in gauges])
        return block

    def pour(self, number: int, start: int, into: Block) -> None:
        """Add the sums of one block to another."""
        mine = self._block(number, start, range(FIRST_GAUGE))
        if mine is not None:
            into.filled[:] = bytes(map(max, into.filled, mine.filled))
            for column, values in mine.columns.items():
                there = into.columns.get(column)
                into.columns[column] = values if there is None else as_array(list(map(add, there, values)))

    def close_block(self, number: int, start: int, block: Block) -> None:
        """Hold a block again that was opened."""
        self._hold(number, start, block.pack())

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_empty(self) -> bool:
        """Whether it has no points any more."""
        return not (self._seconds or any(self.blocks))

    @property
    def last_second(self) -> int:
        """The latest second at which a point begins that is packed; 0: there is none."""
        latest = 0
        for number, blocks in enumerate(self.blocks):
            block = self._block(number, max(blocks)) if blocks else None
            if block is not None:
                latest = max(latest, max(blocks) + block.filled.rfind(1) * LEVELS[number].step)
        return latest

    @property
    def last_gauges(self) -> Gauges:
        """The gauges of the latest point that is packed, of whatever level."""
        latest = max(
            ((max(blocks), -number) for number, blocks in enumerate(self.blocks) if blocks), default=None
        )  # of the finest level, if the blocks begin at the same time
        if latest is None:
            return NO_GAUGES
        return last_gauges(self.blocks[-latest[1]][latest[0]])

    def points(self, number: int, first: int, end: int) -> tuple[list[int], dict[int, list[int]]]:
        """The points of one level between two seconds: at which seconds they begin, and their columns."""
        level = LEVELS[number]
        seconds: list[int] = []
        columns: dict[int, list[int]] = {}
        for start in sorted(self.blocks[number]):
            if start >= end or start + level.span <= first:
                continue
            block = self._block(number, start)
            if block is None:
                continue
            low = max((first - start) // level.step, 0)
            high = min(-(-(end - start) // level.step), level.size)
            filled = block.filled[low:high]
            before = len(seconds)
            seconds += compress(range(start + low * level.step, end, level.step), filled)
            for column in columns.keys() | block.columns.keys():
                values = block.columns.get(column)
                found = (0,) * (len(seconds) - before) if values is None else compress(values[low:high], filled)
                columns.setdefault(column, [0] * before).extend(found)
        return seconds, columns

    def window(
        self, number: int, first: int, count: int, columns: Collection[int]
    ) -> tuple[bytearray, dict[int, list[int | None]]]:
        """So many intervals of one level in a row, from the one that begins at a second on.

        Which of them have a point; and these columns, but of sums and buckets those alone that are not all zero. A
        gauge goes on as it was; None: nothing is known about it.
        """
        level = LEVELS[number]
        found: dict[int, list[int | None]] = {column: [0] * count for column in columns if column >= FIRST_GAUGE}
        filled = bytearray(count)
        for start in sorted(self.blocks[number]):
            offset = (start - first) // level.step
            if offset >= count or offset + level.size <= 0:
                continue
            block = self._block(number, start, columns)
            if block is None:
                continue
            low, high = max(-offset, 0), min(count - offset, level.size)
            filled[offset + low : offset + high] = block.filled[low:high]
            for column, numbers in block.columns.items():
                values = found.get(column)
                if values is None:
                    values = found[column] = [0] * count
                values[offset + low : offset + high] = numbers[low:high]
        if not found:
            return filled, found
        before = self.gauges_before(number, first) or (None,) * len(GAUGES)
        for column in columns:
            if column >= FIRST_GAUGE:
                _carry(found[column], filled, before[column - FIRST_GAUGE])
        return filled, found

    def gauges_before(self, number: int, second: int) -> tuple[int, ...] | None:
        """The gauges just before a second, as the last point before it has them."""
        level = LEVELS[number]
        blocks = self.blocks[number]
        for start in sorted((start for start in blocks if start < second), reverse=True):
            if start + level.span <= second:
                return last_gauges(blocks[start])
            seconds, columns = self.points(number, start, second)
            if seconds:
                return tuple(columns[column][-1] if column in columns else 0 for column in range(FIRST_GAUGE, WIDTH))
        if number == len(LEVELS) - 1:
            return self._before
        # They are too old for this level. What the next one has of its interval is that of its end.
        return self.gauges_before(number + 1, second - second % LEVELS[number + 1].step)


def _carry(values: list[int | None], filled: bytearray, last: int | None) -> None:
    """Have a gauge go on as it was where there is no point."""
    at = 0
    while at < len(values):
        point = filled.find(1, at)
        end = point if point >= 0 else len(values)
        values[at:end] = [last] * (end - at)
        at = filled.find(0, end) if end < len(values) else end
        if at < 0:
            return
        last = values[at - 1] if at > 0 else last


def coarser(seconds: Sequence[int], columns: Columns, step: int) -> tuple[Sequence[int], Columns]:
    """Points in order of time as those of longer intervals: sums are added, and the last gauge stays."""
    starts = list(dict.fromkeys([second - second % step for second in seconds]))
    if len(starts) == len(seconds):
        return starts, columns
    begins = [bisect_left(seconds, start) for start in starts]
    ends = [*begins[1:], len(seconds)]
    return starts, {
        number: [column[end - 1] for end in ends]
        if number >= FIRST_GAUGE
        else [sum(column[begin:end]) for begin, end in zip(begins, ends, strict=True)]
        for number, column in columns.items()
    }


def _round(value: int) -> int:
    """A number with its first bits, and zeros behind them: the nearest one."""
    spare = value.bit_length() - _ROUNDED
    return (value + (1 << spare >> 1)) >> spare << spare
