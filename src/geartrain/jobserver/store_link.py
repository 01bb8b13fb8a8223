"""Whether the store takes what it is given, and how long its answers are waited for.

The driver carries batches and reads to the store, and its answers back; what they mean is decided here:

    up      one batch at a time is under way; what gathers meanwhile is the next one
    late    the batch under way was given up, since there was no answer for too long: its jobs are refused, and nothing
            is given to the store before it has said what became of the batch
    down    the store has said that it takes nothing, and will say when it does again
    lapsed  of a fleet: others may have taken over what is stored here

While it is late, down or lapsed, ``trouble`` says why, and submissions that would have to be stored are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from geartrain.jobserver.changes import Read
    from geartrain.jobserver.records import Batch


@final
class StoreLink:
    """Where the job server stands with its store; times are monotonic seconds."""

    def __init__(self, timeout: float) -> None:
        # A store that is down is waited for, by its writer, for ``timeout``; this bounds the wait for one that hangs.
        self.longest_wait: float = 2 * timeout + 1
        self.trouble: str = ""
        self.down: str = ""
        self.lapse: str = ""
        self.under_way: Batch | None = None
        self.late: Batch | None = None
        self.answer_due: float = 0.0  # when the batch under way is late; 0: there is none
        self.wanted: list[Read] = []  # workloads to be read
        self.reading: dict[Read, None] = {}  # workloads that are being read
        self.read_due: float = 0.0  # when no workload has come for too long; 0: none is being read

    # ── batches ─────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_free(self) -> bool:
        """Whether a batch may be given to the store now."""
        return self.under_way is None and not self.trouble

    def set_down(self, reason: str) -> None:
        """The store takes nothing, or with no ``reason`` takes batches again."""
        self.down = reason
        self.trouble = self.lapse or reason

    def set_lapse(self, reason: str) -> None:
        """Nothing may be given to the store, or with no ``reason`` it may again."""
        self.lapse = reason
        self.trouble = reason or self.down

    def begin(self, batch: Batch, now: float) -> None:
        """A batch is given to the store."""
        self.under_way = batch
        self.answer_due = now + self.longest_wait

    def awaits(self, batch: Batch) -> bool:
        """Whether an answer about this batch still means something."""
        return batch is self.under_way or batch is self.late

    def end(self, batch: Batch) -> bool:
        """The store has answered; False if the batch has been given up before."""
        if self.late is batch:
            self.late = None
            return False
        self.under_way = None
        self.answer_due = 0.0
        return True

    def give_up(self) -> Batch | None:
        """Wait for the answer no longer; the batch, if one was under way."""
        batch = self.under_way
        if batch is not None:
            self.late = batch
            self.under_way = None
            self.answer_due = 0.0
        return batch

    # ── workloads ───────────────────────────────────────────────────────────────────────────────────────────────

    def begin_reads(self, now: float) -> list[Read]:
        """What is to be read now."""
        reads = self.wanted
        if reads:
            self.wanted = []
            if not self.reading:
                self.read_due = now + self.longest_wait
            for read in reads:
                self.reading[read] = None
        return reads

    def end_read(self, read: Read, now: float) -> bool:
        """A read has come to an end; False if it has been given up before."""
        if read not in self.reading:
            return False
        del self.reading[read]
        self.read_due = now + self.longest_wait if self.reading else 0.0
        return True

    def give_up_reads(self) -> list[Read]:
        """Wait for no workload any longer, since one holds up the others."""
        reads = list(self.reading)
        self.reading = {}
        self.read_due = 0.0
        return reads

    def postpone(self, until: float) -> None:
        """Nothing is late before then."""
        if 0 < self.answer_due < until:
            self.answer_due = until
        if 0 < self.read_due < until:
            self.read_due = until

    def next_at(self) -> float:
        """When something is late; 0: nothing is awaited."""
        if self.answer_due > 0 and self.read_due > 0:
            return min(self.answer_due, self.read_due)
        return self.answer_due if self.answer_due > 0 else self.read_due
