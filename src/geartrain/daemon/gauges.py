"""What is measured of the daemon itself: how late its loop runs, and how its store's commits go.

Plain numbers, which whoever has a ``Host`` may read at any time between two iterations; they begin with the process.
"""

from __future__ import annotations

from typing import Final

from geartrain.jobserver.histogram import Histogram

SIZES: Final = tuple(1 << power for power in range(18))
"""The bounds of ``Sizes``; above the last one, 131,072, there is one bucket more."""


class Sizes:
    """Whole numbers, counted in buckets of powers of two; ``sum`` is of all."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SIZES) + 1)
        self.sum = 0

    def add(self, size: int) -> None:
        """There was one of this size."""
        self.counts[min(max(size - 1, 0).bit_length(), len(SIZES))] += 1
        self.sum += size

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


class Gauges:
    """The numbers, filled by the keeper, and by ``LoopLag`` as of its last look."""

    def __init__(self) -> None:
        self.loop_lag_seconds = 0.0  # how late the loop was when it was last looked at
        self.loop_lag = Histogram()  # the same, of all looks
        self.iterations = 0
        self.commits = 0  # batches that the store has
        self.commits_refused = 0  # batches that it has not taken
        self.batch_jobs = Sizes()  # jobs that a batch adds, changes or removes
        self.commit_seconds = Histogram()  # from handing a batch over until its jobs were acknowledged
