"""Which of a function's jobs may start: what pauses, concurrency, rates and the limits of keys let through.

A gate only counts (``gates``). Here the counts follow what happens to jobs, and when a limit lets something through
again, because a job has ended or time has passed, workers are woken for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.agenda import Source
from geartrain.jobserver.chores import ITERATION_COST, Chore
from geartrain.jobserver.gates import (
    AT_ONCE,
    block,
    blocking_slot,
    count_ready,
    fit_gate,
    free_places,
    has_aged,
    has_place,
    is_counted,
    key_of,
    make_slot,
    mark_counted,
    move_back,
    refit_slot,
    release_blocked,
    settle,
    slot_of,
    unblock,
    uncount_ready,
    unmark,
)
from geartrain.jobserver.links import take_next
from geartrain.jobserver.model import HIGH, KEY_SLOT_COST, LOW, NORMAL
from geartrain.jobserver.rules.long_work import begin
from geartrain.jobserver.rules.waking import wake
from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function, Gate, Job, KeySlot
    from geartrain.jobserver.state import State

_TRIES: Final = 100  # jobs that are looked at for one that may start
_SLOTS_AT_ONCE: Final = 100


def may_queue(state: State, function: Function, job: Job) -> bool:
    """A job is to stand in its queue: False if it is put into that of its key, for as many of it run or may."""
    gate = function.gate
    if gate is None or gate.keys is None:
        return True
    key = key_of(gate.separator, job)
    if not key:
        return True
    slot = slot_of(gate, key)
    if slot is None:
        slot = _new_slot(state, gate, key)
    if has_place(gate, slot, i64(job.priority), state.now):
        count_ready(gate, slot, job)
        settle(gate, slot, state.now)
        if slot.ready > slot.startable:  # it goes before one that had the place
            _watch(state, function, gate, slot)
        return True
    block(gate, slot, job)
    state.blocked += 1
    _watch(state, function, gate, slot)
    return False


def take_ready(state: State, function: Function) -> Job | None:
    """Take the next job that may start out of its queue; None if there is none, or none is found soon.

    A job may stand in the queue though its key has no place left: a better one of the key has been started since, or
    it was there before the limit. It goes to its key's queue.
    """
    gate = function.gate
    if gate is None or gate.ready(function.queued, function.running) <= 0:
        return None
    left: i64 = _TRIES
    while function.queued > 0 and left > 0:
        left -= 1
        job = take_next(function.queue(best_priority(state, function, gate)))
        function.queued -= 1
        if gate.keys is None:
            return job
        key = key_of(gate.separator, job)
        if not key:
            return job
        slot = slot_of(gate, key)
        if slot is None:
            slot = _new_slot(state, gate, key)
        was_counted = is_counted(gate, job)
        if was_counted:
            uncount_ready(gate, slot, job)
        if free_places(gate, slot, state.now) > 0:
            settle(gate, slot, state.now)
            return job
        block(gate, slot, job, first=was_counted)
        state.blocked += 1
        settle(gate, slot, state.now)
        _watch(state, function, gate, slot)
        state.cost += 3
    return None


def best_priority(state: State, function: Function, gate: Gate) -> i64:
    """The priority whose queue has the next job; a low job that has aged goes as a normal one that came when it did."""
    if function.high.count > 0:
        return HIGH
    low = function.low.first
    normal = function.normal.first
    if low is None:
        return NORMAL
    if normal is None:
        return LOW
    return LOW if has_aged(gate, low, state.now) and low.queued_at <= normal.queued_at else NORMAL


def shown_priority(state: State, function: Function) -> i64:
    """The priority that the function's next job has beside those of other functions."""
    gate = function.gate
    assert gate is not None
    priority: i64 = best_priority(state, function, gate)
    low = function.low.first
    return NORMAL if priority == LOW and low is not None and has_aged(gate, low, state.now) else priority


