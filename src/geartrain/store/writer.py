"""The threads between a job server that never waits and a store that makes one wait.

One thread commits, one batch at a time, one reads workloads. What came of it is handed to ``post``, which the driver
makes to run a function in its own thread. Everything that one commit's duration brings becomes the next batch, so the
batches grow with the load and a commit's price is shared.

A store that is down is waited for, for ``timeout`` seconds with growing pauses; then the batch is refused, and the
driver is told when the store answers again. Whether it does is found out by taking the refused batch back, which has to
be done in any case, since a part of it may have arrived.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Generic, Protocol, TypeVar

from geartrain.jobserver.records import Batch, Record, StoredJob
from geartrain.redaction import redacted
from geartrain.store.base import JobTooLargeError, Store, StoreError, StoreFullError
from geartrain.store.fleet import FencedError

log = logging.getLogger("geartrain.store")

R = TypeVar("R", bound="Read", contravariant=True)
T = TypeVar("T", bound="Read")

FIRST_PAUSE: Final = 0.05  # seconds until a store that is down is tried again ...
LONGEST_PAUSE: Final = 2.0  # ... doubling up to this


class Read(Protocol):
    """A workload to be read: that of the job ``number``, unless it is ``given_up`` before its turn comes."""

    @property
    def number(self) -> int: ...
    @property
    def given_up(self) -> bool: ...


class Outcomes(Protocol[R]):
    """What the writer tells, each from within the driver's thread."""

    def written(self, batch: Batch) -> None:
        """The batch is kept."""

    def too_large(self, batch: Batch, number: int, reason: str) -> None:
        """This job of the batch can't be kept; the others are still under way."""

    def refused(self, batch: Batch, reason: str, down: bool) -> None:
        """The batch is not kept. ``down``: nor will the next be, until ``back``."""

    def back(self) -> None:
        """The store answers again."""

    def deliver(self, read: R, workload: bytes) -> None:
        """A workload has been read."""

    def undelivered(self, read: R, lost_for_good: bool) -> None:
        """A workload could not be read."""


