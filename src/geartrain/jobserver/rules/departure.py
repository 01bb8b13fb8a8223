"""A connection is gone, or has no part in anything more: what it waited for, and what it was running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.chores import Chore
from geartrain.jobserver.half_sent import forget_half_sent
from geartrain.jobserver.links import unsubscribe
from geartrain.jobserver.model import REVOKED_COST, RUNNING, SUBSCRIBER_COST
from geartrain.jobserver.rules.assignment import forget_ability
from geartrain.jobserver.rules.attempts import lose
from geartrain.jobserver.rules.long_work import begin
from geartrain.jobserver.rules.outcome import ABANDONED, finish
from geartrain.jobserver.rules.results import forget_waits
from geartrain.jobserver.rules.waking import get_up, settle_woken, wake

if TYPE_CHECKING:
    from geartrain.jobserver.model import Peer
    from geartrain.jobserver.state import State

_AT_ONCE: Final = 200  # jobs in one slice


def hang_up(state: State, peer: Peer) -> None:
    """Close a connection from our side: what it was told is still written, but it has no part in anything more."""
    if not peer.closing:
        peer.close()
        retire(state, peer)


def retire(state: State, peer: Peer) -> None:
    """Take a peer out of everything: as client first, so that nobody is woken for jobs that nobody wants."""
    del state.peers[peer]
    state.peer_roll.leave(peer.place)
    forget_half_sent(state, peer)
    parked = state.chores.parked.pop(peer, None)
    if parked is not None:  # a listing ends by itself, but what others see must be done to its end
        state.chores.line.append(parked)
    get_up(state, peer)
    if peer.revoked is not None:
        state.memory -= REVOKED_COST * len(peer.revoked)
        peer.revoked = None
    begin(state, Departure(state, peer))


@final
class Departure(Chore):
    """What a peer that is gone waited for and ran, some at a time; then it leaves the workers."""

    def __init__(self, state: State, peer: Peer) -> None:
        super().__init__(None)
        self.state: State = state
        self.peer: Peer = peer

    def step(self) -> bool:
        state = self.state
        peer = self.peer
        left = forget_waits(state, peer, _AT_ONCE)
        subscriber = peer.subscriptions
        while subscriber is not None and left > 0:
            job = subscriber.job
            unsubscribe(subscriber)
            state.memory -= SUBSCRIBER_COST
            if job.subscribers is None and not job.background and job.state != RUNNING:
                finish(state, job, ABANDONED)
            left -= 1
            state.cost += 5
            subscriber = peer.subscriptions
        if left > 0:
            left = self._leave_functions(left)
        running = peer.running
        while running is not None and left > 0:
            lose(state, running)
            left -= 1
            state.cost += 5
            running = peer.running
        return left > 0

    def _leave_functions(self, left: int) -> int:
        """The peer leaves so many functions at most; how many are left of these. Who was woken in vain is replaced."""
        state = self.state
        peer = self.peer
        function = peer.woken_for
        if function is not None:
            settle_woken(state, peer)
            wake(state, function)
        peer.abilities = None  # the other way to them
        ability = peer.first_ability
        while ability is not None and left > 0:
            forget_ability(state, ability)
            ability = peer.first_ability
            left -= 1
        return left
