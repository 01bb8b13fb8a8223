"""What becomes of a job: the reports of its worker, and all the ways in which it ends (sections 3.7 to 3.9, 3.13)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver.job import DELAYED, ENDED, JOB_COST, LISTENER_COST, QUEUED, RUNNING
from geartrain.jobserver.journal import UNSTORED
from geartrain.jobserver.peer import BIG_PIECE
from geartrain.jobserver.records import Change
from geartrain.jobserver.submission import BY_WORKLOAD, delay, enqueue
from geartrain.native import i64
from geartrain.wire.packets import (
    HEADER_SIZE,
    LAYOUTS,
    REQUEST_MAGIC,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    response_head,
)
from geartrain.wire.primitives import find_nul, parse_handle

if TYPE_CHECKING:
    from geartrain.jobserver.job import Job, Listener
    from geartrain.jobserver.peer import Peer
    from geartrain.jobserver.server import JobServer

LONGEST_PAUSE: Final = 60.0  # seconds between two tries of a job that loses its workers

_RES: Final = b"\0RES"


def report(server: JobServer, peer: Peer, type: i64) -> None:
    """Any WORK packet: passed on to the job's clients; WORK_COMPLETE, WORK_FAIL and WORK_EXCEPTION end the job."""
    parser = peer.parser
    data = parser.data
    body: i64 = parser.body
    cut: i64 = parser.argument_end(body)  # the NUL behind the handle; none: the data is empty
    whole = cut >= 0
    if not whole:
        cut = parser.end
    number: i64 = parse_handle(data, body, cut, server.handle_start) if cut <= parser.size else -1
    job = server.jobs.get(number) if number >= 0 else None
    if job is None or job.worker is not peer:
        former = peer.former
        if former is None or number < 0 or number not in former:
            _refuse(peer, type)
        return
    missing: i64 = 0 if whole else 1  # arguments
    if type == WORK_STATUS:
        numbers = parser.last_argument(cut + 1) if whole else b""
        _keep_status(job, numbers)
        if b"\0" not in numbers:
            missing += 1
    listener = job.listeners
    if listener is not None:
        if type == WORK_FAIL:
            fail_listeners(server, job)
        elif missing > 0:
            completed = parser.last_argument(body) + b"\0" * missing
            _forward(server, listener, type, response_head(type, len(completed)) + completed, b"")
        elif parser.end - cut <= BIG_PIECE and parser.pieces is None:
            _forward(server, listener, type, _RES + data[body - HEADER_SIZE + 4 : parser.end], b"")
        else:
            payload = parser.last_argument(cut + 1)
            _forward(server, listener, type, _RES + data[body - HEADER_SIZE + 4 : cut + 1], payload)
    if type == WORK_COMPLETE:
        job.function.completed += 1
        end(server, job)
    elif type in (WORK_FAIL, WORK_EXCEPTION):
        if type == WORK_EXCEPTION:
            peer.remember_former(number)  # Perl workers send WORK_FAIL after it and die of an ERROR
        job.function.failed += 1
        end(server, job)


def report_too_large(server: JobServer, peer: Peer) -> bool:
    """A report above the limit of a packet: its job fails, since what its clients have can't be completed any more.

    Its worker hears of it and goes on, with the rest of the report left out. Returns False, and does nothing, if the
    packet is no report of a worker on a job that it has or had.
    """
    parser = peer.parser
    body: i64 = parser.body
    cut: i64 = parser.argument_end(body)
    if cut < 0:
        cut = parser.end
    type = int(parser.type)
    if parser.magic != REQUEST_MAGIC or cut > parser.size:
        return False
    number: i64 = parse_handle(parser.data, body, cut, server.handle_start)
    job = server.jobs.get(number) if number >= 0 else None
    if job is None or job.worker is not peer:
        former = peer.former
        if former is None or number < 0 or number not in former:
            return False
    else:
        size = int(parser.end - body)
        handle = server.handle(number)
        name = LAYOUTS[type][0].encode()
        text = b"%b of %d bytes for %b (%b) is above the job server's limit of " % (
            name,
            size,
            handle,
            job.function.name,
        )
        text += b"%d (--max-packet): the job has failed" % int(parser.max_body)
        peer.send_error(b"ARGUMENT_TOO_LARGE", text)
        fields: dict[str, object] = {
            "handle": server.shown_handle(job),
            "function": job.function.name.decode("utf-8", "replace"),
            "size": size,
            "limit": int(parser.max_body),
        }
        server.notice("report_too_large", peer, fields)
        listener = job.listeners
        if listener is not None:
            head = response_head(WORK_EXCEPTION, len(handle) + 1 + len(text)) + handle + b"\0"
            _forward(server, listener, WORK_EXCEPTION, head, text)
        job.function.failed += 1
        end(server, job)
        peer.remember_former(number)
    parser.skip()
    return True


def _forward(server: JobServer, first: Listener, type: i64, head: bytes, payload: bytes) -> None:
    """Send a report to every listener; those that do not know exceptions get WORK_FAIL in its place."""
    listener: Listener | None = first
    while listener is not None:
        server.effort += 1
        peer = listener.peer
        if type == WORK_EXCEPTION and not peer.exceptions:
            handle = head[HEADER_SIZE : find_nul(head, HEADER_SIZE, len(head))]
            peer.send(response_head(WORK_FAIL, len(handle)) + handle)
        else:
            peer.send(head)
            if payload:
                peer.send(payload)
        listener = listener.next_of_job


def fail_listeners(server: JobServer, job: Job) -> None:
    """Tell every client of the job that it failed."""
    handle = server.handle(job.number)
    packet = response_head(WORK_FAIL, len(handle)) + handle
    listener = job.listeners
    while listener is not None:
        server.effort += 1
        listener.peer.send(packet)
        listener = listener.next_of_job