def note_start(state: State, function: Function, job: Job) -> None:
    """A job that was taken by ``take_ready``, or given otherwise, has started."""
    gate = function.gate
    assert gate is not None
    bucket = gate.bucket
    if bucket is not None:
        before: i64 = gate.tokens
        bucket.fill(state.now)
        bucket.take()
        gate.tokens = bucket.fill(state.now)
        _watch_rate(state, function, gate)
        if gate.tokens >= before and function.first_sleeper is not None:
            wake(state, function)  # more may start than were known of when workers were last woken
    key = b"" if gate.keys is None else key_of(gate.separator, job)
    if not key:
        return
    slot = slot_of(gate, key)
    if slot is None:
        slot = _new_slot(state, gate, key)
    slot.running += 1
    mark_counted(gate, job)
    if slot.bucket is not None:
        slot.bucket.fill(state.now)
        slot.bucket.take()
    settle(gate, slot, state.now)
    _watch(state, function, gate, slot)


def note_end(state: State, function: Function, job: Job) -> None:
    """A running job has been taken from its worker: others may start in its place."""
    gate = function.gate
    assert gate is not None
    was_counted = is_counted(gate, job)
    unmark(job)
    if was_counted:
        slot = slot_of(gate, key_of(gate.separator, job))
        if slot is not None:
            slot.running -= 1
            _let_through(state, function, gate, slot)
    if function.first_sleeper is not None:
        wake(state, function)


def note_unqueued(state: State, function: Function, gate: Gate, job: Job) -> None:
    """A job has left its function's queue without starting."""
    if is_counted(gate, job):
        slot = slot_of(gate, key_of(gate.separator, job))
        if slot is not None:
            uncount_ready(gate, slot, job)
            _let_through(state, function, gate, slot)
            if function.first_sleeper is not None:
                wake(state, function)


def leave_blocked(state: State, function: Function, gate: Gate, job: Job) -> None:
    """A blocked job leaves its key's queue without starting."""
    slot = blocking_slot(gate, job)
    assert slot is not None
    unblock(gate, slot, job)
    state.blocked -= 1
    if gate.keys is not None and gate.keys.get(slot.key) is slot:
        _drop_if_empty(state, gate, slot)


def _new_slot(state: State, gate: Gate, key: bytes) -> KeySlot:
    state.memory += KEY_SLOT_COST
    return make_slot(gate, key, state.now)


def _let_through(state: State, function: Function, gate: Gate, slot: KeySlot) -> None:
    """Whatever of a key may start now moves into the function's queues."""
    blocked: i64 = slot.blocked
    was_last = release_blocked(function, gate, slot, state.now)
    state.cost += 4 * (blocked - slot.blocked)
    state.blocked += slot.blocked - blocked
    if not was_last:
        _plan(state, function, slot, state.now)
    settle(gate, slot, state.now)
    _watch(state, function, gate, slot)


def _watch(state: State, function: Function, gate: Gate, slot: KeySlot) -> None:
    """Look at a key again when its rate lets one more through, and forget one that has nothing to count."""
    bucket = slot.bucket
    if slot.blocked + slot.ready > slot.startable:
        if bucket is not None:
            tokens: i64 = bucket.fill(state.now)
            if tokens < bucket.burst and tokens == free_places(gate, slot, state.now):
                _plan(state, function, slot, bucket.next_at())
    elif slot.running == 0 and slot.ready == 0 and slot.blocked == 0:
        if bucket is not None and bucket.fill(state.now) < bucket.burst:
            _plan(state, function, slot, bucket.full_at())
        else:
            _drop_if_empty(state, gate, slot)


def _plan(state: State, function: Function, slot: KeySlot, at: float) -> None:
    """Look at a key at this time, unless it is looked at before."""
    if slot.timer > 0:
        if slot.timer <= at:
            return
        state.gate_timers.cancel(slot.timer_number)
    slot.timer = at
    slot.timer_number = state.gate_timers.add(at, function, slot)


def _watch_rate(state: State, function: Function, gate: Gate) -> None:
    """Look at a function again when its rate lets one start, if it lets none now."""
    bucket = gate.bucket
    if bucket is not None and gate.tokens <= 0 and gate.timer == 0:
        gate.timer = bucket.next_at()
        gate.timer_number = state.gate_timers.add(gate.timer, function, None)


