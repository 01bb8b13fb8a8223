"""The extension that measures how late the loop runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from geartrain.daemon.extension import Extension

if TYPE_CHECKING:
    from geartrain.daemon.extension import Host

EVERY: Final = 0.5  # seconds between two looks


class LoopLag(Extension):
    """Asks the loop for a call now and then, and sees how late it comes: so late everybody else is served as well."""

    def __init__(self) -> None:
        self.timer: asyncio.TimerHandle | None = None

    def start(self, host: Host) -> None:
        self._plan(host)

    def _plan(self, host: Host) -> None:
        at = host.loop.time() + EVERY
        self.timer = host.loop.call_at(at, self._look, host, at)

    def _look(self, host: Host, due: float) -> None:
        gauges = host.gauges
        gauges.loop_lag_seconds = max(host.loop.time() - due, 0.0)
        gauges.loop_lag.add(gauges.loop_lag_seconds)
        gauges.iterations = host.server.iterations
        self._plan(host)

    def stop(self, seconds: float) -> None:
        if self.timer is not None:
            self.timer.cancel()
