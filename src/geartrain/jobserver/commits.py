"""When the store has committed which job: of the last commits that brought jobs the newest number and the time of each.

Jobs are stored in the order of their numbers, so one number and one time stand for all jobs of a commit. A job that is
stored behind newer ones is noted by itself: a foreground job that a background submission joins or that is dead, one
that the store has refused before.

**What it costs.** One pair for each commit, and one comparison for each job; who asks has a list searched by halves.

**Memory.** Pairs gather until there are ``MOST``, which then take the place of as many before. So the last ``MOST``
commits are known at least, and twice as many at most, in 1 MB; late jobs take as much again and a half. What is no
longer known is told to be so, and so is what was stored before a restart.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.model import STORED
from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.model import Job

MOST: Final = 32_768  # commits
MOST_LATE: Final = 10_000  # jobs that were stored behind newer ones


@final
class CommitRow:
    """Commits, one behind the other: the newest number that each brought, and its Unix time."""

    def __init__(self) -> None:
        self.newest: array[int] = array("q")
        self.times: array[float] = array("d")


@final
class Commits:
    """Answers when a job was stored."""

    def __init__(self) -> None:
        self.oldest: i64 = 1  # of jobs with a lower number nothing is known, unless they were late
        self.newest: i64 = 0
        self.before: CommitRow = CommitRow()
        self.recent: CommitRow = CommitRow()
        self.late: OrderedDict[int, float] = OrderedDict()  # jobs that were stored behind newer ones, by number

    def begin(self, next_number: i64) -> None:
        """Nobody knows when the jobs below this number were stored."""
        self.oldest = next_number
        self.newest = next_number - 1

    def note(self, jobs: list[Job], time: float) -> None:
        """One commit has stored these jobs now."""
        newest: i64 = self.newest
        for job in jobs:
            if job.number > newest:
                newest = job.number
            else:
                self._note_late(job.number, time)
        if newest == self.newest:
            return
        self.newest = newest
        if len(self.recent.times) == MOST:
            if self.before.times:
                self._forget_up_to(self.before.newest[-1])
            self.before = self.recent
            self.recent = CommitRow()
        self.recent.newest.append(int(newest))
        self.recent.times.append(time)

    def _note_late(self, number: i64, time: float) -> None:
        if len(self.late) == MOST_LATE:
            # Among its neighbours the job would seem to have been stored with them: they are forgotten as well.
            forgotten, _ = self.late.popitem(last=False)
            self._forget_up_to(forgotten)
        self.late[int(number)] = time

    def _forget_up_to(self, number: i64) -> None:
        if number >= self.oldest:
            self.oldest = number + 1

    def time_of(self, job: Job) -> float:
        """The Unix time at which the store had committed a job; 0: it has not, or that is not known."""
        if job.stored < STORED:
            return 0.0
        number = int(job.number)
        if number in self.late:
            return self.late[number]
        if number < self.oldest or number > self.newest:
            return 0.0
        before = self.before
        row = before if before.newest and number <= before.newest[-1] else self.recent
        return row.times[bisect_left(row.newest, number)]
