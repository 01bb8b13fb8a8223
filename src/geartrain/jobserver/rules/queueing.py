"""Where a job stands until it is assigned: in its queue, or out of it until it is due (section 3.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.agenda import Source
from geartrain.jobserver.chores import ITERATION_COST
from geartrain.jobserver.links import append_job, remove_job
from geartrain.jobserver.model import BLOCKED, DELAYED, EXPIRING, HELD, NO_JOBS, QUEUED, WRITING, Job, Queue
from geartrain.jobserver.rules.gating import leave_blocked, may_queue, note_unqueued
from geartrain.jobserver.rules.waking import wake
from geartrain.native import i64, u8

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function
    from geartrain.jobserver.state import State

BY_WORKLOAD: Final = b"-"


def note_key(function: Function, job: Job, key: bytes) -> None:
    """Later submissions with the same key join this job; no other one has it."""
    table = function.workloads if job.unique is BY_WORKLOAD else function.uniques
    table[key] = job
    count: i64 = len(table)
    if count > function.most_keys:
        function.most_keys = count


def enqueue(state: State, job: Job) -> None:
    """Make a job grabbable, at the end of its queue, and wake a worker for it."""
    function = job.function
    job.queued_at = state.now
    if state.lapsed and job.stored >= WRITING:
        hold(job)
        return
    if function.gate is not None and not may_queue(state, function, job):
        return
    job.state = QUEUED
    append_job(function.queue(i64(job.priority)), job)
    function.queued += 1
    if function.first_sleeper is not None:
        wake(state, function)


def delay(state: State, job: Job) -> None:
    """Keep a job out of its queue until it is ``due``."""
    job.state = DELAYED
    append_job(job.function.later, job)
    state.delayed.add(job.due, job.number, job.assignments)


def hold(job: Job) -> None:
    """Keep a job, which stands nowhere, out of its queue until the store has said whose it is."""
    function = job.function
    if function.held is NO_JOBS:
        function.held = Queue()
    job.state = HELD
    append_job(function.held, job)


def release_held(state: State, job: Job) -> None:
    """A held job is ours: it waits in its queue, or for its time."""
    remove_job(job.function.held, job)
    if job.due > state.wall:
        delay(state, job)
    else:
        enqueue(state, job)


def begin_expiring(state: State, job: Job, seconds: float) -> None:
    """The job must begin within so many seconds from its submission, or from when it is due."""
    job.marks = u8(job.marks | EXPIRING)
    state.expiries.add(max(job.created, job.due) + seconds, job.number, job.assignments)


@final
class DelayedJobs(Source):
    """Puts the jobs whose time has come into their queues; of very many some wait for the next iteration."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        at = self.state.delayed.next_at()
        return 0.0 if at == 0 else self.state.now + max(at - self.state.wall, 0.0)

    def run(self) -> None:
        state = self.state
        if not (state.delayed.heap or state.delayed.old):
            return
        number = state.delayed.pop_due(state.wall)
        while number >= 0:
            job = state.jobs.get(number)
            assert job is not None
            remove_job(job.function.later, job)
            enqueue(state, job)
            state.cost += 20
            number = state.delayed.pop_due(state.wall) if state.cost < ITERATION_COST else -1


def leave_queue(state: State, job: Job) -> None:
    """Take a job that waits out of wherever it stands; its state says that still."""
    function = job.function
    if job.state == QUEUED:
        remove_job(function.queue(i64(job.priority)), job)
        function.queued -= 1
        if function.gate is not None:
            note_unqueued(state, function, function.gate, job)
    elif job.state == DELAYED:
        remove_job(function.later, job)
    elif job.state == BLOCKED:
        assert function.gate is not None
        leave_blocked(state, function, function.gate, job)
    elif job.state == HELD:
        remove_job(function.held, job)
