"""What becomes of a job: the reports of its worker, and the one way in which it ends (sections 3.7 to 3.9, 3.13).

Every job ends in ``finish``, whatever ended it: that is where it is counted, its clients are told, its worker is let
go, the store is told and the job is forgotten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.agenda import Source
from geartrain.jobserver.chores import ITERATION_COST
from geartrain.jobserver.links import remove_job, take_job, unsubscribe
from geartrain.jobserver.model import DELAYED, ENDED, MAX_ATTEMPTS, QUEUED, RUNNING, SUBSCRIBER_COST, UNSTORED, Job
from geartrain.jobserver.outbox import BIG_PIECE
from geartrain.jobserver.rules.submission import BY_WORKLOAD, delay, enqueue
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
from geartrain.wire.primitives import find_nul
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function, Peer, Subscriber
    from geartrain.jobserver.state import State

# How a job may end.
COMPLETED: Final = 0  # its worker said so
FAILED: Final = 1  # its worker said so, or it has lost as many workers as it may
TIMED_OUT: Final = 2
CANCELLED: Final = 3
ABANDONED: Final = 4  # a foreground job that no client waits for any more
REFUSED: Final = 5  # the store has not taken it, so it was never accepted

LONGEST_PAUSE: Final = 60.0  # seconds between two tries of a job that loses its workers

_RES: Final = b"\0RES"
_KEPT: Final = 1000  # entries of a table of keys that is not worth making smaller


def report(state: State, peer: Peer, type: i64) -> None:
    """Any WORK packet: passed on to the job's clients; WORK_COMPLETE, WORK_FAIL and WORK_EXCEPTION end the job."""
    parser = peer.parser
    data = parser.data
    body: i64 = parser.body
    cut: i64 = parser.argument_end(body)  # the NUL behind the handle; none: the data is empty
    whole = cut >= 0
    if not whole:
        cut = parser.end
    number: i64 = state.handles.parse(data, body, cut) if cut <= parser.size else -1
    job = state.jobs.get(number) if number >= 0 else None
    if job is None or job.worker is not peer:
        revoked = peer.revoked
        if revoked is None or number < 0 or number not in revoked:
            _refuse(peer, type)
        return
    missing: i64 = 0 if whole else 1  # arguments
    if type == WORK_STATUS:
        numbers = parser.last_argument(cut + 1) if whole else b""
        _keep_status(job, numbers)
        if b"\0" not in numbers:
            missing += 1
    subscriber = job.subscribers
    if subscriber is not None and type != WORK_FAIL:
        if missing > 0:
            completed = parser.last_argument(body) + b"\0" * missing
            _forward(state, subscriber, type, response_head(type, len(completed)) + completed, b"")
        elif parser.end - cut <= BIG_PIECE and parser.pieces is None:
            _forward(state, subscriber, type, _RES + data[body - HEADER_SIZE + 4 : parser.end], b"")
        else:
            payload = parser.last_argument(cut + 1)
            _forward(state, subscriber, type, _RES + data[body - HEADER_SIZE + 4 : cut + 1], payload)
    if type == WORK_COMPLETE:
        finish(state, job, COMPLETED)
    elif type == WORK_FAIL:
        tell_failure(state, job)
        finish(state, job, FAILED)
    elif type == WORK_EXCEPTION:
        state.revoke(peer, number)  # Perl workers send WORK_FAIL after it and die of an ERROR
        finish(state, job, FAILED)


def report_too_large(state: State, peer: Peer) -> bool:
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
    number: i64 = state.handles.parse(parser.data, body, cut)
    job = state.jobs.get(number) if number >= 0 else None
    if job is None or job.worker is not peer:
        revoked = peer.revoked
        if revoked is None or number < 0 or number not in revoked:
            return False
    else:
        size = int(parser.end - body)
        limit = int(parser.max_body)
        handle = state.handles.make(number)
        what = (LAYOUTS[type][0].encode(), size, handle, job.function.name, limit)
        text = (
            b"%b of %d bytes for %b (%b) is above the job server's limit of %d (--max-packet): the job has failed"
            % what
        )
        peer.send_error(b"ARGUMENT_TOO_LARGE", text)
        fields: dict[str, object] = {
            "handle": state.shown_handle(job),
            "function": as_text(job.function.shown),
            "size": size,
            "limit": limit,
        }
        state.event("report_too_large", peer, fields)
        subscriber = job.subscribers
        if subscriber is not None:
            head = response_head(WORK_EXCEPTION, len(handle) + 1 + len(text)) + handle + b"\0"
            _forward(state, subscriber, WORK_EXCEPTION, head, text)
        state.revoke(peer, number)
        finish(state, job, FAILED)
    parser.skip()
    return True


def _forward(state: State, first: Subscriber, type: i64, head: bytes, payload: bytes) -> None:
    """Send a report to every client; those that do not know exceptions get WORK_FAIL in its place."""
    subscriber: Subscriber | None = first
    shared = first.next_of_job is not None
    limit: i64 = state.max_unsent
    while subscriber is not None:
        state.cost += 1
        peer = subscriber.peer
        if peer.gone or peer.closing or peer.overflown:
            pass
        elif peer.unsent > limit:
            peer.overflow()
        elif type == WORK_EXCEPTION and not peer.exceptions:
            handle = head[HEADER_SIZE : find_nul(head, HEADER_SIZE, len(head))]
            peer.send(response_head(WORK_FAIL, len(handle)) + handle)
        elif shared:
            peer.send_shared(head)
            if payload:
                peer.send_shared(payload)
        else:
            peer.send(head)
            if payload:
                peer.send(payload)
        subscriber = subscriber.next_of_job


