"""The extension that has the job server look, every few seconds, for jobs that wait beside an idle worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from geartrain.daemon.extension import Extension

if TYPE_CHECKING:
    from geartrain.daemon.extension import Host

EVERY: Final = 5.0  # seconds between two looks


class Watchdog(Extension):
    """Looks while there are jobs; it has a timer of its own, since nothing is to be asked of it in each iteration."""

    def __init__(self) -> None:
        self.timer: asyncio.TimerHandle | None = None

    def start(self, host: Host) -> None:
        self._look(host)

    def _look(self, host: Host) -> None:
        self.timer = host.loop.call_later(EVERY, self._look, host)
        if len(host.server.jobs) > 0:
            host.open_iteration()
            host.server.look_for_stuck_jobs()

    def stop(self, seconds: float) -> None:
        if self.timer is not None:
            self.timer.cancel()