def _drop_if_empty(state: State, gate: Gate, slot: KeySlot) -> None:
    keys = gate.keys
    if keys is None or slot.timer > 0 or slot.running + slot.ready + slot.blocked > 0:
        return
    bucket = slot.bucket
    if bucket is not None and bucket.fill(state.now) < bucket.burst:
        return  # its last starts still count; ``_watch`` has seen to its end
    if keys.get(slot.key) is slot:
        del keys[slot.key]
        state.memory -= KEY_SLOT_COST


def refit(state: State, function: Function) -> None:
    """The function's policy has changed: its gate follows, and what may start now is started."""
    before = function.gate
    had_keys = before is not None and before.keys is not None
    fit_gate(function, state.now)
    gate = function.gate
    if before is not None and before.timer > 0:  # as the rate was before
        state.gate_timers.cancel(before.timer_number)
        before.timer = 0.0
    if gate is not None:
        _watch_rate(state, function, gate)
    if gate is not None and (gate.leaving is not None or (had_keys and gate.keys is not None)):
        begin(state, Refitting(state, function, gate))
    if function.first_sleeper is not None:
        wake(state, function)


@final
class Refitting(Chore):
    """Jobs move back from the queues of keys that are no more; other keys get their new limits; some at a time."""

    def __init__(self, state: State, function: Function, gate: Gate) -> None:
        super().__init__(None)
        self.state: State = state
        self.function: Function = function
        self.gate: Gate = gate
        gate.moving = True
        self.slots: list[KeySlot] = [] if gate.keys is None else list(gate.keys.values())

    def step(self) -> bool:
        state, function, gate = self.state, self.function, self.gate
        left = _SLOTS_AT_ONCE
        leaving = gate.leaving
        while leaving and left > 0:
            slot = next(reversed(leaving.values()))  # the first one is not found at once where others have been taken
            state.cost += 20 + 4 * min(int(slot.blocked), AT_ONCE)
            blocked: i64 = slot.blocked
            is_empty = move_back(function, gate, slot)
            state.blocked += slot.blocked - blocked
            if not is_empty:
                return False
            if slot.timer > 0:
                state.gate_timers.cancel(slot.timer_number)
                slot.timer = 0.0
            del leaving[slot.key]
            state.memory -= KEY_SLOT_COST
            left -= 1
        if leaving:
            return False
        gate.leaving = None
        while self.slots and left > 0:
            slot = self.slots.pop()
            if gate.keys is not None and gate.keys.get(slot.key) is slot:
                refit_slot(gate, slot, state.now)
                if slot.timer > 0:  # as the rate was before
                    state.gate_timers.cancel(slot.timer_number)
                    slot.timer = 0.0
                _let_through(state, function, gate, slot)
            state.cost += 20
            left -= 1
        if self.slots:
            return False
        gate.moving = False
        policy = None if function.forgotten else state.policy_for(function.name)
        if policy is not function.policy:  # a pattern has changed meanwhile
            function.policy = policy
            refit(state, function)
        elif function.gate is gate and not gate.paused and (policy is None or not policy.is_gated):
            function.gate = None
        if function.first_sleeper is not None:
            wake(state, function)
        return True


@final
class GateTimers(Source):
    """Lets more through when a rate allows it."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        return self.state.gate_timers.deadlines.next_at()

    def run(self) -> None:
        state = self.state
        timers = state.gate_timers
        deadlines = timers.deadlines
        if not (deadlines.heap or deadlines.old):
            return
        while state.cost < ITERATION_COST:
            number = deadlines.pop_due(state.now)
            if number < 0:
                break
            function, slot = timers.meant.pop(number)
            state.cost += 20
            gate = function.gate
            if slot is not None:
                slot.timer = 0.0
                if gate is not None and gate.keys is not None and gate.keys.get(slot.key) is slot:
                    _let_through(state, function, gate, slot)
            elif gate is not None:
                gate.timer = 0.0
                if gate.bucket is not None:
                    gate.tokens = gate.bucket.fill(state.now)
                    _watch_rate(state, function, gate)
            if function.first_sleeper is not None:
                wake(state, function)
