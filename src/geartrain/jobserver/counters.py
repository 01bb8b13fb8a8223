"""What has happened to the jobs of a function, counted since it is known.

Counters are bumped in three places only: where a submission is decided, where a job starts, and where it finishes or
loses its worker. Everything that shows numbers reads them from a snapshot.

Each priority of a function has its own, of which a job's are those of the priority that it has when something happens
to it (the text command ``priority`` may change that). What concerns no job counts as normal.
"""

from __future__ import annotations

from typing import Final, final

from geartrain.jobserver.histogram import BOUNDS, Histogram
from geartrain.native import i64, mypyc_attr

SUM_COUNT: Final = 6 + 2 * (len(BOUNDS) + 1)  # numbers in ``Counters.sums``
QUANTILES: Final = ((b"p50", 0.5), (b"p95", 0.95), (b"p99", 0.99))


@final
@mypyc_attr(acyclic=True)
class Counters:
    """Whole numbers, and times."""

    def __init__(self) -> None:
        self.submitted: i64 = 0  # new jobs
        self.unstored: i64 = 0  # of these, those that the store has not taken and that are no jobs therefore
        self.coalesced: i64 = 0  # submissions that joined a job that was there
        self.refused: i64 = 0
        self.started: i64 = 0  # assignments to workers
        self.lost: i64 = 0  # assignments lost with their worker
        self.completed: i64 = 0
        self.failed: i64 = 0  # timed_out among them
        self.timed_out: i64 = 0
        self.cancelled: i64 = 0
        self.abandoned: i64 = 0  # foreground jobs dropped since no client waited for them any more
        self.retried: i64 = 0  # attempts that were followed by another, as the policy has it
        self.expired: i64 = 0  # jobs that had not begun in time
        self.dropped: i64 = 0  # jobs that gave way to others in a full queue
        self.buried: i64 = 0  # jobs that became dead letters, failed among them
        self.revived: i64 = 0  # dead letters that were tried again
        self.stuck: i64 = 0  # times that the watchdog found jobs waiting beside an idle worker
        self.results_kept: i64 = 0
        self.results_too_large: i64 = 0  # for their policy, or for the memory
        self.result_hits: i64 = 0  # submissions that were answered with a result that was kept
        self.result_misses: i64 = 0
        self.result_bytes: i64 = 0  # of the results that were given so
        self.bytes_in: i64 = 0  # workloads of new jobs
        self.bytes_out: i64 = 0  # what workers have given back: results, and the data before them
        self.waiting: Histogram = Histogram()  # in a queue before each start
        self.running: Histogram = Histogram()  # from each start to the end of the job or the loss of its worker
        self.total: Histogram = Histogram()  # from submission to success or final failure, by the time of day

    def add(self, other: Counters) -> None:
        """Add another one's numbers to these."""
        self.submitted += other.submitted
        self.unstored += other.unstored
        self.coalesced += other.coalesced
        self.refused += other.refused
        self.started += other.started
        self.lost += other.lost
        self.completed += other.completed
        self.failed += other.failed
        self.timed_out += other.timed_out
        self.cancelled += other.cancelled
        self.abandoned += other.abandoned
        self.retried += other.retried
        self.expired += other.expired
        self.dropped += other.dropped
        self.buried += other.buried
        self.revived += other.revived
        self.stuck += other.stuck
        self.results_kept += other.results_kept
        self.results_too_large += other.results_too_large
        self.result_hits += other.result_hits
        self.result_misses += other.result_misses
        self.result_bytes += other.result_bytes
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.waiting.merge(other.waiting)
        self.running.merge(other.running)
        self.total.merge(other.total)

    def copy(self) -> Counters:
        """The numbers as they are now."""
        copied = Counters()
        copied.add(self)
        return copied

    @property
    def moved(self) -> i64:
        """A number that grows whenever one of ``sums`` does."""
        return self.submitted + self.started + self.completed + self.failed + self.retried + self.buried

    @property
    def sums(self) -> list[int]:
        """What is told over time: six of the whole numbers, and the buckets of the first two histograms."""
        return [
            int(self.submitted),
            int(self.started),
            int(self.completed),
            int(self.failed),
            int(self.retried),
            int(self.buried),
            *self.waiting.counts,
            *self.running.counts,
        ]

    @property
    def rows(self) -> list[tuple[bytes, float]]:
        """The whole numbers with their names."""
        return [
            (b"submitted", float(self.submitted)),
            (b"unstored", float(self.unstored)),
            (b"coalesced", float(self.coalesced)),
            (b"refused", float(self.refused)),
            (b"started", float(self.started)),
            (b"lost", float(self.lost)),
            (b"completed", float(self.completed)),
            (b"failed", float(self.failed)),
            (b"timed_out", float(self.timed_out)),
            (b"cancelled", float(self.cancelled)),
            (b"abandoned", float(self.abandoned)),
            (b"retried", float(self.retried)),
            (b"expired", float(self.expired)),
            (b"dropped", float(self.dropped)),
            (b"buried", float(self.buried)),
            (b"revived", float(self.revived)),
            (b"stuck", float(self.stuck)),
            (b"results_kept", float(self.results_kept)),
            (b"results_too_large", float(self.results_too_large)),
            (b"result_hits", float(self.result_hits)),
            (b"result_misses", float(self.result_misses)),
            (b"result_bytes", float(self.result_bytes)),
            (b"bytes_in", float(self.bytes_in)),
            (b"bytes_out", float(self.bytes_out)),
        ]

    @property
    def times(self) -> list[tuple[bytes, float]]:
        """Sums and quantiles of the times with their names, in seconds."""
        rows: list[tuple[bytes, float]] = [(b"waited", self.waiting.sum), (b"ran", self.running.sum)]
        named: list[tuple[bytes, Histogram]] = [
            (b"waiting", self.waiting),
            (b"running", self.running),
            (b"total", self.total),
        ]
        for name, histogram in named:
            for suffix, share in QUANTILES:
                rows.append((b"%b_%b" % (name, suffix), histogram.quantile(share)))
        return rows
