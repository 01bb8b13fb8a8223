"""What a gate counts: the jobs of each key in the queues, running and blocked, and how many of them may start.

Everything here is O(1) for each job, whatever the number of jobs and keys; ``rules.gating`` calls it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver.bucket import Bucket
from geartrain.jobserver.links import append_job, prepend_job, remove_job, take_next
from geartrain.jobserver.model import (
    BLOCKED,
    COUNTED,
    HIGH,
    LOW,
    MAX_GENERATION,
    NO_JOBS,
    NORMAL,
    QUEUED,
    Gate,
    KeySlot,
    Queue,
)
from geartrain.native import i64, u8

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function, Job
    from geartrain.jobserver.policy import Policy

ANY_NUMBER: Final = 1 << 60
AT_ONCE: Final = 200  # jobs that are moved in one go


def fit_gate(function: Function, now: float) -> None:
    """Give a function the gate that its policy asks for; a pause stays. Its keys begin anew if they are told otherwise.

    The jobs that stand in queues of keys which are no more are in ``Gate.leaving``, to be moved back; while there are
    any this must not be called.
    """
    policy = function.policy
    gate = function.gate
    if gate is None:
        if policy is None or not policy.is_gated:
            return
        gate = Gate(function.generation)
        function.gate = gate
    gate.concurrency = 0 if policy is None else policy.concurrency
    gate.ageing = 0.0 if policy is None else policy.ageing
    rate = None if policy is None else policy.rate
    if policy is None or rate is None:
        gate.bucket = None
    elif gate.bucket is None:
        gate.bucket = Bucket(rate.per_second, policy.burst, now)
    else:
        gate.bucket.change(rate.per_second, policy.burst, now)
    if gate.bucket is not None:
        gate.tokens = gate.bucket.fill(now)
    _fit_keys(function, gate, policy)
    if not (gate.paused or gate.leaving or (policy is not None and policy.is_gated)):
        function.gate = None


def _fit_keys(function: Function, gate: Gate, policy: Policy | None) -> None:
    has_keys = policy is not None and policy.has_keys
    if gate.keys is not None and (not has_keys or policy is None or policy.key_separator != gate.separator):
        gate.leaving = gate.keys
        gate.leaving_separator = gate.separator
        gate.keys = None
        gate.counted = 0
        gate.startable = 0
        function.generation = _next_generation(function)
        function.outdated += function.marked
        function.marked = 0
        gate.generation = function.generation
    if policy is None or not has_keys:
        return
    gate.separator = policy.key_separator
    gate.key_concurrency = policy.key_concurrency
    rate = policy.key_rate
    gate.key_per_second = 0.0 if rate is None else rate.per_second
    gate.key_burst = policy.key_burst
    if gate.keys is None:
        gate.keys = {}


def key_of(separator: bytes, job: Job) -> bytes:
    """The key of a job: its unique up to the separator, or all of it; empty: it has none and no limit by key."""
    unique = job.unique
    if unique == b"-":
        return b""
    end = unique.find(separator)
    return unique if end < 0 else unique[:end]


def slot_of(gate: Gate, key: bytes) -> KeySlot | None:
    """The slot of a key, if there is one."""
    return None if gate.keys is None else gate.keys.get(key)


def make_slot(gate: Gate, key: bytes, now: float) -> KeySlot:
    """The slot of a key that has none."""
    slot = KeySlot(key)
    if gate.key_per_second > 0:
        slot.bucket = Bucket(gate.key_per_second, gate.key_burst, now)
    assert gate.keys is not None
    gate.keys[key] = slot
    return slot


def refit_slot(gate: Gate, slot: KeySlot, now: float) -> None:
    """The limits of the keys have changed."""
    if gate.key_per_second == 0:
        slot.bucket = None
    elif slot.bucket is None:
        slot.bucket = Bucket(gate.key_per_second, gate.key_burst, now)
    else:
        slot.bucket.change(gate.key_per_second, gate.key_burst, now)


def free_places(gate: Gate, slot: KeySlot, now: float) -> i64:
    """How many more jobs of this key may start now."""
    free: i64 = ANY_NUMBER
    if gate.key_concurrency > 0:
        free = gate.key_concurrency - slot.running
    if slot.bucket is not None:
        tokens: i64 = slot.bucket.fill(now)
        if tokens < free:
            free = tokens
    return free


def settle(gate: Gate, slot: KeySlot, now: float) -> None:
    """Count anew how many of the key's queued jobs may start."""
    free: i64 = free_places(gate, slot, now)
    startable: i64 = slot.ready
    if free < startable:
        startable = free if free > 0 else 0
    gate.startable += startable - slot.startable
    slot.startable = startable


def is_counted(gate: Gate, job: Job) -> bool:
    """Whether the job's key counts it, as queued or as running."""
    return gate.keys is not None and job.marks // COUNTED == gate.generation


def mark_counted(gate: Gate, job: Job) -> None:
    """Its key counts the job from now on."""
    unmark(job)
    job.marks = u8(job.marks + COUNTED * gate.generation)
    job.function.marked += 1


def unmark(job: Job) -> None:
    """No key counts the job."""
    generation = job.marks // COUNTED
    if generation > 0:
        function = job.function
        if generation == function.generation:
            function.marked -= 1
        else:
            function.outdated -= 1
        job.marks = u8(job.marks % COUNTED)


def may_count_anew(function: Function) -> bool:
    """Whether the next generation has a number that no job has from the last time it was used."""
    return function.outdated == 0 or 1 < _next_generation(function) < MAX_GENERATION


