"""What workers report of their jobs, and what becomes of it (sections 3.7 and 3.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver import results, watching
from geartrain.jobserver.model import WATCHED
from geartrain.jobserver.outbox import BIG_PIECE
from geartrain.jobserver.policy import EXCEPTION, FAIL, REJECT, RETRY
from geartrain.jobserver.rules.attempts import AT_POLICY, end_attempt
from geartrain.jobserver.rules.ends import note_failure
from geartrain.jobserver.rules.outcome import COMPLETED, FAILED, finish, forward, tell_exception, tell_failure
from geartrain.jobserver.rules.results import keep_result, tell_result
from geartrain.jobserver.rules.watching import tell, tell_end, tell_policy
from geartrain.native import i64
from geartrain.units import read_seconds
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
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver.model import Job, Peer
    from geartrain.jobserver.state import State
    from geartrain.wire.parser import Parser

LONGEST_AFTER: Final = 365 * 86400.0  # seconds that a worker may have its job wait
_RES: Final = b"\0RES"


def report(state: State, peer: Peer, type: i64) -> None:
    """Any WORK packet: passed on to the job's clients; WORK_COMPLETE, WORK_FAIL and WORK_EXCEPTION end the job."""
    parser = peer.parser
    data = parser.data
    body: i64 = parser.body
    cut: i64 = parser.argument_end(body)  # the NUL behind the handle; none: the data is empty
    whole = cut >= 0
    # No conditional expressions: compiled, one of a native integer and a literal makes an object.
    data_at: i64 = -1
    if whole:
        data_at = cut + 1
    else:
        cut = parser.end
    number: i64 = -1
    if cut <= parser.size:
        number = state.handles.parse(data, body, cut)
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
    if job.flags & WATCHED:
        _tell_watchers(state, job, type, data_at, parser)
    subscriber = job.subscribers
    # A failure under a policy is told when it is the last one.
    if subscriber is not None and type != WORK_FAIL and (type != WORK_EXCEPTION or job.function.policy is None):
        if missing > 0:
            completed = parser.last_argument(body) + b"\0" * missing
            forward(state, subscriber, type, response_head(type, len(completed)) + completed, b"")
        elif parser.end - cut <= BIG_PIECE and parser.pieces is None:
            forward(state, subscriber, type, _RES + data[body - HEADER_SIZE + 4 : parser.end], b"")
        else:
            payload = parser.last_argument(cut + 1)
            forward(state, subscriber, type, _RES + data[body - HEADER_SIZE + 4 : cut + 1], payload)
    if type == WORK_COMPLETE:
        if job.function.policy is not None or state.waits > 0:
            _hand_over(state, job, data_at, parser)
        size: i64 = 0
        if whole:
            size = parser.end - data_at
        finish(state, job, COMPLETED, size)
    elif type == WORK_DATA:
        if whole:
            job.function.tally(i64(job.priority)).bytes_out += parser.end - cut - 1
    elif type == WORK_FAIL:
        if job.function.policy is not None or peer.verdicts:
            _judge(state, peer, job, parser.last_argument(cut + 1) if whole else b"")
        else:
            tell_failure(state, job)
            note_failure(state, job, peer, FAIL, b"")
            finish(state, job, FAILED)
    elif type == WORK_EXCEPTION:
        if job.function.policy is not None:
            end_attempt(state, job, EXCEPTION, parser.last_argument(cut + 1) if whole else b"")
        else:
            if state.waits > 0:
                tell_result(state, job, results.FAILED, parser.last_argument(cut + 1) if whole else b"")
            if job.flags & WATCHED:
                tell_end(state, job, watching.FAILED, parser.last_argument(cut + 1) if whole else b"")
            if job.function.failures_noted < state.failures_wanted:
                note_failure(state, job, peer, EXCEPTION, parser.last_argument(cut + 1) if whole else b"")
            state.revoke(peer, number)  # Perl workers send WORK_FAIL after it and die of an ERROR
            finish(state, job, FAILED)


def _tell_watchers(state: State, job: Job, type: i64, data_at: i64, parser: Parser) -> None:
    """Tell those who watch the job of any report but a failure, of which more is known later; ``data_at`` as below."""
    if type == WORK_STATUS:
        done = int(job.numerator) % 0x100000000
        tell(state, job, watching.STATUS, b"%d/%d" % (done, int(job.denominator) % 0x100000000))
        return
    if type in (WORK_FAIL, WORK_EXCEPTION):
        return
    data = b"" if data_at < 0 else parser.last_argument(data_at)
    if type == WORK_COMPLETE:
        tell_end(state, job, watching.COMPLETED, data)
    else:
        tell(state, job, watching.DATA if type == WORK_DATA else watching.WARNING, data)


def _hand_over(state: State, job: Job, data_at: i64, parser: Parser) -> None:
    """A result goes to those who wait for it, and its policy may have it kept or told; ``data_at`` -1: it is empty."""
    policy = job.function.policy
    if state.waits == 0 and (policy is None or (policy.results == 0 and not policy.webhook)):
        return
    data = b"" if data_at < 0 else parser.last_argument(data_at)
    if policy is not None and policy.webhook:
        tell_policy(state, job, watching.COMPLETED, data)
    if policy is not None and policy.results > 0:
        keep_result(state, job, policy, results.COMPLETED, data)
    tell_result(state, job, results.COMPLETED, data)


def _judge(state: State, peer: Peer, job: Job, verdict: bytes) -> None:
    """A failure whose worker may say more: ``retry`` or ``retry=SECONDS`` or ``reject``, NUL, the text for its clients.

    Only a worker that has asked for the option ``policies`` is heard; behind any other's failure there is nothing.
    """
    reason: i64 = FAIL
    text = b""
    after = AT_POLICY
    if peer.verdicts and verdict:
        word, _, text = verdict.partition(b"\0")
        name, _, value = word.partition(b"=")
        if name == b"reject":
            reason = REJECT
        elif name == b"retry":
            reason = RETRY
            try:
                after = min(read_seconds(value.decode("ascii")), LONGEST_AFTER) if value else AT_POLICY
            except ValueError:
                state.event("verdict_unreadable", peer, {"verdict": as_text(word[:40])})
        else:
            state.event("verdict_unreadable", peer, {"verdict": as_text(word[:40])})
    end_attempt(state, job, reason, text, after)


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
        if job.function.policy is not None:
            end_attempt(state, job, EXCEPTION, text)
        else:
            tell_exception(state, job, text)
            if state.waits > 0:
                tell_result(state, job, results.FAILED, text)
            if job.flags & WATCHED:
                tell_end(state, job, watching.FAILED, text)
            note_failure(state, job, peer, EXCEPTION, text)
            state.revoke(peer, number)
            finish(state, job, FAILED)
    parser.skip()
    return True


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
