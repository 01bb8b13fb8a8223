"""The extension that tells systemd how the service is: loading, ready, alive, reloading, stopping."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Final

from geartrain.daemon.extension import Extension, Host
from geartrain.systemd import Systemd

if TYPE_CHECKING:
    from geartrain.jobserver import JobServer

LOADING_MAY_TAKE: Final = 60.0  # seconds more that are asked for with each word of a start that takes long
STATUS_EVERY: Final = 10.0  # seconds between words on how much there is to do
AGAIN_AFTER: Final = 0.1  # seconds until what the manager had no room for is said again


class Notifier(Extension):
    """Tells the service manager, if there is one that listens; a sign of life comes twice in each watchdog period.

    ``stop_timeout`` is how long each step of a stop may take.
    """

    def __init__(self, systemd: Systemd, stop_timeout: float = 3.0) -> None:
        self.systemd = systemd
        self.stop_timeout = stop_timeout
        self.server: JobServer | None = None
        self.listening = ""
        self.status = ""
        self.status_at = 0.0
        self.beat_at = 0.0
        self.due = 0.0  # the first of these, or when what the manager had no room for is said again

    # ── the start ───────────────────────────────────────────────────────────────────────────────────────────────

    def opening(self) -> None:
        """The store is being opened."""
        self.loading("Opening the store")

    def loading(self, status: str) -> None:
        """What the store kept is being taken over, and how far that has come."""
        self.systemd.tell(STATUS=status, EXTEND_TIMEOUT_USEC=_microseconds(LOADING_MAY_TAKE))

    def start(self, host: Host) -> None:
        self.server = host.server
        self.listening = f"Listening at {', '.join(host.addresses)}"
        self.status = self._status(host.server)
        self.status_at = host.server.now + STATUS_EVERY
        self.systemd.tell(READY=1, MAINPID=os.getpid(), STATUS=self.status)
        host.open_iteration()  # at whose end the timer is set

    # ── while it serves ─────────────────────────────────────────────────────────────────────────────────────────

    def flush(self) -> None:
        server = self.server
        if server is None or server.now < self.due:
            return
        systemd = self.systemd
        now = server.now
        period = systemd.watchdog_seconds
        if period is not None and now >= self.beat_at:
            self.beat_at = now + period / 2
            systemd.tell(WATCHDOG=1)
        if now >= self.status_at:
            self.status_at = now + STATUS_EVERY
            status = self._status(server)
            if status != self.status:
                self.status = status
                systemd.tell(STATUS=status)
        self.due = self.status_at if period is None else min(self.beat_at, self.status_at)
        if systemd.untold:
            systemd.tell()
            self.due = now + AGAIN_AFTER

    def next_deadline(self) -> float:
        return self.due

    def _status(self, server: JobServer) -> str:
        what = "Draining" if server.draining else self.listening
        return f"{what}; {len(server.peers):,} connections, {len(server.jobs):,} jobs"

    def reload(self) -> None:
        self.systemd.tell(RELOADING=1, MONOTONIC_USEC=_microseconds(time.monotonic()))
        self.systemd.tell(READY=1)

    def leave(self) -> None:
        self.status_at = math.inf
        self.systemd.tell(STOPPING=1, STATUS="Stopping", EXTEND_TIMEOUT_USEC=_microseconds(4 * self.stop_timeout))


def _microseconds(seconds: float) -> int:
    return int(seconds * 1_000_000)
