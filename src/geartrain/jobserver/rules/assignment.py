"""What a worker can do, and which job it gets (sections 3.3, 3.5 and 3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.changes import Read
from geartrain.jobserver.chores import Chore
from geartrain.jobserver.links import (
    add_ability,
    add_sleeper,
    find_ability,
    give_job,
    remove_ability,
    remove_sleeper,
    rotate,
    rotate_to_front,
    take_next,
)
from geartrain.jobserver.model import ABILITY_COST, EXPIRING, HIGH, RUNNING, SPILLED, STORED, TIMED, WATCHED, Ability
from geartrain.jobserver.outbox import BIG_PIECE
from geartrain.jobserver.rules.attempts import lose
from geartrain.jobserver.rules.gating import note_start, shown_priority, take_ready
from geartrain.jobserver.rules.long_work import begin
from geartrain.jobserver.rules.outcome import stop_expiring
from geartrain.jobserver.rules.tracing import packet
from geartrain.jobserver.rules.waking import get_up, settle_woken, wake
from geartrain.jobserver.rules.watching import tell
from geartrain.jobserver.watching import ASSIGNED
from geartrain.native import i64, u8
from geartrain.wire.packets import (
    GRAB_JOB,
    GRAB_JOB_ALL,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    NO_JOB,
    response_head,
)
from geartrain.wire.primitives import parse_number
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function, Job, Peer
    from geartrain.jobserver.state import State

_NO_JOB_PACKET = response_head(NO_JOB, 0)
_LONGEST_TIMEOUT: Final = 10**15  # milliseconds; far beyond any job, and safe to add to a clock
_AT_ONCE: Final = 200  # jobs in one slice


def grab(state: State, peer: Peer, type: i64) -> None:
    """GRAB_JOB, GRAB_JOB_UNIQ, GRAB_JOB_ALL: a JOB_ASSIGN of the asked kind, or NO_JOB."""
    woken_for = peer.woken_for
    if woken_for is not None:
        settle_woken(state, peer)
    if peer.sleeping:
        get_up(state, peer)
    ability = choose(state, peer)
    if ability is None:
        peer.send(_NO_JOB_PACKET)
    else:
        _assign(state, peer, ability, type)
    if woken_for is not None and woken_for.first_sleeper is not None:
        wake(state, woken_for)


def choose(state: State, peer: Peer) -> Ability | None:
    """The ability whose function yields the next job: best priority first, equal ones take turns (gearmand 2.0).

    A new connection begins with the function whose last loss of a worker is longest ago. Where a job ends each process
    that runs it, and each new process would begin with its function, no other function would ever have a turn.
    """
    if state.withholding:
        return None  # it may be another member's
    if state.draining and state.durable:
        return None  # what waits is safe, and may wait for the server's next life
    only = peer.first_ability
    if only is None or only.next is None:
        return only if only is not None and only.function.ready > 0 else None
    # Another name for the loop: compiled, ``only.next`` counts as never None from here on, to the end of the loop.
    ability: Ability | None = only
    state.cost += peer.ability_count
    best: Ability | None = None
    best_priority: i64 = 99
    is_careful = state.losses > 0 and not peer.had_turn
    while ability is not None:
        function = ability.function
        if function.ready > 0:
            if state.listed_order:
                return ability
            priority: i64 = function.best_priority() if function.gate is None else shown_priority(state, function)
            if priority < best_priority:
                best = ability
                best_priority = priority
                if priority == HIGH and not is_careful:
                    break
            elif (
                is_careful
                and best is not None
                and priority == best_priority
                and function.last_lost < best.function.last_lost
            ):
                best = ability
        ability = ability.next
    if best is not None:
        peer.had_turn = True
        if best.next is not None and not _goes_on(peer, best):
            rotate(best)
    return best


def _goes_on(peer: Peer, ability: Ability) -> bool:
    """Whether the function whose turn it is has the next one too, since its weight gives it several in a row."""
    policy = ability.function.policy
    if policy is None or policy.weight == 1:
        peer.turns = 0
        return False
    peer.turns = peer.turns + 1 if peer.first_ability is ability else 1
    if peer.turns < policy.weight:
        if peer.first_ability is not ability:
            rotate_to_front(ability)
        return True
    peer.turns = 0
    return False


def _assign(state: State, peer: Peer, ability: Ability, type: i64) -> None:
    function = ability.function
    if function.gate is None:
        job = take_next(function.queue(function.best_priority()))
        function.queued -= 1
    else:
        ready = take_ready(state, function)
        if ready is None:
            peer.send(_NO_JOB_PACKET)
            return
        job = ready
    start(state, peer, job)
    if job.stored == SPILLED:
        peer.send(_NO_JOB_PACKET)  # in case the workload can't be read
        state.store.wanted.append(Read(job, peer.defer(), type, job.assignments))
        return
    start_time(state, job, ability)
    if job.flags & WATCHED:
        tell(state, job, ASSIGNED, b"%d" % (job.attempts + 1))
    workload = job.workload
    head = assignment_packet(state, job, type, len(workload))
    if len(workload) < BIG_PIECE:
        peer.send(head + workload)
    else:
        peer.send(head)
        peer.send(workload)


def start(state: State, peer: Peer, job: Job) -> None:
    """A job that stands nowhere runs at this worker from now on."""
    function = job.function
    function.running += 1
    state.running += 1
    job.state = RUNNING
    job.assignments = (job.assignments + 1) & 0x7FFF
    job.started_at = state.now
    counters = function.tally(i64(job.priority))
    counters.started += 1
    counters.waiting.add(state.now - job.queued_at)
    if give_job(peer, job):
        state.busy += 1
    if job.marks & EXPIRING:
        stop_expiring(state, job)
    if state.is_member and job.stored >= STORED:
        state.changes.begun.append(job)
    if function.gate is not None:
        note_start(state, function, job)
    if peer.revoked is not None:
        state.unrevoke(peer, job.number)


def start_time(state: State, job: Job, ability: Ability) -> None:
    """From now on a job's time limit counts: its worker's (section 3.6), else its policy's."""
    timeout = ability.timeout
    if timeout <= 0 and job.function.policy is None:
        return
    if timeout <= 0:
        policy = job.function.policy
        if policy is None or policy.timeout <= 0:
            return
        timeout = policy.timeout
    job.flags = u8(job.flags | TIMED)
    state.timeouts.add(state.now + timeout, job.number, job.assignments)