def _next_generation(function: Function) -> u8:
    return u8(1) if function.generation == MAX_GENERATION else u8(function.generation + 1)


def count_ready(gate: Gate, slot: KeySlot, job: Job) -> None:
    """The job stands in a queue of the function, and its key counts it there."""
    mark_counted(gate, job)
    gate.counted += 1
    if job.priority == HIGH:
        slot.ready_high += 1
    elif job.priority == NORMAL:
        slot.ready_normal += 1
    else:
        slot.ready_low += 1


def uncount_ready(gate: Gate, slot: KeySlot, job: Job) -> None:
    """The job has left the queue of the function."""
    unmark(job)
    gate.counted -= 1
    if job.priority == HIGH:
        slot.ready_high -= 1
    elif job.priority == NORMAL:
        slot.ready_normal -= 1
    else:
        slot.ready_low -= 1


def has_place(gate: Gate, slot: KeySlot, priority: i64, now: float) -> bool:
    """Whether one more job of this priority may stand in the function's queue: as many as may start, with those that
    go before it."""
    ahead: i64 = slot.ready_high
    if priority >= NORMAL:
        ahead += slot.ready_normal
    if priority == LOW:
        ahead += slot.ready_low
    return ahead < free_places(gate, slot, now)


def block(gate: Gate, slot: KeySlot, job: Job, *, first: bool = False) -> None:
    """The job stands in its key's queue from now on; ``first``: before the others of its priority."""
    job.state = BLOCKED
    mark_counted(gate, job)
    queue = _own_queue(slot, i64(job.priority))
    if first:
        prepend_job(queue, job)
    else:
        append_job(queue, job)
    _count_blocked(gate, i64(job.priority), 1)


def unblock(gate: Gate, slot: KeySlot, job: Job) -> None:
    """The job leaves its key's queue."""
    remove_job(_own_queue(slot, i64(job.priority)), job)
    unmark(job)
    _count_blocked(gate, i64(job.priority), -1)


def _next_blocked(gate: Gate, slot: KeySlot, now: float) -> i64:
    """The priority whose jobs of the key have the next one; a low job that has aged goes as a normal one."""
    if slot.high.count > 0:
        return HIGH
    low, normal = slot.low.first, slot.normal.first
    if low is None or normal is None:
        return LOW if normal is None else NORMAL
    return LOW if has_aged(gate, low, now) and low.queued_at <= normal.queued_at else NORMAL


def has_aged(gate: Gate, low: Job, now: float) -> bool:
    """Whether a low job has waited so long that it counts as a normal one."""
    return gate.ageing > 0 and low.queued_at + gate.ageing <= now


def release_blocked(function: Function, gate: Gate, slot: KeySlot, now: float) -> bool:
    """Put as many blocked jobs of a key as may start into the function's queues; False: there may be more.

    They go to the front, for they have waited; but behind others of the key, which therefore keep their order.
    """
    left: i64 = AT_ONCE
    while slot.blocked > 0:
        priority: i64 = _next_blocked(gate, slot, now)
        if not has_place(gate, slot, priority, now):
            break
        if left == 0:
            return False
        left -= 1
        job = take_next(_own_queue(slot, priority))
        _count_blocked(gate, priority, -1)
        job.state = QUEUED
        ready: i64 = (
            slot.ready_high if priority == HIGH else slot.ready_normal if priority == NORMAL else slot.ready_low
        )
        if ready == 0:
            prepend_job(function.queue(priority), job)
        else:
            append_job(function.queue(priority), job)
        function.queued += 1
        count_ready(gate, slot, job)
    return True


def move_back(function: Function, gate: Gate, slot: KeySlot) -> bool:
    """Put jobs of a key that is no more into the function's queues; whether all are there."""
    left: i64 = AT_ONCE
    while slot.blocked > 0:
        if left == 0:
            return False
        left -= 1
        queue = slot.low if slot.low.count > 0 else slot.normal if slot.normal.count > 0 else slot.high
        job = queue.last
        assert job is not None
        remove_job(queue, job)
        _count_blocked(gate, i64(job.priority), -1)
        unmark(job)
        job.state = QUEUED
        prepend_job(function.queue(i64(job.priority)), job)
        function.queued += 1
    return True


def blocking_slot(gate: Gate, job: Job) -> KeySlot | None:
    """The slot in whose queue a blocked job stands."""
    slot = None
    if gate.keys is not None and job.marks // COUNTED == gate.generation:
        slot = gate.keys.get(key_of(gate.separator, job))
    elif gate.leaving is not None:
        slot = gate.leaving.get(key_of(gate.leaving_separator, job))
    return slot


def has_memory(gate: Gate, now: float) -> bool:
    """Whether starts of before still count against a rate."""
    return bool(gate.keys) or (gate.bucket is not None and gate.bucket.fill(now) < gate.bucket.burst)


def _own_queue(slot: KeySlot, priority: i64) -> Queue:
    if priority == HIGH:
        if slot.high is NO_JOBS:
            slot.high = Queue()
        return slot.high
    if priority == NORMAL:
        if slot.normal is NO_JOBS:
            slot.normal = Queue()
        return slot.normal
    if slot.low is NO_JOBS:
        slot.low = Queue()
    return slot.low


def _count_blocked(gate: Gate, priority: i64, count: i64) -> None:
    if priority == HIGH:
        gate.blocked_high += count
    elif priority == NORMAL:
        gate.blocked_normal += count
    else:
        gate.blocked_low += count
