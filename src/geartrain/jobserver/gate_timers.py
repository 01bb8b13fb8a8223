"""When gates are to be looked at again: one time at most for each function and each key."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from geartrain.jobserver.deadlines import Deadlines
from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function, KeySlot


@final
class GateTimers:
    """Deadlines (monotonic) by number; ``meant`` says whose each number is."""

    def __init__(self) -> None:
        self.deadlines: Deadlines = Deadlines(self._is_meant)
        self.meant: dict[int, tuple[Function, KeySlot | None]] = {}
        self.last: i64 = 0

    def add(self, at: float, function: Function, slot: KeySlot | None) -> i64:
        """Look at the function, or at one of its keys, at this time; by this number that can be cancelled."""
        self.last += 1
        self.meant[self.last] = (function, slot)
        self.deadlines.add(at, int(self.last), 0)
        return self.last

    def cancel(self, number: i64) -> None:
        """Do not look then, if that is still to come."""
        if self.meant.pop(number, None) is not None:
            self.deadlines.drop()

    def _is_meant(self, number: int, _: int) -> bool:
        return number in self.meant
