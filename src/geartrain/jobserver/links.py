"""The lists that run through the objects of the model: all ways in and out of them, each O(1).

A rule never touches a ``previous`` or ``next`` to change it; it may follow them.
"""

from __future__ import annotations

from typing import Final

from geartrain.jobserver.model import Ability, Function, Job, Peer, Queue, Subscriber
from geartrain.native import i64

MAX_PASSED: Final = 100  # jobs that may pass one that has lost a worker
_DICT_ENTRY: Final = 400  # bytes for each entry of a dict from which on it is made smaller
FEW: Final = 8  # abilities that are looked through faster than looked up, and without a dict for each worker

# ── jobs in a queue ─────────────────────────────────────────────────────────────────────────────────────────────────


def append_job(queue: Queue, job: Job) -> None:
    """Put a job at the end of a queue; one that has lost no worker goes before those that have."""
    lost = queue.first_lost
    if lost is not None and job.attempts == 0:
        before = lost.previous
        job.previous = before
        job.next = lost
        lost.previous = job
        if before is None:
            queue.first = job
        else:
            before.next = job
        queue.count += 1
        return
    if lost is None and job.attempts > 0:
        queue.first_lost = job
        queue.passed = 0
    last = queue.last
    job.previous = last
    job.next = None
    if last is None:
        queue.first = job
    else:
        last.next = job
    queue.last = job
    queue.count += 1


def prepend_job(queue: Queue, job: Job) -> None:
    """Put a job at the front of a queue; one that has lost a worker goes to the front of those that have."""
    if job.attempts > 0:
        lost = queue.first_lost
        if lost is None:
            append_job(queue, job)
            return
        before = lost.previous
        queue.first_lost = job
    else:
        lost = queue.first
        before = None
    job.previous = before
    job.next = lost
    if before is None:
        queue.first = job
    else:
        before.next = job
    if lost is None:
        queue.last = job
    else:
        lost.previous = job
    queue.count += 1


def take_next(queue: Queue) -> Job:
    """Take out the job whose turn it is; there must be one."""
    job = queue.first
    assert job is not None
    lost = queue.first_lost
    if lost is not None:
        if job is lost or queue.passed >= MAX_PASSED:
            job = lost
            queue.passed = 0
        else:
            queue.passed += 1
    remove_job(queue, job)
    return job


def remove_job(queue: Queue, job: Job) -> None:
    """Take a job out of the queue it stands in."""
    previous = job.previous
    following = job.next
    if job is queue.first_lost:
        queue.first_lost = following
    if previous is None:
        queue.first = following
    else:
        previous.next = following
    if following is None:
        queue.last = previous
    else:
        following.previous = previous
    job.previous = None
    job.next = None
    queue.count -= 1


# ── jobs that a worker runs ─────────────────────────────────────────────────────────────────────────────────────────


def give_job(peer: Peer, job: Job) -> bool:
    """The job is the worker's latest; whether it is its only one."""
    function = job.function
    job.worker = peer
    first = peer.running
    job.next = first
    peer.running = job
    if first is None:
        function.busy += 1
        return True
    first.previous = job
    runs = peer.runs
    if runs is None:
        runs = peer.runs = {first.function: 1}
    count = runs.get(function, 0)
    if count == 0:
        function.busy += 1
    runs[function] = count + 1
    return False


def take_job(job: Job) -> bool:
    """Take a running job from its worker; it stands nowhere then. Whether it was the worker's only one."""
    worker = job.worker
    assert worker is not None
    previous = job.previous
    following = job.next
    if previous is not None:
        previous.next = following
    else:
        worker.running = following
    if following is not None:
        following.previous = previous
    job.previous = None
    job.next = None
    job.worker = None
    function = job.function
    runs = worker.runs
    if runs is None or worker.running is None:
        worker.runs = None
        function.busy -= 1
        return True
    count = runs[function] - 1
    if count == 0:
        del runs[function]
        function.busy -= 1
    else:
        runs[function] = count
    return False


# ── clients that wait for a job ─────────────────────────────────────────────────────────────────────────────────────


def subscribe(job: Job, peer: Peer) -> None:
    """The peer gets every packet about the job."""
    subscriber = Subscriber(job, peer)
    first = job.subscribers
    subscriber.next_of_job = first
    if first is not None:
        first.previous_of_job = subscriber
    job.subscribers = subscriber
    first = peer.subscriptions
    subscriber.next_of_peer = first
    if first is not None:
        first.previous_of_peer = subscriber
    peer.subscriptions = subscriber
    job.subscriber_count += 1


