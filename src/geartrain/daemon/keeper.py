"""The daemon's side of the store: jobs of an earlier life at the start, batches and workloads while it runs."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from geartrain.jobserver import storage
from geartrain.jobserver.journal import Batch, Read, StoredJob
from geartrain.store.writer import Writer

if TYPE_CHECKING:
    from geartrain.jobserver import JobServer
    from geartrain.store import Store

log = logging.getLogger("geartrain.daemon")

PROGRESS_EVERY: Final = 2.0  # seconds between lines while jobs are loaded
# The writer's and the loop's threads take turns at the interpreter; at Python's own 5 ms each statement waits long.
SWITCH_INTERVAL: Final = 0.0005


class Keeper:
    """Ties one job server to one store.

    ``enter`` is called before the job server is touched from outside a turn: it opens one.
    """

    def __init__(self, server: JobServer, store: Store, patience: float) -> None:
        self.server = server
        self.store = store
        self.patience = patience
        self.writer: Writer | None = None
        self.enter: Callable[[], None] = lambda: None
        self.give_up_at = 0.0  # when the batch under way has taken too long; 0: none is under way
        self.given_up: Batch | None = None  # the batch that did, until the store says what became of it

    def load(self) -> int:
        """Open the store and take over what it kept; how many jobs that were. Raises StoreError."""
        server = self.server
        store = self.store
        started = said = time.monotonic()
        store.open()
        total = store.count()
        server.next_number = max(store.next_number(), 1)
        server.journal.reserved = server.next_number
        jobs = 0
        for found in store.load(server.settings.spill_above):
            if isinstance(found, StoredJob):
                storage.restore(server, found)
                jobs += 1
            else:
                log.error("job_set_aside", extra={"fields": {"number": found.number, "reason": found.reason}})
            if jobs % 1000 == 0 and time.monotonic() > said + PROGRESS_EVERY:
                said = time.monotonic()
                log.info("loading", extra={"fields": {"jobs": jobs, "of": total}})
        seconds = f"{time.monotonic() - started:.2f}"
        fields = {"store": repr(store), "jobs": jobs, "seconds": seconds, "survives": store.abilities.survives}
        log.info("store_loaded", extra={"fields": fields})
        return jobs

    def start(self, enter: Callable[[], None], post: Callable[..., object]) -> None:
        """Begin to write; ``post(function, *arguments)`` calls it in the job server's thread."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.enter = enter
        self.writer = Writer(self.store, self, post, self.patience)

    def settle(self) -> None:
        """The end of a turn: hand over what has gathered."""
        server = self.server
        writer = self.writer
        assert writer is not None
        if self.give_up_at and server.now >= self.give_up_at:
            self.give_up()
        batch = storage.take_batch(server)
        if batch is not None:
            # The writer waits for a store that is down; this is for one that lets it hang.
            self.give_up_at = server.now + 2 * self.patience + 1
            writer.commit(batch)
        if server.reads:
            reads = server.reads
            server.reads = []
            for read in reads:
                writer.read(read)

    def give_up(self) -> None:
        """Wait no longer for a commit under way: its jobs are refused, and so are others until it has answered."""
        batch = self.server.journal.under_way
        if batch is None:
            return
        self.give_up_at = 0.0
        self.given_up = batch
        log.error("store_hangs", extra={"fields": {"store": repr(self.store), "batch": repr(batch)}})
        storage.refused(self.server, batch, "the store does not answer", down=True)

    def _is_late(self, batch: Batch) -> bool:
        """Whether this outcome is that of a batch that was given up."""
        self.give_up_at = 0.0
        late = self.given_up is batch
        if late:
            self.given_up = None
            log.info("store_back", extra={"fields": {"store": repr(self.store)}})
        return late

    @property
    def busy(self) -> bool:
        """Whether something is still to be written."""
        journal = self.server.journal
        return journal.under_way is not None or (journal.waiting and not self.server.store_trouble)

    def close(self, seconds: float) -> None:
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
            storage.back(self.server)
        else:
            storage.written(self.server, batch)

    def too_large(self, batch: Batch, number: int, reason: str) -> None:
        self.enter()
        if self.given_up is not batch:
            storage.refuse_one(self.server, batch, number, reason)

    def refused(self, batch: Batch, reason: str, down: bool) -> None:
        self.enter()
        if not self._is_late(batch):
            storage.refused(self.server, batch, reason, down)
        elif not down:
            storage.back(self.server)

    def back(self) -> None:
        self.enter()
        storage.back(self.server)

    def deliver(self, read: Read, workload: bytes) -> None:
        self.enter()
        storage.deliver(self.server, read, workload)

    def undelivered(self, read: Read, lost_for_good: bool) -> None:
        self.enter()
        storage.undelivered(self.server, read, lost_for_good)