def end(server: JobServer, job: Job) -> None:
    """Forget a job, wherever it stands; its clients have been told what there was to tell."""
    function = job.function
    state = job.state
    if state == RUNNING:
        take_back(server, job)
    elif state == QUEUED:
        function.line(i64(job.priority)).remove(job)
        function.queued -= 1
    job.state = ENDED
    if state == DELAYED:
        function.delayed -= 1
        server.delayed.drop()
    memory: i64 = len(job.workload) + len(job.unique) + JOB_COST
    listener = job.listeners
    while listener is not None:
        following = listener.next_of_job
        listener.leave()
        memory += LISTENER_COST
        listener = following
    server.memory -= memory
    if job.stored != UNSTORED:
        server.journal.ended(job)
    unique = job.unique
    if unique:
        if unique is not BY_WORKLOAD:
            if function.uniques.get(unique) is job:
                del function.uniques[unique]
        elif function.workloads.get(job.workload) is job:
            del function.workloads[job.workload]
    server.jobs.remove(job.number)


def lose(server: JobServer, job: Job) -> None:
    """A running job has lost its worker: it goes to the end of its line, unless nobody wants it (section 3.8).

    From the second loss on it may well be the job that ends its workers: it waits before the next try, longer and
    longer, so that those who share its workers find them alive, and whoever watches those is not called all the time.
    """
    function = job.function
    worker = job.worker
    take_back(server, job)
    server.losses += 1
    function.lost += 1
    function.last_lost = server.losses
    job.attempts += 1
    job.numerator = 0
    job.denominator = 0
    if not job.background and job.listeners is None:
        function.abandoned += 1
        job.state = ENDED
        end(server, job)
    elif server.job_retries > 0 and i64(job.attempts) >= server.job_retries:
        server.notice("retries_used_up", None, {"handle": server.shown_handle(job), "attempts": job.attempts})
        function.failed += 1
        job.state = ENDED
        fail_listeners(server, job)
        end(server, job)
    else:
        pause = 0.0
        if job.attempts >= 2:
            pause = min(2.0 ** (job.attempts - 2), LONGEST_PAUSE) if job.attempts < 20 else LONGEST_PAUSE
            job.due = server.wall + pause
            fields: dict[str, object] = {
                "handle": server.shown_handle(job),
                "function": function.name.decode("utf-8", "replace"),
                "lost_workers": job.attempts,
                "next_try_in": pause,
            }
            server.notice("worker_lost", worker, fields)
        if job.stored != UNSTORED:
            place = server.journal.place_behind(server.next_number)
            change = Change(job.number, place, job.due, job.priority, job.attempts)
            server.journal.changed.append(change)
        if pause > 0:
            delay(server, job, job.due)
        else:
            enqueue(server, job)


def time_out(server: JobServer, job: Job) -> None:
    """A running job has used up its time: it fails, and its worker's late reports are ignored (section 3.6)."""
    worker = job.worker
    assert worker is not None
    function = job.function.name.decode("utf-8", "replace")
    server.notice("job_timed_out", worker, {"handle": server.shown_handle(job), "function": function})
    job.function.timed_out += 1
    job.function.failed += 1
    job.timed = False
    fail_listeners(server, job)
    end(server, job)
    worker.remember_former(job.number)


def cancel(server: JobServer, job: Job) -> None:
    """Cancel a job: its clients get WORK_FAIL and nothing after it, its worker is not told (section 3.13)."""
    worker = job.worker
    job.function.cancelled += 1
    fail_listeners(server, job)
    end(server, job)
    if worker is not None:
        worker.remember_former(job.number)


def stop_listening(server: JobServer, peer: Peer) -> None:
    """A client leaves: jobs that only it waited for are dropped if queued, and not run again if running."""
    listener = peer.listening
    while listener is not None:
        job = listener.job
        following = listener.next_of_peer
        listener.leave()
        server.memory -= LISTENER_COST
        if job.listeners is None and not job.background and job.state != RUNNING:
            job.function.abandoned += 1
            end(server, job)
        listener = following


def take_back(server: JobServer, job: Job) -> None:
    """Take a running job from its worker; it stands nowhere then."""
    previous = job.previous
    following = job.next
    if previous is not None:
        previous.next = following
    else:
        worker = job.worker
        assert worker is not None
        worker.running = following
    if following is not None:
        following.previous = previous
    job.previous = None
    job.next = None
    job.worker = None
    job.function.running -= 1
    if job.timed:
        job.timed = False
        server.timeouts.drop()


def _keep_status(job: Job, text: bytes) -> None:
    numerator, _, denominator = text.partition(b"\0")
    job.numerator = _c_number(numerator)
    job.denominator = _c_number(denominator)


def _c_number(text: bytes) -> int:
    """The leading number of a text as C reads it, 0 if there is none, wrapped to signed 32 bits (section 3.7)."""
    text = text[:20].lstrip()
    digits = text[1:] if text[:1] in (b"-", b"+") else text
    count = 0
    while count < len(digits) and digits[count] in b"0123456789":
        count += 1
    value = int(digits[:count] or b"0")
    if text[:1] == b"-":
        value = -value
    return (value + 0x80000000) % 0x100000000 - 0x80000000


def _refuse(peer: Peer, type: i64) -> None:
    """The texts of section 1.7, each where gearmand uses it."""
    if type in (WORK_DATA, WORK_WARNING):
        text = b"Job does not exist on server"
    elif type == WORK_EXCEPTION:
        text = b"An exception was received for a job that does not exist"
    else:
        text = b"Job given in work result not found"
    peer.send_error(b"JOB_NOT_FOUND", text)
