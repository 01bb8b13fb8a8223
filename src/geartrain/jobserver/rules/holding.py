"""A new job that is given to no worker until the store has it, for what must not be done twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geartrain.jobserver.model import BLOCKED, DELAYED, QUEUED
from geartrain.jobserver.rules.queueing import delay, enqueue, leave_queue
from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.state import State


def hold(state: State, number: i64, until: float) -> None:
    """Delay a job that waits; that time is stored with it, and counts if ``let_go`` never comes."""
    job = state.jobs.get(number)
    if job is not None and job.state in (QUEUED, BLOCKED):
        leave_queue(state, job)
        state.set_due(job, until)
        delay(state, job)


def let_go(state: State, number: i64) -> None:
    """A job that was held is due now. The store need not hear of it: after a restart it is a little late."""
    job = state.jobs.get(number)
    if job is not None and job.state == DELAYED and job.attempts == 0:
        leave_queue(state, job)
        job.state = QUEUED
        state.delayed.drop()  # which looks at the jobs' states
        state.set_due(job, 0.0)
        enqueue(state, job)