def unsubscribe(subscriber: Subscriber) -> None:
    """The submission waits no more."""
    job = subscriber.job
    previous = subscriber.previous_of_job
    following = subscriber.next_of_job
    if previous is not None:
        previous.next_of_job = following
    else:
        job.subscribers = following
    if following is not None:
        following.previous_of_job = previous
    previous = subscriber.previous_of_peer
    following = subscriber.next_of_peer
    if previous is not None:
        previous.next_of_peer = following
    else:
        subscriber.peer.subscriptions = following
    if following is not None:
        following.previous_of_peer = previous
    subscriber.previous_of_job = None
    subscriber.next_of_job = None
    subscriber.previous_of_peer = None
    subscriber.next_of_peer = None
    job.subscriber_count -= 1


# ── what a worker can do ────────────────────────────────────────────────────────────────────────────────────────────


def find_ability(peer: Peer, name: bytes) -> Ability | None:
    """What the peer can do under this name."""
    if peer.abilities is not None:
        return peer.abilities.get(name)
    ability = peer.first_ability
    while ability is not None and ability.function.name != name:
        ability = ability.next
    return ability


def add_ability(ability: Ability) -> None:
    """A new ability of its peer; the one registered last is the first to be asked."""
    peer = ability.peer
    first = peer.first_ability
    ability.next = first
    if first is None:
        peer.last_ability = ability
    else:
        first.previous = ability
    peer.first_ability = ability
    peer.ability_count += 1
    if peer.abilities is not None:
        peer.abilities[ability.function.name] = ability
    elif peer.ability_count > FEW:
        peer.abilities = {each.function.name: each for each in registered_abilities(peer)}


def remove_ability(ability: Ability) -> None:
    """The peer can do it no more."""
    _leave_rotation(ability)
    peer = ability.peer
    peer.ability_count -= 1
    if peer.abilities is not None:
        del peer.abilities[ability.function.name]
        if peer.ability_count == 0:
            peer.abilities = None
        elif (
            peer.ability_count % 256 == 0 or peer.ability_count == FEW  # now and then, since it takes a while
        ) and peer.abilities.__sizeof__() > _DICT_ENTRY * peer.ability_count:
            peer.abilities = dict(peer.abilities)


def rotate(ability: Ability) -> None:
    """The ability has had its turn: it goes to the end of its peer's rotation."""
    _leave_rotation(ability)
    peer = ability.peer
    last = peer.last_ability
    ability.previous = last
    ability.next = None
    if last is None:
        peer.first_ability = ability
    else:
        last.next = ability
    peer.last_ability = ability


def rotate_to_front(ability: Ability) -> None:
    """The ability has its turn, and keeps it: it goes to the front of its peer's rotation."""
    _leave_rotation(ability)
    peer = ability.peer
    first = peer.first_ability
    ability.next = first
    if first is None:
        peer.last_ability = ability
    else:
        first.previous = ability
    peer.first_ability = ability


def registered_abilities(peer: Peer) -> list[Ability]:
    """All abilities of a peer, in the order in which they were registered."""
    if peer.abilities is not None:
        return list(peer.abilities.values())
    abilities: list[Ability] = []
    ability = peer.first_ability
    while ability is not None:
        at: i64 = len(abilities)
        while at > 0 and abilities[at - 1].order > ability.order:
            at -= 1
        abilities.insert(at, ability)
        ability = ability.next
    return abilities


def _leave_rotation(ability: Ability) -> None:
    peer = ability.peer
    previous = ability.previous
    following = ability.next
    if previous is None:
        peer.first_ability = following
    else:
        previous.next = following
    if following is None:
        peer.last_ability = previous
    else:
        following.previous = previous
    ability.previous = None
    ability.next = None


# ── who sleeps ──────────────────────────────────────────────────────────────────────────────────────────────────────


def add_sleeper(ability: Ability) -> None:
    """Become the last of the function's sleepers; it may stand among them since it last slept."""
    function = ability.function
    last = function.last_sleeper
    if last is ability:
        return
    if ability.next_sleeper is not None:
        remove_sleeper(ability)
    ability.previous_sleeper = last
    if last is None:
        function.first_sleeper = ability
    else:
        last.next_sleeper = ability
    function.last_sleeper = ability
    function.sleepers += 1


def remove_sleeper(ability: Ability) -> None:
    """Leave the function's sleepers, if it stands among them."""
    function: Function = ability.function
    previous = ability.previous_sleeper
    following = ability.next_sleeper
    if following is None and function.last_sleeper is not ability:
        return
    if previous is None:
        function.first_sleeper = following
    else:
        previous.next_sleeper = following
    if following is None:
        function.last_sleeper = previous
    else:
        following.previous_sleeper = previous
    ability.previous_sleeper = None
    ability.next_sleeper = None
    function.sleepers -= 1
