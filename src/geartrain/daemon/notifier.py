"""The extension that tells systemd how the service is: loading, ready, alive, stopping."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from geartrain.daemon.extension import Extension, Host
from geartrain.systemd import Systemd

if TYPE_CHECKING:
    from geartrain.jobserver import JobServer

LOADING_MAY_TAKE: Final = 60  # seconds more that are asked for with each word of a start that takes long


class Notifier(Extension):
    """Tells the service manager, if there is one that listens; a sign of life comes twice in each watchdog period."""

    def __init__(self, systemd: Systemd) -> None:
        self.systemd = systemd
        self.server: JobServer | None = None
        self.beat_at = 0.0

    def loading(self, jobs: int, of: int) -> None:
        """So many of the jobs that the store kept have been taken over."""
        status = f"Loading jobs: {jobs:,} of {of:,}"
        self.systemd.tell(STATUS=status, EXTEND_TIMEOUT_USEC=LOADING_MAY_TAKE * 1_000_000)

    def start(self, host: Host) -> None:
        self.server = host.server
        self.systemd.tell(READY=1, MAINPID=os.getpid(), STATUS=f"Listening at {', '.join(host.addresses)}")

    def flush(self) -> None:
        period = self.systemd.watchdog_seconds
        server = self.server
        if period is not None and server is not None and server.now >= self.beat_at:
            self.systemd.tell(WATCHDOG=1)
            self.beat_at = server.now + period / 2

    def next_deadline(self) -> float:
        return 0.0 if self.systemd.watchdog_seconds is None else self.beat_at

    def leave(self) -> None:
        self.systemd.tell(STOPPING=1, STATUS="Stopping")
