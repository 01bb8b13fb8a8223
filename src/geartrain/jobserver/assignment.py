"""What a worker can do, and which job it gets (sections 3.3, 3.5 and 3.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from geartrain.jobserver.function import Ability
from geartrain.jobserver.job import HIGH, RUNNING
from geartrain.jobserver.journal import Read
from geartrain.jobserver.outcome import lose
from geartrain.jobserver.peer import BIG_PIECE
from geartrain.jobserver.waking import get_up, settle_woken, wake
from geartrain.native import i64
from geartrain.wire.packets import (
    GRAB_JOB,
    GRAB_JOB_ALL,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    NO_JOB,
    response_head,
)
from geartrain.wire.primitives import parse_number

if TYPE_CHECKING:
    from geartrain.jobserver.job import Job
    from geartrain.jobserver.peer import Peer
    from geartrain.jobserver.server import JobServer

_NO_JOB_PACKET = response_head(NO_JOB, 0)
_LONGEST_TIMEOUT: Final = 10**15  # milliseconds; far beyond any job, and safe to add to a clock


def grab(server: JobServer, peer: Peer, type: i64) -> None:
    """GRAB_JOB, GRAB_JOB_UNIQ, GRAB_JOB_ALL: a JOB_ASSIGN of the asked kind, or NO_JOB."""
    woken_for = peer.woken_for
    if woken_for is not None:
        settle_woken(server, peer)
    elif peer.sleeping:
        get_up(peer)
    ability = choose(server, peer)
    if ability is None:
        peer.send(_NO_JOB_PACKET)
    else:
        _assign(server, peer, ability, type)
    if woken_for is not None and woken_for.first_sleeper is not None:
        wake(server, woken_for)


def choose(server: JobServer, peer: Peer) -> Ability | None:
    """The ability whose function yields the next job: best priority first, equal ones take turns (gearmand 2.0).

    A new connection begins with the function whose last loss of a worker is longest ago. Where a job ends each process
    that runs it, and each new process would begin with its function, no other function would ever have a turn.
    """
    if server.draining and server.durable:
        return None  # what waits is safe, and may wait for the server's next life
    only = peer.first_ability
    if only is None or only.next is None:
        return only if only is not None and only.function.queued > 0 else None
    # Another name for the loop: compiled, ``only.next`` counts as never None from here on, to the end of the loop.
    ability: Ability | None = only
    server.effort += peer.ability_count
    best: Ability | None = None
    best_priority: i64 = 99
    is_careful = server.losses > 0 and not peer.had_turn
    while ability is not None:
        function = ability.function
        if function.queued > 0:
            if server.listed_order:
                return ability
            priority: i64 = function.best_priority()
            if priority < best_priority:
                best = ability
                best_priority = priority
                if priority == HIGH and not is_careful:
                    break
            elif (
                is_careful
                and best is not None
                and priority == best_priority
                and function.last_lost < best.function.last_lost
            ):
                best = ability
        ability = ability.next
    if best is not None:
        peer.had_turn = True
        if best.next is not None:
            best.take_last_turn()
    return best


def _assign(server: JobServer, peer: Peer, ability: Ability, type: i64) -> None:
    function = ability.function
    job = function.line(function.best_priority()).take()
    function.queued -= 1
    function.running += 1
    job.state = RUNNING
    job.worker = peer
    job.assignments += 1
    first = peer.running
    job.next = first
    if first is not None:
        first.previous = job
    peer.running = job
    if peer.former is not None:
        peer.former.pop(job.number, None)
    if job.spilled:
        peer.send(_NO_JOB_PACKET)  # in case the workload can't be read
        server.reads.append(Read(job, peer.hold(), type, job.assignments))
        return
    start_time(server, job, ability)
    workload = job.workload
    head = assignment_packet(server, job, type, len(workload))
    if len(workload) < BIG_PIECE:
        peer.send(head + workload)
    else:
        peer.send(head)
        peer.send(workload)


def start_time(server: JobServer, job: Job, ability: Ability) -> None:
    """From now on a job's time limit counts, if its worker has set one (section 3.6)."""
    if ability.timeout > 0:
        job.timed = True
        server.timeouts.add(server.now + ability.timeout, job.number, job.assignments)


def assignment_packet(server: JobServer, job: Job, type: i64, size: i64) -> bytes:
    """All of the JOB_ASSIGN packet that answers a GRAB of this type but the workload of ``size`` bytes."""
    handle = server.handle(job.number)
    name = job.function.name
    size += len(handle) + len(name) + 2
    if type == GRAB_JOB:
        return b"%b%b\0%b\0" % (response_head(JOB_ASSIGN, size), handle, name)
    if type == GRAB_JOB_ALL and job.reducer:
        size += len(job.unique) + len(job.reducer) + 2
        return b"%b%b\0%b\0%b\0%b\0" % (response_head(JOB_ASSIGN_ALL, size), handle, name, job.unique, job.reducer)
    size += len(job.unique) + 1
    return b"%b%b\0%b\0%b\0" % (response_head(JOB_ASSIGN_UNIQ, size), handle, name, job.unique)


def can_do(server: JobServer, peer: Peer, name: bytes, timeout: float) -> None:
    """Register a function with its time limit in seconds; again is the same ability with the new limit."""
    ability = peer.ability(name)
    if ability is not None:
        ability.timeout = timeout
        return
    function = server.function_for(peer, name)
    if function is None:
        return
    server.abilities_registered += 1
    ability = Ability(peer, function, timeout, server.abilities_registered)
    peer.add_ability(ability)
    function.workers += 1
    if peer.sleeping:
        ability.lie_down()
        wake(server, function)


def can_do_timeout(server: JobServer, peer: Peer, name: bytes, text: bytes) -> None:
    """CAN_DO_TIMEOUT: milliseconds; zero or less means no limit (section 3.6)."""
    milliseconds = parse_number(text, 0, len(text))
    if milliseconds < 0 and text[:1] == b"-" and parse_number(text, 1, len(text)) >= 0:
        milliseconds = 0
    if milliseconds < 0 or milliseconds > _LONGEST_TIMEOUT:
        peer.send_error(b"INVALID_ARGUMENT", b"A timeout must be a number of milliseconds, not '%b'" % text[:40])
        return
    can_do(server, peer, name, float(milliseconds) / 1000.0)


def cant_do(server: JobServer, peer: Peer, name: bytes) -> None:
    """Forget an ability; a job of that function running here goes back to its line (section 3.8)."""
    ability = peer.ability(name)
    if ability is None:
        return
    function = ability.function
    if peer.sleeping:
        ability.get_up()
    peer.remove_ability(ability)
    function.workers -= 1
    job = peer.running
    while job is not None:
        server.effort += 1
        following = job.next
        if job.function is function:
            peer.remember_former(job.number)
            lose(server, job)
        job = following
    if peer.woken_for is function:
        settle_woken(server, peer)
        wake(server, function)


def reset_abilities(server: JobServer, peer: Peer) -> None:
    """Forget every ability."""
    for ability in peer.list_abilities():
        cant_do(server, peer, ability.function.name)
