"""Jobs that something will happen to at a known time, soonest first.

A job that leaves early is not searched for: its entry is passed over when it comes up, and when more than half of the
entries are dead they are swept out at once. So adding, leaving and coming up cost O(log n).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, final

from geartrain.native import i64

if TYPE_CHECKING:
    from collections.abc import Callable


@final
class Deadlines:
    """A heap of (time, job number, assignment); ``live`` counts the entries that still mean something.

    ``is_live(number, assignment)`` tells whether an entry does.
    """

    def __init__(self, is_live: Callable[[int, int], bool]) -> None:
        self.heap: list[tuple[float, int, int]] = []
        self.live: i64 = 0
        self.is_live: Callable[[int, int], bool] = is_live

    def add(self, at: float, number: int, assignment: int) -> None:
        """Something happens to this job at this time."""
        self.live += 1
        heapq.heappush(self.heap, (at, number, assignment))

    def drop(self) -> None:
        """One entry means nothing any more (its job has changed already)."""
        self.live -= 1
        if len(self.heap) > 2 * self.live + 64:
            self.heap = [entry for entry in self.heap if self.is_live(entry[1], entry[2])]
            heapq.heapify(self.heap)

    def next_at(self) -> float:
        """When the first entry comes up, 0 if there is none. It may turn out to be dead."""
        return self.heap[0][0] if self.heap else 0.0

    def pop_due(self, now: float) -> int:
        """The number of a job whose time has come, taken out, or -1."""
        while self.heap and self.heap[0][0] <= now:
            _, number, assignment = heapq.heappop(self.heap)
            if self.is_live(number, assignment):
                self.live -= 1
                return number
        return -1
