"""Jobs that something will happen to at a known time, soonest first.

A job that leaves early is not searched for: its entry is passed over when it comes up. When more than half of the
entries are dead, those that live move to a new heap, a few with each step, from the end of the old one, where taking
one leaves a heap. So adding, leaving and coming up cost O(log n) each, and never more at once.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, final

from geartrain.native import i64

if TYPE_CHECKING:
    from collections.abc import Callable


_MOVED: Final = 4  # entries that move with each step: few, since thousands of steps are made in one iteration
_TRIES: Final = 5000  # dead entries that are passed over in one call


@final
class Deadlines:
    """A heap of (time, job number, assignment); ``live`` counts the entries that still mean something.

    ``is_live(number, assignment)`` tells whether an entry does.
    """

    def __init__(self, is_live: Callable[[int, int], bool]) -> None:
        self.heap: list[tuple[float, int, int]] = []
        self.old: list[tuple[float, int, int]] = []  # the heap that is being left
        self.live: i64 = 0
        self.is_live: Callable[[int, int], bool] = is_live

    def add(self, at: float, number: int, assignment: int) -> None:
        """Something happens to this job at this time."""
        self.live += 1
        heapq.heappush(self.heap, (at, number, assignment))
        if self.old:
            self._move(_MOVED)

    def drop(self) -> None:
        """One entry means nothing any more (its job has changed already)."""
        self.live -= 1
        if self.old:
            self._move(_MOVED)
        elif len(self.heap) > 2 * self.live + 64:
            self.old = self.heap
            self.heap = []
            self._move(_MOVED)

    def next_at(self) -> float:
        """When the first entry comes up, 0 if there is none. It may turn out to be dead."""
        heap, old = self.heap, self.old
        if not old:
            return heap[0][0] if heap else 0.0
        return min(heap[0][0], old[0][0]) if heap else old[0][0]

    def pop_due(self, now: float) -> int:
        """The number of a job whose time has come, taken out, or -1 if there is none.

        After very many dead entries it is -1 as well, and ``next_at`` still in the past: the next call goes on.
        """
        tries: i64 = _TRIES
        while tries > 0:
            heap = self.heap
            if self.old and (not heap or self.old[0] < heap[0]):
                heap = self.old
            if not heap or heap[0][0] > now:
                return -1
            _, number, assignment = heapq.heappop(heap)
            if self.is_live(number, assignment):
                self.live -= 1
                return number
            tries -= 1
        return -1

    def _move(self, count: i64) -> None:
        old = self.old
        while old and count > 0:
            entry = old.pop()
            if self.is_live(entry[1], entry[2]):
                heapq.heappush(self.heap, entry)
            count -= 1
