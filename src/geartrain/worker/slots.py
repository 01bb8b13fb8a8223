"""The slots of a worker: how many jobs it may hold at once, over all job servers together.

A session that believes its job server has work stands in line; whenever a slot is free, the first in line takes it and
grabs with it. The slot is given back when the server has no job for it, or when its job is done. So a worker never
holds more jobs than it has slots, and job servers that all have work take turns.
"""

from __future__ import annotations

from collections import deque
from typing import final


class Grabber:
    """A session, as far as its slots know it."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots

    def is_hungry(self) -> bool:
        """Whether it wants one more slot."""
        raise NotImplementedError

    def grab(self) -> None:
        """Use the slot just taken."""
        raise NotImplementedError


class Slots:
    """Room for ``count`` jobs; slots made ``within`` others (a function's own limit) need a free one there too."""

    def __init__(self, count: int, within: Slots | None = None) -> None:
        self.count = count
        self.used = 0
        self._within = within
        # All sessions that draw on the same outermost slots stand in one line, whose order is fair.
        self._line: deque[Grabber] = deque() if within is None else within._line

    @property
    def free(self) -> int:
        """How many more jobs there is room for."""
        own = self.count - self.used
        return own if self._within is None else min(own, self._within.free)

    def stand_in_line(self, session: Grabber) -> None:
        """Let ``session`` wait for its turn; who stands in line already keeps its place."""
        if session not in self._line:
            self._line.append(session)

    def give_back(self) -> None:
        """Free one slot; ``serve`` says who gets it."""
        self.used -= 1
        if self._within is not None:
            self._within.give_back()

    def serve(self) -> None:
        """Let sessions in line grab, one job each in turn, while there are free slots for them."""
        line = self._line
        passed_over = 0
        while passed_over < len(line):
            session = line.popleft()
            if not session.is_hungry():
                continue
            if session.slots.free > 0:
                session.slots._take()
                session.grab()
                passed_over = -1
            line.append(session)
            passed_over += 1

    def _take(self) -> None:
        self.used += 1
        if self._within is not None:
            self._within._take()

    def __repr__(self) -> str:
        return f"<Slots {self.used} of {self.count} used, {len(self._line)} in line>"


@final
class BatchSlots(Slots):
    """Room for the jobs of one batch, which together take one slot of those ``within``.

    Once it is closed there is no more room, until all that it has have been given back.
    """

    def __init__(self, count: int, within: Slots) -> None:
        super().__init__(count, within)
        self.is_closed = False
        self._outer = within

    @property
    def free(self) -> int:
        if self.is_closed or not (self.used or self._outer.free):
            return 0
        return self.count - self.used

    def give_back(self) -> None:
        self.used -= 1
        if not self.used:
            self.is_closed = False
            self._outer.give_back()

    def _take(self) -> None:
        if not self.used:
            self._outer._take()
        self.used += 1
