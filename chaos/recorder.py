"""Who decides: it hears from clients what was acknowledged, and from workers what they did, and never from the fleet.

A line of their files is a time (CLOCK_MONOTONIC, the same on all hosts here), what happened, the job's own id, its
handle, and for an acknowledgement from when on the job may run:

    A  acknowledged      B  an attempt has begun      D  done      F  the attempt failed, on purpose
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Job:
    """What is known of a job."""

    kind: str
    acknowledged: float = 0.0  # 0: it was not
    ready: float = 0.0
    handle: str = ""
    at: str = ""  # the member that acknowledged it, where that is known
    begun: list[tuple[float, str]] = field(default_factory=list)  # when, and by which worker
    done: int = 0
    failed: int = 0
    told: bool = False  # that it was lost, or late


class Recorder:
    """All jobs of a run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: dict[str, Job] = {}
        self.open: dict[str, Job] = {}
        """Acknowledged ones that were not done."""
        self._read: dict[Path, int] = {}

    def promise(self, id: str, at: float, ready: float, handle: str, member: str = "") -> None:
        """A job was acknowledged."""
        job = self._job(id)
        job.acknowledged, job.ready, job.handle, job.at = at, ready, handle, member
        if not job.done:
            self.open[id] = job

    def read(self) -> None:
        """Hear what is new."""
        for path in self.folder.glob("*.tale"):
            place = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(place)
                data = file.read()
            data = data[: data.rfind(b"\n") + 1]
            self._read[path] = place + len(data)
            for line in data.decode().splitlines():
                self._hear(line.split(" "), path.stem)

    def _hear(self, words: list[str], worker: str) -> None:
        at, what, id, handle = float(words[0]), *words[1:4]
        if what == "A":
            self.promise(id, at, float(words[4]), handle)
            return
        job = self._job(id)
        if what == "B":
            job.begun.append((at, worker))
        elif what == "D":
            job.done += 1
            self.open.pop(id, None)
        else:
            job.failed += 1

    def _job(self, id: str) -> Job:
        job = self.jobs.get(id)
        if job is None:
            job = self.jobs[id] = Job(id.rpartition("-")[0])
        return job

    def waiting(self, until: float) -> list[str]:
        """Acknowledged jobs that might have run before then, and were not done yet."""
        return [id for id, job in self.open.items() if job.ready < until]

    def duplicates(self) -> int:
        """How many jobs were begun again though an attempt had not failed."""
        return sum(len(job.begun) > job.failed + 1 for job in self.jobs.values())

    def acknowledged(self) -> int:
        """How many jobs were."""
        return sum(job.acknowledged > 0 for job in self.jobs.values())


def taken_over(jobs: Iterable[Job], since: float, others: tuple[str, ...]) -> float | None:
    """Seconds from then to the first attempt by one of these workers; None: there was none."""
    first = [at for job in jobs for at, worker in job.begun if at >= since and worker.endswith(others)]
    return min(first) - since if first else None


def wait_of(job: Job, excuses: list[tuple[float, float]]) -> float:
    """How long a job waited for its first attempt; what it waited for up to the end of an excuse does not count."""
    if not job.begun:
        return 0.0
    begun = min(job.begun)[0]
    ready = job.ready
    for start, end in excuses:
        if start < begun and end > ready:
            ready = end
    return max(begun - ready, 0.0)


def between(times: list[float], start: float, end: float) -> int:
    """How many of the sorted times lie there."""
    return bisect_left(times, end) - bisect_left(times, start)
