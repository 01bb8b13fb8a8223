"""All jobs by number, in shelves of consecutive numbers.

A dict from number to job would cost a boxed integer and a hash entry for each job, and would stop the world when it
grows past a few million. Numbers are given out in order, so jobs stand side by side on shelves of ``SHELF`` places; a
shelf goes when its last job goes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, final

from geartrain.native import i64

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.model import Job

SHELF_BITS: Final = 8
SHELF: Final = 1 << SHELF_BITS
_FEW: Final = 100  # shelves that are gone for which their keys are not gone through


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
        self.keys: list[int] = []  # of the shelves, in order; also of some that are gone
        self.gone: i64 = 0  # how many of them
        self.is_ordered: bool = True  # else the keys have to be put in order, since not each came behind those before
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
            self._note(key)
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
            self.gone += 1
            if self.gone > _FEW and self.gone * 2 > len(self.keys) and self.is_ordered:
                self._tidy()

    def page(self, behind: i64, count: i64) -> tuple[list[Job], int]:
        """The jobs behind a number, in order, as far as ``count`` places go, and how far these went; -1: to the end.

        What it costs goes by ``count`` alone. Restored jobs come in any order: then the keys are sorted, once.
        """
        if not self.is_ordered:
            self.is_ordered = True
            self._tidy()
        found: list[Job] = []
        first: i64 = behind + 1
        left: i64 = count
        at: i64 = bisect_left(self.keys, int(first >> SHELF_BITS))
        while at < len(self.keys):
            key: i64 = self.keys[at]
            start: i64 = key << SHELF_BITS
            shelf = self.shelves.get(key)
            if shelf is None:
                left -= 1
            else:
                place: i64 = first - start if first > start else 0
                while place < SHELF and left > 0:
                    job = shelf.places[place]
                    if job is not None:
                        found.append(job)
                    place += 1
                    left -= 1
                if place < SHELF:
                    return found, int(start + place - 1)
            at += 1
            if left <= 0 and at < len(self.keys):
                return found, int(start + SHELF - 1)
        return found, -1

    def page_back(self, before: i64, count: i64) -> tuple[list[Job], int]:
        """The jobs before a number, the newest first, and how far the places went; -1: to the first."""
        if not self.is_ordered:
            self.is_ordered = True
            self._tidy()
        found: list[Job] = []
        last: i64 = before - 1
        left: i64 = count
        at: i64 = bisect_right(self.keys, int(last >> SHELF_BITS)) - 1
        while at >= 0:
            key: i64 = self.keys[at]
            start: i64 = key << SHELF_BITS
            shelf = self.shelves.get(key)
            if shelf is None:
                left -= 1
            else:
                place: i64 = last - start if last - start < SHELF else SHELF - 1
                while place >= 0 and left > 0:
                    job = shelf.places[place]
                    if job is not None:
                        found.append(job)
                    place -= 1
                    left -= 1
                if place >= 0:
                    return found, int(start + place + 1)
            at -= 1
            if left <= 0 and at >= 0:
                return found, int(start)
        return found, -1

    def _note(self, key: i64) -> None:
        """There is one more shelf."""
        if not self.is_ordered:
            return
        last: i64 = self.keys[-1] if self.keys else -1
        if key > last:
            self.keys.append(int(key))
        elif key == last:  # it was gone
            self.gone -= 1
        else:
            self.is_ordered = False

    def _tidy(self) -> None:
        self.keys = sorted(self.shelves)
        self.gone = 0

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
