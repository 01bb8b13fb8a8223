"""What follows when an attempt did not succeed: another one after a pause, or the end (sections 3.6 to 3.9).

Without a policy it is as Gearman has it: a job that lost its worker goes back to its queue, any other has failed. A
policy may have it tried again, and may have what did not succeed at last kept as a dead letter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver import results, watching
from geartrain.jobserver.agenda import Source
from geartrain.jobserver.chores import ITERATION_COST
from geartrain.jobserver.kept import RECORD_COST
from geartrain.jobserver.letters import MAX_LINES, Attempt, pack_attempt, unpack_attempts
from geartrain.jobserver.model import (
    DELAYED,
    ELSEWHERE,
    ENDED,
    EXPIRING,
    MAX_ATTEMPTS,
    REMEMBERED,
    TIMED,
    UNSTORED,
    WATCHED,
    Job,
)
from geartrain.jobserver.policy import DROPPED, EXCEPTION, EXPIRED, FAIL, LOST, REASONS, REJECT, RETRY, TIMEOUT
from geartrain.jobserver.records import ATTEMPTS_KIND, Record, number_key
from geartrain.jobserver.rules.dead_letters import bury
from geartrain.jobserver.rules.ends import note_failure
from geartrain.jobserver.rules.keeping import put, put_in_memory
from geartrain.jobserver.rules.outcome import (
    ABANDONED,
    FAILED,
    finish,
    release,
    tell_exception,
)
from geartrain.jobserver.rules.queueing import delay, enqueue, leave_queue
from geartrain.jobserver.rules.results import keep_result, tell_result
from geartrain.jobserver.rules.watching import tell, tell_end, tell_policy
from geartrain.native import i64, u8
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver.model import Peer
    from geartrain.jobserver.state import State

LONGEST_PAUSE: Final = 60.0  # seconds between two tries of a job that loses its workers
AT_POLICY: Final = -1.0  # a pause as the policy says


def lose(state: State, job: Job) -> None:
    """A running job has lost its worker: it goes to the end of its queue, unless nobody wants it (section 3.8)."""
    end_attempt(state, job, LOST)


def end_attempt(state: State, job: Job, reason: i64, text: bytes = b"", after: float = AT_POLICY) -> None:
    """The running job's attempt did not succeed: it is tried again or has come to its end, of which its clients hear.

    ``text`` is what the worker said; ``after`` the pause that it asks for, in seconds.
    """
    function = job.function
    policy = function.policy
    worker = job.worker
    counters = function.tally(i64(job.priority))
    counters.running.add(state.now - job.started_at)
    if reason == LOST:
        counters.lost += 1
        state.losses += 1
        function.last_lost = state.losses
    release(state, job)
    job.state = ENDED  # it stands nowhere
    if worker is not None and reason in (TIMEOUT, EXCEPTION):
        state.revoke(worker, job.number)  # Perl workers send WORK_FAIL after WORK_EXCEPTION and die of an ERROR
    if job.attempts < MAX_ATTEMPTS:
        job.attempts += 1
    if policy is not None and policy.keeps_attempts:
        _remember(state, job, worker, reason, text)
    is_wanted = job.background or job.subscribers is not None
    if reason == LOST and not is_wanted:
        finish(state, job, ABANDONED)
    elif _is_tried_again(state, job, reason):
        if is_wanted:
            _try_again(state, job, worker, reason, after)
        else:
            finish(state, job, ABANDONED)
    else:
        _end(state, job, worker, reason, text)


def end_waiting(state: State, job: Job, reason: i64) -> None:
    """A job that waits, and was never begun, has come to its end: EXPIRED or DROPPED."""
    leave_queue(state, job)
    was_delayed = job.state == DELAYED
    job.state = ENDED
    if was_delayed:
        state.delayed.drop()
    _end(state, job, None, reason, b"")


def _is_tried_again(state: State, job: Job, reason: i64) -> bool:
    policy = job.function.policy
    if reason == REJECT:
        return False
    if policy is not None and policy.attempts > 0:
        return i64(job.attempts) < policy.attempts and (reason == RETRY or policy.retries(reason))
    if reason == RETRY:
        return True
    if reason != LOST:
        return False
    retries = state.settings.job_retries
    if retries >= 0 and job.attempts >= max(retries, 1):
        state.event("retries_used_up", None, {"handle": state.shown_handle(job), "attempts": job.attempts})
        return False
    return True


def _try_again(state: State, job: Job, worker: Peer | None, reason: i64, after: float) -> None:
    """Put the job back, behind the others; at once or after a pause.

    Without a policy that is for a job that lost its worker, or whose worker asks for it. From the second loss on it
    may well be the job that ends its workers: it waits longer and longer, so that those who share its workers find
    them alive, and whoever watches those is not called all the time.
    """
    function = job.function
    policy = function.policy
    if job.flags & WATCHED:
        tell(state, job, watching.RETRY, REASONS[int(reason)].encode())
    job.numerator = 0
    job.denominator = 0
    pause = after
    if policy is not None and policy.attempts > 0:
        function.tally(i64(job.priority)).retried += 1
        if pause < 0:
            pause = policy.pause(i64(job.attempts), job.number)
    elif pause < 0 and reason == RETRY:
        pause = min(2.0 ** min(job.attempts - 1, 20), LONGEST_PAUSE)
    elif pause < 0:
        pause = 0.0
        if job.attempts >= 2:
            pause = min(2.0 ** min(job.attempts - 2, 20), LONGEST_PAUSE)
            fields: dict[str, object] = {
                "handle": state.shown_handle(job),
                "function": as_text(function.shown),
                "lost_workers": job.attempts,
                "next_try_in": pause,
            }
            state.event("worker_lost", worker, fields)
    if pause > 0:
        state.set_due(job, state.wall + pause)
    if job.stored != UNSTORED:
        state.changes.move_behind(job, state.next_number)
    if pause > 0:
        delay(state, job)
    else:
        enqueue(state, job)


def _end(state: State, job: Job, worker: Peer | None, reason: i64, text: bytes) -> None:
    """The job, which stands nowhere, has not succeeded: its clients hear of it, and its policy may have it kept."""
    function = job.function
    policy = function.policy
    tell_exception(state, job, text)
    kept = text or (REASONS[int(reason)].encode() if reason not in (FAIL, EXCEPTION) else b"")
    if policy is not None and policy.results > 0:
        keep_result(state, job, policy, results.FAILED, kept)
    if state.waits > 0:
        tell_result(state, job, results.FAILED, kept)
    if job.flags & WATCHED or (policy is not None and policy.webhook):
        is_dead = policy is not None and policy.dead > 0
        failed = watching.DROPPED if reason == DROPPED else watching.FAILED
        event = watching.DEAD if is_dead else failed
        if job.flags & WATCHED:
            tell_end(state, job, event, kept)
        if policy is not None and policy.webhook:
            tell_policy(state, job, event, kept)
    if reason == TIMEOUT:
        function.tally(i64(job.priority)).timed_out += 1
    note_failure(state, job, worker, reason, text)
    if policy is not None and policy.dead > 0 and job.flags & ELSEWHERE == 0:
        bury(state, job, reason, text, policy)
    else:
        finish(state, job, FAILED)


def _remember(state: State, job: Job, worker: Peer | None, reason: i64, text: bytes) -> None:
    """Add the attempt that has just ended to the job's history."""
    who = b"" if worker is None else worker.shown_name
    ago = state.wall - state.now
    line = pack_attempt(Attempt(int(job.attempts), int(reason), job.started_at + ago, state.wall, who, text))
    key = number_key(job.number)
    record = state.records.get(ATTEMPTS_KIND, key)
    value = b"" if record is None or record.value is None else record.value
    if job.attempts > MAX_LINES:
        value = b"".join([pack_attempt(one) for one in unpack_attempts(value)[1 - MAX_LINES :]])
    record = Record(ATTEMPTS_KIND, key, value + line)
    state.cost += 50 + len(value) // 16
    if not state.has_room(2 * RECORD_COST + len(line)):
        return
    job.marks = u8(job.marks | REMEMBERED)
    if job.stored == UNSTORED:
        put_in_memory(state, record)
    else:
        put(state, record)


