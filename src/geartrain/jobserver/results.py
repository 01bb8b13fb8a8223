"""Results that are kept: by the number of their job, and by function and unique for the submissions they answer.

A result is a record. What is here is how it is found, and how much all of them take.
"""

from __future__ import annotations

from collections import OrderedDict
from struct import Struct
from typing import TYPE_CHECKING, Final, final

from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.outbox import DeferredReply, Outbox
    from geartrain.jobserver.records import Record

RESULT_COST: Final = 600  # bytes of memory beside its record's value
WAIT_COST: Final = 400
LONGEST_KEY: Final = 4096  # of a workload that is its own unique

COMPLETED: Final = 0
FAILED: Final = 1
WORDS: Final = (b"completed", b"failed")

_HEAD: Final = Struct(">BddI")  # outcome, when its job ended, until when it is fresh, length of the key


def cache_key(function: bytes, unique: bytes, workload: bytes) -> bytes:
    """By what a result is found for a submission; empty: it is not."""
    if not unique:
        return b""
    if unique == b"-":
        if not workload or len(workload) > LONGEST_KEY:
            return b""
        return b"%b\0-\0%b" % (function, workload)
    return b"%b\0%b" % (function, unique)


def pack_result(outcome: int, ended: float, fresh_until: float, key: bytes, data: bytes) -> bytes:
    """What the record of a result holds."""
    return _HEAD.pack(outcome, ended, fresh_until, len(key)) + key + data


def result_cost(key: bytes, size: int) -> int:
    """What a result with this key and so many bytes of data takes."""
    return RESULT_COST + _HEAD.size + len(key) + size


@final
class Result:
    """How a job ended, and with what; ``fresh_until`` is a Unix time."""

    def __init__(self, number: int, record: Record) -> None:
        value = record.value or b""
        outcome, _, fresh_until, length = (
            _HEAD.unpack_from(value) if len(value) >= _HEAD.size else (FAILED, 0.0, 0.0, 0)
        )
        self.number: int = number
        self.record: Record = record
        self.outcome: int = outcome if outcome in (COMPLETED, FAILED) else FAILED
        self.fresh_until: float = fresh_until if fresh_until > 0 else 0.0  # which is not so of what is no number
        self.key: bytes = value[_HEAD.size : _HEAD.size + length]
        self.data_at: int = _HEAD.size + length
        self.shared: bytes = b""  # the data as one piece for all that get it, once somebody has

    @property
    def data(self) -> bytes:
        """The result, or the text with which the job failed."""
        if not self.shared:
            self.shared = (self.record.value or b"")[self.data_at :]
        return self.shared

    @property
    def size(self) -> int:
        """How many bytes the result has."""
        return max(len(self.record.value or b"") - self.data_at, 0)

    @property
    def cost(self) -> int:
        """About how many bytes it takes."""
        return RESULT_COST + len(self.record.value or b"")


@final
class Results:
    """All results, the oldest first, and who waits for those that are not there yet."""

    def __init__(self) -> None:
        self.by_number: OrderedDict[int, Result] = OrderedDict()
        self.completed: dict[bytes, Result] = {}  # by key: the last one of a job that completed
        self.failed: dict[bytes, Result] = {}  # by key: the last one of those that have failed since
        self.size: i64 = 0
        self.waits: dict[int, dict[Outbox, DeferredReply]] = {}  # by the job's number and who waits

    def latest(self, key: bytes) -> Result | None:
        """The last result of a key that is kept."""
        return self.failed.get(key) or self.completed.get(key)

    def put(self, result: Result) -> None:
        """A result is kept; it is the latest of its key from now on."""
        self.drop(result.number)
        self.by_number[result.number] = result
        key = result.key
        if key and result.outcome == COMPLETED:
            self.completed[key] = result
            self.failed.pop(key, None)
        elif key:
            self.failed[key] = result
        self.size += result.cost

    def drop(self, number: int) -> None:
        """A result is kept no longer."""
        result = self.by_number.pop(number, None)
        if result is not None:
            self.size -= result.cost
            of_outcome = self.completed if result.outcome == COMPLETED else self.failed
            if of_outcome.get(result.key) is result:
                del of_outcome[result.key]
