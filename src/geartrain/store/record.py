"""One job as bytes, for engines that keep values under keys, and what all engines check and do alike.

A job's bytes are a fixed header, then the function, the unique and the reducer, then the workload unless that is kept
apart. What may change comes first, where it can be changed without touching the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from struct import Struct
from typing import Final

from geartrain.jobserver.records import LONGEST_NAME, POSITION_BITS, Change, Record, StoredJob, is_kind
from geartrain.store.base import Store, Unreadable

log = logging.getLogger("geartrain.store")

# position, attempts, priority, due, created, size of the workload, lengths of function, unique and reducer
_HEAD: Final = Struct(">QIBddQIII")
_CHANGED: Final = Struct(">QIBd")  # the first four of them

LAST_NUMBER: Final = (1 << (63 - POSITION_BITS)) - 1  # its position fits 63 bits
NUMBERS_END: Final = 7 << (60 - POSITION_BITS)  # the largest next number; behind it there are 10^12 more
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


def changed_part(change: Change) -> bytes:
    """The beginning of a job's bytes after a change."""
    return _CHANGED.pack(change.position, change.attempts, change.priority, change.due)


def changed(record: bytes, part: bytes) -> bytes:
    """A job's bytes with the beginning that a change has made."""
    return part + record[len(part) :]


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
    """What is wrong with a job's numbers, wherever they come from; empty: nothing is."""
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


def name_flaw(function: bytes, unique: bytes, reducer: bytes) -> str:
    """What is wrong with a job's names, which are to stand in packets; empty: nothing is."""
    for what, name in (("function", function), ("unique", unique), ("reducer", reducer)):
        if b"\0" in name:
            return f"its {what} has a NUL byte, which ends an argument of a packet"
        if len(name) > LONGEST_NAME:
            return f"its {what} has {len(name)} bytes, more than any job server takes, which is {LONGEST_NAME}"
    return ""


def sound_next_number(number: object) -> int:
    """The next number that a store has kept, or 1 if it can't be one: then the jobs that are kept tell it."""
    return number if type(number) is int and 1 <= number <= NUMBERS_END else 1


def record_of(kind: object, key: object, value: object, expires: object) -> Record:
    """The record that an engine has kept. Raises ValueError, with the reason, if it makes none."""
    if type(kind) is not str or not is_kind(kind):
        raise ValueError(f"its kind is {kind!r:.60}")
    if type(key) is not bytes:
        raise ValueError(f"its key is {key!r:.60}")
    if type(value) is not bytes:
        raise ValueError(f"its value is {value!r:.60}")
    if type(expires) is not float or not 0 <= expires <= LATEST:
        raise ValueError(f"the time when it expires is {expires!r:.60}")
    return Record(kind, key, value, expires)


def log_unreadable_record(store: Store, name: bytes, reason: ValueError) -> None:
    """A record that is kept but can't be made sense of stays where it is, where a person can look at it."""
    fields = {"store": repr(store), "name": repr(name[:100]), "reason": str(reason)}
    log.error("record_unreadable", extra={"fields": fields})


def record_name(record: Record) -> bytes:
    """Kind and key of a small record as one key."""
    return record.kind.encode() + b"\0" + record.key


def named_record(name: bytes, value: bytes | None, expires: float) -> Record:
    """The record of a name that ``record_name`` has made."""
    kind, _, key = name.partition(b"\0")
    return Record(kind.decode(), key, value, expires)


def latest(records: Iterable[Record]) -> dict[bytes, Record]:
    """The last record of each name."""
    return {record_name(record): record for record in records}


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


def attach_workloads(
    jobs: Sequence[StoredJob | Unreadable],
    leave_above: int,
    fetch: Callable[[Sequence[int]], Mapping[int, bytes]],
) -> Iterator[StoredJob | Unreadable]:
    """The jobs, each with its workload unless that is to stay.

    ``fetch`` gives those workloads that are kept apart, by the jobs' numbers.
    """
    wanted = {n: job for n, job in enumerate(jobs) if isinstance(job, StoredJob) and not stays(job, leave_above)}
    for portion in portions((n, wanted[n].size if n in wanted else 0) for n in range(len(jobs))):
        apart = [wanted[n].number for n in portion if n in wanted and wanted[n].workload is None]
        fetched = fetch(apart) if apart else {}
        for n in portion:
            job = jobs[n]
            if isinstance(job, StoredJob):
                if n not in wanted:
                    job.workload = None
                elif job.workload is None:
                    job.workload = fetched.get(job.number)
                if n in wanted and (job.workload is None or len(job.workload) != job.size):
                    job = Unreadable(job.number, "its workload is not there as it was")
            yield job


def apart_size(record: bytes) -> int:
    """The size of the workload that is kept apart, 0 if the record has it, or is none."""
    if len(record) < _HEAD.size:
        return 0
    *_, size, function, unique, reducer = _HEAD.unpack_from(record)
    return size if len(record) == _HEAD.size + function + unique + reducer else 0
