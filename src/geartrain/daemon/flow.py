"""What happens next between a peer and its outlet, decided from numbers, without any I/O.

An outlet tells its ``Flow`` what it sees and does what that answers, so sockets, places within this process and
whatever comes later decide alike. ``UnreadOutput`` counts what all outlets together hold for peers that do not read.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from geartrain.daemon.outlet import Holder
from geartrain.jobserver.outbox import MAX_UNREAD_OUTPUT

if TYPE_CHECKING:
    from geartrain.jobserver import Peer

# Output that waits for one peer from which on it is counted, and at which a socket's peer is not read any further. The
# kernel has taken its own share by then, which is a hundred times as much.
FULL: Final = 16 * 1024

# What an outlet does next.
WAIT: Final = 0  # for what comes
GO_ON: Final = 1  # with requests that wait in the job server
DRAIN: Final = 2  # and close from our side: the last words are written, but nothing is executed any more
END: Final = 3  # the connection: the peer has said all and has been told all


class Flow:
    """How an outlet stands. Whoever has one keeps ``full`` and ``ending`` true to what it sees."""

    __slots__ = ("closing", "ending", "full")

    def __init__(self) -> None:
        self.full = False  # so much is not read that the peer's requests have to wait
        self.closing = False  # we have closed our side
        self.ending = False  # the peer has closed its side

    def after_write(self, peer: Peer) -> int:
        """What to do now that all has been written that may be."""
        if peer.closing:
            return WAIT if peer.unsent else DRAIN
        if peer.stalled:
            # Else it goes on when the socket, or the store, has caught up.
            return WAIT if self.full or peer.unsent >= MAX_UNREAD_OUTPUT else GO_ON
        return END if self.ending and not peer.unsent else WAIT

    def may_go_on(self, peer: Peer) -> bool:
        """Whether requests of the peer that wait in the job server may be applied."""
        return peer.stalled and not self.closing and not self.full

    def may_read(self, peer: Peer) -> bool:
        """Whether to take in more of what the peer sends; what comes after our close is only thrown away."""
        return not self.full and (self.closing or not peer.stalled)

    def has_more(self, peer: Peer) -> bool:
        """Whether a peer that has closed its side is still to get something."""
        return peer.stalled or peer.unsent > 0


class UnreadOutput:
    """What outlets hold for peers that do not read, in bytes, with the bounds for one and for all.

    An outlet above its own bound is to be aborted; a packet that is larger than the bound by itself still passes.
    Where all together have too much, the worst reader goes first. What is counted may be out of date, since outlets
    only tell what they hold when they write, so the worst one is asked again before it goes.
    """

    def __init__(self, most_of_one: int, most_of_all: int) -> None:
        self.most_of_one = most_of_one
        self.most_of_all = most_of_all
        self.total = 0
        self._of: dict[Holder, int] = {}
        self._passing: dict[Holder, int] = {}  # bytes that came to it at once, and may wait beyond the bound
        self._ranking: list[tuple[int, int, Holder]] = []  # a heap, the largest first; some are out of date
        self._noted = 0

    def is_too_much(self, outlet: Holder, unread: int, coming: int) -> bool:
        """Whether a full outlet has to be aborted; else more is added, whose largest piece is ``coming`` bytes."""
        passing = self._passing.get(outlet, 0)
        if unread > self.most_of_one + passing:
            return True
        if coming > passing:
            self._passing[outlet] = coming
        return False

    def noted(self, outlet: Holder) -> int:
        """What an outlet held when it told so last."""
        return self._of.get(outlet, 0)

    def note(self, outlet: Holder, unread: int) -> None:
        """An outlet holds so much."""
        before = self._of.get(outlet)
        if before is None:
            self._passing[outlet] = max(unread, self._passing.get(outlet, 0))
            before = 0
        elif before == unread:
            return
        self._of[outlet] = unread
        self.total += unread - before
        if len(self._ranking) > 2 * len(self._of) + 100:
            self._noted += 1
            self._ranking = [(-its, self._noted + at, each) for at, (each, its) in enumerate(self._of.items())]
            self._noted += len(self._of)
            heapify(self._ranking)
        else:
            self._rank(outlet, unread)

    def _rank(self, outlet: Holder, unread: int) -> None:
        self._noted += 1
        heappush(self._ranking, (-unread, self._noted, outlet))

    def forget(self, outlet: Holder) -> None:
        """An outlet holds little again, or is gone."""
        if outlet in self._of:
            self.total -= self._of.pop(outlet)
            self._passing.pop(outlet, None)
            if not self._of:
                self._ranking = []

    def worst(self) -> Holder | None:
        """The outlet to abort next, if all together hold too much."""
        while self.total > self.most_of_all and self._ranking:
            unread, _, outlet = self._ranking[0]
            if self._of.get(outlet) != -unread:
                heappop(self._ranking)
            elif outlet.unread < -unread:
                self.note(outlet, outlet.unread)
            else:
                return outlet
        return None
