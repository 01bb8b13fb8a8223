"""How chores are begun, run slice by slice, parked and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from geartrain.jobserver.agenda import Source
from geartrain.jobserver.chores import ITERATION_COST, REQUEST_COST, Chore
from geartrain.jobserver.outbox import MAX_UNREAD_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.model import Peer
    from geartrain.jobserver.state import State


def begin(state: State, chore: Chore) -> None:
    """Do a new chore: at once as far as the budget allows, the rest later."""
    outbox = chore.outbox
    begun_at = state.cost
    while not chore.step():
        if outbox is not None:
            outbox.busy = True
            if outbox.unsent >= MAX_UNREAD_OUTPUT:
                state.chores.parked[outbox] = chore
                return
        if state.cost >= ITERATION_COST or state.cost - begun_at >= REQUEST_COST:
            state.chores.line.append(chore)
            return
    if outbox is not None:
        outbox.busy = False


def resume(state: State, peer: Peer) -> None:
    """The output of a peer has been taken: if its chore is parked, it goes on."""
    if peer.unsent < MAX_UNREAD_OUTPUT:
        chore = state.chores.parked.pop(peer, None)
        if chore is not None:
            begin(state, chore)


@final
class LongWork(Source):
    """Gives each chore a step in turn until the budget of the iteration is spent."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state: State = state

    def next_at(self) -> float:
        return self.state.now if self.state.chores.line else 0.0

    def run(self) -> None:
        state = self.state
        line = state.chores.line
        while line and state.cost < ITERATION_COST:
            chore = line.popleft()
            outbox = chore.outbox
            if chore.step():
                if outbox is not None:
                    outbox.busy = False
                    outbox.touch()  # so that its next requests are read
            elif outbox is not None and outbox.unsent >= MAX_UNREAD_OUTPUT and not (outbox.gone or outbox.closing):
                state.chores.parked[outbox] = chore
            else:
                line.append(chore)


@final
class Listing(Chore):
    """A long answer, made chunk by chunk as its peer reads it."""

    def __init__(self, state: State, peer: Peer, chunks: Iterator[bytes]) -> None:
        super().__init__(peer)
        self.state: State = state
        self.peer: Peer = peer
        self.chunks: Iterator[bytes] = chunks

    def step(self) -> bool:
        peer = self.peer
        if peer.gone or peer.closing:
            return True
        chunk = next(self.chunks, None)
        if chunk is None:
            return True
        self.state.cost += 10 + 5 * chunk.count(b"\n") + len(chunk) // 16
        peer.send(chunk)
        return False
