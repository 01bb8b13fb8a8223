"""From a SUBMIT packet to a job in its line (sections 3.2 to 3.4, 3.10 and 3.12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver.job import DELAYED, HIGH, JOB_COST, LISTENER_COST, LOW, NORMAL, QUEUED, Job, Listener
from geartrain.jobserver.journal import STORED, UNSTORED, WAITING
from geartrain.jobserver.schedule import next_match
from geartrain.jobserver.waking import wake
from geartrain.native import i16, i64
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
    response_head,
)
from geartrain.wire.primitives import matches, parse_number

if TYPE_CHECKING:
    from geartrain.jobserver.function import Function
    from geartrain.jobserver.peer import Peer
    from geartrain.jobserver.server import JobServer

NOTHING: Final = b""
BY_WORKLOAD: Final = b"-"
QUEUE_ERROR: Final = b"QUEUE_ERROR"


def submit(server: JobServer, peer: Peer, type: i64) -> None:
    """Any of the nine SUBMIT packets: answers JOB_CREATED or ERROR."""
    parser = peer.parser
    data = parser.data
    function_end: i64 = parser.argument_end(parser.body)
    unique_start: i64 = function_end + 1
    unique_end: i64 = -1
    if function_end >= 0:
        unique_end = parser.argument_end(unique_start)
    if unique_end < 0:
        server.too_few_arguments(peer, type)
        return
    unique_size: i64 = unique_end - unique_start
    if unique_size > server.max_unique:
        peer.send_error(b"ARGUMENT_TOO_LARGE", b"Unique value too large")
        return

    background = True
    priority: i16 = NORMAL
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
            server.too_few_arguments(peer, type)
            return
        due = _epoch(server, peer, data[workload_start:end])
        if due < 0:
            return
        workload_start = end + 1
    elif type == SUBMIT_JOB_SCHED:
        fields: list[bytes] = []
        while len(fields) < 5:
            end = parser.argument_end(workload_start)
            if end < 0:
                server.too_few_arguments(peer, type)
                return
            fields.append(data[workload_start:end])
            workload_start = end + 1
        due = _schedule(server, peer, fields)
        if due < 0:
            return
    else:
        background = type == SUBMIT_REDUCE_JOB_BACKGROUND
        end = parser.argument_end(workload_start)
        if end < 0:
            server.too_few_arguments(peer, type)
            return
        reducer = data[workload_start:end]
        if len(reducer) > server.max_function:
            peer.send_error(b"ARGUMENT_TOO_LARGE", b"Reducer name too large")
            return
        workload_start = end + 1
        # libgearman sends a fourth, empty argument (the aggregator); the protocol document knows only three.
        end = parser.argument_end(workload_start)
        if end >= 0:
            workload_start = end + 1

    function = peer.last_function
    if function is None or not matches(data, parser.body, function_end, function.name):
        function = server.function_for(peer, data[parser.body : function_end])
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
    if present is not None:
        _join(server, peer, present, background)
        return

    limit: i64 = function.limit(i64(priority))
    if limit > 0 and function.queued + function.delayed + function.running >= limit:
        function.refused += 1
        peer.send_error(QUEUE_ERROR, b"Job queue is full")
        return
    cost: i64 = len(workload) + unique_size + JOB_COST
    if not background:
        cost += LISTENER_COST
    no_room = server.max_memory > 0 and server.memory + cost > server.max_memory
    if no_room or server.draining or (background and server.store_trouble):
        _refuse(server, peer, function, background)
        return

    number: i64 = server.next_number
    server.next_number = number + 1
    job = Job(number, function, unique, workload, priority, background, server.wall)
    job.reducer = reducer
    server.memory += cost
    server.jobs.add(job)
    function.submitted += 1
    if key:
        if unique is BY_WORKLOAD:
            function.workloads[key] = job
        else:
            function.uniques[key] = job
    if not background:
        Listener(job, peer)
    handle = server.handle(number)
    peer.send(b"%b%b" % (response_head(JOB_CREATED, len(handle)), handle))
    if background and server.durable:
        _store(server, peer, job)
    if due > server.wall:
        delay(server, job, due)
    else:
        enqueue(server, job)


def _store(server: JobServer, peer: Peer, job: Job) -> None:
    """The JOB_CREATED just sent is a promise: it waits until the store has the job."""
    if job.stored == UNSTORED:
        job.stored = WAITING
        server.journal.new.append(job)
    slot = peer.hold()
    slot.next_of_job = job.slots
    job.slots = slot


def enqueue(server: JobServer, job: Job) -> None:
    """Make a job grabbable, at the end of its line, and wake a worker for it."""
    function = job.function
    job.state = QUEUED
    function.line(i64(job.priority)).append(job)
    function.queued += 1
    if function.first_sleeper is not None:
        wake(server, function)


def delay(server: JobServer, job: Job, due: float) -> None:
    """Keep a job out of its line until ``due`` (Unix time)."""
    job.state = DELAYED
    job.due = due
    job.function.delayed += 1
    server.delayed.add(due, job.number, 0)


def release_due(server: JobServer, left: i64) -> None:
    """Put the delayed jobs whose time has come into their lines, ``left`` of them at most."""
    number = server.delayed.pop_due(server.wall)
    while number >= 0:
        job = server.jobs.get(number)
        assert job is not None
        job.function.delayed -= 1
        enqueue(server, job)
        left -= 1
        number = server.delayed.pop_due(server.wall) if left > 0 else -1


def _join(server: JobServer, peer: Peer, job: Job, background: bool) -> None:
    """A submission whose key a live job has: it gets that job's handle, and its own workload is forgotten."""
    if background:
        if server.store_trouble and job.stored != STORED:
            _refuse(server, peer, job.function, background)
            return
        job.background = True
    else:
        if server.max_memory > 0 and server.memory + LISTENER_COST > server.max_memory:
            _refuse(server, peer, job.function, background)
            return
        server.memory += LISTENER_COST
        Listener(job, peer)
    job.function.coalesced += 1
    handle = server.handle(job.number)
    peer.send(b"%b%b" % (response_head(JOB_CREATED, len(handle)), handle))
    if background and server.durable and job.stored != STORED:
        _store(server, peer, job)


def _refuse(server: JobServer, peer: Peer, function: Function, background: bool) -> None:
    function.refused += 1
    if server.draining:
        peer.send_error(QUEUE_ERROR, b"The job server is shutting down and takes no more jobs")
        return
    if background and server.store_trouble:
        peer.send_error(QUEUE_ERROR, b"The job could not be stored: " + server.store_trouble.encode())
        return
    peer.send_error(QUEUE_ERROR, b"The job server's memory for jobs is full")
    server.notice("memory_full", peer, {"memory": server.memory, "limit": server.max_memory})


def _epoch(server: JobServer, peer: Peer, text: bytes) -> float:
    """The time in SUBMIT_JOB_EPOCH; one in the past means now (0). -1 if it is no number: ERROR was sent."""
    number = parse_number(text, 0, len(text))
    if number >= 0:
        return float(number)
    if text[:1] == b"-" and parse_number(text, 1, len(text)) >= 0:
        return 0.0
    peer.send_error(b"INVALID_ARGUMENT", b"The time of an epoch job must be Unix seconds, not '%b'" % text[:40])
    return -1.0


def _schedule(server: JobServer, peer: Peer, fields: list[bytes]) -> float:
    """The time that SUBMIT_JOB_SCHED means, or -1 if it means none: ERROR was sent."""
    try:
        return next_match(fields, server.wall, server.settings.zone)
    except ValueError as error:
        peer.send_error(b"INVALID_ARGUMENT", str(error).encode())
        return -1.0
