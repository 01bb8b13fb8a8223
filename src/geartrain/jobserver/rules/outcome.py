"""The one way in which a job ends, and what its clients are told (sections 3.7 to 3.9, 3.13).

Every job ends in ``finish``, whatever ended it: that is where it is counted, its worker is let go, the store is told
and the job is forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver import ended, watching
from geartrain.jobserver.gates import unmark
from geartrain.jobserver.links import take_job, unsubscribe
from geartrain.jobserver.model import (
    DEAD,
    DELAYED,
    ENDED,
    EXPIRING,
    REMEMBERED,
    RUNNING,
    SUBSCRIBER_COST,
    TIMED,
    UNSTORED,
    WATCHED,
    Job,
)
from geartrain.jobserver.records import ATTEMPTS_KIND, DEAD_KIND, number_key
from geartrain.jobserver.results import FAILED as NOT_COMPLETED
from geartrain.jobserver.rules import ends
from geartrain.jobserver.rules.gating import note_end
from geartrain.jobserver.rules.keeping import forget
from geartrain.jobserver.rules.queueing import BY_WORKLOAD, leave_queue
from geartrain.jobserver.rules.results import tell_result
from geartrain.jobserver.rules.tracing import let_go
from geartrain.jobserver.rules.watching import tell_end, tell_policy
from geartrain.native import i64, u8
from geartrain.wire.packets import HEADER_SIZE, WORK_EXCEPTION, WORK_FAIL, response_head
from geartrain.wire.primitives import find_nul

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function, Subscriber
    from geartrain.jobserver.state import State

# How a job may end.
COMPLETED: Final = 0  # its worker said so
FAILED: Final = 1  # its last attempt did not succeed
CANCELLED: Final = 2
ABANDONED: Final = 3  # a foreground job that no client waits for any more
REFUSED: Final = 4  # the store has not taken it, so it was never accepted
PURGED: Final = 5  # it was dead, and is kept no longer
MOVED: Final = 6  # it goes on at another member of the fleet

_ENDS: Final = (
    watching.COMPLETED,
    watching.FAILED,
    watching.CANCELLED,
    watching.ABANDONED,
    watching.REFUSED,
    watching.DEAD,
    watching.MOVED,
)  # what its watchers are told

_KEPT: Final = 1000  # entries of a table of keys that is not worth making smaller


def forward(state: State, first: Subscriber, type: i64, head: bytes, payload: bytes) -> None:
    """Send a report to every client; those that do not know exceptions get WORK_FAIL in its place."""
    subscriber: Subscriber | None = first
    shared = first.next_of_job is not None
    limit: i64 = state.max_unsent
    while subscriber is not None:
        state.cost += 1
        peer = subscriber.peer
        if peer.gone or peer.closing or peer.overflown:
            pass
        elif peer.unsent > limit:
            peer.overflow()
        elif type == WORK_EXCEPTION and not peer.exceptions:
            handle = head[HEADER_SIZE : find_nul(head, HEADER_SIZE, len(head))]
            peer.send(response_head(WORK_FAIL, len(handle)) + handle)
        elif shared:
            peer.send_shared(head)
            if payload:
                peer.send_shared(payload)
        else:
            peer.send(head)
            if payload:
                peer.send(payload)
        subscriber = subscriber.next_of_job


def tell_failure(state: State, job: Job) -> None:
    """Tell every client of the job that it failed."""
    subscriber = job.subscribers
    if subscriber is None:
        return
    handle = state.handles.make(job.number)
    packet = response_head(WORK_FAIL, len(handle)) + handle
    forward(state, subscriber, WORK_FAIL, packet, b"")


def tell_exception(state: State, job: Job, text: bytes) -> None:
    """Tell every client of the job with which exception it failed; without a text only that it failed."""
    subscriber = job.subscribers
    if subscriber is None:
        return
    if not text:
        tell_failure(state, job)
        return
    handle = state.handles.make(job.number)
    head = response_head(WORK_EXCEPTION, len(handle) + 1 + len(text)) + handle + b"\0"
    forward(state, subscriber, WORK_EXCEPTION, head, text)


def finish(state: State, job: Job, outcome: i64, size: i64 = 0) -> None:
    """The end of a job, wherever it stands; its clients have been told what there was to tell.

    ``size``: bytes of what its worker gave with its end, if that is to be counted.
    """
    function = job.function
    if outcome in (CANCELLED, ABANDONED):  # of the others more is known where they come from
        policy = function.policy
        if policy is not None and policy.webhook:
            tell_policy(state, job, _ENDS[outcome], b"")
    _count(state, job, outcome, size)
    job_state = job.state
    if job_state == RUNNING:
        worker = job.worker
        release(state, job)
        if worker is not None and outcome == CANCELLED:
            state.revoke(worker, job.number)
    elif job_state == DEAD:
        state.memory -= state.dead.drop(job)
        forget(state, DEAD_KIND, number_key(job.number))
    else:
        leave_queue(state, job)
    job.state = ENDED
    if job_state == DELAYED:
        state.delayed.drop()  # which looks at the jobs' states
    if job.marks > 0:
        _forget_marks(state, job)
    state.memory -= job.cost()
    if job.subscribers is not None:
        let_clients_go(state, job)
    if state.waits > 0:
        tell_result(state, job, NOT_COMPLETED, b"")  # unless they have been told already
    if job.flags & WATCHED:
        tell_end(state, job, _ENDS[outcome], b"")  # the same
    if state.traces:
        let_go(state, job.number)
    if job.stored != UNSTORED:
        state.changes.ended(job)
    if job.unique:
        forget_key(function, job)
    state.jobs.remove(job.number)
    if function.workers == 0:
        state.note_idle(function)


def _forget_marks(state: State, job: Job) -> None:
    if job.marks & EXPIRING:
        stop_expiring(state, job)
    unmark(job)
    if job.marks & REMEMBERED:
        forget(state, ATTEMPTS_KIND, number_key(job.number))


def let_clients_go(state: State, job: Job) -> None:
    """Nobody waits for the job any more."""
    subscriber = job.subscribers
    while subscriber is not None:
        following = subscriber.next_of_job
        unsubscribe(subscriber)
        state.memory -= SUBSCRIBER_COST
        subscriber = following


def stop_expiring(state: State, job: Job) -> None:
    """The job has begun or ended: the time by which it must begin means nothing any more."""
    job.marks = u8(job.marks - EXPIRING)
    state.expiries.drop()


def _count(state: State, job: Job, outcome: i64, size: i64) -> None:
    function = job.function
    counters = function.tally(i64(job.priority))
    if job.state == RUNNING:
        counters.running.add(state.now - job.started_at)
    if outcome == COMPLETED:
        counters.completed += 1
        counters.bytes_out += size
        counters.total.add(max(state.wall - job.created, 0.0))
        if function.ends_noted < state.ends_wanted:
            ends.note_end(state, job, ended.COMPLETED)
    elif outcome == FAILED:
        counters.failed += 1
        counters.total.add(max(state.wall - job.created, 0.0))
    elif outcome == CANCELLED:
        counters.cancelled += 1
        if function.ends_noted < state.ends_wanted:
            ends.note_end(state, job, ended.CANCELLED)
    elif outcome == ABANDONED:
        counters.abandoned += 1
        if function.ends_noted < state.ends_wanted:
            ends.note_end(state, job, ended.ABANDONED)
    elif outcome == REFUSED:
        counters.unstored += 1


def forget_key(function: Function, job: Job) -> None:
    """Nobody finds the job by its unique or workload any more; a table that was large once does not stay so."""
    unique = job.unique
    if unique is BY_WORKLOAD:
        if function.workloads.get(job.workload) is job:
            del function.workloads[job.workload]
    elif function.uniques.get(unique) is job:
        del function.uniques[unique]
    if function.most_keys > _KEPT:
        left: i64 = len(function.uniques) + len(function.workloads)
        if left * 8 < function.most_keys and left <= 10 * _KEPT:
            function.uniques = dict(function.uniques)
            function.workloads = dict(function.workloads)
            function.most_keys = left


def release(state: State, job: Job) -> None:
    """Take a running job from its worker; it stands nowhere then."""
    worker = job.worker
    if worker is not None:
        worker.runs_ended += 1
    if take_job(job):
        state.busy -= 1
    function = job.function
    function.running -= 1
    state.running -= 1
    if job.flags & TIMED:
        job.flags = u8(job.flags & (0xFF - TIMED))
        state.timeouts.drop()
    if function.gate is not None:
        note_end(state, function, job)


def cancel(state: State, job: Job) -> None:
    """Cancel a job: its clients get WORK_FAIL and nothing after it, its worker is not told (section 3.13)."""
    tell_failure(state, job)
    finish(state, job, CANCELLED)
