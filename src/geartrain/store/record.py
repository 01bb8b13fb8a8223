"""One job as bytes, for engines that keep values under keys.

A record is a fixed head, then the function, the unique and the reducer, then the workload unless that is kept apart.
Place and attempts come first, where they can be changed without touching the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final

from geartrain.jobserver.records import POSITION_BITS, StoredJob

# position, attempts, priority, due, created, size of the workload, lengths of function, unique and reducer
_HEAD: Final = Struct(">QIBddQIII")
_MOVED: Final = Struct(">QI")

LAST_NUMBER: Final = 1 << (62 - POSITION_BITS)
LATEST: Final = 1e18  # Unix time: SUBMIT_JOB_EPOCH takes numbers of 18 digits

JOBS_AT_ONCE: Final = 500  # that are read from a store together ...
BYTES_AT_ONCE: Final = 16 << 20  # ... as long as their workloads are smaller than this


def pack(job: StoredJob, apart: bool) -> bytes:
    """The record of a job; ``apart``: without its workload."""
    head = _HEAD.pack(
        job.position, job.attempts, job.priority, job.due, job.created, job.size, len(job.function), len(job.unique),
        len(job.reducer),
    )  # fmt: skip
    assert job.workload is not None
    return head + job.function + job.unique + job.reducer + (b"" if apart else job.workload)


def moved(record: bytes, position: int, attempts: int) -> bytes:
    """The same record with another position and number of attempts."""
    return _MOVED.pack(position, attempts) + record[_MOVED.size :]


def unpack(number: int, record: bytes) -> StoredJob:
    """The job of a record; ``workload`` is None if it is kept apart.

    Raises ValueError if the record makes no sense.
    """
    if len(record) < _HEAD.size:
        raise ValueError(f"its record has {len(record)} bytes, fewer than any job's")
    position, attempts, priority, due, created, size, function, unique, reducer = _HEAD.unpack_from(record)
    unique_at = _HEAD.size + function
    reducer_at = unique_at + unique
    workload_at = reducer_at + reducer
    inside = len(record) - workload_at
    if inside != size and inside != 0:
        raise ValueError(f"its record has {len(record)} bytes, and {workload_at + size} would be right")
    if wrong := flaw(number, position, size, priority, due, attempts, created):
        raise ValueError(wrong)
    return StoredJob(
        number,
        position,
        record[_HEAD.size : unique_at],
        record[unique_at:reducer_at],
        record[workload_at:] if inside == size else None,
        size,
        priority,
        due,
        record[reducer_at:workload_at],
        attempts,
        created,
    )


def flaw(number: int, position: int, size: int, priority: int, due: float, attempts: int, created: float) -> str:
    """What is wrong with a job's numbers, wherever they come from; empty: nothing is.

    A number is so small that its position, and those of many jobs after it, fit 63 bits.
    """
    for name, value, least, most in (
        ("number", number, 1, LAST_NUMBER),
        ("position", position, 0, 2**63 - 1),
        ("size", size, 0, 2**32),
        ("priority", priority, 0, 2),
        ("due", due, 0, LATEST),
        ("attempts", attempts, 0, 2**31 - 1),
        ("created", created, 0, LATEST),
    ):
        if not least <= value <= most:
            return f"its {name} {value} is out of range, which is {least} to {most}"
    return ""


def stays(job: StoredJob, leave_above: int) -> bool:
    """Whether ``load`` leaves the job's workload in the store."""
    return job.size > leave_above and job.unique != b"-"


def portions(sizes: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """The first elements of ``(element, bytes)``, in lists that are small enough to be read at once."""
    portion: list[int] = []
    total = 0
    for element, size in sizes:
        if portion and (len(portion) == JOBS_AT_ONCE or total + size > BYTES_AT_ONCE):
            yield portion
            portion, total = [], 0
        portion.append(element)
        total += size
    if portion:
        yield portion


def apart_size(record: bytes) -> int:
    """The size of the workload that is kept apart, 0 if the record has it, or is none."""
    if len(record) < _HEAD.size:
        return 0
    *_, size, function, unique, reducer = _HEAD.unpack_from(record)
    return size if len(record) == _HEAD.size + function + unique + reducer else 0
