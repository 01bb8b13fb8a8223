"""The heartbeat page: memory that a worker process shares with its supervisor.

The process writes how it is and what it does; the supervisor reads it whenever it likes. It costs no system call to
write, so it is kept up to date around every job, and it can be read when the process is stuck, or gone.
"""

from __future__ import annotations

import mmap
import threading
import time
from dataclasses import dataclass, field

from geartrain.worker.job import AssignedJob

_BEAT, _READY, _LEAVING, _HEAD = 0, 1, 2, 3
_NAME_SIZE = 160  # bytes for the names of a job, the first of which is their length
NO_DEADLINE = 0.0


class Heartbeat:
    """What one process says of itself and of its jobs, of which there are ``jobs`` at most at once.

    All times are of ``time.monotonic``, which goes the same in all processes of a machine.
    """

    def __init__(self, jobs: int) -> None:
        # Anonymous and shared: the same memory before and after a fork.
        page = memoryview(mmap.mmap(-1, 8 * (_HEAD + jobs) + _NAME_SIZE * jobs))
        self._cells = page[: 8 * (_HEAD + jobs)].cast("d")
        self._names = page[8 * (_HEAD + jobs) :]
        self._cells[_BEAT] = time.monotonic()
        self._free = list(range(jobs))
        self._lock = threading.Lock()

    # The process writes.

    def report(self, *, is_ready: bool, is_leaving: bool) -> None:
        """Say that the process is alive, whether it is registered and polling, and whether it grabs no more."""
        self._cells[_BEAT] = time.monotonic()
        self._cells[_READY] = is_ready
        self._cells[_LEAVING] = is_leaving

    def begin(self, job: AssignedJob, deadline: float) -> int:
        """Note a job that begins; the process asks to be killed at ``deadline`` unless it has ended by then.

        Returns the entry by which to ``end`` it.
        """
        with self._lock:
            entry = self._free.pop()
        name = f"{job.function} {job.handle.decode('utf-8', 'backslashreplace')}".encode("utf-8", "backslashreplace")
        name = name[: _NAME_SIZE - 1]
        start = entry * _NAME_SIZE
        self._names[start + 1 : start + 1 + len(name)] = name
        self._names[start] = len(name)
        self._cells[_HEAD + entry] = deadline
        return entry

    def end(self, entry: int) -> None:
        """Forget a job that has ended."""
        self._cells[_HEAD + entry] = NO_DEADLINE
        self._names[entry * _NAME_SIZE] = 0
        with self._lock:
            self._free.append(entry)

    # The supervisor reads.

    @property
    def is_leaving(self) -> bool:
        """Whether the process grabs no more jobs."""
        return bool(self._cells[_LEAVING])

    @property
    def jobs(self) -> list[str]:
        """The function and the handle of each job that has begun and not ended."""
        names = []
        for start in range(0, len(self._names), _NAME_SIZE):
            size = self._names[start]
            if size:
                text = bytes(self._names[start + 1 : start + 1 + size]).decode("utf-8", "replace")
                names.append("".join(letter if letter.isprintable() else "?" for letter in text))
        return names

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
class WorkerProcess:
    """Which of a worker's processes this is: number ``index`` of ``processes``, to leave after ``max_jobs`` jobs.

    It runs ``slots`` jobs at once at most. Without a supervisor ``is_alone`` is true, and nobody reads its
    ``heartbeat``.
    """

    index: int = 0
    processes: int = 1
    slots: int = 1
    max_jobs: int | None = None
    is_alone: bool = True
    heartbeat: Heartbeat = field(init=False)

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(self.slots)

    def share(self, total: int) -> int:
        """This process's share of ``total``, which is divided among all as evenly as can be."""
        share, rest = divmod(total, self.processes)
        return share + (self.index < rest)
