"""A plan of batches whose outcome is known after each of them, and a process that commits them until it is killed.

Batch ``i`` brings ``ADDED`` jobs, sends three of the batch before to the end of the line and ends five of them. So what
a store must keep after ``i`` batches can be told exactly, and whatever else it keeps is a batch that came in part.
"""

from __future__ import annotations

import hashlib
import sys
from functools import cache

from geartrain.jobserver.records import POSITION_BITS, Batch, Change, StoredJob
from geartrain.store import engine

ADDED = 20
MOVED = 3
REMOVED = 5
STEP = 100  # numbers a batch has for itself
SIZE = 3000  # bytes of a workload


def batch(i: int) -> Batch:
    """The ``i``-th batch, from 1."""
    planned = Batch((i + 1) * STEP)
    planned.added = [_job(i, n) for n in range(1, ADDED + 1)]
    if i > 1:
        planned.changed = [Change((i - 1) * STEP + n, _end_of_line(i) + n, 1.8e9, 2, 1) for n in range(1, MOVED + 1)]
        planned.removed = [(i - 1) * STEP + n for n in range(ADDED - REMOVED + 1, ADDED + 1)]
    return planned


def after(i: int) -> list[StoredJob]:
    """What is kept after the ``i``-th batch, in the order of places."""
    kept: dict[int, StoredJob] = {}
    for done in range(1, i + 1):
        planned = batch(done)
        kept.update((job.number, job) for job in planned.added)
        for change in planned.changed:
            job = kept[change.number]
            job.position, job.due, job.priority, job.attempts = (
                change.position, change.due, change.priority, change.attempts,
            )  # fmt: skip
        for number in planned.removed:
            del kept[number]
    return sorted(kept.values(), key=lambda job: job.position)


def _job(i: int, n: int) -> StoredJob:
    number = i * STEP + n
    workload = _noise(number)
    return StoredJob(
        number, number << POSITION_BITS, b"batch %d" % i, b"unique %d" % number, workload, len(workload), n % 3,
        1.9e9 if n == 1 else 0.0, b"", 0, 1.7e9 + number / 8,
    )  # fmt: skip


def _end_of_line(i: int) -> int:
    return (i * STEP + ADDED) << POSITION_BITS


@cache
def _noise(seed: int) -> bytes:
    """Bytes that no store can make smaller."""
    return hashlib.shake_128(b"%d" % seed).digest(SIZE)


def main(url: str, first: str) -> None:
    """Commit from the ``first``-th batch on, saying on standard output which one was kept, until killed."""
    store = engine(url)
    store.open()
    for i in range(int(first), sys.maxsize):
        store.commit(batch(i))
        print(i, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
