"""The board: a page of memory that a worker process shares with its supervisor.

The process writes how it is; the supervisor reads it whenever it likes. It costs no system call to write, so it can be
kept up to date around every job, and it can be read when the process itself is stuck.
"""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass, field

_BEAT, _READY, _LEAVING, _HEAD = 0, 1, 2, 3
NO_DEADLINE = 0.0


class Board:
    """What one process says of itself, with a deadline for each of its ``slots``.

    All times are of ``time.monotonic``, which goes the same in all processes of a machine.
    """

    def __init__(self, slots: int) -> None:
        # Anonymous and shared: the same memory before and after a fork.
        self._cells = memoryview(mmap.mmap(-1, 8 * (_HEAD + slots))).cast("d")
        self._cells[_BEAT] = time.monotonic()

    # The process writes.

    def report(self, *, is_ready: bool, is_leaving: bool) -> None:
        """Say that the process is alive, whether it is registered and polling, and whether it grabs no more."""
        self._cells[_BEAT] = time.monotonic()
        self._cells[_READY] = is_ready
        self._cells[_LEAVING] = is_leaving

    def set_deadline(self, slot: int, deadline: float) -> None:
        """Ask to be killed at ``deadline`` unless another is set by then; NO_DEADLINE takes it back."""
        self._cells[_HEAD + slot] = deadline

    # The supervisor reads.

    @property
    def is_leaving(self) -> bool:
        """Whether the process grabs no more jobs."""
        return bool(self._cells[_LEAVING])

    def is_alive(self, seconds: float) -> bool:
        """Whether the process has reported within the last ``seconds``."""
        return time.monotonic() - self._cells[_BEAT] < seconds

    def is_ready(self, seconds: float) -> bool:
        """Whether the process has said within the last ``seconds`` that it is registered and polling."""
        return bool(self._cells[_READY]) and not self.is_leaving and self.is_alive(seconds)

    def is_overdue(self, now: float) -> bool:
        """Whether a deadline has passed."""
        return any(NO_DEADLINE < deadline <= now for deadline in self._cells[_HEAD:])


@dataclass
class Place:
    """Where a process stands: number ``index`` of ``processes``, to leave after ``max_jobs`` jobs.

    Without a supervisor ``is_alone`` is true, and its ``board`` is read by nobody.
    """

    index: int = 0
    processes: int = 1
    slots: int = 1
    max_jobs: int | None = None
    is_alone: bool = True
    board: Board = field(init=False)

    def __post_init__(self) -> None:
        self.board = Board(self.slots)

    def share(self, total: int) -> int:
        """This process's share of ``total``, which is divided among all as evenly as can be."""
        share, rest = divmod(total, self.processes)
        return share + (self.index < rest)
