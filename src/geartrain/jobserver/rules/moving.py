"""Of a fleet: jobs that come from other members, and jobs that go to them.

A job that is to go is *held* until the store has said that it is the other member's. Until then it is still ours: if
the store can't do it, or the other member has gone meanwhile, the job goes back to its queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver.model import (
    BLOCKED,
    DEAD,
    DELAYED,
    ENDED,
    EXPIRING,
    HELD,
    HIGH,
    LOW,
    MOVING,
    NORMAL,
    QUEUED,
    RUNNING,
    STORED,
    UNSTORED,
    Job,
)
from geartrain.jobserver.records import ATTEMPTS_KIND, DEAD_KIND, Record, number_key
from geartrain.jobserver.rules.outcome import MOVED, finish, stop_expiring
from geartrain.jobserver.rules.queueing import begin_expiring, hold, leave_queue, release_held
from geartrain.jobserver.rules.results import tell_moved
from geartrain.native import i64, u8

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function
    from geartrain.jobserver.records import Batch
    from geartrain.jobserver.state import State

PASSED_OVER: Final = 1000  # jobs that can't go, before none is looked for any more


def may_move(state: State, job: Job) -> bool:
    """Whether a job may be another member's: it is stored, does not run, and nobody waits for it here.

    Who watches it is told that it has gone.
    """
    return (
        job.stored >= STORED
        and job.state in (QUEUED, DELAYED, BLOCKED, DEAD)
        and job.subscribers is None
        and job.flags & MOVING == 0
        and (state.waits == 0 or int(job.number) not in state.results.waits)
    )


def give_away(state: State, function: Function, member: int, most: i64) -> int:
    """Let up to ``most`` of the jobs that wait in a function's queues go to another member; how many do.

    The best priority first, and the oldest.
    """
    count = 0
    if state.store.trouble:
        return count
    passed: i64 = 0
    for priority in (HIGH, NORMAL, LOW):
        job = function.queue(i64(priority)).first
        while job is not None and count < most and passed < PASSED_OVER:
            following = job.next
            if may_move(state, job):
                let_go(state, job, member)
                count += 1
            else:
                passed += 1
            job = following
    state.cost += 20 * count + int(passed)
    return count


def give_away_page(state: State, behind: int, member: int) -> int:
    """Let some of the jobs behind a number go, wherever they wait; up to which number it has come, -1: to the last."""
    if state.store.trouble:
        return behind
    jobs, at = state.jobs.page(behind, PASSED_OVER)
    for job in jobs:
        if may_move(state, job):
            let_go(state, job, member)
    state.cost += 20 * PASSED_OVER
    return at


def let_go(state: State, job: Job, member: int) -> None:
    """Let a job go to another member, as soon as the store has said so."""
    if job.state != DEAD:
        leave_queue(state, job)
        was_delayed = job.state == DELAYED
        hold(job)
        if was_delayed:
            state.delayed.drop()
        if job.marks & EXPIRING:
            stop_expiring(state, job)
    job.flags = u8(job.flags | MOVING)
    state.changes.moving.append((job, member))


def moved(state: State, batch: Batch) -> None:
    """The store has committed a batch: what it has given to others is forgotten here, the rest is ours as before."""
    gone = {number for number, _ in batch.moved}
    for job, _ in state.changes.take_moving():
        if job.number in gone:
            vanish(state, job)
        else:
            stay(state, job)


def keep_to_ourselves(state: State, job: Job) -> None:
    """What is kept about a job that is not in the store, or not ours there, is not for the store either."""
    key = number_key(job.number)
    for kind in (DEAD_KIND, ATTEMPTS_KIND):
        record = state.records.get(kind, key)
        if record is not None:
            record.in_memory = True
            if (kind, key) in state.changes.records:  # it may have arrived with a batch that was refused
                state.changes.records[kind, key] = Record(kind, key, None)


def stay(state: State, job: Job) -> None:
    """A job that was to go is ours after all."""
    job.flags = u8(job.flags & (0xFF - MOVING))
    if job.state != HELD:
        return
    policy = job.function.policy
    if policy is not None and policy.expires > 0 and job.attempts == 0:
        begin_expiring(state, job, policy.expires)
    if state.lapsed:
        return  # it is held all the same
    release_held(state, job)


def vanish(state: State, job: Job) -> None:
    """Forget a stored job that is another member's; the store is not told. For foreground clients of it it goes on."""
    if job.state == ENDED:
        return
    job.stored = UNSTORED
    changes = state.changes
    if changes.changed:
        changes.changed.pop(job.number, None)
    job.flags = u8(job.flags & (0xFF - MOVING))
    keep_to_ourselves(state, job)
    if job.subscribers is not None:
        job.background = False
        if job.state == HELD:
            release_held(state, job)
        return
    if job.state == RUNNING and job.worker is not None:
        state.revoke(job.worker, job.number)
    if state.waits > 0:
        tell_moved(state, job)
    finish(state, job, MOVED)
