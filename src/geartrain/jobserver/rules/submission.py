"""From a SUBMIT packet to a job in its function's queue (sections 3.2 to 3.4, 3.10 and 3.12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver.links import subscribe
from geartrain.jobserver.model import (
    HIGH,
    LOW,
    MOVING,
    NORMAL,
    STORED,
    SUBSCRIBER_COST,
    UNSTORED,
    Job,
    job_cost,
)
from geartrain.jobserver.outbox import BIG_PIECE
from geartrain.jobserver.policy import DROPPED
from geartrain.jobserver.rules.answers import refusal
from geartrain.jobserver.rules.attempts import end_waiting
from geartrain.jobserver.rules.queueing import BY_WORKLOAD, begin_expiring, delay, enqueue, hold, note_key
from geartrain.jobserver.rules.results import find_result
from geartrain.jobserver.rules.tracing import hold as hold_trace
from geartrain.jobserver.schedule import next_match
from geartrain.native import i64, u8
from geartrain.wire.packets import (
    JOB_CREATED,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    SUBMIT_JOB_SCHED,
    SUBMIT_REDUCE_JOB_BACKGROUND,
    WORK_COMPLETE,
    response_head,
)
from geartrain.wire.primitives import matches, parse_number

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function, Peer
    from geartrain.jobserver.results import Result
    from geartrain.jobserver.state import State

NOTHING: Final = b""
QUEUE_ERROR: Final = b"QUEUE_ERROR"
NO_NUMBERS: Final = b"The job server has used up its numbers and waits for its fleet's database to give it more"
MAX_SUBSCRIBERS: Final = 100_000  # clients that may wait for one job, so that all of them are told soon


def submit(state: State, peer: Peer, type: i64) -> None:
    """Any of the nine SUBMIT packets: answers JOB_CREATED or ERROR."""
    traceparent = peer.traceparent
    if traceparent:
        peer.traceparent = NOTHING  # whatever becomes of this submission
    parser = peer.parser
    data = parser.data
    function_end: i64 = parser.argument_end(parser.body)
    unique_start: i64 = function_end + 1
    unique_end: i64 = -1
    if function_end >= 0:
        unique_end = parser.argument_end(unique_start)
    if unique_end < 0:
        state.too_few_arguments(peer, type)
        return
    unique_size: i64 = unique_end - unique_start
    if unique_size > state.max_unique:
        peer.send_error(b"ARGUMENT_TOO_LARGE", b"Unique value too large")
        return

    background = True
    priority: u8 = NORMAL
    workload_start: i64 = unique_end + 1
    reducer = NOTHING
    due = 0.0
    if type == SUBMIT_JOB_BG:
        pass
    elif type == SUBMIT_JOB:
        background = False
    elif type == SUBMIT_JOB_HIGH:
        background = False
        priority = HIGH
    elif type == SUBMIT_JOB_LOW:
        background = False
        priority = LOW
    elif type == SUBMIT_JOB_HIGH_BG:
        priority = HIGH
    elif type == SUBMIT_JOB_LOW_BG:
        priority = LOW
    elif type == SUBMIT_JOB_EPOCH:
        end: i64 = parser.argument_end(workload_start)
        if end < 0:
            state.too_few_arguments(peer, type)
            return
        due = _epoch(state, peer, data[workload_start:end])
        if due < 0:
            return
        workload_start = end + 1
    elif type == SUBMIT_JOB_SCHED:
        fields: list[bytes] = []
        while len(fields) < 5:
            end = parser.argument_end(workload_start)
            if end < 0:
                state.too_few_arguments(peer, type)
                return
            fields.append(data[workload_start:end])
            workload_start = end + 1
        due = _schedule(state, peer, fields)
        if due < 0:
            return
    else:
        background = type == SUBMIT_REDUCE_JOB_BACKGROUND
        end = parser.argument_end(workload_start)
        if end < 0:
            state.too_few_arguments(peer, type)
            return
        reducer = data[workload_start:end]
        if len(reducer) > state.max_function:
            peer.send_error(b"ARGUMENT_TOO_LARGE", b"Reducer name too large")
            return
        workload_start = end + 1
        # libgearman sends a fourth, empty argument (the aggregator); the protocol document knows only three.
        end = parser.argument_end(workload_start)
        if end >= 0:
            workload_start = end + 1

    function = peer.last_function
    if function is None or function.forgotten or not matches(data, parser.body, function_end, function.name):
        function = state.function_for(peer, data[parser.body : function_end])
        if function is None:
            return
        peer.last_function = function
    unique = NOTHING
    workload = NOTHING
    key = NOTHING  # what a job to join is looked up by: its unique, or with the unique "-" its workload
    if unique_size == 0:
        workload = parser.last_argument(workload_start)
        present: Job | None = None
    elif unique_size == 1 and data[unique_start] == 45:
        unique = BY_WORKLOAD
        workload = parser.last_argument(workload_start)
        key = workload
        present = function.workloads.get(key) if key else None
    else:
        unique = data[unique_start:unique_end]
        key = unique
        present = function.uniques.get(key)
        if present is None:
            workload = parser.last_argument(workload_start)
    if due <= state.wall:
        due = 0.0
    is_policed = function.policy is not None
    if is_policed and due == 0 and unique_size > 0:
        result = find_result(state, function, unique, key, background, i64(priority))
        if result is not None:
            if result.fresh_until <= state.wall and present is None:
                if not workload:
                    workload = parser.last_argument(workload_start)
                _refresh(state, function, unique, workload, key)
            _answer(state, peer, result, background)
            return
    if present is not None and present.flags & MOVING == 0:
        _join(state, peer, present, background)
        return
    if present is not None:  # it may be another member's by now, or have ended there: the store says whether it is
        key = NOTHING
        if not workload:
            workload = parser.last_argument(workload_start)

    limit: i64 = function.limit(i64(priority))
    if (limit > 0 and function.total >= limit) or (is_policed and not _has_place(function, i64(priority))):
        state.tally(function, i64(priority)).refused += 1
        peer.send_error(QUEUE_ERROR, b"Job queue is full")
        return
    cost: i64 = job_cost(len(workload), unique_size, len(reducer), due > 0)
    if not background:
        cost += SUBSCRIBER_COST
    no_room = state.max_memory > 0 and state.memory + cost > state.max_memory
    if no_room or state.draining or (background and state.store.trouble):
        _refuse(state, peer, function, i64(priority), background)
        return
    number: i64 = state.next_number
    if number >= state.numbers_end:
        _refuse_for_numbers(state, peer, function, i64(priority))
        return
    if is_policed:
        _make_room(state, function, i64(priority))
    state.note_number()
    job = Job(number, function, unique, workload, priority, background, state.wall)
    job.reducer = reducer
    job.due = due
    state.memory += cost
    state.jobs.add(job)
    counters = state.tally(function, i64(priority))
    counters.submitted += 1
    counters.bytes_in += len(workload)
    if function.idle_since > 0:
        state.note_busy(function)
    if key:
        note_key(function, job, key)
    if not background:
        subscribe(job, peer)
    handle = state.handles.make(number)
    peer.send(b"%b%b" % (response_head(JOB_CREATED, len(handle)), handle))
    if background and state.durable:
        state.changes.add(job)
        _defer(peer, job)
    if is_policed:
        _follow_policy(state, function, job)
    if traceparent:
        hold_trace(state, job, traceparent)
    if background and state.is_member and (key or present is not None):
        hold(job)  # another member may have a job of this key
    elif due > 0:
        delay(state, job)
    else:
        enqueue(state, job)


def _answer(state: State, peer: Peer, result: Result, background: bool) -> None:
    """Answer a submission with a result that is kept; a background one gets the handle of the job that made it.

    That is a promise: the answer waits until the store has the result.
    """
    if background:
        trouble = state.store.trouble
        if trouble and state.changes.has_result(result.number):
            peer.send(refusal(trouble))
            return
        handle = state.handles.make(result.number)
        peer.send(b"%b%b" % (response_head(JOB_CREATED, len(handle)), handle))
        if state.durable and not trouble:
            reply = peer.defer()
            reply.is_packet = True
            state.changes.promise(reply, state.store.under_way is not None)
        return
    number: i64 = state.next_number
    if number >= state.numbers_end:
        peer.send_error(QUEUE_ERROR, NO_NUMBERS)
        return
    state.note_number()
    handle = state.handles.make(number)
    data = result.data
    created = b"%b%b" % (response_head(JOB_CREATED, len(handle)), handle)
    head = b"%b%b%b\0" % (created, response_head(WORK_COMPLETE, len(handle) + 1 + len(data)), handle)
    if len(data) < BIG_PIECE:
        peer.send(head + data)
    else:
        peer.send(head)
        peer.send(data)


def _refresh(state: State, function: Function, unique: bytes, workload: bytes, key: bytes) -> None:
    """Run a job once more whose result is stale; nobody waits for it, and the store has nothing of it."""
    cost: i64 = job_cost(len(workload), len(unique), 0, False)
    limit: i64 = function.limit(NORMAL)
    policy = function.policy
    if (limit > 0 and function.total >= limit) or (
        policy is not None and policy.queue > 0 and function.total >= policy.queue
    ):
        return
    if not state.has_room(cost) or state.draining or state.next_number >= state.numbers_end:
        return
    job = Job(state.next_number, function, unique, workload, NORMAL, True, state.wall)
    state.note_number()
    state.memory += cost
    state.jobs.add(job)
    function.counters.submitted += 1
    function.counters.bytes_in += len(workload)
    if function.idle_since > 0:
        state.note_busy(function)
    note_key(function, job, key)
    if policy is not None and policy.expires > 0:
        begin_expiring(state, job, policy.expires)  # others may join it
    enqueue(state, job)


def _has_place(function: Function, priority: i64) -> bool:
    """Whether the policy of a function lets one more job in, perhaps in the place of another."""
    policy = function.policy
    if policy is None or policy.queue == 0 or function.total < policy.queue:
        return True
    return policy.drops_oldest and _oldest(function, priority) is not None


def _make_room(state: State, function: Function, priority: i64) -> None:
    """Drop the oldest job of a full queue for a new one, which nothing else refuses."""
    policy = function.policy
    if policy is None or policy.queue == 0 or function.total < policy.queue:
        return
    oldest = _oldest(function, priority)
    if oldest is not None:
        function.tally(i64(oldest.priority)).dropped += 1
        end_waiting(state, oldest, DROPPED)


def _follow_policy(state: State, function: Function, job: Job) -> None:
    """What the policy of its function means for a new job."""
    policy = function.policy
    assert policy is not None
    if policy.expires > 0:
        begin_expiring(state, job, policy.expires)
    if policy.results > 0:
        function.tally(i64(job.priority)).result_misses += 1


def _oldest(function: Function, priority: i64) -> Job | None:
    """Which job makes room in a full queue: of those that wait, and are no better than the new one, the oldest.

    One of lower priority goes first. None: none can go, since all others run, are delayed or wait for their key.
    """
    job = function.low.first
    if job is None and priority <= NORMAL:
        job = function.normal.first
    if job is None and priority == HIGH:
        job = function.high.first
    return job


def _defer(peer: Peer, job: Job) -> None:
    """The JOB_CREATED just sent is a promise: it waits until the store has the job."""
    reply = peer.defer()
    reply.is_packet = True
    reply.next_of_job = job.deferred
    job.deferred = reply


def _join(state: State, peer: Peer, job: Job, background: bool) -> None:
    """A submission whose key a live job has: it gets that job's handle, and its own workload is forgotten."""
    if background:
        if state.store.trouble and (job.stored < STORED or state.lapsed):
            _refuse(state, peer, job.function, i64(job.priority), background)
            return
        job.background = True
    elif job.subscriber_count >= MAX_SUBSCRIBERS:
        job.function.tally(i64(job.priority)).refused += 1
        peer.send_error(QUEUE_ERROR, b"%d clients wait for this job already" % job.subscriber_count)
        return
    else:
        if not state.has_room(SUBSCRIBER_COST):
            _refuse(state, peer, job.function, i64(job.priority), background)
            return
        state.memory += SUBSCRIBER_COST
        subscribe(job, peer)
    job.function.tally(i64(job.priority)).coalesced += 1
    handle = state.handles.make(job.number)
    peer.send(b"%b%b" % (response_head(JOB_CREATED, len(handle)), handle))
    if background and state.durable and job.stored < STORED:
        if job.stored == UNSTORED:
            state.changes.add_after_all(job)
        _defer(peer, job)