def tell_failure(state: State, job: Job) -> None:
    """Tell every client of the job that it failed."""
    subscriber = job.subscribers
    if subscriber is None:
        return
    handle = state.handles.make(job.number)
    packet = response_head(WORK_FAIL, len(handle)) + handle
    _forward(state, subscriber, WORK_FAIL, packet, b"")


def finish(state: State, job: Job, outcome: i64) -> None:
    """The end of a job, wherever it stands; its clients have been told what there was to tell."""
    function = job.function
    _count(state, job, outcome)
    job_state = job.state
    if job_state == RUNNING:
        worker = job.worker
        release(state, job)
        if worker is not None and outcome in (TIMED_OUT, CANCELLED):
            state.revoke(worker, job.number)
    elif job_state == QUEUED:
        remove_job(function.queue(i64(job.priority)), job)
        function.queued -= 1
    elif job_state == DELAYED:
        remove_job(function.later, job)
    job.state = ENDED
    if job_state == DELAYED:
        state.delayed.drop()  # which looks at the jobs' states
    memory: i64 = job.cost()
    subscriber = job.subscribers
    while subscriber is not None:
        following = subscriber.next_of_job
        unsubscribe(subscriber)
        memory += SUBSCRIBER_COST
        subscriber = following
    state.memory -= memory
    if job.stored != UNSTORED:
        state.changes.ended(job)
    if job.unique:
        _forget_key(function, job)
    state.jobs.remove(job.number)
    if function.workers == 0:
        state.note_idle(function)


def _count(state: State, job: Job, outcome: i64) -> None:
    counters = job.function.counters
    if job.state == RUNNING:
        counters.ran += state.now - job.started_at
    if outcome == COMPLETED:
        counters.completed += 1
    elif outcome == FAILED:
        counters.failed += 1
    elif outcome == TIMED_OUT:
        counters.failed += 1
        counters.timed_out += 1
    elif outcome == CANCELLED:
        counters.cancelled += 1
    elif outcome == ABANDONED:
        counters.abandoned += 1
    else:
        counters.submitted -= 1


def _forget_key(function: Function, job: Job) -> None:
    """Nobody finds the job by its unique or workload any more; a table that was large once does not stay so."""
    unique = job.unique
    if unique is BY_WORKLOAD:
        if function.workloads.get(job.workload) is job:
            del function.workloads[job.workload]
    elif function.uniques.get(unique) is job:
        del function.uniques[unique]
    if function.most_keys > _KEPT:
        left: i64 = len(function.uniques) + len(function.workloads)
        if left * 8 < function.most_keys and left <= 10 * _KEPT:
            function.uniques = dict(function.uniques)
            function.workloads = dict(function.workloads)
            function.most_keys = left


def lose(state: State, job: Job) -> None:
    """A running job has lost its worker: it goes to the end of its queue, unless nobody wants it (section 3.8).

    From the second loss on it may well be the job that ends its workers: it waits before the next try, longer and
    longer, so that those who share its workers find them alive, and whoever watches those is not called all the time.
    """
    function = job.function
    worker = job.worker
    counters = function.counters
    counters.lost += 1
    state.losses += 1
    function.last_lost = state.losses
    counters.ran += state.now - job.started_at
    release(state, job)
    job.state = ENDED  # it stands nowhere
    if job.attempts < MAX_ATTEMPTS:
        job.attempts += 1
    job.numerator = 0
    job.denominator = 0
    retries = state.settings.job_retries
    if not job.background and job.subscribers is None:
        finish(state, job, ABANDONED)
    elif retries >= 0 and job.attempts >= max(retries, 1):
        state.event("retries_used_up", None, {"handle": state.shown_handle(job), "attempts": job.attempts})
        tell_failure(state, job)
        finish(state, job, FAILED)
    else:
        pause = 0.0
        if job.attempts >= 2:
            pause = min(2.0 ** min(job.attempts - 2, 20), LONGEST_PAUSE)
            state.set_due(job, state.wall + pause)
            fields: dict[str, object] = {
                "handle": state.shown_handle(job),
                "function": as_text(function.shown),
                "lost_workers": job.attempts,
                "next_try_in": pause,
            }
            state.event("worker_lost", worker, fields)
        if job.stored != UNSTORED:
            state.changes.move_behind(job, state.next_number)
        if pause > 0:
            delay(state, job)
        else:
            enqueue(state, job)


def release(state: State, job: Job) -> None:
    """Take a running job from its worker; it stands nowhere then."""
    take_job(job)
    job.function.running -= 1
    if job.timed:
        job.timed = False
        state.timeouts.drop()


def cancel(state: State, job: Job) -> None:
    """Cancel a job: its clients get WORK_FAIL and nothing after it, its worker is not told (section 3.13)."""
    tell_failure(state, job)
    finish(state, job, CANCELLED)


@final
class TimeLimits(Source):
    """Fails the jobs that have used up their time; their workers' late reports are ignored (section 3.6)."""

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
        job.timed = False
        tell_failure(state, job)
        finish(state, job, TIMED_OUT)


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
