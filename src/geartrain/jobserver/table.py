"""All jobs by number, in shelves of consecutive numbers.

A dict from number to job would cost a boxed integer and a hash entry for each job, and would stop the world when it
grows past a few million. Numbers are given out in order, so jobs stand side by side on shelves of ``SHELF`` places; a
shelf goes when its last job goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.native import i64

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.model import Job

SHELF_BITS: Final = 8
SHELF: Final = 1 << SHELF_BITS


@final
class Shelf:
    """The places of ``SHELF`` consecutive numbers, and how many are taken."""

    def __init__(self) -> None:
        self.places: list[Job | None] = [None] * SHELF
        self.taken: i64 = 0


@final
class JobTable:
    """Jobs by their number; every operation takes the same time whatever their count."""

    def __init__(self) -> None:
        self.shelves: dict[int, Shelf] = {}
        self.count: i64 = 0
        self.near: Shelf | None = None  # the shelf used last, since the next job mostly stands beside it
        self.near_key: i64 = -1
        self.spare: Shelf | None = None  # an empty one, since where few jobs wait each may be the only one

    def get(self, number: i64) -> Job | None:
        """The job with this number, or None."""
        shelf = self._shelf(number >> SHELF_BITS)
        return None if shelf is None else shelf.places[number & (SHELF - 1)]

    def add(self, job: Job) -> None:
        """Put a job at its number, which must be free."""
        number: i64 = job.number
        key: i64 = number >> SHELF_BITS
        shelf = self._shelf(key)
        if shelf is None:
            shelf = self.spare
            if shelf is None:
                shelf = Shelf()
            self.spare = None
            self.shelves[key] = shelf
        shelf.places[number & (SHELF - 1)] = job
        shelf.taken += 1
        self.count += 1

    def remove(self, number: i64) -> None:
        """Free the place of a job that is here."""
        key: i64 = number >> SHELF_BITS
        shelf = self._shelf(key)
        assert shelf is not None
        shelf.places[number & (SHELF - 1)] = None
        shelf.taken -= 1
        self.count -= 1
        if shelf.taken == 0:
            del self.shelves[key]
            self.spare = shelf
            self.near = None
            self.near_key = -1

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Job]:
        """Every job; jobs that come or go meanwhile may be missed."""
        for key in list(self.shelves):
            shelf = self.shelves.get(key)
            if shelf is not None:
                for job in list(shelf.places):
                    if job is not None:
                        yield job

    def _shelf(self, key: i64) -> Shelf | None:
        if key == self.near_key:
            return self.near
        shelf = self.shelves.get(key)
        if shelf is not None:
            self.near = shelf
            self.near_key = key
        return shelf