def assignment_packet(state: State, job: Job, type: i64, size: i64) -> bytes:
    """All of the JOB_ASSIGN packet that answers a GRAB of this type but the workload of ``size`` bytes.

    Where the worker is to know of a trace, that comes first.
    """
    handle = state.handles.make(job.number)
    name = job.function.name
    size += len(handle) + len(name) + 2
    if type == GRAB_JOB:
        assigned = b"%b%b\0%b\0" % (response_head(JOB_ASSIGN, size), handle, name)
    elif type == GRAB_JOB_ALL and job.reducer:
        size += len(job.unique) + len(job.reducer) + 2
        head = response_head(JOB_ASSIGN_ALL, size)
        assigned = b"%b%b\0%b\0%b\0%b\0" % (head, handle, name, job.unique, job.reducer)
    else:
        size += len(job.unique) + 1
        assigned = b"%b%b\0%b\0%b\0" % (response_head(JOB_ASSIGN_UNIQ, size), handle, name, job.unique)
    return packet(state, job) + assigned if state.traces else assigned


def can_do(state: State, peer: Peer, name: bytes, timeout: float) -> Function | None:
    """Register a function with its time limit in seconds; again is the same ability with the new limit.

    None if a limit forbids it; the peer got the ERROR.
    """
    ability = find_ability(peer, name)
    if ability is not None:
        ability.timeout = timeout
        return ability.function
    most = state.settings.max_abilities
    if peer.ability_count >= most:
        peer.send_error(b"QUEUE_ERROR", b"A connection may have %d functions and no more" % most)
        return None
    function = state.function_for(peer, name)
    if function is None:
        return None
    if not state.has_room(ABILITY_COST):
        state.refuse_for_memory(peer)
        return None
    state.memory += ABILITY_COST
    state.abilities_registered += 1
    ability = Ability(peer, function, timeout, state.abilities_registered)
    add_ability(ability)
    if peer.ability_count == 1:
        state.workers += 1
        if peer.sleeping:
            state.asleep += 1
    function.workers += 1
    if function.idle_since > 0:
        state.note_busy(function)
    if peer.sleeping:
        add_sleeper(ability)
        wake(state, function)
    return function


