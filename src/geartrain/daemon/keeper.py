"""The extension that ties the job server to its store: it loads what was kept, and carries batches and workloads.

What an answer of the store means, and when one is late, the core decides (``jobserver.store_link``).
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from geartrain.daemon.extension import Extension, Host
from geartrain.daemon.gauges import Gauges
from geartrain.jobserver.changes import Read
from geartrain.jobserver.records import Batch, StoredJob, restore_order
from geartrain.jobserver.rules.policing import PAUSE_KIND, POLICY_KIND
from geartrain.store.base import StoreFullError, Unreadable
from geartrain.store.record import NUMBERS_END, name_flaw
from geartrain.store.writer import Writer
from geartrain.wire.parser import LARGEST_BODY

if TYPE_CHECKING:
    from geartrain.jobserver import JobServer
    from geartrain.store import Store

log = logging.getLogger("geartrain.daemon")
_Item = TypeVar("_Item")

PROGRESS_EVERY: Final = 2.0  # seconds between lines while jobs are loaded
# The writer's and the loop's threads take turns at the interpreter; at Python's own 5 ms each statement waits long.
SWITCH_INTERVAL: Final = 0.0005
GATHERED_AT_ONCE: Final = 5000  # jobs
# Where much is submitted and done at the same time, the store rests after a commit. Then all who were acknowledged are
# in the next batch, where without a rest half of them are in each of two; and what ends meanwhile is never written.
REST: Final = 0.003  # seconds
FIRST_KINDS: Final = (POLICY_KIND, PAUSE_KIND)  # records that decide about the jobs that are taken over
MUCH: Final = 64  # jobs that a batch adds and removes


class Keeper(Extension):
    """Ties one job server to one store: carries batches and reads there, and what came of them back."""

    def __init__(self, server: JobServer, store: Store, timeout: float) -> None:
        self.server = server
        self.store = store
        self.timeout = timeout
        self.writer: Writer[Read] | None = None
        self.enter: Callable[[], None] = lambda: None
        self.post: Callable[..., object] = lambda *_: None
        self.later: Callable[..., object] = lambda *_: None
        self.resting = False
        self.gauges = Gauges()
        self.handed_over = 0.0  # when the batch under way was

    def load(self, progress: Callable[[str], None] = lambda words: None) -> int:
        """Open the store and take over what it kept; how many jobs that were. Raises StoreError.

        ``progress`` is told at the beginning and now and then how far it has come, in words.
        """
        server = self.server
        store = self.store
        started = time.monotonic()
        store.open()
        total = store.count()
        server.next_number = max(store.next_number(), 1)
        server.changes.reserved = server.next_number
        # A number that was never given out is none: the next ones would follow it.
        end = server.next_number if server.next_number > 1 else NUMBERS_END
        for kind in FIRST_KINDS:
            for record in store.records(kind):
                server.restore_record(record)
        jobs = 0
        for found in _told(store.load(server.settings.spill_above), "jobs", total, progress):
            if isinstance(found, StoredJob) and (wrong := _flaw(found, end)):
                found = Unreadable(found.number, wrong)
                with suppress(StoreFullError):  # then it is met again at the next start
                    store.quarantine(found.number, found.reason)
            if isinstance(found, StoredJob):
                server.restore(found)
                jobs += 1
            else:
                log.error("job_quarantined", extra={"fields": {"number": found.number, "reason": found.reason}})
        server.largest_record = min(server.settings.max_body, store.abilities.max_workload or LARGEST_BODY)
        others = [each for each in _told(store.records(), "records", 0, progress) if each.kind not in FIRST_KINDS]
        others.sort(key=restore_order)
        for record in _told(others, "records", len(others), progress):
            server.restore_record(record)
        server.restored()
        seconds = f"{time.monotonic() - started:.2f}"
        fields = {"store": repr(store), "jobs": jobs, "seconds": seconds, "survives": store.abilities.survives}
        log.info("store_loaded", extra={"fields": fields})
        return jobs

    def start(self, host: Host) -> None:
        """Begin to write."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.enter = host.open_iteration
        self.post = host.loop.call_soon_threadsafe
        self.later = host.loop.call_later
        self.gauges = host.gauges
        self.writer = Writer(self.store, self, self.post, self.timeout)

    def flush(self) -> None:
        """Hand over what has gathered."""
        server = self.server
        writer = self.writer
        assert writer is not None
        batch = None if self.resting else server.take_batch()
        if batch is not None:
            self.handed_over = time.monotonic()
            writer.commit(batch)
        if server.store.wanted:
            for read in server.take_reads():
                writer.read(read)

    def reload(self) -> None:
        """If the store is down, since it was taken away, have it filled again with all that is known here."""
        if self.server.store.trouble and self.writer is not None:
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
            writer.rebuild(jobs, self.server.changes.reserved, self.server.stored_records())

    @property
    def is_drained(self) -> bool:
        return self.server.is_stored

    def give_up(self) -> None:
        self.enter()
        self.server.give_up("the job server stops")

    def stop(self, seconds: float) -> None:
        """Let go of the store when what was handed over is written, after so many seconds in any case."""
        if self.server.store.late is not None:
            seconds = 0.0  # it was waited for, and its jobs were refused: they should not be written now
        if self.writer is None or self.writer.close(seconds):
            self.let_go()
        else:  # to close it as well would hang
            log.error("store_left_open", extra={"fields": {"store": repr(self.store), "seconds": seconds}})

    def let_go(self) -> None:
        """All is written: close the store."""
        self.store.close()

    # ── outcomes, posted by the writer ──────────────────────────────────────────────────────────────────────────

    def written(self, batch: Batch) -> None:
        self.enter()
        self.server.written(batch)
        gauges = self.gauges
        gauges.commits += 1
        gauges.batch_jobs.add(len(batch.added) + len(batch.changed) + len(batch.removed))
        gauges.commit_seconds.add(time.monotonic() - self.handed_over)
        if batch.added and batch.removed and len(batch.added) + len(batch.removed) >= MUCH:
            self.resting = True
            self.later(REST, self._go_on)

    def _go_on(self) -> None:
        self.resting = False
        self.enter()

    def too_large(self, batch: Batch, number: int, reason: str) -> None:
        self.enter()
        self.server.refuse_one(batch, number, reason)

    def refused(self, batch: Batch, reason: str, down: bool) -> None:
        self.enter()
        self.server.refused(batch, reason, down)
        self.gauges.commits_refused += 1

    def back(self) -> None:
        self.enter()
        self.server.back()

    def deliver(self, read: Read, workload: bytes) -> None:
        self.enter()
        self.server.deliver(read, workload)

    def undelivered(self, read: Read, lost_for_good: bool) -> None:
        self.enter()
        self.server.undelivered(read, lost_for_good)


def _told(many: Iterable[_Item], what: str, of: int, progress: Callable[[str], None]) -> Iterator[_Item]:
    """All of them, while log and ``progress`` are told how many have come, ``of`` how many (0: that is not known)."""
    end = f" of {of:,}" if of else ""
    said = time.monotonic()
    progress(f"Loading {what}: 0{end}")
    for count, each in enumerate(many):
        if count % 1000 == 0 and time.monotonic() > said + PROGRESS_EVERY:
            said = time.monotonic()
            log.info("loading", extra={"fields": {what: count, "of": of or ""}})
            progress(f"Loading {what}: {count:,}{end}")
        yield each


def _flaw(job: StoredJob, end: int) -> str:
    """Why a job that can be read can't be given to a worker; empty: it can."""
    if job.number >= end:
        return f"its number {job.number} has not been given out: {end} is the next"
    return name_flaw(job.function, job.unique, job.reducer)
