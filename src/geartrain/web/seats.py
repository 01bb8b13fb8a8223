"""Which functions have metrics of their own, where there are more than are told one by one.

There are so many seats. A function that has one keeps it until it is forgotten, or until another has more than twice
its traffic. All others are told together as OTHER, whose counters never go back, since Prometheus would take that for
a restart and count everything once more:

    others = all functions, also those that are known no more
             - what was told of functions while they had a seat

So what had been counted for a function before it got its seat stays with the others, and what is counted after it has
lost it comes to them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from geartrain.jobserver.counters import Counters
from geartrain.web.families import COUNTERS, HISTOGRAMS

if TYPE_CHECKING:
    from geartrain.jobserver.snapshot import FunctionView

Numbers = list[float]
"""Counters as numbers in a row: those of COUNTERS, then the buckets and the sum of each histogram."""

OTHER: Final = "(other)"
"""What all others are called; a function of this very name is one of them."""
_NEVER: Final = OTHER.encode()

PRIORITIES: Final = ("high", "normal", "low")
OUTGROWN: Final = 2  # times the traffic of a function that has a seat, so that two of them do not take turns

_counted = attrgetter(*COUNTERS)


def numbers(counters: Counters) -> Numbers:
    row: Numbers = list(_counted(counters))
    for name in HISTOGRAMS:
        histogram = getattr(counters, name)
        row += histogram.counts
        row.append(histogram.sum)
    return row


def traffic(view: FunctionView) -> int:
    """By this it is decided who has a seat."""
    return int(view.counters.submitted + view.counters.started)


@dataclass(slots=True)
class _Seat:
    place: int  # on the roll of functions: a function of the same name that comes later has another
    before: list[Numbers | None]  # by priority: what had been counted before it got the seat
    last: list[Numbers | None]  # what had been when it was told last
    traffic: int


class Seats:
    """The functions that are told by themselves, at most ``limit``, and the numbers of the others.

    A round: ``begin`` with what was counted for functions that are known no more; ``look`` at all functions and
    ``choose``, if there are more than seats; ``take`` each function; ``others``.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._seats: dict[bytes, _Seat] = {}
        self._chosen: set[bytes] = set()
        self._best: list[tuple[int, bytes]] = []
        self._told_until = -1  # the last place on the roll of functions in the round before
        self._until = -1
        nothing = numbers(Counters())
        # What the numbers of others have to be changed by: what was before seats, less what was told of those.
        self._shift: list[Numbers] = [list(nothing) for _ in PRIORITIES]
        self._forgotten: list[Numbers] = [list(nothing) for _ in PRIORITIES]
        self._others: list[Numbers] = [list(nothing) for _ in PRIORITIES]
        self._folded = [Counters() for _ in PRIORITIES]

    def __contains__(self, name: bytes) -> bool:
        return name in self._seats

    def begin(self, known: Iterable[bytes] | dict[bytes, object], forgotten: Sequence[Counters], until: int) -> None:
        """A new round; ``until`` is the place of the newest function."""
        self._forgotten = [numbers(counters) for counters in forgotten]
        self._folded = [Counters() for _ in PRIORITIES]
        self._told_until, self._until = self._until, until
        self._chosen = set()
        self._best = []
        for name in [name for name in self._seats if name not in known]:
            self._leave(name)

    def look(self, view: FunctionView) -> None:
        """There are more functions than seats, and this is one of them."""
        if self._seat_of(view) is not None or view.name == _NEVER:
            return
        entry = (traffic(view), view.name)
        if len(self._best) < self.limit:
            heapq.heappush(self._best, entry)
        else:
            heapq.heappushpop(self._best, entry)

    def choose(self) -> None:
        """All have been looked at: the free seats go to those with the most traffic."""
        best = sorted(self._best, reverse=True)
        free = self.limit - len(self._seats)
        self._chosen = {name for _, name in best[:free]}
        least = sorted((seat.traffic, name) for name, seat in self._seats.items())
        for (much, name), (little, weak) in zip(best[free:], least, strict=False):
            if much <= OUTGROWN * little:
                break
            self._leave(weak)
            self._chosen.add(name)

    def take(self, view: FunctionView, all_fit: bool) -> list[Numbers | None] | None:
        """What is to be told of a function, by priority; None if it belongs to the others, and is counted there.

        ``all_fit``: there are not more functions than seats.
        """
        seat = self._seat_of(view)
        row = [None if counters is None else numbers(counters) for counters in view.by_priority]
        if seat is None:
            may_sit = (all_fit or view.name in self._chosen) and view.name != _NEVER
            if not may_sit or len(self._seats) >= self.limit:
                for folded, counters in zip(self._folded, view.by_priority, strict=True):
                    if counters is not None:
                        folded.add(counters)
                return None
            # One that has come since the round before has never been with the others.
            before: list[Numbers | None] = [None, None, None] if self._is_new(view) else row
            seat = self._seats[view.name] = _Seat(view.place, before, row, 0)
            _add(self._shift, before, 1)
        else:
            seat.last = row
        seat.traffic = traffic(view)
        return [now and (now if was is None else _less(now, was)) for now, was in zip(row, seat.before, strict=True)]

    def others(self) -> list[Numbers | None]:
        """What is to be told of all others together, by priority; None where nothing was ever counted."""
        for place, folded in enumerate(self._folded):
            told = self._others[place]
            rows = (numbers(folded), self._forgotten[place], self._shift[place])
            # A seat's function that has been told a moment later, or sums of fractions, must not let it go back.
            self._others[place] = [max(was, sum(now)) for was, *now in zip(told, *rows, strict=True)]
        return [row if any(row) else None for row in self._others]

    def _seat_of(self, view: FunctionView) -> _Seat | None:
        """Its seat; that of another one by the same name, which has been forgotten, is free from now on."""
        seat = self._seats.get(view.name)
        if seat is not None and seat.place != view.place:
            self._leave(view.name)
            return None
        return seat

    def _is_new(self, view: FunctionView) -> bool:
        return self._told_until < 0 or view.place > self._told_until

    def _leave(self, name: bytes) -> None:
        _add(self._shift, self._seats.pop(name).last, -1)


def _add(to: list[Numbers], rows: Sequence[Numbers | None], sign: int) -> None:
    for place, row in enumerate(rows):
        if row is not None:
            to[place] = [one + sign * other for one, other in zip(to[place], row, strict=True)]


def _less(now: Numbers, was: Numbers) -> Numbers:
    return [max(one - other, 0) for one, other in zip(now, was, strict=True)]