def can_do_timeout(state: State, peer: Peer, name: bytes, text: bytes) -> None:
    """CAN_DO_TIMEOUT: milliseconds; zero or less means no limit (section 3.6).

    Many workers mean seconds, and some write what is no number. Below a second counts as a second, as in gearmand, and
    what is no number as no limit; both are said once for each function.
    """
    digits = text.strip(b"\0 \t\r\n")
    negative = digits[:1] == b"-"
    milliseconds = parse_number(digits, 1 if negative else 0, len(digits))
    readable = 0 <= milliseconds <= _LONGEST_TIMEOUT
    if negative or not readable:
        milliseconds = 0
    short = 0 < milliseconds < 1000 and not state.settings.exact_timeouts
    function = can_do(state, peer, name, 1.0 if short else float(milliseconds) / 1000.0)
    if function is None or function.said_limit or (readable and not short):
        return
    function.said_limit = True
    fields: dict[str, object] = {"function": as_text(function.shown), "limit": as_text(text[:40])}
    state.event("limit_in_seconds" if short else "limit_unreadable", peer, fields)


def cant_do(state: State, peer: Peer, name: bytes) -> None:
    """Forget an ability; a job of that function running here goes back to its queue (section 3.8)."""
    ability = find_ability(peer, name)
    if ability is None:
        return
    function = ability.function
    forget_ability(state, ability)
    begin(state, GiveBack(state, peer, function))
    if peer.woken_for is function:
        settle_woken(state, peer)
        wake(state, function)


def reset_abilities(state: State, peer: Peer) -> None:
    """Forget every ability; all jobs running here go back to their queues."""
    begin(state, ResetAbilities(state, peer))


def forget_ability(state: State, ability: Ability) -> None:
    """A worker can do this no more."""
    function = ability.function
    peer = ability.peer
    remove_sleeper(ability)
    remove_ability(ability)
    if peer.ability_count == 0:
        state.workers -= 1
        if peer.sleeping:
            state.asleep -= 1
    state.cost += 10
    state.memory -= ABILITY_COST
    function.workers -= 1
    if function.workers == 0:
        state.note_idle(function)


@final
class ResetAbilities(Chore):
    """A worker forgets all that it can do, some at a time, and gives back its jobs."""

    def __init__(self, state: State, peer: Peer) -> None:
        super().__init__(peer)
        self.state: State = state
        self.peer: Peer = peer
        self.jobs: GiveBack | None = None
        self.slept: bool = peer.sleeping
        get_up(state, peer)  # it is not to be woken for what it is about to forget

    def step(self) -> bool:
        state = self.state
        peer = self.peer
        if peer.gone or peer.closing:
            return True  # its departure does the rest
        left = _AT_ONCE
        ability = peer.first_ability
        while ability is not None:
            if left == 0:
                return False
            forget_ability(state, ability)
            ability = peer.first_ability
            left -= 1
        if self.jobs is None:
            self.jobs = GiveBack(state, peer, None)
        if not self.jobs.step():
            return False
        peer.sleeping = self.slept
        function = peer.woken_for
        if function is not None:
            settle_woken(state, peer)
            wake(state, function)
        return True


@final
class GiveBack(Chore):
    """The jobs of a function, or of all, that a worker runs go back to their queues, some at a time."""

    def __init__(self, state: State, peer: Peer, function: Function | None) -> None:
        super().__init__(peer)
        self.state: State = state
        self.peer: Peer = peer
        self.numbers: list[int] = []  # of the jobs to give back, the last one first
        job = peer.running
        while job is not None:
            if function is None or job.function is function:
                self.numbers.append(job.number)
            job = job.next
            state.cost += 1
        self.numbers.reverse()

    def step(self) -> bool:
        state = self.state
        left = _AT_ONCE
        while self.numbers and left > 0:
            number = self.numbers.pop()
            job = state.jobs.get(number)
            if job is not None and job.worker is self.peer:
                state.revoke(self.peer, number)
                lose(state, job)
            state.cost += 5
            left -= 1
        return not self.numbers
