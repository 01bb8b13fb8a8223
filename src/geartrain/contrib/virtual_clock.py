"""A clock that stands still until it is told to go on."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable


class VirtualClock:
    """Tells the time as the module ``time`` does, for a job server that is tested.

    It begins at the present time, cut to a whole second since the protocol knows no parts of one, and stands still.
    ``moved`` is called whenever it has been advanced.
    """

    def __init__(self, moved: Callable[[], None] = lambda: None) -> None:
        self._passed = 0.0
        self._began_wall = math.floor(time.time())
        self._began = time.monotonic()
        self._moved = moved

    def time(self) -> float:
        """Unix time, in seconds."""
        return self._began_wall + self._passed

    def monotonic(self) -> float:
        """A steady time, in seconds."""
        return self._began + self._passed

    def now(self) -> datetime.datetime:
        """The same time as ``time``, as a datetime in the local time zone."""
        return datetime.datetime.fromtimestamp(self.time()).astimezone()

    def advance(self, by: float | datetime.timedelta) -> None:
        """Go on by so many seconds, or by a timedelta; returns when what is due by then has become due.

        Raises ValueError for a step back.
        """
        seconds = by.total_seconds() if isinstance(by, datetime.timedelta) else by
        if seconds < 0:
            raise ValueError(f"a clock goes forward: it can't be advanced by {by}")
        self._passed += seconds
        self._moved()

    def __repr__(self) -> str:
        return f"<VirtualClock at {self.now():%Y-%m-%d %H:%M:%S}, {self._passed:g} s after its start>"
