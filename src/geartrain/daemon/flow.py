"""How much output may wait for a peer, and for all of them together: decided from numbers, without any I/O.

A peer whose output piles up beyond its own bound, since it does not read what others send it, is cut off; a packet that
is larger than the bound by itself still passes. Where all peers together have too much unread, the worst reader goes
first.
"""

from __future__ import annotations

from typing import Final

from geartrain.daemon.outlet import Outlet

# Output that waits for one connection at which it is not read any further, and from which on it is counted.
FULL: Final = 64 * 1024


class UnreadOutput:
    """What all outlets that are full have unread, in bytes, with the bounds for one and for all."""

    def __init__(self, most_of_one: int, most_of_all: int) -> None:
        self.most_of_one = most_of_one
        self.most_of_all = most_of_all
        self.total = 0
        self._of: dict[Outlet, int] = {}
        self._passing: dict[Outlet, int] = {}  # bytes that came to it at once, and may wait beyond the bound

    def is_too_much(self, outlet: Outlet, unread: int, coming: int) -> bool:
        """Whether a full outlet has to be cut off; else more is added, whose largest piece is ``coming`` bytes."""
        passing = self._passing.get(outlet, 0)
        if unread > self.most_of_one + passing:
            return True
        if coming > passing:
            self._passing[outlet] = coming
        return False

    def note(self, outlet: Outlet, unread: int) -> None:
        """A full outlet has so much unread."""
        before = self._of.get(outlet)
        if before is None:
            self._passing[outlet] = max(unread, self._passing.get(outlet, 0))
            before = 0
        self._of[outlet] = unread
        self.total += unread - before

    def forget(self, outlet: Outlet) -> None:
        """An outlet is not full any more, or gone."""
        self.total -= self._of.pop(outlet, 0)
        self._passing.pop(outlet, None)

    def worst(self) -> Outlet | None:
        """The outlet to cut off next, if all together have too much unread."""
        if self.total <= self.most_of_all or not self._of:
            return None
        return max(self._of, key=self._of.__getitem__)