def _refuse(state: State, peer: Peer, function: Function, priority: i64, background: bool) -> None:
    state.tally(function, priority).refused += 1
    if state.draining:
        peer.send_error(QUEUE_ERROR, b"The job server is shutting down and takes no more jobs")
    elif background and state.store.trouble:
        peer.send_error(QUEUE_ERROR, b"The job could not be stored: " + state.store.trouble.encode())
    else:
        state.refuse_for_memory(peer)


def _refuse_for_numbers(state: State, peer: Peer, function: Function, priority: i64) -> None:
    state.tally(function, priority).refused += 1
    peer.send_error(QUEUE_ERROR, NO_NUMBERS)


def _epoch(state: State, peer: Peer, text: bytes) -> float:
    """The time in SUBMIT_JOB_EPOCH; one in the past means now (0). -1 if it is no number: ERROR was sent."""
    number = parse_number(text, 0, len(text))
    if number >= 0:
        return float(number)
    if text[:1] == b"-" and parse_number(text, 1, len(text)) >= 0:
        return 0.0
    peer.send_error(b"INVALID_ARGUMENT", b"The time of an epoch job must be Unix seconds, not '%b'" % text[:40])
    return -1.0


def _schedule(state: State, peer: Peer, fields: list[bytes]) -> float:
    """The time that SUBMIT_JOB_SCHED means, or -1 if it means none: ERROR was sent."""
    state.cost += 1000
    try:
        return next_match(fields, state.wall, state.settings.zone)
    except ValueError as error:
        peer.send_error(b"INVALID_ARGUMENT", str(error).encode())
        return -1.0
