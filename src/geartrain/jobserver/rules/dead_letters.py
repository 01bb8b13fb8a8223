"""Dead letters: jobs that did not succeed, kept for somebody to look at, to try again or to throw away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.agenda import Source
from geartrain.jobserver.chores import ITERATION_COST
from geartrain.jobserver.gates import unmark
from geartrain.jobserver.letters import DeadLetter, pack_letter
from geartrain.jobserver.model import DEAD, DELAYED, EXPIRING, MOVING, RUNNING, UNSTORED, Job
from geartrain.jobserver.policy import REASONS
from geartrain.jobserver.records import ATTEMPTS_KIND, DEAD_KIND, Record, number_key, number_of
from geartrain.jobserver.rules.keeping import forget, put, put_in_memory
from geartrain.jobserver.rules.outcome import PURGED, finish, forget_key, let_clients_go, stop_expiring
from geartrain.jobserver.rules.queueing import begin_expiring, enqueue, leave_queue, note_key
from geartrain.jobserver.rules.results import forget_result
from geartrain.native import i64
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver.policy import Policy
    from geartrain.jobserver.state import State

DEFAULT_AGE: Final = 7 * 86400.0  # seconds that a letter is kept whose function has no policy any more
_AT_ONCE: Final = 10  # letters that go when one comes, where fewer are kept than before


def bury(state: State, job: Job, reason: i64, text: bytes, policy: Policy) -> None:
    """A job that stands nowhere is dead from now on. Its clients have been told, and its key is free.

    A foreground job is stored for it. Of as many as the policy allows the longest dead one goes.
    """
    function = job.function
    counters = function.tally(i64(job.priority))
    fields: dict[str, object] = {}
    state.cost += 100
    if not state.has_room(2 * len(text)):
        text = b""
    counters.failed += 1
    counters.buried += 1
    counters.total.add(max(state.wall - job.created, 0.0))
    if job.marks & EXPIRING:
        stop_expiring(state, job)
    unmark(job)
    let_clients_go(state, job)
    if job.unique:
        forget_key(function, job)
    job.state = DEAD
    job.background = True
    key = number_key(job.number)
    record = Record(DEAD_KIND, key, pack_letter(int(reason), state.wall, text))
    if state.durable and job.stored == UNSTORED and state.store.trouble:
        fields = {"handle": state.shown_handle(job), "reason": state.store.trouble}
        state.event("dead_letter_unstored", None, fields)
    elif state.durable and job.stored == UNSTORED:
        state.changes.add_after_all(job)
        history = state.records.get(ATTEMPTS_KIND, key)
        if history is not None:
            put(state, history)
    elif job.stored != UNSTORED:
        state.changes.move_behind(job, state.next_number)  # with its attempts
    if job.stored == UNSTORED:
        put_in_memory(state, record)
    else:
        put(state, record)
    _hold(state, job, record, policy.dead)
    fields = {
        "handle": state.shown_handle(job),
        "function": as_text(function.shown),
        "reason": REASONS[int(reason)],
        "attempts": int(job.attempts),
    }
    state.event("job_dead", None, fields)
    left = _AT_ONCE
    while left > 0 and state.dead.count(function) > (policy.dead_count if state.has_room(0) else 1):
        oldest = state.dead.oldest(function)
        assert oldest is not None
        if left == _AT_ONCE:
            state.event("dead_letters_full", None, {"function": fields["function"], "limit": int(policy.dead_count)})
        purge(state, oldest.job)
        left -= 1
    if function.workers == 0:
        state.note_idle(function)


def restore_letter(state: State, record: Record) -> None:
    """The store has kept this record from before: its job, which has been restored, is dead."""
    job = state.jobs.get(number_of(record.key))
    if job is not None and job.state == DEAD:
        return  # it is known
    if job is None or job.subscribers is not None or job.state == RUNNING:  # it goes on for somebody
        forget(state, record.kind, record.key)
        return
    leave_queue(state, job)
    was_delayed = job.state == DELAYED
    job.state = DEAD
    if was_delayed:
        state.delayed.drop()
    if job.marks & EXPIRING:
        stop_expiring(state, job)
    if job.unique:
        forget_key(job.function, job)
        _give_key_back(state, job)
    policy = job.function.policy
    age = DEFAULT_AGE if policy is None or policy.dead == 0 else policy.dead
    _hold(state, job, record, age)


def _give_key_back(state: State, dead: Job) -> None:
    """The key of a job that was dead all the time is that of the live one from which it took it."""
    job = state.displaced.get(dead.number)
    while job is not None and job.state == DEAD:
        job = state.displaced.get(job.number)
    if job is None:
        return
    key = job.workload if job.unique == b"-" else job.unique
    table = job.function.workloads if job.unique == b"-" else job.function.uniques
    if key not in table:
        note_key(job.function, job, key)


def revive(state: State, job: Job) -> None:
    """A dead job waits again, with all its attempts before it; behind all others, and with its key if that is free.

    It is due now, so that the time by which it must begin counts from now, also after a restart.
    """
    function = job.function
    state.memory -= state.dead.drop(job)
    forget(state, DEAD_KIND, number_key(job.number))
    if int(job.number) in state.results.by_number:
        forget_result(state, int(job.number))
    policy = function.policy
    job.attempts = 0
    job.assignments = (job.assignments + 1) & 0x7FFF  # deadlines of before mean nothing any more
    expires = 0.0 if policy is None else policy.expires
    state.set_due(job, state.wall if expires > 0 else 0.0)  # from when it must begin in time, also after a restart
    if expires > 0:
        begin_expiring(state, job, expires)
    key = job.workload if job.unique == b"-" else job.unique
    table = function.workloads if job.unique == b"-" else function.uniques
    if key and key not in table:
        note_key(function, job, key)
    if function.idle_since > 0:
        state.note_busy(function)
    function.tally(i64(job.priority)).revived += 1
    if job.stored != UNSTORED:
        state.changes.move_behind(job, state.next_number)
    enqueue(state, job)


def purge(state: State, job: Job) -> None:
    """A dead job is kept no longer."""
    finish(state, job, PURGED)


def _hold(state: State, job: Job, record: Record, age: float) -> None:
    letter = DeadLetter(job, record.value or b"")
    if letter.died == 0:
        letter.died = state.wall
    state.memory += state.dead.put(letter, letter.died + age, state.wall)


@final
class PacedRetries(Source):
    """Tries dead letters again at the rate that was asked for."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        first = 0.0
        for paced in self.state.dead.paced:
            if first == 0 or paced.at < first:
                first = paced.at
        return first

    def run(self) -> None:
        state = self.state
        if not state.dead.paced:
            return
        for paced in state.dead.paced[:]:
            while paced.at <= state.now and paced.next < len(paced.numbers) and state.cost < ITERATION_COST:
                letter = state.dead.all.get(paced.numbers[paced.next])
                paced.next += 1
                state.cost += 20
                if letter is not None and letter.job.flags & MOVING == 0:
                    paced.at += paced.interval
                    revive(state, letter.job)
            if paced.next >= len(paced.numbers):
                state.dead.paced.remove(paced)


@final
class OldLetters(Source):
    """Forgets the dead letters that have been kept as long as their policy says."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        at = self.state.dead.deadlines.next_at()
        return 0.0 if at == 0 else self.state.now + max(at - self.state.wall, 0.0)

    def run(self) -> None:
        state = self.state
        deadlines = state.dead.deadlines
        if not (deadlines.heap or deadlines.old):
            return
        number = deadlines.pop_due(state.wall)
        while number >= 0:
            letter = state.dead.all.get(number)
            assert letter is not None
            letter.until = 0.0
            purge(state, letter.job)
            state.cost += 20
            number = deadlines.pop_due(state.wall) if state.cost < ITERATION_COST else -1