@final
class TimeLimits(Source):
    """Ends the attempts that have used up their time; their workers' late reports are ignored (section 3.6)."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        return self.state.timeouts.next_at()

    def run(self) -> None:
        state = self.state
        timeouts = state.timeouts
        if not (timeouts.heap or timeouts.old):
            return
        number = timeouts.pop_due(state.now)
        while number >= 0:
            job = state.jobs.get(number)
            assert job is not None
            self._time_out(job)
            number = timeouts.pop_due(state.now) if state.cost < ITERATION_COST else -1

    def _time_out(self, job: Job) -> None:
        state = self.state
        state.cost += 20
        function = as_text(job.function.shown)
        state.event("job_timed_out", job.worker, {"handle": state.shown_handle(job), "function": function})
        job.flags = u8(job.flags & (0xFF - TIMED))
        end_attempt(state, job, TIMEOUT)


@final
class ExpiringJobs(Source):
    """Ends the jobs that have not begun in the time that their policy gives them."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        at = self.state.expiries.next_at()
        return 0.0 if at == 0 else self.state.now + max(at - self.state.wall, 0.0)

    def run(self) -> None:
        state = self.state
        expiries = state.expiries
        if not (expiries.heap or expiries.old):
            return
        number = expiries.pop_due(state.wall)
        while number >= 0:
            job = state.jobs.get(number)
            assert job is not None
            job.marks = u8(job.marks - EXPIRING)
            state.cost += 20
            job.function.tally(i64(job.priority)).expired += 1
            end_waiting(state, job, EXPIRED)
            number = expiries.pop_due(state.wall) if state.cost < ITERATION_COST else -1
