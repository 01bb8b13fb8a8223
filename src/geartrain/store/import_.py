"""Jobs from elsewhere into a store that nobody uses: from a gearmand's queue, from an export, from another store.

A job that had a number (and so a handle) here before keeps it, if the store has not given it out yet; all others get
new ones behind the store's last.

What is there already is not taken a second time. A job with a unique is there if one of the same function and unique
is. A dead letter has left its unique to others: it is there if one that was submitted at the same moment is. Of jobs
without a unique, or with ``-``, as many are there as have the same function and moment of submission, or where that is
not known, the same function and workload.

What is kept of a job (that it is dead, and why, its attempts, its result) goes with it, to its new number if it gets
one, and not at all if the job does not come, or if the store has given the number of a job that has ended to another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from geartrain.jobserver.records import (
    ATTEMPTS_KIND,
    DEAD_KIND,
    POSITION_BITS,
    RESULT_KIND,
    Batch,
    Record,
    StoredJob,
    number_key,
    number_of,
)
from geartrain.store.base import JobTooLargeError, Store, Unreadable
from geartrain.store.record import flaw, name_flaw, record_name

JOBS_AT_ONCE: Final = 500
BYTES_AT_ONCE: Final = 4 << 20
OF_JOBS: Final = (DEAD_KIND, ATTEMPTS_KIND, RESULT_KIND)  # kinds of records whose keys are numbers of jobs
SHARED: Final = (b"", b"-")  # uniques that several jobs of a function may have


@dataclass
class ImportReport:
    """What came of an import: jobs and bytes by (function, priority), and what was left out."""

    jobs: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    later: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    size: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    records: int = 0
    there: int = 0
    unreadable: list[Unreadable] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    renumbered: int = 0


def dead_jobs(store: Store) -> set[int]:
    """The numbers of the jobs that are dead letters."""
    return {number_of(record.key) for record in store.records(DEAD_KIND)}


class Importer:
    """Takes jobs into ``store``, which is open.

    ``numbers_end`` is the first number that has not been given out where the jobs come from. ``dry`` changes nothing.
    ``now`` (Unix time) tells which jobs are for later. ``dead`` has the numbers of those that are dead letters where
    they come from, each one when it comes.
    """

    def __init__(self, store: Store, numbers_end: int, now: float, dry: bool, dead: Container[int] = ()) -> None:
        self.report = ImportReport()
        self._store = store
        self._now = now
        self._dry = dry
        self._dead = dead
        self._first = store.next_number()
        self._numbers_end = numbers_end
        self._next = max(self._first, numbers_end)
        self._batch = Batch(self._next)
        self._bytes = 0
        self._names: set[bytes] = set()  # of records
        self._numbers: dict[int, int] = {}  # of the jobs that have got another one; 0: they were not taken
        self._left_out: set[int] = set()  # numbers of jobs that the store did not take after all
        # of live jobs, unique: when submitted, and number; by function
        self._uniques: defaultdict[bytes, dict[bytes, tuple[float, int]]] = defaultdict(dict)
        # (function, unique, size of the workload): when submitted: numbers
        self._others: defaultdict[tuple[bytes, bytes, int], dict[float, list[int]]] = defaultdict(dict)

    def look(self) -> Iterator[int]:
        """Learn what is there already, first of all; how many jobs have been seen so far."""
        seen = 0
        functions: dict[bytes, bytes] = {}
        dead = dead_jobs(self._store)
        for seen, job in enumerate(self._store.load(0), 1):
            if isinstance(job, StoredJob):
                function = functions.setdefault(job.function, job.function)
                if job.unique in SHARED or job.number in dead:
                    self._others[function, job.unique, job.size].setdefault(job.created, []).append(job.number)
                else:
                    self._uniques[function][job.unique] = job.created, job.number
            yield seen
        self._names = {record_name(record) for record in self._store.records()}

    def take(self, found: Iterable[StoredJob | Record | Unreadable]) -> Iterator[int]:
        """Take what is to be taken; how many have been seen so far. Raises StoreError if the store fails.

        What has been committed until then is there, and is not taken again by the next try.
        """
        seen = 0
        for seen, job in enumerate(found, 1):
            if isinstance(job, Unreadable):
                self.report.unreadable.append(job)
            elif isinstance(job, Record):
                self._take_record(job)
            elif wrong := _flaw(job):
                self._numbers[job.number] = 0
                self.report.unreadable.append(Unreadable(job.number, f"{_described(job)}: {wrong}"))
            elif (number := self._found_here(job)) >= 0:
                self._numbers[job.number] = number
                self.report.there += 1
            else:
                self._take(job)
            yield seen
        self._commit()

    def _found_here(self, job: StoredJob) -> int:
        """The number of a job that is there already; 0 for one that may be another job; -1: it is not there."""
        if job.unique not in SHARED:
            created, number = self._uniques[job.function].get(job.unique, (0.0, -1))
            if number >= 0 and created == job.created:
                return number
            if number >= 0 and job.number not in self._dead:
                return 0
            if not job.number:  # its moment tells nothing, and no dead letters come from there
                return -1
        same = self._others.get((job.function, job.unique, job.size), {})
        for numbers in [same.get(job.created, [])] if job.number else list(same.values()):
            for number in numbers:
                if job.number or self._store.read(number) == job.workload:
                    numbers.remove(number)  # it stands for one job alone
                    return number
        return -1

    def _take(self, job: StoredJob) -> None:
        limit = self._store.abilities.max_workload
        is_dead = job.number in self._dead
        if limit and job.size > limit:
            self._numbers[job.number] = 0
            self._leave_out(job, f"its workload has {job.size:,} bytes, and this store takes up to {limit:,}")
            return
        if not self._first <= job.number < self._numbers_end:
            self.report.renumbered += job.number > 0
            self._numbers[job.number] = self._next
            job.number = self._next
            job.position = job.number << POSITION_BITS
            self._next += 1
        if is_dead:
            job.position = 0  # before all jobs: at the next start the last one of a unique has it
        self._count(job, 1)
        if self._batch.added and self._bytes + job.size > BYTES_AT_ONCE:
            self._commit()
        self._batch.added.append(job)
        self._bytes += job.size
        if len(self._batch.added) == JOBS_AT_ONCE:
            self._commit()

    def _take_record(self, record: Record) -> None:
        if record.kind in OF_JOBS and number_of(record.key):
            number = self._number_here(number_of(record.key))
            if number == 0:
                return
            record = Record(record.kind, number_key(number), record.value, record.expires)
        name = record_name(record)
        if name in self._names:
            self.report.there += 1
            return
        limit = self._store.abilities.max_workload
        size = len(record.value or b"")
        if limit and size > limit:
            what = f"the record of {record.kind} {record.key!r:.100}"
            self.report.too_large.append(f"{what}: it has {size:,} bytes, and this store takes up to {limit:,}")
            return
        self._names.add(name)
        self.report.records += 1
        self._batch.records.append(record)
        self._bytes += size
        if len(self._batch.records) == JOBS_AT_ONCE or self._bytes > BYTES_AT_ONCE:
            self._commit()

    def _number_here(self, number: int) -> int:
        """The number that a job from there has got here; 0: it has none."""
        here = self._numbers.get(number)
        if here is None:
            here = number if self._first <= number < self._numbers_end else 0
        return 0 if here in self._left_out else here

    def _commit(self) -> None:
        batch = self._batch
        batch.next_number = self._next
        while not self._dry:
            try:
                self._store.commit(batch)
                break
            except JobTooLargeError as error:
                job = next(each for each in batch.added if each.number == error.number)
                batch.added.remove(job)
                self._left_out.add(job.number)
                self._count(job, -1)
                self._leave_out(job, str(error))
        self._batch = Batch(self._next)
        self._bytes = 0

    def _count(self, job: StoredJob, by: int) -> None:
        key = (job.function, job.priority)
        self.report.jobs[key] += by
        self.report.size[key] += by * job.size
        self.report.later[key] += by * (job.due > self._now)

    def _leave_out(self, job: StoredJob, reason: str) -> None:
        self.report.too_large.append(f"{_described(job)}: {reason}")


def _flaw(job: StoredJob) -> str:
    numbers = flaw(max(job.number, 1), job.position, job.size, job.priority, job.due, job.attempts, job.created)
    return numbers or name_flaw(job.function, job.unique, job.reducer)


def _described(job: StoredJob) -> str:
    function, unique = (part.decode("utf-8", "backslashreplace") for part in (job.function, job.unique))
    return f"the job of {function!r:.100} with unique {unique!r:.100}"
