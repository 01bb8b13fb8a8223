"""Some of the jobs that end are noted, for whoever looks; the other rules ask only whether one more is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geartrain.jobserver.ended import (
    ENDS_A_SECOND,
    FAILED,
    FAILURES_A_SECOND,
    MOST_A_SECOND,
    EndedJob,
)
from geartrain.jobserver.model import REMEMBERED, RUNNING
from geartrain.jobserver.policy import FAIL, REASONS
from geartrain.jobserver.records import ATTEMPTS_KIND, number_key
from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.model import Job, Peer
    from geartrain.jobserver.state import State


def want_ends(state: State) -> None:
    """Another second has begun: of each function some more jobs may be noted."""
    ended = state.ended
    ended.seconds += 1
    ended.left = MOST_A_SECOND
    ended.failures_left = MOST_A_SECOND
    state.ends_wanted = ended.seconds * ENDS_A_SECOND
    state.failures_wanted = ended.seconds * FAILURES_A_SECOND


def note_end(state: State, job: Job, how: str) -> None:
    """A job ends, and has not failed: that is noted, since the caller has seen that it is wanted."""
    function = job.function
    if function.ends_noted < state.ends_wanted - ENDS_A_SECOND:
        function.ends_noted = state.ends_wanted - ENDS_A_SECOND  # seconds that are over give nothing
    function.ends_noted += 1
    ended = state.ended
    ended.left -= 1
    if ended.left == 0:
        state.ends_wanted = 0
    worker = job.worker if job.state == RUNNING else None
    ended.note(function.name, _as_ended(state, job, worker, how, b""), False, b"")


def note_failure(state: State, job: Job, worker: Peer | None, reason: i64, text: bytes) -> None:
    """A job has failed or is dead, for this reason and with this text: that is noted, if it is wanted."""
    function = job.function
    if function.failures_noted >= state.failures_wanted:
        return
    if function.failures_noted < state.failures_wanted - FAILURES_A_SECOND:
        function.failures_noted = state.failures_wanted - FAILURES_A_SECOND
    function.failures_noted += 1
    ended = state.ended
    ended.failures_left -= 1
    if ended.failures_left == 0:
        state.failures_wanted = 0
    how = FAILED if reason == FAIL else REASONS[int(reason)]
    ended.note(function.name, _as_ended(state, job, worker, how, text), True, text)


def _as_ended(state: State, job: Job, worker: Peer | None, how: str, text: bytes) -> EndedJob:
    ago = state.wall - state.now
    record = state.records.get(ATTEMPTS_KIND, number_key(job.number)) if job.marks & REMEMBERED else None
    history = b"" if record is None or record.value is None else record.value
    state.cost += 10 + len(text) // 256
    return EndedJob(
        int(job.number),
        job.unique,
        int(job.priority),
        job.background,
        len(job.workload),
        how,
        job.created,
        state.commits.time_of(job),
        job.queued_at + ago if job.queued_at > 0 else 0.0,
        job.started_at + ago if worker is not None else 0.0,
        state.wall,
        b"" if worker is None else worker.shown_name,
        int(job.attempts),
        text,
        history,
    )
