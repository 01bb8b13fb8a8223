"""What must hold inside a JobServer between any two calls: every list linked both ways, every counter right.

``check`` counts everything again and compares; it knows the server's insides and nothing of what has been asked of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from geartrain.jobserver.error_line import error_line
from geartrain.jobserver.gates import free_places, key_of
from geartrain.jobserver.kept import cost
from geartrain.jobserver.letter_groups import GROUP_COST, MEMBER_COST
from geartrain.jobserver.letters import DEAD_COST
from geartrain.jobserver.links import find_ability, registered_abilities
from geartrain.jobserver.model import (
    ABILITY_COST,
    BLOCKED,
    COUNTED,
    DEAD,
    DELAYED,
    EXPIRING,
    HELD,
    HIGH,
    KEY_SLOT_COST,
    LOW,
    NORMAL,
    QUEUED,
    REVOKED_COST,
    RUNNING,
    SUBSCRIBER_COST,
    TALLY_COST,
    TIMED,
    WATCHED,
    WRITING,
    function_cost,
)
from geartrain.jobserver.records import number_of
from geartrain.jobserver.results import COMPLETED, FAILED, WAIT_COST
from geartrain.jobserver.rules.tracing import TRACE_COST
from geartrain.jobserver.snapshot import FunctionView, totals
from geartrain.jobserver.watching import WATCH_COST

if TYPE_CHECKING:
    from geartrain.jobserver import JobServer, Peer
    from geartrain.jobserver.model import Function, Job

ROUNDING = 1e-5  # seconds: a bucket takes a token for there that comes so soon, and its timer has still to come


def check(server: JobServer, *, is_first_life: bool = True) -> None:
    """``is_first_life``: no job was restored, so all have been counted."""
    jobs = list(server.jobs)
    _check_table(server, jobs)
    for function in server.functions.values():
        of_function = [job for job in jobs if job.function is function]
        _check_function(server, function, [job for job in of_function if job.state != DEAD], is_first_life)
        _check_gate(server, function, of_function)
    assert all(server.functions.get(job.function.name) is job.function for job in jobs)
    for peer in server.peers:
        _check_peer(server, peer, jobs)
    assert not [job for job in jobs if job.state == RUNNING and job.worker not in server.peers]
    _check_subscribers(server, jobs)
    _check_woken(server)
    _check_deadlines(server, jobs)
    _check_letters(server, jobs)
    _check_results(server, jobs)
    _check_totals(server, jobs)
    assert server.watches == sum(len(watchers) for watchers in server.watchers.values())
    assert {job.number for job in jobs if job.flags & WATCHED} == set(server.watchers)
    assert set(server.traces) <= {job.number for job in jobs}
    assert set(server.watchers) <= {job.number for job in jobs if job.state != DEAD}
    assert server.memory == sum(int(job.cost()) + SUBSCRIBER_COST * job.subscriber_count for job in jobs) + sum(
        function_cost(name)
        + TALLY_COST * sum(each is not None for each in (function.high_counters, function.low_counters))
        for name, function in server.functions.items()
    ) + sum(
        ABILITY_COST * int(peer.ability_count) + REVOKED_COST * len(peer.revoked or ()) for peer in server.peers
    ) + sum(int(cost(record)) for of_kind in server.records.kinds.values() for record in of_kind.values()) + sum(
        DEAD_COST + MEMBER_COST + len(letter.text) for letter in server.dead.all.values()
    ) + sum(GROUP_COST + len(group.line) for group in server.dead.groups.by_number.values()) + WAIT_COST * sum(
        len(waits) for waits in server.results.waits.values()
    ) + WATCH_COST * int(server.watches) + TRACE_COST * len(server.traces) + KEY_SLOT_COST * sum(
        len(function.gate.keys or ()) + len(function.gate.leaving or ())
        for function in server.functions.values()
        if function.gate is not None
    )
    assert all(peer in server.peers and peer.half_sent_since > 0 for peer in server.half_sent)
    assert {peer for peer in server.peers if peer.half_sent_since > 0} == set(server.half_sent)


def _linked(first: Any, last: Any, following: str, previous: str) -> Iterator[Any]:
    """The members of a list that is linked both ways, checked on the way; ``last`` is checked unless it is ``...``."""
    before = None
    member = first
    while member is not None:
        assert getattr(member, previous) is before
        yield member
        before, member = member, getattr(member, following)
    assert last is ... or last is before


def _count(first: Any, following: str) -> int:
    count = 0
    while first is not None:
        count += 1
        first = getattr(first, following)
    return count


def _check_table(server: JobServer, jobs: list[Job]) -> None:
    table = server.jobs
    assert len(table) == len(jobs) == len({job.number for job in jobs})
    for key, shelf in table.shelves.items():
        assert shelf.taken == sum(job is not None for job in shelf.places) > 0
        assert all(job is None or job.number >> 8 == key for job in shelf.places)
    for job in jobs:
        assert table.get(job.number) is job
        assert job.number > 0
        assert job.number < server.next_number or server.is_member
        assert job.state in (QUEUED, RUNNING, DELAYED, BLOCKED, DEAD) or (job.state == HELD and server.is_member)
        assert not (server.lapsed and job.stored >= WRITING and job.state in (QUEUED, BLOCKED)) or server.withholding
        assert (job.worker is not None) == (job.state == RUNNING)
        assert job.background or job.subscribers is not None or job.state == RUNNING, f"nobody wants {job}"


def _check_totals(server: JobServer, jobs: list[Job]) -> None:
    shown = totals(server)
    in_state = Counter(job.state for job in jobs)
    assert (shown.queued, shown.running, shown.delayed, shown.blocked, shown.dead) == tuple(
        in_state[state] + (in_state[HELD] if state == QUEUED else 0)
        for state in (QUEUED, RUNNING, DELAYED, BLOCKED, DEAD)
    )
    assert (shown.connections, shown.functions, shown.memory) == (
        len(server.peers), len(server.functions), server.memory
    )  # fmt: skip
    able = [peer for peer in server.peers if peer.first_ability is not None]
    assert shown.workers == len(able)
    assert shown.busy == sum(peer.running is not None for peer in server.peers)
    assert shown.idle == sum(peer.sleeping for peer in able)


def _check_function(server: JobServer, function: Function, jobs: list[Job], is_first_life: bool) -> None:
    view = FunctionView(server, function)
    counters = view.counters
    longest = max((server.now - job.queued_at for job in jobs if job.state == QUEUED), default=0.0)
    assert view.oldest_waiting <= longest
    assert view.oldest_waiting == longest or function.generation > 1 or function.gate is not None
    for each in view.by_priority:
        if each is not None:
            assert each.started == each.waiting.count
            assert each.completed + each.failed == each.total.count
    in_state = Counter(job.state for job in jobs)
    assert function.blocked == in_state[BLOCKED]
    assert function.queued == in_state[QUEUED]
    assert function.running == in_state[RUNNING]
    assert function.busy == len({job.worker for job in jobs if job.state == RUNNING})
    assert function.delayed == in_state[DELAYED]
    kept = [job.number for job in _linked(function.held.first, function.held.last, "next", "previous")]
    assert set(kept) == {job.number for job in jobs if job.state == HELD}
    assert function.held.count == len(kept)
    assert function.total == len(jobs)
    queues = {HIGH: function.high, NORMAL: function.normal, LOW: function.low}
    for priority, queue in queues.items():
        members = list(_linked(queue.first, queue.last, "next", "previous"))
        assert queue.count == len(members)
        expected = {job.number for job in jobs if job.state == QUEUED and job.priority == priority}
        assert {job.number for job in members} == expected
        has_lost = [job.attempts > 0 for job in members]
        assert has_lost == sorted(has_lost)
        assert queue.first_lost is next((job for job in members if job.attempts), None)
    by_unique = [(job.unique, job.number) for job in jobs if job.unique not in (b"", b"-")]
    by_workload = [(job.workload, job.number) for job in jobs if job.unique == b"-" and job.workload]
    for table, found in ((function.uniques, by_unique), (function.workloads, by_workload)):
        held = {(key, job.number) for key, job in table.items()}
        assert held <= set(found)
        # One that was dead is without its key while another has that, and so is one that was adopted.
        if not counters.revived and is_first_life and not server.is_member:
            assert len(held) == len(found)
    able = [peer for peer in server.peers for ability in registered_abilities(peer) if ability.function is function]
    assert function.workers == len(able) == len(set(able))
    sleepers = list(_linked(function.first_sleeper, function.last_sleeper, "next_sleeper", "previous_sleeper"))
    assert all(ability.function is function for ability in sleepers)
    assert {ability.peer for ability in sleepers} <= set(able)
    sleepers = [ability for ability in sleepers if ability.peer.sleeping]  # the others have got up since
    assert {ability.peer for ability in sleepers} == {peer for peer in able if peer.sleeping}
    assert len(sleepers) == len({ability.peer for ability in sleepers})
    assert view.idle == len(sleepers)
    assert function.woken == sum(peer.woken_for is function for peer in server.peers)
    if sleepers and function.ready and not (server.withholding or (server.is_member and server.chores.line)):
        enough = function.ready * server.worker_wakeup if server.worker_wakeup else 1 << 60
        assert function.woken >= enough, f"jobs of {function} wait beside sleepers, {function.woken} woken"
    ended = counters.completed + counters.failed + counters.cancelled + counters.abandoned
    is_complete = is_first_life and not server.is_member  # else jobs have come, and may have gone, otherwise
    assert not is_complete or counters.submitted + counters.revived == ended + counters.unstored + function.total


def _check_gate(server: JobServer, function: Function, jobs: list[Job]) -> None:
    """What the gate counts is what there is, and no limit is broken."""
    generations = [job.marks // COUNTED for job in jobs if job.marks >= COUNTED]
    assert function.marked == generations.count(function.generation)
    assert function.outdated == len(generations) - function.marked
    gate = function.gate
    policy = function.policy
    assert (gate is not None) == ((policy is not None and policy.is_gated) or (gate is not None and gate.paused))
    if gate is None:
        return
    assert gate.generation == function.generation
    if gate.keys is None:
        assert gate.counted == gate.startable == 0
        return
    counted = [job for job in jobs if job.marks // COUNTED == gate.generation]
    by_key: defaultdict[bytes, list[Job]] = defaultdict(list)
    for job in counted:
        assert job.state in (QUEUED, RUNNING, BLOCKED)
        by_key[key_of(gate.separator, job)].append(job)
    assert set(by_key) <= set(gate.keys)
    assert gate.counted == sum(job.state == QUEUED for job in counted)
    assert gate.startable == sum(slot.startable for slot in gate.keys.values())
    for key, slot in gate.keys.items():
        states = Counter(job.state for job in by_key[key])
        assert (slot.ready, slot.running, slot.blocked) == (states[QUEUED], states[RUNNING], states[BLOCKED])
        free = free_places(gate, slot, server.now - ROUNDING)
        assert slot.startable == max(min(slot.ready, free), 0)
        assert slot.ready >= min(free, slot.ready + slot.blocked), "a blocked job could stand in the queue"
        for priority, queue in ((HIGH, slot.high), (NORMAL, slot.normal), (LOW, slot.low)):
            members = list(_linked(queue.first, queue.last, "next", "previous"))
            assert {job.number for job in members} == {
                job.number for job in by_key[key] if job.state == BLOCKED and job.priority == priority
            }
            assert queue.count == len(members)
        assert states or slot.bucket is not None, f"nothing of {key!r} is left, and it is remembered"


def _check_results(server: JobServer, jobs: list[Job]) -> None:
    results = server.results
    assert set(results.by_number) == {number_of(key) for key in server.records.kinds.get("result", {})}
    assert results.size == sum(result.cost for result in results.by_number.values()) <= server.settings.max_results
    for outcome, by_key in ((COMPLETED, results.completed), (FAILED, results.failed)):
        for key, result in by_key.items():
            assert results.by_number[result.number] is result
            assert (result.key, result.outcome) == (key, outcome)
    assert server.waits == sum(len(waits) for waits in results.waits.values())
    assert set(results.waits) <= {job.number for job in jobs if job.state != DEAD}
    waiting = {(peer, number) for peer in server.peers for number in peer.awaited or ()}
    assert waiting == {(outbox, number) for number, waits in results.waits.items() for outbox in waits}


def _check_letters(server: JobServer, jobs: list[Job]) -> None:
    dead = {job.number for job in jobs if job.state == DEAD}
    assert set(server.dead.all) == dead == {number_of(key) for key in server.records.kinds.get("dead", {})}
    assert list(server.dead.all.values()) == [letter for letter in server.dead.roll.items if letter is not None]
    for function, roll in server.dead.of_function.items():
        letters = [letter for letter in server.dead.all.values() if letter.job.function is function]
        assert letters == [letter for letter in roll.items if letter is not None]
        assert roll.count == len(letters) > 0
        assert roll.first() is letters[0]
    assert {job.function for job in jobs if job.state == DEAD} == set(server.dead.of_function)
    groups = server.dead.groups
    assert list(groups.by_number.values()) == list(groups.by_kind.values())
    assert dead == {number for group in groups.by_number.values() for number in group.letters}
    for (name, reason, line), group in groups.by_kind.items():
        assert groups.by_number[group.number] is group
        assert group.letters
        for number, died in group.letters.items():
            letter = server.dead.all[number]
            assert letter.group is group
            assert letter.died == died
            assert (letter.job.function.name, letter.reason, error_line(letter.text)) == (name, reason, line)
    assert server.dead.deadlines.live == len(dead)
    assert {number_of(key) for key in server.records.kinds.get("attempts", {})} <= {job.number for job in jobs}


def _check_peer(server: JobServer, peer: Peer, jobs: list[Job]) -> None:
    assert not peer.gone
    assert not peer.closing, "a peer that is hung up on has no part in anything"
    ring = list(_linked(peer.first_ability, peer.last_ability, "next", "previous"))
    assert all(ability.peer is peer for ability in ring)
    assert peer.ability_count == len(ring) == len({ability.function.name for ability in ring})
    for ability in ring:
        assert server.functions[ability.function.name] is ability.function
        assert find_ability(peer, ability.function.name) is ability
    running = list(_linked(peer.running, ..., "next", "previous"))
    assert {job.number for job in running} == {job.number for job in jobs if job.worker is peer}
    assert peer.runs is None or peer.runs == Counter(job.function for job in running)
    assert len(running) < 2 or peer.runs is not None
    assert peer.unsent == sum(map(len, peer.pieces))
    if peer.woken_for is not None:
        assert not peer.sleeping
        assert peer.woken_for in [ability.function for ability in ring]
    last = peer.last_function
    assert last is None or last.forgotten or server.functions.get(last.name) is last
    assert peer.revoked is None or len(peer.revoked) <= 1000


def _check_subscribers(server: JobServer, jobs: list[Job]) -> None:
    of_jobs: defaultdict[int, Counter[Peer]] = defaultdict(Counter)
    for job in jobs:
        for subscriber in _linked(job.subscribers, ..., "next_of_job", "previous_of_job"):
            assert subscriber.job is job
            of_jobs[job.number][subscriber.peer] += 1
    of_peers: defaultdict[int, Counter[Peer]] = defaultdict(Counter)
    for peer in server.peers:
        for subscriber in _linked(peer.subscriptions, ..., "next_of_peer", "previous_of_peer"):
            assert subscriber.peer is peer
            of_peers[subscriber.job.number][peer] += 1
    assert of_jobs == of_peers


def _check_woken(server: JobServer) -> None:
    woken = list(_linked(server.first_woken, server.last_woken, "next_woken", "previous_woken"))
    assert set(woken) == {peer for peer in server.peers if peer.woken_for is not None}
    assert len(woken) == len(set(woken))
    until = [peer.woken_until for peer in woken]
    assert until == sorted(until)


def _check_deadlines(server: JobServer, jobs: list[Job]) -> None:
    timed = [job for job in jobs if job.flags & TIMED]
    assert all(job.state == RUNNING for job in timed)
    delayed = [job for job in jobs if job.state == DELAYED]
    expiring = [job for job in jobs if job.marks & EXPIRING]
    assert all(job.state in (QUEUED, DELAYED, BLOCKED, HELD) for job in expiring)
    for deadlines, expected, is_meant in (
        (server.timeouts, timed, lambda job, entry: entry[2] == job.assignments),
        (server.delayed, delayed, lambda job, entry: entry[0] == job.due),
        (server.expiries, expiring, lambda job, entry: entry[2] == job.assignments),
    ):
        _check_heap(deadlines, expected, is_meant)


def _check_heap(deadlines: Any, expected: list[Job], is_meant: Callable[[Job, Any], bool]) -> None:
    assert deadlines.live == len(expected)
    assert deadlines.old or len(deadlines.heap) <= 2 * deadlines.live + 65
    entries = [*deadlines.heap, *deadlines.old]
    for job in expected:
        meant = [entry for entry in entries if entry[1] == job.number and is_meant(job, entry)]
        assert meant, f"{job} is forgotten"
