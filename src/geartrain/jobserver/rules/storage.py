"""What the store answers, and what follows from it: acknowledgements, refusals, jobs that it kept from before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver import watching
from geartrain.jobserver.agenda import Source
from geartrain.jobserver.changes import Read, as_stored, may_leave_memory, open_replies, replace_replies
from geartrain.jobserver.chores import Chore
from geartrain.jobserver.links import find_ability
from geartrain.jobserver.model import (
    BLOCKED,
    DEAD,
    ELSEWHERE,
    ENDED,
    HELD,
    MOVING,
    QUEUED,
    RUNNING,
    SPILLED,
    STORED,
    UNSTORED,
    WAITING,
    WATCHED,
    Job,
)
from geartrain.jobserver.policy import FAIL
from geartrain.jobserver.records import POSITION_BITS
from geartrain.jobserver.rules.answers import not_stored, refusal
from geartrain.jobserver.rules.assignment import assignment_packet, start_time
from geartrain.jobserver.rules.ends import note_failure
from geartrain.jobserver.rules.keeping import forget
from geartrain.jobserver.rules.long_work import begin
from geartrain.jobserver.rules.moving import keep_to_ourselves, moved, vanish
from geartrain.jobserver.rules.outcome import FAILED, REFUSED, finish, release, tell_failure
from geartrain.jobserver.rules.queueing import (
    BY_WORKLOAD,
    begin_expiring,
    delay,
    enqueue,
    hold,
    leave_queue,
    note_key,
    release_held,
)
from geartrain.jobserver.rules.watching import tell, tell_policy
from geartrain.native import i16, i64, u8
from geartrain.wire.packets import JOB_CREATED, response_head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.records import Batch, StoredJob
    from geartrain.jobserver.state import State

RESERVE: Final = 100_000  # numbers that may be given out before the store hears of it; they are never used twice
READ_AGAIN_AFTER: Final = 5.0  # seconds until a job whose workload could not be read is offered again
_ASLEEP: Final = 1.0  # seconds behind its time at which an iteration has been held up itself
_AT_ONCE: Final = 500  # jobs in one slice
_UNREADABLE: Final = b"The store could not read the workload"


def take_batch(state: State) -> Batch | None:
    """What the store is to commit next; None while a batch is under way or nothing has changed."""
    changes = state.changes
    if not changes.waiting or not state.store.is_free:
        return None
    if state.next_number + RESERVE // 2 > changes.reserved and not state.is_member:
        changes.reserved = state.next_number + RESERVE
    batch = changes.take(0 if state.is_member else changes.reserved)
    state.store.begin(batch, state.now)
    return batch


def written(state: State, batch: Batch) -> None:
    """The store has committed the batch: acknowledge its jobs."""
    if not state.store.awaits(batch):
        return  # it was forsaken
    if not state.store.end(batch):
        _answered_late(state)
        return
    changes = state.changes
    leaving: set[int] = set(changes.removed) if batch.twins else set()
    for job in changes.writing:
        if batch.twins and job.number in batch.twins:
            _doubt(state, job, batch.twins[job.number], leaving)
            continue
        if job.state == ENDED:
            changes.remove(job.number)
            job.stored = UNSTORED
        else:
            job.stored = STORED
            if state.is_member:
                _let_run(state, job)
            if may_leave_memory(job, state.settings.spill_above):
                state.memory -= len(job.workload)
                job.workload = b""
                job.stored = SPILLED
        open_replies(job)
    state.commits.note(changes.writing, state.wall)
    changes.keep_promises()
    if changes.moving_now:
        moved(state, batch)


def _let_run(state: State, job: Job) -> None:
    """Of a fleet: the store has a new job, which is ours."""
    if state.lapsed:
        if job.state in (QUEUED, BLOCKED):
            leave_queue(state, job)
            hold(job)
    elif job.state == HELD:
        release_held(state, job)
    elif job.state == RUNNING:
        state.changes.begun.append(job)


def _doubt(state: State, job: Job, twin: int, leaving: set[int]) -> None:
    """The store has a job of the same function and unique, which may have ended: if so, this one is stored after all.

    What has ended, or died, here is still in the store if that has to hear of it (``leaving``: jobs whose removal
    waits); what may have ended elsewhere is asked about there.
    """
    known = state.jobs.get(twin)
    if job.state == ENDED:
        job.stored = UNSTORED
        open_replies(job)
    elif twin in leaving or (known is not None and known.state == DEAD):
        state.changes.add(job)
    elif known is not None:
        _join_elsewhere(state, job, twin)
    else:
        job.stored = WAITING
        elsewhere = state.elsewhere
        assert elsewhere is not None
        elsewhere.doubt(job, twin, state.handles.make(twin))


def settle_doubt(state: State, job: Job, twin: int, lives: bool) -> None:
    """The job of the same function and unique lives at another member, or has ended there: then ours is stored."""
    elsewhere = state.elsewhere
    assert elsewhere is not None
    if elsewhere.doubts.pop(int(job.number), None) is None or job.stored != WAITING:
        return  # it has ended meanwhile
    if lives:
        _join_elsewhere(state, job, twin)
    elif state.store.trouble:
        refuse_job(state, job, state.store.trouble)
    else:
        state.changes.add(job)


def _join_elsewhere(state: State, job: Job, twin: int) -> None:
    """The store has a job of the same function and unique: whoever waits for this one gets that one's handle."""
    handle = state.handles.make(twin)
    replace_replies(job, b"%b%b" % (response_head(JOB_CREATED, len(handle)), handle))
    job.function.tally(i64(job.priority)).coalesced += 1
    job.stored = STORED  # as others that are another member's
    vanish(state, job)


