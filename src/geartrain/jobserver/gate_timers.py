"""When gates are to be looked at again: a heap with one entry at most for each function and each key."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, final

from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function, KeySlot


@final
class GateTimers:
    """(monotonic time, number) in ``heap``; ``meant`` says whose each number is."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int]] = []
        self.meant: dict[int, tuple[Function, KeySlot | None]] = {}
        self.last: i64 = 0

    def add(self, at: float, function: Function, slot: KeySlot | None) -> None:
        """Look at the function, or at one of its keys, at this time."""
        self.last += 1
        self.meant[self.last] = (function, slot)
        heapq.heappush(self.heap, (at, self.last))
