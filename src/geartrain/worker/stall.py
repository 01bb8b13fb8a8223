"""Tells a slow network from a job server that no longer reads.

The system tells how much of what was sent the other side's machine has confirmed. As long as that grows, the job server
can't have read what waits behind it, and its silence means nothing.
"""

from __future__ import annotations

from typing import Protocol

from geartrain.errors import TimedOutError
from geartrain.worker.session import WorkerSession

LOOK_EVERY = 0.2  # seconds


class Confirming(Protocol):
    """A link, as far as it is needed here."""

    @property
    def confirmed(self) -> int: ...


class StallWatch:
    """Watches one link for ``session``; bytes that do not move for ``within`` seconds end it."""

    def __init__(self, link: Confirming, session: WorkerSession, within: float) -> None:
        self._link = link
        self._session = session
        self._within = within
        self._confirmed = 0
        self._look_at = 0.0
        self._stuck_since: float | None = None

    def tick(self, now: float, *, is_waiting: bool) -> None:
        """Look at it; ``is_waiting`` says that bytes wait for room to be sent. Raises TimedOutError."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY
        before, self._confirmed = self._confirmed, self._link.confirmed
        if self._confirmed != before:
            self._session.moved()
        if not is_waiting or self._confirmed != before:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since >= self._within:
            raise TimedOutError(f"the job server took no more bytes for {self._within:g} s")
