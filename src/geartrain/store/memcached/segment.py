"""A segment: one batch of changes as one value, and how values larger than an item are cut into several.

A segment lists its added jobs (number, record), moved ones (number, position, attempts), removed ones (number) and
those that were quarantined (number, reason). It is read in columns, so that a start need not look at each record.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, error, pack, unpack_from
from typing import Final
from zlib import crc32

from geartrain.store.memcached.node import ITEM_SIZE

VERSION: Final = 1
# version, next number, how many are added, moved, removed and quarantined
_HEAD: Final = Struct(">BQIIII")
_MOVE: Final = Struct(">QQI")
_ASIDE: Final = Struct(">QI")  # number, length of the reason that follows
# size and checksum of a value that was cut
_WHOLE: Final = Struct(">QI")
PART: Final = ITEM_SIZE - 1024  # bytes of a value that fit into an item with its key and what memcached adds

Move = tuple[int, int, int]


class Segment:
    """One batch of changes; ``records`` are in the order of ``numbers``."""

    def __init__(
        self,
        next_number: int = 1,
        numbers: Sequence[int] = (),
        records: Sequence[bytes] = (),
        moved: Sequence[Move] = (),
        removed: Sequence[int] = (),
        quarantined: Sequence[tuple[int, bytes]] = (),
    ) -> None:
        self.next_number = next_number
        self.numbers = numbers
        self.records = records
        self.moved = moved
        self.removed = removed
        self.quarantined = quarantined

    def dump(self) -> bytes:
        count = len(self.numbers)
        return b"".join(
            [
                _HEAD.pack(VERSION, self.next_number, count, len(self.moved), len(self.removed), len(self.quarantined)),
                pack(f">{count}Q{count}I", *self.numbers, *map(len, self.records)),
                *[_MOVE.pack(*move) for move in self.moved],
                pack(f">{len(self.removed)}Q", *self.removed),
                *[_ASIDE.pack(number, len(reason)) + reason for number, reason in self.quarantined],
                *self.records,
            ]
        )


def parse(data: bytes) -> Segment:
    """The segment of a value. Raises ValueError if it makes no sense."""
    try:
        version, next_number, count, moves, removals, asides = _HEAD.unpack_from(data)
        if version != VERSION:
            raise ValueError(f"a segment has version {version}, and {VERSION} would be right")
        numbers = unpack_from(f">{count}Q", data, _HEAD.size)
        lengths = unpack_from(f">{count}I", data, _HEAD.size + count * 8)
        at = _HEAD.size + count * 12
        moved = [_MOVE.unpack_from(data, at + n * _MOVE.size) for n in range(moves)]
        at += moves * _MOVE.size
        removed = unpack_from(f">{removals}Q", data, at)
        at += removals * 8
        quarantined = []
        for _ in range(asides):
            number, length = _ASIDE.unpack_from(data, at)
            at += _ASIDE.size + length
            quarantined.append((number, data[at - length : at]))
    except error as problem:
        raise ValueError(f"a segment of {len(data)} bytes makes no sense: {problem}") from problem
    records = []
    for length in lengths:
        records.append(data[at : at + length])
        at += length
    if at != len(data):
        raise ValueError(f"a segment has {len(data)} bytes, and {at} would be right")
    return Segment(next_number, numbers, records, moved, removed, quarantined)


def cut(key: str, data: bytes) -> dict[str, bytes]:
    """The items of a value: the first part under its key, which comes last, the others under names of their own."""
    parts = {name: data[(n + 1) * PART : (n + 2) * PART] for n, name in enumerate(part_names(key, len(data)))}
    parts[key] = _WHOLE.pack(len(data), crc32(data) if parts else 0) + data[:PART]
    return parts


def part_names(key: str, size: int) -> list[str]:
    """The keys of the parts behind the first one, of a value of ``size`` bytes."""
    return [f"{key}.{n}" for n in range(1, -(-size // PART))]


def whole_size(first: bytes) -> int:
    """The size of the value whose first part this is. Raises ValueError."""
    if len(first) < _WHOLE.size:
        raise ValueError(f"an item has {len(first)} bytes, fewer than any")
    size: int = _WHOLE.unpack_from(first)[0]
    return size


def joined(first: bytes, others: Sequence[bytes]) -> bytes:
    """The value of its parts. Raises ValueError if they do not belong together."""
    size, checksum = _WHOLE.unpack_from(first)
    data = first[_WHOLE.size :] + b"".join(others)
    if len(data) != size or (others and crc32(data) != checksum):
        raise ValueError(f"a value has {len(data)} bytes, and {size} would be right")
    return data