def refused(state: State, batch: Batch, reason: str, down: bool) -> None:
    """The store has not taken the batch's new jobs: their submitters get QUEUE_ERROR.

    ``down``: the same holds for those that wait behind it, and for all to come until ``back``.

    A job that a foreground client waits for as well goes on for it. What else the batch would have changed is kept for
    the next one, and so is the removal of its jobs, since nobody knows how much of the batch arrived.
    """
    if not state.store.awaits(batch):
        return
    if state.store.end(batch):
        _refuse_batch(state, batch, reason, down)
    elif down:
        state.store.set_down(reason)
    else:
        _answered_late(state)


def give_up(state: State, reason: str) -> None:
    """Wait no longer for the batch under way: its jobs are refused, and so are others until the store answers."""
    batch = state.store.give_up()
    if batch is not None:
        state.event("store_hangs", None, {"reason": reason, "jobs": len(batch.added)})
        _refuse_batch(state, batch, "the store does not answer", down=True)


def _answered_late(state: State) -> None:
    state.event("store_back", None, {})
    back(state)


@final
class LateAnswers(Source):
    """Gives up what the store has not answered in time."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        return self.state.store.next_at()

    def run(self) -> None:
        state = self.state
        store = state.store
        at = store.next_at()
        if at == 0 or state.now < at:
            return
        if state.now > at + _ASLEEP:  # this process stood still: the answer may be here, and is heard next
            store.postpone(state.now + _ASLEEP)
            return
        if store.answer_due > 0 and state.now >= store.answer_due:
            give_up(state, f"it has not answered for {store.longest_wait:g} s")
        if store.read_due > 0 and state.now >= store.read_due:
            reads = store.give_up_reads()
            reason = f"no workload has been read for {store.longest_wait:g} s"
            state.event("store_hangs", None, {"reason": reason, "workloads": len(reads)})
            for read in reads:
                put_back(state, read)


def _refuse_batch(state: State, batch: Batch, reason: str, down: bool) -> None:
    changes = state.changes
    changes.put_back(batch)
    kept: list[Job] = []
    for job in changes.writing:
        if down and state.is_member and job.unique and job.state != ENDED:
            kept.append(job)
        else:
            refuse_job(state, job, reason)
    changes.break_promises(not_stored(reason), refusal(reason), all_of_them=down)
    if down:
        state.store.set_down(reason)
        waiting = changes.new
        changes.new = []
        if waiting:
            begin(state, Refusal(state, waiting, reason))
    for job in kept:
        _keep_refused(state, job, reason)


def _keep_refused(state: State, job: Job, reason: str) -> None:
    """Of a fleet: nobody knows whether the store has a job with a unique, whose submitters are refused.

    If it has, others may have been given its handle since, and count on it. So it stays, and is written again.
    """
    replace_replies(job, refusal(reason))
    job.function.tally(i64(job.priority)).refused += 1
    state.changes.add_after_all(job)


@final
class Refusal(Chore):
    """Jobs that were to be stored next and can't be; their submitters are told, some at a time."""

    def __init__(self, state: State, jobs: list[Job], reason: str) -> None:
        super().__init__(None)
        self.state: State = state
        self.jobs: list[Job] = jobs
        self.reason: str = reason
        self.at: int = 0

    def step(self) -> bool:
        until = min(self.at + _AT_ONCE, len(self.jobs))
        for job in self.jobs[self.at : until]:
            if job.stored == WAITING:
                refuse_job(self.state, job, self.reason)
            self.state.cost += 10
        self.at = until
        return until == len(self.jobs)


def back(state: State) -> None:
    """The store takes batches again."""
    state.store.set_down("")


def refuse_one(state: State, batch: Batch, number: int, reason: str) -> None:
    """One job of the batch can't be stored; the others still may be."""
    if state.store.late is batch:
        return
    writing = state.changes.writing
    for job in writing:
        if job.number == number:
            writing.remove(job)
            refuse_job(state, job, reason)
            return


