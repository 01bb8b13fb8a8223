"""What the store answers, and what follows from it: acknowledgements, refusals, jobs of an earlier life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver.assignment import assignment_packet, start_time
from geartrain.jobserver.job import ENDED, JOB_COST, RUNNING, Job
from geartrain.jobserver.journal import (
    STORED,
    UNSTORED,
    WAITING,
    Read,
    fill_slots,
    may_leave_memory,
    open_slots,
)
from geartrain.jobserver.outcome import end, fail_listeners, take_back
from geartrain.jobserver.records import Batch, StoredJob
from geartrain.jobserver.submission import BY_WORKLOAD, delay, enqueue
from geartrain.wire.packets import ERROR, pack_response

if TYPE_CHECKING:
    from geartrain.jobserver.server import JobServer

RESERVE: Final = 100_000  # numbers that may be given out before the store hears of it; they are never used twice
READ_AGAIN_AFTER: Final = 5.0  # seconds until a job whose workload could not be read is offered again


def take_batch(server: JobServer) -> Batch | None:
    """What the store is to commit next; None while a batch is under way or nothing has changed."""
    journal = server.journal
    if journal.under_way is not None or not journal.waiting or server.store_trouble:
        return None
    if server.next_number + RESERVE // 2 > journal.reserved:
        journal.reserved = server.next_number + RESERVE
    return journal.take(journal.reserved)


def written(server: JobServer, batch: Batch) -> None:
    """The store has committed the batch: acknowledge its jobs."""
    journal = server.journal
    journal.under_way = None
    for job in journal.writing:
        if job.state == ENDED:
            journal.removed.append(job.number)
            job.stored = UNSTORED
        else:
            job.stored = STORED
            if may_leave_memory(job, server.settings.spill_above):
                server.memory -= len(job.workload)
                job.workload = b""
                job.spilled = True
        open_slots(job)


def refused(server: JobServer, batch: Batch, reason: str, down: bool) -> None:
    """The store has not taken the batch's new jobs: their submitters get QUEUE_ERROR.

    ``down``: the same holds for those that wait behind it, and for all to come until ``back``.

    A job that a foreground client waits for as well goes on for it. What else the batch would have changed is kept for
    the next one, and so is the removal of its jobs, since nobody knows how much of the batch arrived.
    """
    journal = server.journal
    journal.under_way = None
    journal.changed = batch.changed + journal.changed
    journal.removed = batch.removed + journal.removed
    journal.records = batch.records + journal.records
    for job in journal.writing:
        _refuse(server, job, reason)
    if down:
        server.store_trouble = reason
        waiting = journal.new
        journal.new = []
        for job in waiting:
            if job.stored == WAITING:
                _refuse(server, job, reason)


def back(server: JobServer) -> None:
    """The store takes batches again."""
    server.store_trouble = ""


def refuse_one(server: JobServer, number: int, reason: str) -> None:
    """One job of the batch under way can't be stored; the others still may be."""
    writing = server.journal.writing
    for job in writing:
        if job.number == number:
            writing.remove(job)
            _refuse(server, job, reason)
            return


def _refuse(server: JobServer, job: Job, reason: str) -> None:
    server.journal.removed.append(job.number)
    job.stored = UNSTORED
    if job.state == ENDED:
        open_slots(job)
        return
    fill_slots(job, pack_response(ERROR, b"QUEUE_ERROR", b"The job could not be stored: " + reason.encode()))
    job.background = False
    job.function.refused += 1
    if job.listeners is None and job.state != RUNNING:
        job.function.submitted -= 1
        end(server, job)


def restore(server: JobServer, stored: StoredJob) -> None:
    """Take over a job that the store kept from an earlier life; in order of their places."""
    function = server.create_function(stored.function)
    unique = BY_WORKLOAD if stored.unique == BY_WORKLOAD else stored.unique
    workload = stored.workload
    job = Job(stored.number, function, unique, workload or b"", stored.priority, True, stored.created)
    job.spilled = workload is None
    job.reducer = stored.reducer
    job.attempts = stored.attempts
    job.stored = STORED
    server.jobs.add(job)
    server.memory += len(job.workload) + len(unique) + JOB_COST
    if unique is BY_WORKLOAD:
        if job.workload:
            function.workloads.setdefault(job.workload, job)
    elif unique:
        function.uniques.setdefault(unique, job)
    if stored.number >= server.next_number:
        server.next_number = stored.number + 1
    if stored.due > server.wall:
        delay(server, job, stored.due)
    else:
        job.due = stored.due
        enqueue(server, job)


def deliver(server: JobServer, read: Read, workload: bytes) -> None:
    """The workload of an assigned job has been read: the worker gets its JOB_ASSIGN, if the job is still its."""
    slot = read.slot
    peer = slot.peer
    job = read.job
    if job.worker is peer and job.assignments == read.assignment:
        head = assignment_packet(server, job, read.type, len(workload))
        peer.replace(slot.index, head + workload)
        ability = peer.ability(job.function.name)
        if ability is not None:
            start_time(server, job, ability)
    slot.open = True
    peer.touch()


def undelivered(server: JobServer, read: Read, lost_for_good: bool) -> None:
    """The workload could not be read: the worker gets NO_JOB.

    The job is offered again a little later, or fails if its workload is ``lost_for_good``.
    """
    slot = read.slot
    job = read.job
    if job.worker is slot.peer and job.assignments == read.assignment:
        if lost_for_good:
            server.notice("workload_unreadable", None, {"handle": server.shown_handle(job)})
            job.function.failed += 1
            job.stored = UNSTORED  # the store has set it aside; it is not to be removed there
            fail_listeners(server, job)
            end(server, job)
        else:
            take_back(server, job)
            delay(server, job, server.wall + READ_AGAIN_AFTER)
    slot.open = True
    slot.peer.touch()
