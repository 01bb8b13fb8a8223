"""The small records that are kept beside the jobs, by kind and key, and when they expire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.deadlines import Deadlines
from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.records import Record

RECORD_COST: Final = 500  # bytes of memory beside its key and value


@final
class KeptRecords:
    """All records that have not expired; ``deadlines`` are in Unix time."""

    def __init__(self) -> None:
        self.kinds: dict[str, dict[bytes, Record]] = {}
        self.deadlines: Deadlines = Deadlines(self._is_live)
        self._expiring: dict[int, Record] = {}  # by a number, for the deadlines
        self._numbers: dict[Record, int] = {}
        self._last_number: i64 = 0

    def get(self, kind: str, key: bytes) -> Record | None:
        """The record of this name."""
        of_kind = self.kinds.get(kind)
        return None if of_kind is None else of_kind.get(key)

    def put(self, record: Record) -> i64:
        """Hold a record in place of the one of its name, or drop that; by how much the memory grows."""
        grown = -self.drop(record.kind, record.key)
        if record.value is None:
            return grown
        of_kind = self.kinds.get(record.kind)
        if of_kind is None:
            of_kind = {}
            self.kinds[record.kind] = of_kind
        of_kind[record.key] = record
        if record.expires > 0:
            self._last_number += 1
            self._expiring[self._last_number] = record
            self._numbers[record] = self._last_number
            self.deadlines.add(record.expires, self._last_number, 0)
        return grown + cost(record)

    def drop(self, kind: str, key: bytes) -> i64:
        """Hold this record no longer; how much memory that frees."""
        of_kind = self.kinds.get(kind)
        record = None if of_kind is None else of_kind.pop(key, None)
        if record is None:
            return 0
        if record.expires > 0:
            del self._expiring[self._numbers.pop(record)]
            self.deadlines.drop()
        return cost(record)

    def drop_expired(self, now: float) -> Record | None:
        """Drop one record whose time has come, if there is one."""
        record = self._expiring.pop(self.deadlines.pop_due(now), None)
        if record is not None:
            del self._numbers[record]
            del self.kinds[record.kind][record.key]
        return record

    def _is_live(self, number: int, _: int) -> bool:
        return number in self._expiring


def cost(record: Record | None) -> i64:
    """Bytes of memory that a record takes."""
    if record is None:
        return 0
    value = record.value
    return RECORD_COST + len(record.key) + (0 if value is None else len(value))
