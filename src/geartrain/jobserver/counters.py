"""What has happened to the jobs of a function, counted since it is known.

Counters are bumped in three places only: where a submission is decided, where a job starts, and where it finishes or
loses its worker. Everything that shows numbers reads them from a snapshot.
"""

from __future__ import annotations

from typing import final

from geartrain.native import i64


@final
class Counters:
    """Whole numbers, and two sums of seconds."""

    def __init__(self) -> None:
        self.submitted: i64 = 0  # new jobs
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
        self.waited: float = 0.0  # seconds in a queue before each start, all of them together
        self.ran: float = 0.0  # seconds from each start to the end of the job or the loss of its worker

    def add(self, other: Counters) -> None:
        """Add another one's numbers to these."""
        self.submitted += other.submitted
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
        self.waited += other.waited
        self.ran += other.ran

    def copy(self) -> Counters:
        """The numbers as they are now."""
        copied = Counters()
        copied.add(self)
        return copied

    @property
    def rows(self) -> list[tuple[bytes, float]]:
        """All of them with their names."""
        return [
            (b"submitted", float(self.submitted)),
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
            (b"waited", float(self.waited)),
            (b"ran", float(self.ran)),
        ]
