"""Why a job waits: what keeps it from being handed out, as one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.chores import Chore
from geartrain.jobserver.gates import free_places, key_of, slot_of
from geartrain.jobserver.letters import unpack_attempts
from geartrain.jobserver.links import find_ability
from geartrain.jobserver.model import BLOCKED, DEAD, DELAYED, ENDED, HELD, MOVING, RUNNING
from geartrain.jobserver.policy import reason_name
from geartrain.jobserver.records import ATTEMPTS_KIND, number_key
from geartrain.jobserver.shown import show_name
from geartrain.native import i64
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from geartrain.jobserver.model import Function, Gate, Job, Peer
    from geartrain.jobserver.state import State

_AT_ONCE: Final = 500  # peers that are looked at in one slice


def span(seconds: float) -> str:
    """A span of time as people say it."""
    seconds = max(seconds, 0.0)
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def attempts_text(state: State, job: Job) -> str:
    """Which attempt comes or runs, and how the one before ended; empty for a first one."""
    if job.attempts == 0:
        return ""
    policy = job.function.policy
    of = f" of {policy.attempts}" if policy is not None and policy.attempts > 0 else ""
    record = state.records.get(ATTEMPTS_KIND, number_key(job.number))
    if record is not None:
        state.cost += len(record.value or b"") // 16
    before = unpack_attempts(record.value)[-1:] if record is not None and record.value is not None else []
    after = f" after: {reason_name(before[0].reason)}" if before else ""
    return f" (attempt {job.attempts + 1}{of}{after})"


def reason_at_once(state: State, job: Job) -> str:
    """Why a job is not handed out, as far as its function tells; empty: it is for the workers."""
    function = job.function
    if job.state == DEAD:
        letter = state.dead.all.get(int(job.number))
        if letter is None:
            return "dead"
        since, reason = span(state.wall - letter.died), reason_name(letter.reason)
        return f"dead since {since}: {reason}, after {_times(int(job.attempts))}"
    if job.state == RUNNING:
        worker = "a worker" if job.worker is None else as_text(job.worker.shown_name)
        return f"running for {span(state.now - job.started_at)} at {worker}{attempts_text(state, job)}"
    if job.state == DELAYED:
        return f"due in {span(job.due - state.wall)}{attempts_text(state, job)}"
    if job.state == HELD:
        return f"held: {_holder(state, job)}"
    waiting = f"waiting {span(state.now - job.queued_at)}{attempts_text(state, job)}: "
    gate = function.gate
    if gate is not None:
        held = _held_by_gate(state, function, gate, job)
        if held:
            return waiting + held
    if state.draining and state.durable:
        return waiting + "the job server is shutting down; it is kept for its next start"
    if function.workers == 0:
        return waiting + f"no worker is registered for {as_text(function.shown)}"
    return ""


def _holder(state: State, job: Job) -> str:
    if state.lapsed:
        return state.store.lapse
    if job.flags & MOVING:
        return "it is about to go to another job server of the fleet"
    return "the store has still to say whether the fleet has a job of this function and unique"


def _times(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"


def _held_by_gate(state: State, function: Function, gate: Gate, job: Job) -> str:
    if gate.paused:
        return f"{as_text(function.shown)} is paused since {span(state.wall - gate.paused_since)} by {_who(gate)}"
    key = key_of(gate.separator, job)
    slot = slot_of(gate, key) if key else None
    if slot is not None and (job.state == BLOCKED or free_places(gate, slot, state.now) <= 0):
        shown = as_text(show_name(key))
        if gate.key_concurrency > 0 and slot.running >= gate.key_concurrency:
            return f"limit key_concurrency={gate.key_concurrency} of the key {shown!r} is reached"
        bucket = slot.bucket
        if bucket is not None and bucket.fill(state.now) <= 0:
            policy = function.policy
            rate = "" if policy is None or policy.key_rate is None else policy.key_rate.text
            return f"key_rate {rate} of the key {shown!r}: next start in {span(bucket.next_at() - state.now)}"
        return f"other jobs of the key {shown!r} are before it"
    if gate.concurrency > 0 and function.running >= gate.concurrency:
        return f"limit concurrency={gate.concurrency} is reached"
    if gate.bucket is not None and gate.bucket.fill(state.now) <= 0:
        policy = function.policy
        rate = "" if policy is None or policy.rate is None else policy.rate.text
        return f"rate {rate}: next start in {span(gate.bucket.next_at() - state.now)}"
    return ""


def _who(gate: Gate) -> str:
    return as_text(show_name(gate.paused_by)) or "somebody"


@final
class Explanation(Chore):
    """Finds out why a job waits, and tells ``tell``; the able workers are looked at some at a time."""

    def __init__(self, state: State, peer: Peer, job: Job, tell: Callable[[str], None]) -> None:
        super().__init__(peer)
        self.state: State = state
        self.peer: Peer = peer
        self.job: Job = job
        self.tell: Callable[[str], None] = tell
        self.at: i64 = 0
        self.until: i64 = state.peer_roll.last_place
        self.able: int = 0
        self.busy: int = 0
        self.longest: float = 0.0

    def step(self) -> bool:
        state, job = self.state, self.job
        if self.peer.gone or self.peer.closing:
            return True
        if job.state == ENDED:  # while the workers were looked at
            self.tell("ended")
            return True
        state.cost += 50
        reason = reason_at_once(state, job)
        if reason:
            self.tell(reason)
            return True
        page = state.peer_roll.page(self.at, self.until, _AT_ONCE)
        state.cost += 10 + 2 * len(page)
        for peer in page:
            self.at = peer.place
            if find_ability(peer, job.function.name) is None:
                continue
            self.able += 1
            running = peer.running
            if running is not None:
                self.busy += 1
                self.longest = max(self.longest, state.now - running.started_at)
        if page:
            return False
        waiting = f"waiting {span(state.now - job.queued_at)}{attempts_text(state, job)}: "
        if self.busy == self.able:
            who = (
                "the only able worker is busy, for"
                if self.able == 1
                else (f"all {self.able} able workers are busy; the longest for")
            )
            self.tell(f"{waiting}{who} {span(self.longest)}")
        else:
            free = self.able - self.busy
            self.tell(
                f"{waiting}{free} of {self.able} able workers are free and have been told, or are about to ask;"
                f" {job.function.ready} jobs of {as_text(job.function.shown)} are ready"
            )
        return True
