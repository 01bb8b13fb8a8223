"""The daemon's side of the store: the jobs that it kept at the start, batches and workloads while it runs."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from geartrain.daemon.extension import Extension, Host
from geartrain.jobserver.changes import Read
from geartrain.jobserver.records import Batch, StoredJob
from geartrain.store.base import Unreadable
from geartrain.store.record import NUMBERS_END
from geartrain.store.writer import Writer

if TYPE_CHECKING:
    from geartrain.jobserver import JobServer
    from geartrain.store import Store

log = logging.getLogger("geartrain.daemon")

PROGRESS_EVERY: Final = 2.0  # seconds between lines while jobs are loaded
# The writer's and the loop's threads take turns at the interpreter; at Python's own 5 ms each statement waits long.
SWITCH_INTERVAL: Final = 0.0005
GATHERED_AT_ONCE: Final = 5000  # jobs


class Keeper(Extension):
    """Ties one job server to one store."""

    def __init__(self, server: JobServer, store: Store, timeout: float) -> None:
        self.server = server
        self.store = store
        self.timeout = timeout
        self.writer: Writer[Read] | None = None
        self.enter: Callable[[], None] = lambda: None
        self.post: Callable[..., object] = lambda *_: None
        # The writer waits for a store that is down; this bounds the wait for one that hangs.
        self.longest_wait = 2 * timeout + 1
        self.give_up_at = 0.0  # when the batch under way has taken too long; 0: none is under way
        self.given_up: Batch | None = None  # the batch that did, until the store says what became of it
        self.reads: set[Read] = set()  # under way
        self.give_up_reads_at = 0.0  # when no read has come to an end for too long; 0: none is under way

    def load(self, progress: Callable[[int, int], None] = lambda jobs, of: None) -> int:
        """Open the store and take over what it kept; how many jobs that were. Raises StoreError.

        ``progress`` is told at the beginning and now and then how many of how many have come.
        """
        server = self.server
        store = self.store
        started = said = time.monotonic()
        store.open()
        total = store.count()
        server.next_number = max(store.next_number(), 1)
        server.changes.reserved = server.next_number
        # A number that was never given out is none: the next ones would follow it.
        end = server.next_number if server.next_number > 1 else NUMBERS_END
        jobs = 0
        progress(jobs, total)
        for found in store.load(server.settings.spill_above):
            if isinstance(found, StoredJob) and found.number >= end:
                found = Unreadable(found.number, f"its number {found.number} has not been given out: {end} is the next")
                store.quarantine(found.number, found.reason)
            if isinstance(found, StoredJob):
                server.restore(found)
                jobs += 1
            else:
                log.error("job_quarantined", extra={"fields": {"number": found.number, "reason": found.reason}})
            if jobs % 1000 == 0 and time.monotonic() > said + PROGRESS_EVERY:
                said = time.monotonic()
                log.info("loading", extra={"fields": {"jobs": jobs, "of": total}})
                progress(jobs, total)
        seconds = f"{time.monotonic() - started:.2f}"
        fields = {"store": repr(store), "jobs": jobs, "seconds": seconds, "survives": store.abilities.survives}
        log.info("store_loaded", extra={"fields": fields})
        return jobs

    def start(self, host: Host) -> None:
        """Begin to write."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.enter = host.open_iteration
        self.post = host.loop.call_soon_threadsafe
        self.writer = Writer(self.store, self, self.post, self.timeout)

    def flush(self) -> None:
        """Hand over what has gathered."""
        server = self.server
        writer = self.writer
        assert writer is not None
        if self.give_up_at and server.now >= self.give_up_at:
            self._give_up(f"it has not answered for {self.longest_wait:g} s")
        if self.give_up_reads_at and server.now >= self.give_up_reads_at:
            self._give_up_reads()
        batch = server.take_batch()
        if batch is not None:
            self.give_up_at = server.now + self.longest_wait
            writer.commit(batch)
        if server.reads:
            if not self.reads:
                self.give_up_reads_at = server.now + self.longest_wait
            reads = server.reads
            server.reads = []
            self.reads.update(reads)
            for read in reads:
                writer.read(read)

    def reload(self) -> None:
        """If the store is down, since it was taken away, have it made again with all that is still known here."""
        if self.server.store_trouble and self.writer is not None:
            log.warning("store_rebuilding", extra={"fields": {"store": repr(self.store)}})
            self._gather([], self.server.stored_jobs())

    def _gather(self, jobs: list[StoredJob], more: Iterator[StoredJob]) -> None:
        """Gather the jobs some at a time, so that nobody waits for it."""
        writer = self.writer
        assert writer is not None
        page = list(islice(more, GATHERED_AT_ONCE))
        jobs += page
        if page:
            self.post(self._gather, jobs, more)
        else:
            writer.rebuild(jobs, self.server.changes.reserved)

    def next_deadline(self) -> float:
        if self.give_up_at and self.give_up_reads_at:
            return min(self.give_up_at, self.give_up_reads_at)
        return self.give_up_at or self.give_up_reads_at

    def give_up(self) -> None:
        self._give_up("the job server stops")

    def _give_up(self, reason: str) -> None:
        """Wait no longer for a commit under way: its jobs are refused, and so are others until it has answered."""
        batch = self.server.changes.under_way
        if batch is None:
            return
        self.enter()
        self.give_up_at = 0.0
        self.given_up = batch
        fields = {"store": repr(self.store), "reason": reason, "batch": repr(batch)}
        log.error("store_hangs", extra={"fields": fields})
        self.server.refused(batch, "the store does not answer", down=True)

    def _give_up_reads(self) -> None:
        """Wait no longer for any workload that is being read: one holds up the others."""
        self.enter()
        reason = f"no workload has been read for {self.longest_wait:g} s"
        log.error("store_hangs", extra={"fields": {"store": repr(self.store), "reason": reason}})
        self.give_up_reads_at = 0.0
        reads = self.reads
        self.reads = set()
        for read in reads:
            self.server.undelivered(read, lost_for_good=False)

    def _is_late(self, batch: Batch) -> bool:
        """Whether this outcome is that of a batch that was given up."""
        self.give_up_at = 0.0
        late = self.given_up is batch
        if late:
            self.given_up = None
            log.info("store_back", extra={"fields": {"store": repr(self.store)}})
        return late

    @property
    def is_drained(self) -> bool:
        changes = self.server.changes
        return changes.under_way is None and (not changes.waiting or bool(self.server.store_trouble))

    def stop(self, seconds: float) -> None:
        """Let go of the store when what was handed over is written, after so many seconds in any case."""
        if self.given_up is not None:
            seconds = 0.0  # it was waited for, and its jobs were refused: they had better not be written now
        if self.writer is None or self.writer.close(seconds):
            self.store.close()
        else:  # to close it as well would hang
            log.error("store_left_open", extra={"fields": {"store": repr(self.store), "seconds": seconds}})

    # ── outcomes, posted by the writer ──────────────────────────────────────────────────────────────────────────

    def written(self, batch: Batch) -> None:
        self.enter()
        if self._is_late(batch):
            self.server.back()
        else:
            self.server.written(batch)

    def too_large(self, batch: Batch, number: int, reason: str) -> None:
        self.enter()
        if self.given_up is not batch:
            self.server.refuse_one(number, reason)

    def refused(self, batch: Batch, reason: str, down: bool) -> None:
        self.enter()
        if not self._is_late(batch):
            self.server.refused(batch, reason, down)
        elif not down:
            self.server.back()

    def back(self) -> None:
        self.enter()
        self.server.back()

    def deliver(self, read: Read, workload: bytes) -> None:
        self.enter()
        if self._is_awaited(read):
            self.server.deliver(read, workload)

    def undelivered(self, read: Read, lost_for_good: bool) -> None:
        self.enter()
        if self._is_awaited(read):
            self.server.undelivered(read, lost_for_good)

    def _is_awaited(self, read: Read) -> bool:
        """Whether this read, now ended, has not been given up."""
        if read not in self.reads:
            return False
        self.reads.remove(read)
        self.give_up_reads_at = self.server.now + self.longest_wait if self.reads else 0.0
        return True
