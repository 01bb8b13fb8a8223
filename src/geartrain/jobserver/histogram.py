"""How often something took how long: times counted in buckets whose bounds are fixed.

Several times are added for each job, so a bucket is a native number of its own: adding is some comparisons, and makes
no object. What is read, and that is seldom, is made into a list first.
"""

from __future__ import annotations

from typing import Final, final

from geartrain.native import i64, mypyc_attr

BOUNDS: Final[tuple[float, ...]] = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
)  # fmt: skip
"""Seconds: a bucket has what took longer than the bound before it, and not longer than its own."""


@final
@mypyc_attr(acyclic=True)
class Histogram:
    """Times by the buckets of ``BOUNDS`` and a last one for all that took longer; ``sum`` is of all, in seconds."""

    def __init__(self) -> None:
        self.sum: float = 0.0
        self.ms_1: i64 = 0
        self.ms_2_5: i64 = 0
        self.ms_5: i64 = 0
        self.ms_10: i64 = 0
        self.ms_25: i64 = 0
        self.ms_50: i64 = 0
        self.ms_100: i64 = 0
        self.ms_250: i64 = 0
        self.ms_500: i64 = 0
        self.s_1: i64 = 0
        self.s_2_5: i64 = 0
        self.s_5: i64 = 0
        self.s_10: i64 = 0
        self.s_30: i64 = 0
        self.s_60: i64 = 0
        self.s_300: i64 = 0
        self.s_1800: i64 = 0
        self.longer: i64 = 0

    def add(self, seconds: float) -> None:
        """Something took so long."""
        self.sum += seconds
        if seconds <= 0.001:
            self.ms_1 += 1
        elif seconds <= 0.1:
            if seconds <= 0.0025:
                self.ms_2_5 += 1
            elif seconds <= 0.005:
                self.ms_5 += 1
            elif seconds <= 0.01:
                self.ms_10 += 1
            elif seconds <= 0.025:
                self.ms_25 += 1
            elif seconds <= 0.05:
                self.ms_50 += 1
            else:
                self.ms_100 += 1
        elif seconds <= 5.0:
            if seconds <= 0.25:
                self.ms_250 += 1
            elif seconds <= 0.5:
                self.ms_500 += 1
            elif seconds <= 1.0:
                self.s_1 += 1
            elif seconds <= 2.5:
                self.s_2_5 += 1
            else:
                self.s_5 += 1
        elif seconds <= 10.0:
            self.s_10 += 1
        elif seconds <= 30.0:
            self.s_30 += 1
        elif seconds <= 60.0:
            self.s_60 += 1
        elif seconds <= 300.0:
            self.s_300 += 1
        elif seconds <= 1800.0:
            self.s_1800 += 1
        else:
            self.longer += 1

    def merge(self, other: Histogram) -> None:
        """Add all times of another one to these."""
        self.sum += other.sum
        self.ms_1 += other.ms_1
        self.ms_2_5 += other.ms_2_5
        self.ms_5 += other.ms_5
        self.ms_10 += other.ms_10
        self.ms_25 += other.ms_25
        self.ms_50 += other.ms_50
        self.ms_100 += other.ms_100
        self.ms_250 += other.ms_250
        self.ms_500 += other.ms_500
        self.s_1 += other.s_1
        self.s_2_5 += other.s_2_5
        self.s_5 += other.s_5
        self.s_10 += other.s_10
        self.s_30 += other.s_30
        self.s_60 += other.s_60
        self.s_300 += other.s_300
        self.s_1800 += other.s_1800
        self.longer += other.longer

    def copy(self) -> Histogram:
        """The times so far."""
        copied = Histogram()
        copied.merge(self)
        return copied

    @property
    def counts(self) -> list[int]:
        """How many are in each bucket; the last one is for those above all bounds."""
        return [
            int(self.ms_1),
            int(self.ms_2_5),
            int(self.ms_5),
            int(self.ms_10),
            int(self.ms_25),
            int(self.ms_50),
            int(self.ms_100),
            int(self.ms_250),
            int(self.ms_500),
            int(self.s_1),
            int(self.s_2_5),
            int(self.s_5),
            int(self.s_10),
            int(self.s_30),
            int(self.s_60),
            int(self.s_300),
            int(self.s_1800),
            int(self.longer),
        ]

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """What a share ``q`` of them took at most; see the function of this name."""
        return quantile(self.counts, q)


def quantile(counts: list[int], q: float) -> float:
    """What a share ``q`` of the times took at most, by their buckets; 0 where there are none.

    It is as if each bucket's were spread evenly. Above the last bound nothing is known but that: then it is that bound.
    """
    rank = q * sum(counts)
    before = 0
    lower = 0.0
    for bound, count in zip(BOUNDS, counts, strict=False):
        if count > 0 and before + count >= rank:
            return lower + (bound - lower) * max(rank - before, 0.0) / count
        before += count
        lower = bound
    return lower if counts[-1] > 0 else 0.0
