"""The window of a map: the submissions underway, in order, and those that may be given out. No I/O, no waiting."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

from geartrain.client.request import Request
from geartrain.client.submission import Submission

GATHER_SECONDS = 0.01  # how long workloads are gathered before those that came are sent


class Window:
    """At most ``size`` submissions underway; they are given out in order, or else as they are done.

    It follows its submissions, so ``touched`` may be called by another thread than the rest.
    """

    def __init__(self, size: int, *, ordered: bool, timeout: float | None) -> None:
        if size < 1:
            raise ValueError(f"a window of {size} lets no job through: it must be at least 1")
        self.size = size
        self.is_ordered = ordered
        self.timeout = timeout
        self.is_exhausted = False  # nothing more will be added
        self.underway: dict[Submission, float | None] = {}  # with the time at which each is given up
        self._finished: deque[Submission] = deque()

    @property
    def has_room(self) -> bool:
        return not self.is_exhausted and len(self.underway) < self.size

    @property
    def is_over(self) -> bool:
        return self.is_exhausted and not self.underway

    @property
    def oldest(self) -> Submission:
        return next(iter(self.underway))

    @property
    def deadline(self) -> float | None:
        """When the oldest is to be given up; ``None`` for never."""
        return next(iter(self.underway.values()), None)

    def add(self, submission: Submission, now: float) -> None:
        self.underway[submission] = None if self.timeout is None else now + self.timeout

    def touched(self, request: Request[Any]) -> None:
        if request.done:
            self._finished.append(cast(Submission, request))

    def awaited(self) -> tuple[Submission, ...]:
        """Those whose end would make some ready."""
        return (self.oldest,) if self.is_ordered else tuple(self.underway)

    def has_ready(self) -> bool:
        if self.is_ordered:
            return bool(self.underway) and self.oldest.done
        return bool(self._finished)

    def take_ready(self) -> list[Submission]:
        """Those that are to be given out now; they are underway no more."""
        ready: list[Submission] = []
        if self.is_ordered:
            self._finished.clear()
            for submission in self.underway:
                if not submission.done:
                    break
                ready.append(submission)
        else:
            while self._finished:
                ready.append(self._finished.popleft())
        for submission in ready:
            del self.underway[submission]
        return ready