def refuse_job(state: State, job: Job, reason: str) -> None:
    """The store has not taken a new job; its submitters are told, and it goes on only for foreground clients."""
    changes = state.changes
    record = changes.take_back(job.number) if job.state != ENDED and (changes.with_job or changes.along) else None
    changes.remove(job.number)
    job.stored = UNSTORED
    if job.state == ENDED:
        changes.answer_ended(job)
        return
    if record is not None and state.records.get(record.kind, record.key) is record:
        forget(state, record.kind, record.key)  # neither survives
    keep_to_ourselves(state, job)
    replace_replies(job, refusal(reason))
    if job.state == DEAD:
        state.event("dead_letter_unstored", None, {"handle": state.shown_handle(job), "reason": reason})
        return
    job.background = False
    job.function.tally(i64(job.priority)).refused += 1
    if job.subscribers is None and job.state != RUNNING:
        finish(state, job, REFUSED)
    elif job.state == HELD:
        release_held(state, job)


def adopt(state: State, stored: StoredJob) -> None:
    """Take over a job of another member of the fleet."""
    job = state.jobs.get(stored.number)
    if job is not None and job.flags & MOVING:  # it has come back before we have heard that it had gone
        vanish(state, job)
        job = None
    if job is None:
        restore(state, stored, is_adopted=True)
    elif job.stored == UNSTORED:  # it was forsaken, and has gone on for a foreground client: they are one again
        job.flags = u8(job.flags & (0xFF - ELSEWHERE))
        job.background = True
        job.stored = STORED
        _let_run(state, job)


def restore(state: State, stored: StoredJob, is_adopted: bool = False) -> None:
    """Take over a job that the store kept from before; in order of their places."""
    function = state.create_function(stored.function)
    unique = BY_WORKLOAD if stored.unique == BY_WORKLOAD else stored.unique
    workload = stored.workload
    job = Job(stored.number, function, unique, workload or b"", stored.priority, True, stored.created)
    job.stored = SPILLED if workload is None else STORED
    job.reducer = stored.reducer
    job.attempts = stored.attempts
    job.due = stored.due
    if is_adopted:  # it may have been here before: what was planned for it then means nothing any more
        state.adoptions += 1
        job.assignments = i16((state.adoptions << 6) & 0x7FFF)
    state.jobs.add(job)
    state.memory += job.cost()
    state.tally(function, i64(job.priority))
    if function.idle_since > 0:
        state.note_busy(function)
    key = job.workload if unique is BY_WORKLOAD else unique
    if key:
        # It is the last one's, unless that turns out to be a dead letter; those before it are dead letters, or were.
        before = function.workloads.get(key) if unique is BY_WORKLOAD else function.uniques.get(key)
        if before is not None and not is_adopted:
            state.displaced[job.number] = before
        if before is None or not is_adopted:
            note_key(function, job, key)
    if stored.number >= state.next_number and not is_adopted:
        state.next_number = stored.number + 1
    policy = function.policy
    if policy is not None and policy.expires > 0 and stored.attempts == 0:
        begin_expiring(state, job, policy.expires)
    if stored.due > state.wall:
        delay(state, job)
    else:
        enqueue(state, job)


def stored_jobs(state: State) -> Iterator[StoredJob]:
    """What the store should have: every job that it has acknowledged; spilled workloads are None."""
    for job in state.jobs:
        if job.stored >= STORED:
            yield as_stored(job, job.number << POSITION_BITS)


def deliver(state: State, read: Read, workload: bytes) -> None:
    """The workload of an assigned job has been read: the worker gets its JOB_ASSIGN, if the job is still its."""
    if not state.store.end_read(read, state.now):
        return
    reply = read.reply
    job = read.job
    peer = job.worker
    if peer is not None and peer is reply.outbox and job.assignments == read.assignment:
        head = assignment_packet(state, job, read.type, len(workload))
        reply.outbox.replace(reply.index, head + workload)
        ability = find_ability(peer, job.function.name)
        if ability is not None:
            start_time(state, job, ability)
        if job.flags & WATCHED:
            tell(state, job, watching.ASSIGNED, b"%d" % (job.attempts + 1))
    reply.open = True
    reply.outbox.touch()


def undelivered(state: State, read: Read, lost_for_good: bool) -> None:
    """The workload could not be read: the worker gets NO_JOB.

    The job is offered again a little later, or fails if its workload is ``lost_for_good``.
    """
    if state.store.end_read(read, state.now):
        put_back(state, read, lost_for_good)


def put_back(state: State, read: Read, lost_for_good: bool = False) -> None:
    """A workload has not been read: its job waits again, or has failed if that is ``lost_for_good``."""
    reply = read.reply
    job = read.job
    if job.worker is not None and job.worker is reply.outbox and job.assignments == read.assignment:
        if lost_for_good:
            state.event("workload_unreadable", None, {"handle": state.shown_handle(job)})
            job.stored = UNSTORED  # the store has set it aside; it is not to be removed there
            tell_failure(state, job)
            note_failure(state, job, job.worker, FAIL, _UNREADABLE)
            policy = job.function.policy
            if policy is not None and policy.webhook:
                tell_policy(state, job, watching.FAILED, b"")
            finish(state, job, FAILED)
        else:
            release(state, job)
            state.set_due(job, state.wall + READ_AGAIN_AFTER)
            delay(state, job)
    reply.open = True
    reply.outbox.touch()
