"""Work that is too long for one iteration and goes on in slices, so that only the peer that asked for it waits.

Chores stand in a line. Each is given a step in turn until the iteration's budget is spent, and goes back to the end of
the line. The next requests of the peer that asked wait until its chore is done; a chore whose output is not read is
parked until it is.
"""

from __future__ import annotations

from collections import deque
from typing import Final, final

from geartrain.jobserver.outbox import Outbox

# A unit of cost is about a tenth of a microsecond of compiled code.
ITERATION_COST: Final = 100_000  # what chores and requests may cost together before the network is looked at again
REQUEST_COST: Final = 20_000  # what one peer's requests may cost in a row before others have their turn


class Chore:
    """One piece of long work; ``outbox`` is that of the peer that waits for it, if any does."""

    def __init__(self, outbox: Outbox | None) -> None:
        self.outbox: Outbox | None = outbox

    def step(self) -> bool:
        """Do a slice and add to ``State.cost`` what it cost; whether there is nothing left to do."""
        return True


@final
class Chores:
    """The line of chores, and those that are parked."""

    def __init__(self) -> None:
        self.line: deque[Chore] = deque()
        self.parked: dict[Outbox, Chore] = {}
