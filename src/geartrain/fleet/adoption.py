"""The thread that claims what has become ours to have: estates of members that have ended, and what others send.

It claims in batches, the best priority first, while the other survivors do the same, and hands each batch to the
daemon's loop before it claims the next but one; so whatever happens to this process in the middle, each job is owned by
somebody who lives or is adopted in turn. While the memory is nearly full it waits: what is not claimed is safe.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from geartrain.redaction import redacted
from geartrain.store.base import StoreError
from geartrain.store.fleet import FencedError

if TYPE_CHECKING:
    from geartrain.jobserver.records import Record
    from geartrain.store.fleet import Claim, FleetStore

log = logging.getLogger("geartrain.fleet")

BATCH: Final = 2000  # jobs
AHEAD: Final = 2  # batches that the loop has not taken over yet
PAUSE: Final = 0.5  # seconds after which it is tried again what has failed, or has no room


class Heir(Protocol):
    """Who takes over, in the daemon's loop."""

    def take_over(self, estate: int, claim: Claim) -> None:
        """These jobs are ours."""

    def take_records(self, records: list[Record]) -> None:
        """And these records, which no job is there for."""

    def on_claimed(self, estate: int, jobs: int) -> None:
        """There is no more of this estate to claim at the moment; so many jobs were ours."""

    def on_shared(self, revision: int, records: list[Record]) -> None:
        """What all members share is this."""

    def has_room(self) -> bool:
        """Whether more may be taken over; asked from the adopter's thread."""


class Adopter:
    """Claims for one incarnation, one estate at a time."""

    def __init__(self, store: FleetStore, heir: Heir, post: Callable[..., object], leave_above: int) -> None:
        self._store = store
        self._heir = heir
        self._post = post
        self._leave_above = leave_above
        self._wanted: SimpleQueue[int | None] = SimpleQueue()  # estates; SHARED
        self._queued: set[int] = set()
        self._ahead = threading.Semaphore(AHEAD)
        self._closing = threading.Event()
        self._shared_wanted = False
        self._thread = threading.Thread(target=self._run, name="fleet adopter", daemon=True)
        self._thread.start()

    def claim(self, estate: int) -> None:
        """Have an estate claimed, unless it is being claimed already."""
        if estate not in self._queued:
            self._queued.add(estate)
            self._wanted.put(estate)

    def look_at_shared(self) -> None:
        """Have it read what all members share."""
        if not self._shared_wanted:
            self._shared_wanted = True
            self._wanted.put(None)

    def close(self, seconds: float) -> None:
        """Claim nothing more."""
        self._closing.set()
        self._wanted.put(0)
        self._ahead.release()
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            estate = self._wanted.get()
            if self._closing.is_set():
                return
            try:
                if estate is None:
                    self._shared_wanted = False
                    self._tell(self._heir.on_shared, *self._store.shared_records())
                else:
                    self._queued.discard(estate)  # what comes from here on is another order
                    self._claim(estate)
            except FencedError:
                return  # the pulse finds that too
            except Exception as error:
                log.error("adoption_failed", extra={"fields": {"estate": estate, "reason": redacted(str(error))}})
                if not isinstance(error, StoreError):
                    log.exception("adoption_failed")
                if self._closing.wait(PAUSE):
                    return
                if estate is None:
                    self.look_at_shared()
                else:
                    self.claim(estate)

    def _claim(self, estate: int) -> None:
        count = 0
        began = time.monotonic()
        while not self._closing.is_set():
            if not self._heir.has_room():
                self._closing.wait(PAUSE)
                continue
            self._ahead.acquire()
            if self._closing.is_set():
                return
            try:
                claim = self._store.claim(estate, BATCH, self._leave_above)
            except BaseException:
                self._ahead.release()
                raise
            count += len(claim.jobs)
            self._tell(self._take_over, estate, claim)
            if claim.is_empty:
                break
        while not self._closing.is_set() and (records := self._store.claim_records(estate, BATCH)):
            self._tell(self._heir.take_records, records)
        if count:
            seconds = f"{time.monotonic() - began:.2f}"
            log.info("adopted", extra={"fields": {"from": estate, "jobs": count, "seconds": seconds}})
        self._tell(self._heir.on_claimed, estate, count)

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        self._post(self._hear, function, arguments)

    def _hear(self, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        """In the loop, where we are closed: what was claimed by one that has been fenced since is not ours."""
        if not self._closing.is_set():
            function(*arguments)

    def _take_over(self, estate: int, claim: Claim) -> None:
        try:
            self._heir.take_over(estate, claim)
        finally:
            self._ahead.release()
