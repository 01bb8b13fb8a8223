"""Who sleeps, and whom a waiting job wakes (section 3.5).

A worker that found nothing says PRE_SLEEP and waits for a NOOP. As many sleepers are woken as there are jobs waiting
for them, one NOOP each, longest asleep first. A woken worker counts for the function it was woken for until it grabs,
whatever it then gets; if it does not grab within the wake timeout, or leaves, the next sleeper is woken in its place.
So no job waits beside an idle worker able to do it, and a thousand sleepers cost nothing.

A worker stands among the sleepers of each of its functions. Getting up costs nothing: where it still stands it is
passed over, and taken out, when its turn to be woken comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.agenda import Source
from geartrain.jobserver.chores import Chore
from geartrain.jobserver.links import add_sleeper, remove_sleeper
from geartrain.jobserver.rules.long_work import begin
from geartrain.native import i64
from geartrain.wire.packets import NOOP, response_head

if TYPE_CHECKING:
    from geartrain.jobserver.model import Ability, Function, Peer
    from geartrain.jobserver.state import State

_NOOP_PACKET = response_head(NOOP, 0)
_AT_ONCE: Final = 1000  # abilities in one slice


def wake(state: State, function: Function) -> None:
    """Wake sleepers of ``function`` until there are enough for the jobs that wait."""
    if state.withholding:
        return
    wakeups = state.worker_wakeup
    sleeper = first_asleep(function)
    while sleeper is not None and function.ready > 0:
        if wakeups > 0 and function.woken >= function.ready * wakeups:
            break
        peer = sleeper.peer
        remove_sleeper(sleeper)
        get_up(state, peer)
        rouse(state, peer, function)
        sleeper = first_asleep(function)


def get_up(state: State, peer: Peer) -> None:
    """The peer sleeps no more."""
    if peer.sleeping:
        peer.sleeping = False
        if peer.ability_count > 0:
            state.asleep -= 1


def first_asleep(function: Function) -> Ability | None:
    """Who has slept longest; those that have got up since are no sleepers any more."""
    sleeper = function.first_sleeper
    while sleeper is not None and not sleeper.peer.sleeping:
        remove_sleeper(sleeper)
        sleeper = function.first_sleeper
    return sleeper


def rouse(state: State, peer: Peer, function: Function) -> None:
    """Send the NOOP to a peer that is not asleep any more, and count on it for a while."""
    peer.woken_for = function
    function.woken += 1
    peer.woken_until = state.now + state.wake_timeout
    last = state.last_woken
    peer.previous_woken = last
    peer.next_woken = None
    if last is None:
        state.first_woken = peer
    else:
        last.next_woken = peer
    state.last_woken = peer
    peer.send(_NOOP_PACKET)


def settle_woken(state: State, peer: Peer) -> None:
    """The woken peer does not count for its function any more; whoever calls this then wakes for that function."""
    function = peer.woken_for
    assert function is not None
    peer.woken_for = None
    function.woken -= 1
    previous = peer.previous_woken
    following = peer.next_woken
    if previous is None:
        state.first_woken = following
    else:
        previous.next_woken = following
    if following is None:
        state.last_woken = previous
    else:
        following.previous_woken = previous
    peer.previous_woken = None
    peer.next_woken = None


@final
class WokenWorkers(Source):
    """Counts no longer on woken workers that have not grabbed in time."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        woken = self.state.first_woken
        return 0.0 if woken is None else woken.woken_until

    def run(self) -> None:
        state = self.state
        peer = state.first_woken
        while peer is not None and peer.woken_until <= state.now:
            function = peer.woken_for
            assert function is not None
            settle_woken(state, peer)
            wake(state, function)
            peer = state.first_woken


def fall_asleep(state: State, peer: Peer) -> None:
    """PRE_SLEEP: a NOOP at once if a job waits for this worker, else it sleeps until one does."""
    function = peer.woken_for
    if function is not None:
        settle_woken(state, peer)
        wake(state, function)  # it did not want the job, so the next one is asked before it is told again
    newly = not peer.sleeping
    if newly:
        peer.sleeping = True
        if peer.ability_count > 0:
            state.asleep += 1
    if peer.ability_count <= _AT_ONCE:
        state.cost += peer.ability_count
        _lie_down(state, peer, peer.first_ability, newly)
    else:
        begin(state, FallAsleep(state, peer, newly))


def _lie_down(state: State, peer: Peer, ability: Ability | None, newly: bool) -> Ability | None:
    """Look from this ability on for a job that waits, and get up for it; what is left to be looked at, if many."""
    left: i64 = _AT_ONCE
    while ability is not None and left > 0:
        if ability.function.ready > 0 and not state.withholding:
            get_up(state, peer)
            rouse(state, peer, ability.function)
            return None
        if newly:
            add_sleeper(ability)
        ability = ability.next
        left -= 1
    return ability


@final
class FallAsleep(Chore):
    """A worker of very many functions falls asleep for some after the others; it may be woken meanwhile."""

    def __init__(self, state: State, peer: Peer, newly: bool) -> None:
        super().__init__(peer)
        self.state: State = state
        self.peer: Peer = peer
        self.newly: bool = newly
        self.next: Ability | None = peer.first_ability

    def step(self) -> bool:
        peer = self.peer
        if not peer.sleeping or peer.gone or peer.closing:
            return True
        self.next = _lie_down(self.state, peer, self.next, self.newly)
        self.state.cost += 2 * _AT_ONCE
        return self.next is None
