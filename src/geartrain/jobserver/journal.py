"""What changed that the store must remember, and the answers that wait until it does.

An acknowledgement is a promise: JOB_CREATED of a background job stands in a *slot*, and nothing behind it on that
connection is written before the slot is open. The job itself is in its line at once; if it ends before it was written,
it is never written, and its slots open. The shell takes what has gathered as one *batch*, has the store commit it, and
says how that went. One batch is under way at a time, so batches take effect in order.

A job whose workload is large does not keep it in memory once the store has it; it is read again when the job is
assigned, and the JOB_ASSIGN waits in a slot meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.job import DELAYED, QUEUED, Job
from geartrain.jobserver.records import PLACE_BITS, Batch, Change, Record, StoredJob
from geartrain.native import i32, i64, mypyc_attr

if TYPE_CHECKING:
    from geartrain.jobserver.peer import Peer

UNSTORED: Final = 0  # not in the store and not meant to be: a foreground job, or no store
WAITING: Final = 1  # to be written with the next batch
WRITING: Final = 2  # in the batch under way
STORED: Final = 3


@final
class Slot:
    """A place in a peer's output that nothing may pass until it is ``open``.

    Slots stand in chains linked one way, so they take part in garbage collection: the compiled code frees a chain of
    objects that do not by recursion, and goes astray when it is long.
    """

    def __init__(self, peer: Peer, index: i64) -> None:
        self.peer: Peer = peer
        self.index: i64 = index  # of the piece, counted from the peer's first one ever
        self.open: bool = False
        self.next_of_job: Slot | None = None
        self.next_of_peer: Slot | None = None


@final
@mypyc_attr(acyclic=True)
class Read:
    """A workload to be fetched from the store, for the ``assignment``-th assignment of a job.

    ``slot`` holds the answer to the worker's GRAB, whose packet type was ``type``.
    """

    def __init__(self, job: Job, slot: Slot, type: i64, assignment: i32) -> None:
        self.job: Job = job
        self.slot: Slot = slot
        self.type: i64 = type
        self.assignment: i32 = assignment


@final
class Journal:
    """The changes since the last batch."""

    def __init__(self) -> None:
        self.new: list[Job] = []
        self.changed: list[Change] = []
        self.removed: list[int] = []
        self.records: list[Record] = []
        self.under_way: Batch | None = None
        self.writing: list[Job] = []  # the jobs that the batch under way adds
        self.reserved: i64 = 0  # numbers below this may be given out without asking the store
        self.last_moved_at: i64 = 0
        self.moves_there: i64 = 0

    @property
    def waiting(self) -> bool:
        """Whether there is something for a new batch."""
        return bool(self.new or self.changed or self.removed or self.records)

    def place_behind(self, next_number: i64) -> i64:
        """A place behind every job numbered below ``next_number`` and every job moved before."""
        if next_number != self.last_moved_at:
            self.last_moved_at = next_number
            self.moves_there = 0
        if self.moves_there < (1 << PLACE_BITS) - 1:
            self.moves_there += 1
        return ((next_number - 1) << PLACE_BITS) + self.moves_there

    def take(self, next_number: i64) -> Batch:
        """All that has gathered, as the batch under way until ``written`` or ``refused`` (storage) is told of it."""
        assert self.under_way is None
        jobs: list[Job] = []
        batch = Batch(next_number)
        for job in self.new:
            if job.stored != WAITING:
                continue  # it ended before it was written
            job.stored = WRITING
            jobs.append(job)
            batch.added.append(
                StoredJob(
                    job.number,
                    job.number << PLACE_BITS,
                    job.function.name,
                    job.unique,
                    job.workload,
                    len(job.workload),
                    job.priority,
                    job.due,
                    job.reducer,
                    job.attempts,
                    job.created,
                )
            )
        self.new = []
        batch.changed = self.changed
        self.changed = []
        batch.records = self.records
        self.records = []
        if self.removed and jobs:
            # A job that was refused, and lived on for a foreground client, may be stored after all.
            added = {job.number for job in jobs}
            batch.removed = [number for number in self.removed if number not in added]
        else:
            batch.removed = self.removed
        self.removed = []
        self.under_way = batch
        self.writing = jobs
        return batch

    def ended(self, job: Job) -> None:
        """A job that is or will be in the store has ended."""
        if job.stored == WAITING:
            job.stored = UNSTORED
            open_slots(job)
        elif job.stored == STORED:
            job.stored = UNSTORED
            self.removed.append(job.number)
        # While it is being written, ``written`` finds it ended.


def open_slots(job: Job) -> None:
    """What waited for this job's fate may be written."""
    slot = job.slots
    while slot is not None:
        slot.open = True
        slot.peer.touch()
        slot = slot.next_of_job
    job.slots = None


def fill_slots(job: Job, piece: bytes) -> None:
    """As ``open_slots``, with another answer in their place."""
    slot = job.slots
    while slot is not None:
        slot.peer.replace(slot.index, piece)
        slot = slot.next_of_job
    open_slots(job)


def may_leave_memory(job: Job, above: i64) -> bool:
    """Whether a stored job's workload is to stay in the store alone."""
    return len(job.workload) > above and job.state in (QUEUED, DELAYED) and job.unique != b"-"
