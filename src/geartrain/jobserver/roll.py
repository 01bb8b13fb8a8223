"""A roll: all functions, peers or dead letters in the order in which they came, for listings that go page by page.

Who goes through a roll has no copy of it, only the place up to which it has come: however many do, and however long one
stops in the middle, nothing is kept for it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import Final, Generic, TypeVar, final

from geartrain.native import i64

Item = TypeVar("Item")

_FEW: Final = 100  # empty places for which a roll is not made smaller


@final
class Roll(Generic[Item]):
    """Each item stands at a place, and the places count up."""

    def __init__(self) -> None:
        self.items: list[Item | None] = []  # None: it has left
        self.places: array[int] = array("q")
        self.last_place: i64 = 0  # that anything ever got
        self.empty: i64 = 0
        self.front: i64 = 0  # before it all are empty

    @property
    def count(self) -> i64:
        """How many items stand here."""
        return len(self.items) - self.empty

    def enter(self, item: Item) -> i64:
        """Put an item at the end; the place at which it stands from now on."""
        self.last_place += 1
        self.places.append(int(self.last_place))
        self.items.append(item)
        return self.last_place

    def leave(self, place: i64) -> None:
        """Take off what stands at a place."""
        self.items[bisect_left(self.places, int(place))] = None
        self.empty += 1
        if self.empty > _FEW and self.empty * 2 > len(self.items):
            taken = [at for at, item in enumerate(self.items) if item is not None]
            self.places = array("q", [self.places[at] for at in taken])
            self.items = [self.items[at] for at in taken]
            self.empty = 0
            self.front = 0

    def first(self) -> Item | None:
        """The item that has been here longest."""
        while self.front < len(self.items):
            item = self.items[self.front]
            if item is not None:
                return item
            self.front += 1
        return None

    def page(self, behind: i64, until: i64, size: int) -> list[Item]:
        """The next items behind one place and up to another, not many; none: there are no more."""
        at = bisect_right(self.places, int(behind))
        end = bisect_right(self.places, int(until))
        found: list[Item] = []
        while not found and at < end:
            found = [item for item in self.items[at : min(at + size, end)] if item is not None]
            at += size
        return found