class Writer(Generic[T]):
    """Commits batches and reads workloads, in threads of its own."""

    def __init__(self, store: Store, outcomes: Outcomes[T], post: Callable[..., object], timeout: float) -> None:
        self.store = store
        self.outcomes = outcomes
        self._post = post  # post(function, *arguments), as call_soon_threadsafe
        self.timeout = timeout
        self._batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._reads: SimpleQueue[T | None] = SimpleQueue()
        self._closing = threading.Event()
        self._abandoned = False
        # What to fill an emptied store with, once told.
        self._rebuilding: tuple[list[StoredJob], int, list[Record]] | None = None
        self._threads = [
            threading.Thread(target=self._write, name="store writer", daemon=True),
            threading.Thread(target=self._read, name="store reader", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def commit(self, batch: Batch) -> None:
        """Have a batch committed; its outcome is posted."""
        self._batches.put(batch)

    def read(self, read: T) -> None:
        """Have a workload read; its outcome is posted."""
        self._reads.put(read)

    def rebuild(self, jobs: list[StoredJob], next_number: int, records: list[Record]) -> None:
        """Have the store filled again with these, if it is down; else it is forgotten before it is down next."""
        self._rebuilding = jobs, next_number, records

    def abandon(self) -> None:
        """What was given is not waited for, and nothing more comes of it."""
        self._abandoned = True
        self._closing.set()
        self._batches.put(None)
        self._reads.put(None)

    def close(self, seconds: float) -> bool:
        """Finish what was given, for so many seconds at most, and end the threads; whether they have ended."""
        self._batches.put(None)
        self._reads.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        self._closing.set()  # for those that wait for a store that is down
        for thread in self._threads:
            thread.join(0.1)
        return not any(thread.is_alive() for thread in self._threads)

    # ── the writer's thread ─────────────────────────────────────────────────────────────────────────────────────

    def _write(self) -> None:
        while True:
            batch = self._batches.get()
            if batch is None:
                return
            self._commit(batch)

    def _commit(self, batch: Batch) -> None:
        give_up_at = time.monotonic() + self.timeout
        pause = FIRST_PAUSE
        while True:
            try:
                self.store.commit(batch)
            except JobTooLargeError as error:
                log.warning("job_too_large", extra={"fields": {"number": error.number, "reason": str(error)}})
                batch.added = [job for job in batch.added if job.number != error.number]
                self._tell(self.outcomes.too_large, batch, error.number, str(error))
                continue
            except StoreFullError as error:
                log.error("store_full", extra={"fields": {"reason": str(error)}})
                # What takes nothing more may still forget, and must, or it never has room again.
                forgets = bool(batch.added) and self._takes(taken_back(batch))
                self._refuse(batch, str(error), down=not forgets)
                return
            except Exception as error:
                reason = redacted(str(error) or repr(error))  # clients are told it
                if isinstance(error, FencedError):  # it has another owner, to whom it does not matter what we have here
                    self._tell(self.outcomes.refused, batch, reason, True)
                    return
                if not isinstance(error, StoreError):
                    log.exception("store_failed", extra={"fields": {"batch": repr(batch)}})
                elif pause == FIRST_PAUSE:
                    log.error("store_down", extra={"fields": {"reason": reason, "timeout": self.timeout}})
                left = give_up_at - time.monotonic()
                if left > 0 and not self._closing.wait(min(pause, left)):
                    pause = min(pause * 2, LONGEST_PAUSE)
                    continue
                self._refuse(batch, reason, down=True)
                return
            if pause > FIRST_PAUSE:
                log.info("store_back", extra={"fields": {"store": repr(self.store)}})
            self._rebuilding = None  # the store was not down after all: all those jobs need not stay in memory
            self._tell(self.outcomes.written, batch)
            return

    def _refuse(self, batch: Batch, reason: str, down: bool) -> None:
        self._rebuilding = None
        self._tell(self.outcomes.refused, batch, reason, down)
        pause = FIRST_PAUSE
        while down and not self._closing.wait(pause):
            if self._rebuilt() or self._takes(taken_back(batch)):
                log.info("store_back", extra={"fields": {"store": repr(self.store)}})
                self._rebuilding = None
                self._tell(self.outcomes.back)
                return
            pause = min(pause * 2, LONGEST_PAUSE)

    def _rebuilt(self) -> bool:
        wanted, self._rebuilding = self._rebuilding, None
        if wanted is None:
            return False
        jobs, next_number, records = wanted
        try:
            count = self.store.rebuild(jobs, next_number, records)
        except Exception as error:
            log.error("store_not_rebuilt", extra={"fields": {"reason": str(error) or repr(error)}})
            return False
        fields = {"store": repr(self.store), "jobs": count, "left_out": len(jobs) - count}
        log.warning("store_rebuilt", extra={"fields": fields})
        return True

    def _takes(self, batch: Batch) -> bool:
        try:
            self.store.commit(batch)
        except Exception:
            return False
        return True

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        self._post(self._hear, function, arguments)

    def _hear(self, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """In the thread of who abandons, so that nothing comes after that."""
        if not self._abandoned:
            function(*arguments)

    # ── the reader's thread ─────────────────────────────────────────────────────────────────────────────────────

    def _read(self) -> None:
        while True:
            read = self._reads.get()
            if read is None:
                return
            self._fetch(read)

    def _fetch(self, read: T) -> None:
        if read.given_up:
            return  # it was given up while others were read
        number = read.number
        try:
            workload = self.store.read(number)
        except KeyError as error:
            reason = str(error.args[0])
            log.error("workload_unreadable", extra={"fields": {"number": number, "reason": reason}})
            try:
                self.store.quarantine(number, reason)
            except Exception as second:
                log.error("not_quarantined", extra={"fields": {"number": number, "reason": str(second)}})
            self._tell(self.outcomes.undelivered, read, True)
        except Exception as error:
            log.error("read_failed", extra={"fields": {"number": number, "reason": str(error)}})
            self._tell(self.outcomes.undelivered, read, False)
        else:
            self._tell(self.outcomes.deliver, read, workload)


def taken_back(batch: Batch) -> Batch:
    """What is left of a batch that was refused: nothing that takes room. The records come again with the next one."""
    rest = Batch(1)
    rest.changed = batch.changed
    rest.moved = batch.moved
    rest.records = [record for record in batch.records if record.value is None]
    rest.removed = batch.removed + [job.number for job in batch.added if not (batch.is_members and job.unique)]
    return rest
