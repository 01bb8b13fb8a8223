"""Results: which are kept, which submissions they answer, and who waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver.changes import replace_replies
from geartrain.jobserver.model import WAITING
from geartrain.jobserver.policy import EXCEPTION, FAIL, reason_name
from geartrain.jobserver.records import RESULT_KIND, Record, number_key
from geartrain.jobserver.results import WAIT_COST, WORDS, Result, cache_key, pack_result, result_cost
from geartrain.jobserver.rules.answers import refusal
from geartrain.jobserver.rules.keeping import forget, put, put_in_memory
from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function, Job, Peer
    from geartrain.jobserver.policy import Policy
    from geartrain.jobserver.state import State

_AT_ONCE: Final = 1000  # results that make room for one
_BACKLOG: Final = 50_000  # records that wait for the store, beyond which results are held in memory alone
_MOVED: Final = b"ERR MOVED The+job+goes+on+at+another+job+server+of+the+fleet:+ask+again\r\n"
MAX_WAITS: Final = 10_000  # peers that may wait for one result


def keep_result(state: State, job: Job, policy: Policy, outcome: int, data: bytes) -> None:
    """Keep how a job ended, if its policy says so and there is room; the oldest results make room for it."""
    number = int(job.number)
    counters = job.function.tally(i64(job.priority))
    size: i64 = len(data)
    if size > policy.result_size:
        counters.results_too_large += 1
        return
    limit: i64 = state.settings.max_results
    key = cache_key(job.function.name, job.unique, job.workload)
    cost: i64 = result_cost(key, int(size))
    if cost > limit or len(key) + size + 64 > state.largest_record or not state.has_room(cost):
        counters.results_too_large += 1
        return
    results = state.results
    state.cost += 50
    left = _AT_ONCE
    while results.size + cost > limit:
        if left == 0:  # a large one is not worth so many small ones
            counters.results_too_large += 1
            return
        left -= 1
        state.cost += 20
        for oldest in results.by_number:
            forget_result(state, oldest)
            break
    fresh_until = state.wall + policy.results
    value = pack_result(outcome, state.wall, fresh_until, key, data)
    record = Record(RESULT_KIND, number_key(number), value, fresh_until + policy.stale)
    if state.store.trouble and job.stored == WAITING:  # the submitters can't be promised what the store does not take
        replace_replies(job, refusal(state.store.trouble))
    if state.store.trouble or (len(state.changes.records) >= _BACKLOG and job.stored != WAITING):
        put_in_memory(state, record)  # for the store will not have it before it is old
    else:
        put(state, record)
    results.put(Result(number, record))
    counters.results_kept += 1


def last_words(reason: int, text: bytes) -> bytes:
    """What is the result of a job that failed for this reason, with this text."""
    return text or (b"" if reason in (FAIL, EXCEPTION) else reason_name(reason).encode())


def forget_result(state: State, number: int) -> None:
    """Keep a result no longer."""
    state.results.drop(number)
    forget(state, RESULT_KIND, number_key(number))


def find_result(
    state: State, function: Function, unique: bytes, workload: bytes, background: bool, priority: i64
) -> Result | None:
    """The result that answers a submission; None: the job has to be run. A failure answers none.

    A background one is promised that the result is kept, so that a result which the store never gets is none for it.
    """
    policy = function.policy
    if policy is None or policy.results == 0:
        return None
    key = cache_key(function.name, unique, workload)
    if not key:
        return None
    result = state.results.completed.get(key)
    if result is None or state.wall >= result.fresh_until + policy.stale:
        return None
    if background and state.durable and result.record.in_memory:
        return None
    counters = state.tally(function, priority)
    counters.result_hits += 1
    counters.result_bytes += result.size
    return result


# ── who waits for a result ──────────────────────────────────────────────────────────────────────────────────────────


def wait_for_result(state: State, peer: Peer, number: int, otherwise: bytes) -> bool:
    """Have a peer told the result of a job that still waits or runs; ``otherwise`` is what it gets if there is none.

    False: too many wait for it, or there is no room.
    """
    waits = state.results.waits.get(number)
    if waits is None:
        waits = {}
        state.results.waits[number] = waits
    if len(waits) >= MAX_WAITS or not state.has_room(WAIT_COST) or number in (peer.awaited or ()):
        if not waits:
            del state.results.waits[number]
        return False
    peer.send(otherwise)
    waits[peer] = peer.defer()
    state.memory += WAIT_COST
    state.waits += 1
    if peer.awaited is None:
        peer.awaited = {}
    peer.awaited[number] = None
    return True


def tell_result(state: State, job: Job, outcome: int, data: bytes) -> None:
    """The job has ended: tell those who wait for its result."""
    _answer_waits(state, job, result_head(outcome, len(data)) + data)


def tell_moved(state: State, job: Job) -> None:
    """The job goes on at another member of the fleet: those who wait for its result have to ask again."""
    _answer_waits(state, job, _MOVED)


def _answer_waits(state: State, job: Job, answer: bytes) -> None:
    waits = state.results.waits.pop(int(job.number), None)
    if waits is None:
        return
    state.cost += 4 * len(waits)
    for outbox, reply in waits.items():
        state.memory -= WAIT_COST
        state.waits -= 1
        awaited = outbox.awaited
        if awaited is not None:
            awaited.pop(int(job.number), None)
        if outbox.unsent > state.max_unsent and not outbox.gone:
            outbox.overflow()
        else:
            outbox.replace(reply.index, answer)
        reply.open = True
        outbox.touch()


def forget_waits(state: State, peer: Peer, left: int) -> int:
    """A peer that is gone waits for so many results less; how many are left of these."""
    awaited = peer.awaited
    while awaited and left > 0:
        number, _ = awaited.popitem()
        waits = state.results.waits[number]
        reply = waits.pop(peer)
        reply.open = True  # what stands behind it may still be written
        if not waits:
            del state.results.waits[number]
        state.memory -= WAIT_COST
        state.waits -= 1
        state.cost += 5
        left -= 1
    return left


def result_head(outcome: int, size: int) -> bytes:
    """The first line of the answer to the text command ``result``; the result follows."""
    return b"OK %b %d\n" % (WORDS[outcome], size)
