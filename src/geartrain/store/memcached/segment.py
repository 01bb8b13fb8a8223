"""A segment: one batch of changes as one value, and how values larger than an item are cut into several.

A segment lists its added jobs (number, record), changed ones (number, new beginning of the record), removed ones
(number), those that were quarantined (number, reason), and small records that are no jobs. It is read in columns, so
that a start need not look at each record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct, error, pack, unpack_from
from types import MappingProxyType
from typing import Final
from zlib import crc32

from geartrain.jobserver.records import Record
from geartrain.store.memcached.node import ITEM_SIZE
from geartrain.store.record import named_record

VERSION: Final = 2
# version, next number, how many are added, changed, removed and quarantined
_HEADER: Final = Struct(">BQIIII")
# number, and the record's first bytes: position, attempts, and since version 2 priority and due
_CHANGE_OF_VERSION: Final = {1: Struct(">Q12s"), 2: Struct(">Q21s")}
_COUNT: Final = Struct(">I")
_ENTRY: Final = Struct(">IdI")  # length of the name, expires, length of the value; both follow
_REMOVED: Final = 0xFFFFFFFF  # in place of a value's length
_ASIDE: Final = Struct(">QI")  # number, length of the reason that follows
# size and checksum of a value that was cut
_WHOLE: Final = Struct(">QI")
PART: Final = ITEM_SIZE - 1024  # bytes of a value that fit into an item with its key and what memcached adds

Change = tuple[int, bytes]


class Segment:
    """One batch of changes; ``records`` are those of jobs, in the order of ``numbers``, ``entries`` all others."""

    def __init__(
        self,
        next_number: int = 1,
        numbers: Sequence[int] = (),
        records: Sequence[bytes] = (),
        changed: Sequence[Change] = (),
        removed: Sequence[int] = (),
        quarantined: Sequence[tuple[int, bytes]] = (),
        entries: Mapping[bytes, Record] = MappingProxyType({}),
        version: int = VERSION,
    ) -> None:
        self.next_number = next_number
        self.numbers = numbers
        self.records = records
        self.changed = changed
        self.removed = removed
        self.quarantined = quarantined
        self.entries = entries
        self.version = version  # one that was read is written as it was, if it is

    def dump(self) -> bytes:
        count = len(self.numbers)
        return b"".join(
            [
                _HEADER.pack(
                    self.version, self.next_number, count, len(self.changed), len(self.removed), len(self.quarantined)
                ),
                pack(f">{count}Q{count}I", *self.numbers, *map(len, self.records)),
                *[_CHANGE_OF_VERSION[self.version].pack(*change) for change in self.changed],
                pack(f">{len(self.removed)}Q", *self.removed),
                *[_ASIDE.pack(number, len(reason)) + reason for number, reason in self.quarantined],
                _COUNT.pack(len(self.entries)) if self.version > 1 else b"",
                *[_dumped(name, entry) for name, entry in self.entries.items()],
                *self.records,
            ]
        )


def parse(data: bytes) -> Segment:
    """The segment of a value. Raises ValueError if it makes no sense."""
    try:
        version, next_number, count, changes, removals, quarantines = _HEADER.unpack_from(data)
        if version not in _CHANGE_OF_VERSION:
            raise ValueError(f"a segment has version {version}, and {VERSION} would be right")
        numbers = unpack_from(f">{count}Q", data, _HEADER.size)
        lengths = unpack_from(f">{count}I", data, _HEADER.size + count * 8)
        at = _HEADER.size + count * 12
        change = _CHANGE_OF_VERSION[version]
        changed = [change.unpack_from(data, at + n * change.size) for n in range(changes)]
        at += changes * change.size
        removed = unpack_from(f">{removals}Q", data, at)
        at += removals * 8
        quarantined = []
        for _ in range(quarantines):
            number, length = _ASIDE.unpack_from(data, at)
            at += _ASIDE.size + length
            quarantined.append((number, data[at - length : at]))
        entries: dict[bytes, Record] = {}
        if version > 1:
            (count,) = _COUNT.unpack_from(data, at)
            at += _COUNT.size
            for _ in range(count):
                at = _parse_entry(data, at, entries)
    except error as problem:
        raise ValueError(f"a segment of {len(data)} bytes makes no sense: {problem}") from problem
    records = []
    for length in lengths:
        records.append(data[at : at + length])
        at += length
    if at != len(data):
        raise ValueError(f"a segment has {len(data)} bytes, and {at} would be right")
    return Segment(next_number, numbers, records, changed, removed, quarantined, entries, version)


def _dumped(name: bytes, entry: Record) -> bytes:
    value = entry.value
    return _ENTRY.pack(len(name), entry.expires, _REMOVED if value is None else len(value)) + name + (value or b"")


def _parse_entry(data: bytes, at: int, entries: dict[bytes, Record]) -> int:
    """Add the entry there to ``entries``; where the next one begins."""
    name_length, expires, length = _ENTRY.unpack_from(data, at)
    at += _ENTRY.size
    name = data[at : at + name_length]
    at += name_length
    value = None
    if length != _REMOVED:
        value = data[at : at + length]
        at += length
    entries[name] = named_record(name, value, expires)
    return at


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
