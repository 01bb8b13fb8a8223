"""What a store must do, in a few verbs, and what it may say about itself.

A store (the Gearman manual's "persistent queue") keeps the background jobs of one job server, so that they survive the
server. It knows nothing of the protocol or the rules: it is given batches of changes and gives back jobs.

    open         take hold of the place, make or migrate what is needed there
    load         every job that is kept, in the order of their positions
    records      every small record of a kind that has not expired
    commit       one batch: all of it or nothing
    read         one workload that ``load`` or the server left in the store
    quarantine   one job that can't be read any more
    quarantined  what has been quarantined
    rebuild      keep all jobs and records again, after the place has been emptied or taken away
    close        let go

The job server's writer calls ``commit`` from one thread and ``read`` from another; ``open``, ``load`` and ``close``
are called alone, but for a ``read`` between two jobs of a ``load``. An engine therefore needs a connection for each of
the two, and no lock between them.

**The promise.** When ``commit`` returns, the batch is kept as safely as the engine's ``Abilities`` say. When it raises,
it may be kept or not, and the same batch, or one that takes it back, may be committed next: committing what
is there already changes nothing, and removing or moving what is not there is no error.

**The hold.** A place belongs to one job server at a time, and to the place itself: no other name of it lets a second
one in. Each ``commit`` makes sure, as a part of it, that the place is still there and still ours. If another one has
it, or if it was emptied, removed or replaced, it raises, and goes on doing so until all is as it was or ``rebuild`` is
called.

**The order.** ``Batch.added`` first, then ``changed``, ``removed`` and ``records``.

**Errors.** Whatever the engine's library raises is translated here: ``StoreDownError`` (try again later),
``StoreFullError`` (takes nothing more, but may forget), ``JobTooLargeError`` (that job can't ever be kept here),
``StoreInUseError`` (another job server has it), ``StoreError`` for the rest. Their texts name the place, without
passwords, and what to do.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from geartrain.errors import GeartrainError
from geartrain.jobserver.records import Batch, Record, StoredJob
from geartrain.redaction import shown_url

_FILLED_AT_ONCE: Final = 1000  # jobs
_FILLED_BYTES: Final = 16 << 20
_SWEEP_EVERY: Final = 60.0  # seconds

REBUILD: Final = "send SIGHUP to have all jobs that this job server knows written there again"


class StoreError(GeartrainError):
    """The store could not do what was asked."""


class StoreDownError(StoreError):
    """The store can't be reached at the moment; it is tried again by itself."""


class StoreFullError(StoreError):
    """The store has no room for more jobs: make room, or have workers take some."""


class StoreInUseError(StoreError):
    """Another job server uses this store: stop it, or give this one a place of its own."""


class JobTooLargeError(StoreError):
    """The store can never keep this job.

    ``number`` is the job's number.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


@dataclass(frozen=True)
class Abilities:
    """What an engine says about itself.

    ``survives`` names what a committed job survives, in plain words for logs and docs; ``durable`` is False where a
    crash of the job server loses jobs. ``shared``: reachable from other machines. ``max_workload``: bytes, 0 for no
    limit.
    """

    name: str
    survives: str
    durable: bool = True
    shared: bool = False
    max_workload: int = 0


@dataclass(frozen=True)
class Unreadable:
    """A job that is kept but can't be made sense of; it has been quarantined.

    ``number`` is 0 where even that can't be read.
    """

    number: int
    reason: str


class Store(ABC):
    """One place where one job server keeps its jobs."""

    abilities: Abilities

    def __init__(self, url: str) -> None:
        self.url = url
        self._sweep_at = 0.0

    @abstractmethod
    def open(self) -> None:
        """Take hold of the place and make or migrate what is needed there.

        Raises StoreInUseError if another job server holds it, StoreError if it can't be used as it is (such as a
        memcached that may evict), with the remedy.
        """

    @abstractmethod
    def load(self, leave_above: int) -> Iterator[StoredJob | Unreadable]:
        """Every job, in the order of their positions.

        The workload of a job above ``leave_above`` bytes is left in the store (``workload`` None, ``size`` its size),
        unless its unique is ``-``, by whose workload other jobs are found.
        """

    @abstractmethod
    def count(self) -> int:
        """How many jobs are kept; used to show how far ``load`` has come."""

    @abstractmethod
    def next_number(self) -> int:
        """The highest ``Batch.next_number`` ever committed; 1 for a new store."""

    @abstractmethod
    def records(self, kind: str = "") -> Iterator[Record]:
        """The records of this kind (of every kind, if none is named) that have not expired; called alone.

        Expired ones are dropped when the store is opened, and from time to time when others are committed.
        """

    @abstractmethod
    def commit(self, batch: Batch) -> None:
        """Keep one batch of changes; see the module's text for order, promise and errors."""

    def rebuild(self, jobs: Iterable[StoredJob], next_number: int, records: Iterable[Record] = ()) -> int:
        """Keep ``jobs`` and ``records`` again, after what was kept has been taken away; how many jobs there were.

        Workloads that are None are read from what this store still has open. Raises StoreError if there is something
        in its place that it must not touch.
        """
        return fill(self, jobs, next_number, self.read, records)

    @abstractmethod
    def read(self, number: int) -> bytes:
        """The workload of a job that is kept.

        Raises KeyError if it is not there or can't be made sense of, StoreDownError if that can't be told now.
        """

    @abstractmethod
    def quarantine(self, number: int, reason: str) -> None:
        """Move a job out of the way of ``load``, where a person can look at it."""

    @abstractmethod
    def quarantined(self) -> Iterator[Unreadable]:
        """What has been quarantined since the store was made, and why; called alone."""

    def _sweep_before(self) -> float:
        """The Unix time before which records have expired that are to be dropped now; 0: none are."""
        now = time.time()
        if now < self._sweep_at:
            return 0.0
        self._sweep_at = now + _SWEEP_EVERY
        return now

    @abstractmethod
    def close(self) -> None:
        """Let go of the place; nothing is called after that."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown_url(self.url)}>"


def fill(
    store: Store,
    jobs: Iterable[StoredJob],
    next_number: int,
    read: Callable[[int], bytes],
    records: Iterable[Record] = (),
) -> int:
    """Commit jobs and records in batches of a bounded size; how many jobs. ``read`` has workloads that they lack.

    A job whose workload is nowhere any more is left out.
    """
    count = size = 0
    batch = Batch(next_number)
    lent: list[StoredJob] = []  # who have their workload for the commit alone: all of them may not fit the memory
    for job in jobs:
        if job.workload is None:
            try:
                job.workload = read(job.number)
                job.size = len(job.workload)
            except KeyError:
                continue
            lent.append(job)
        batch.added.append(job)
        count += 1
        size += job.size
        if len(batch.added) >= _FILLED_AT_ONCE or size >= _FILLED_BYTES:
            store.commit(batch)
            batch = Batch(next_number)
            size = 0
            for each in lent:
                each.workload = None
            lent.clear()
    batch.records = list(records)
    store.commit(batch)
    return count
