"""What changed that the store must remember, and the replies that wait until it does.

An acknowledgement is a promise: JOB_CREATED of a background job is a *deferred reply*, and nothing behind it on that
connection is written before it is open. The job itself is in its queue at once; if it ends before it was written, it
is never written, and its replies open, or wait for its result if that is to be stored. The driver takes what has
gathered as one *batch*, has the store commit it, and says how that went. One batch is under way at a time, so batches
take effect in order, and a batch is bounded, so that it is soon acknowledged.

A job whose workload is large does not keep it in memory once the store has it; it is read again when the job is
assigned, and the JOB_ASSIGN is a deferred reply meanwhile.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.model import (
    BLOCKED,
    DEAD,
    DELAYED,
    HELD,
    QUEUED,
    RUNNING,
    SPILLED,
    STORED,
    UNSTORED,
    WAITING,
    WRITING,
    Job,
)
from geartrain.jobserver.records import (
    POSITION_BITS,
    RESULT_KIND,
    Batch,
    Change,
    Record,
    StoredJob,
    number_key,
)
from geartrain.native import i16, i64, mypyc_attr

if TYPE_CHECKING:
    from geartrain.jobserver.outbox import DeferredReply

MAX_BATCH: Final = 10_000  # new jobs in one batch, and as many records, and five times as many changes and removals


@final
@mypyc_attr(acyclic=True)
class Read:
    """A workload to be fetched from the store, for the ``assignment``-th assignment of a job.

    ``reply`` is the answer to the worker's GRAB, whose packet type was ``type``.
    """

    def __init__(self, job: Job, reply: DeferredReply, type: i64, assignment: i16) -> None:
        self.job: Job = job
        self.reply: DeferredReply = reply
        self.type: i64 = type
        self.assignment: i16 = assignment

    @property
    def number(self) -> int:
        """Whose workload it is."""
        return self.job.number

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.reply.open


@final
class Changes:
    """The changes since the last batch."""

    def __init__(self) -> None:
        self.new: list[Job] = []
        self.changed: dict[int, Change] = {}  # by number: the last one counts
        self.removed: list[int] = []
        self.records: dict[tuple[str, bytes], Record] = {}  # by kind and key: the last one counts
        self.with_job: dict[int, Record] = {}  # records that are committed together with the new job of this number
        self.along: dict[int, Record] = {}  # those of the batch under way
        self.writing: list[Job] = []  # the jobs that the batch under way adds
        self.revived: set[int] = set()  # jobs to be stored whose removal may still be waiting from a refusal
        self.moved: dict[int, int] = {}  # positions of jobs that were moved before they were written
        self.promises: list[DeferredReply] = []  # answers that promise what has gathered
        self.promised: list[DeferredReply] = []  # those that wait for the batch under way
        # Of a fleet: stored jobs that have been assigned since the last batch, those that the batch under way tells of,
        # and whether they alone make a batch; jobs that are to be another member's, and those of the batch under way.
        self.begun: list[Job] = []
        self.telling: list[Job] = []
        self.tells_begun: bool = False
        self.moving: list[tuple[Job, int]] = []
        self.moving_now: list[tuple[Job, int]] = []
        self.reserved: i64 = 0  # numbers below this may be given out without asking the store
        self.last_moved_at: i64 = 0
        self.moves_there: i64 = 0

    @property
    def waiting(self) -> bool:
        """Whether there is something for a new batch."""
        return bool(
            self.new or self.changed or self.removed or self.records or self.moving or (self.tells_begun and self.begun)
        )

    def add(self, job: Job) -> None:
        """A job is to be stored."""
        job.stored = WAITING
        self.new.append(job)

    def add_after_all(self, job: Job) -> None:
        """A foreground job is to be stored; the store may have refused it before."""
        self.revived.add(job.number)
        self.add(job)

    def move_behind(self, job: Job, next_number: i64) -> None:
        """A stored job went to the end of its queue: behind every job numbered below ``next_number``."""
        if next_number != self.last_moved_at:
            self.last_moved_at = next_number
            self.moves_there = 0
        if self.moves_there < (1 << POSITION_BITS) - 1:
            self.moves_there += 1
        position = ((next_number - 1) << POSITION_BITS) + self.moves_there
        if job.stored == WAITING:
            self.moved[job.number] = position
        else:
            self.changed[job.number] = Change(job.number, position, job.due, job.priority, job.attempts)

    def take(self, next_number: i64) -> Batch:
        """What has gathered, as the next batch; the one before it has come to its end."""
        jobs: list[Job] = []
        batch = Batch(next_number)
        if self.along:
            self.along = {}
        new = self.new
        if len(new) > MAX_BATCH:
            self.new = new[MAX_BATCH:]
            new = new[:MAX_BATCH]
        else:
            self.new = []
        for job in new:
            if job.stored != WAITING:
                continue  # it ended before it was written
            job.stored = WRITING
            jobs.append(job)
            position: i64 = job.number << POSITION_BITS
            if self.moved:
                position = self.moved.pop(job.number, position)
            batch.added.append(as_stored(job, position))
            if self.with_job:
                self._take_along(job, batch)
        if self.records:
            records = list(islice(self.records.values(), MAX_BATCH))
            for record in records:
                del self.records[record.kind, record.key]
            batch.records += records
        # What is kept of a job is in the store before the job has gone there, or has had its last attempt.
        most = 0 if self.records else 5 * MAX_BATCH
        batch.changed = list(islice(self.changed.values(), most))
        for change in batch.changed:
            del self.changed[change.number]
        removed = self.removed[:most]
        self.removed = self.removed[most:]
        if self.revived:
            removed = [number for number in removed if number not in self.revived]
            if not self.removed:
                self.revived.difference_update([job.number for job in jobs])
        batch.removed = removed
        self.writing = jobs
        self.telling = []
        if self.begun:
            self._tell_begun(batch)
        if self.moving and not self._is_behind:  # what has changed of a job is in the store before it goes
            self.moving_now, self.moving = self.moving[:MAX_BATCH], self.moving[MAX_BATCH:]
            batch.moved = [(job.number, member) for job, member in self.moving_now if job.state in (HELD, DEAD)]
        if not self._is_behind:
            self.promised, self.promises = self.promises, []
        return batch

    def _tell_begun(self, batch: Batch) -> None:
        self.tells_begun = False
        self.telling = self.begun
        self.begun = []
        for job in self.telling:
            if job.state == RUNNING and job.stored >= STORED:
                batch.begun[job.number] = int(job.attempts) + 1

    def take_moving(self) -> list[tuple[Job, int]]:
        """The jobs that the batch under way has given to others, or has not; it has come to its end."""
        moving = self.moving_now
        self.moving_now = []
        return moving

    @property
    def _is_behind(self) -> bool:
        """Whether anything but new jobs has gathered for a later batch."""
        return bool(self.records or self.changed or self.removed)

    def promise(self, reply: DeferredReply, is_under_way: bool) -> None:
        """An answer waits for the store to have all that has gathered; ``is_under_way``: a batch is."""
        if self._is_behind:
            self.promises.append(reply)
        elif is_under_way:
            self.promised.append(reply)
        else:
            reply.open = True

    def keep_promises(self) -> None:
        """The batch under way is stored: what was promised with it may be answered."""
        for reply in self.promised:
            reply.open = True
            reply.outbox.touch()
        self.promised = []

    def break_promises(self, line: bytes, packet: bytes, *, all_of_them: bool) -> None:
        """The batch under way was refused, and with ``all_of_them`` so is the next one: another answer is given.

        A text command gets the ``line``, a submission the ``packet``.
        """
        if all_of_them:
            self.promised += self.promises
            self.promises = []
        for reply in self.promised:
            reply.outbox.replace(reply.index, packet if reply.is_packet else line)
        self.keep_promises()

    def keep_with(self, number: int, record: Record) -> None:
        """A record is to be committed together with the new job of this number."""
        self.records.pop((record.kind, record.key), None)
        self.with_job[number] = record

    def _take_along(self, job: Job, batch: Batch) -> None:
        record = self.with_job.pop(job.number, None)
        if record is not None and (record.kind, record.key) not in self.records:  # else there is a later one
            batch.records.append(record)
            self.along[job.number] = record

    def take_back(self, number: int) -> Record | None:
        """The record that was to come with this job, which the store has refused."""
        record = self.with_job.pop(number, None) if self.with_job else None
        if record is None and self.along:
            record = self.along.pop(number, None)
        return record

    def ended(self, job: Job) -> None:
        """A job that is or will be in the store has ended."""
        if job.stored == WAITING:
            job.stored = UNSTORED
            self._let_go(job.number)
            self.moved.pop(job.number, None)
            if job.number in self.revived:
                self.remove(job.number)
            self.answer_ended(job)
        elif job.stored >= STORED:
            job.stored = UNSTORED
            self.remove(job.number)
        # While it is being written, ``written`` finds it ended.

    def has_result(self, number: i64) -> bool:
        """Whether the result of this job has gathered, for the next batch or a later one."""
        return bool(self.records) and (RESULT_KIND, number_key(number)) in self.records

    def answer_ended(self, job: Job) -> None:
        """A job has ended and will not be written: what is left of the promise to its submitters is its result."""
        if not self.has_result(job.number):
            open_replies(job)
            return
        reply = job.deferred
        while reply is not None:
            self.promises.append(reply)
            reply = reply.next_of_job
        job.deferred = None

    def put_back(self, batch: Batch) -> None:
        """A batch was refused: what it would have done beside adding jobs comes before what has gathered since."""
        self.changed = {change.number: change for change in batch.changed} | self.changed
        self.removed = batch.removed + self.removed
        self.begun = self.telling + self.begun
        self.moving = self.moving_now + self.moving  # nobody knows whose they are
        self.moving_now = []
        if batch.records:
            records = {(record.kind, record.key): record for record in batch.records}
            records.update(self.records)
            self.records = records

    def remove(self, number: int) -> None:
        """The store is not to have this job, whatever came before."""
        self.revived.discard(number)
        if self.changed:  # most jobs end without a change
            self.changed.pop(number, None)
        self.removed.append(number)
        self._let_go(number)

    def _let_go(self, number: int) -> None:
        """This job will not be added: what was to be kept with it is kept by itself."""
        if self.with_job:
            record = self.with_job.pop(number, None)
            if record is not None:
                self.records.setdefault((record.kind, record.key), record)


def as_stored(job: Job, position: i64) -> StoredJob:
    """The job as the store keeps it."""
    spilled = job.stored == SPILLED
    return StoredJob(
        job.number,
        position,
        job.function.name,
        job.unique,
        None if spilled else job.workload,
        0 if spilled else len(job.workload),
        job.priority,
        job.due,
        job.reducer,
        job.attempts,
        job.created,
        int(job.attempts) + 1 if job.state == RUNNING else 0,
    )


def open_replies(job: Job) -> None:
    """What waited for this job's fate may be written."""
    reply = job.deferred
    while reply is not None:
        reply.open = True
        reply.outbox.touch()
        reply = reply.next_of_job
    job.deferred = None


def replace_replies(job: Job, piece: bytes) -> None:
    """As ``open_replies``, with another answer in their place."""
    reply = job.deferred
    while reply is not None:
        reply.outbox.replace(reply.index, piece)
        reply = reply.next_of_job
    open_replies(job)


def may_leave_memory(job: Job, above: i64) -> bool:
    """Whether a stored job's workload is to stay in the store alone."""
    return len(job.workload) > above and job.state in (QUEUED, DELAYED, BLOCKED, DEAD, HELD) and job.unique != b"-"
