"""A named line of jobs for each priority, and the workers able to do them.

An ability ties one function to one peer. It stands in the peer's ring of abilities (the order in which they take
turns) and, while the peer sleeps, among the function's sleepers (the order in which they are woken).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.job import HIGH, LOW, NORMAL
from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.job import Job
    from geartrain.jobserver.peer import Peer


MAX_PASSED: Final = 100  # jobs that may pass one that has lost a worker


@final
class Line:
    """Jobs in the order in which they will be assigned, linked through themselves.

    A job that has lost a worker may be what ended it, so it stands behind all that have not, also behind those that
    come later. It is passed over so often and no oftener: a good job whose worker was stopped must not wait for ever.
    """

    def __init__(self) -> None:
        self.first: Job | None = None
        self.last: Job | None = None
        self.first_lost: Job | None = None  # of those that have lost a worker
        self.passed: i64 = 0  # how often those were passed over since one was taken
        self.count: i64 = 0

    def append(self, job: Job) -> None:
        """Add a job behind all others; one that has lost no worker goes before those that have."""
        lost = self.first_lost
        if lost is not None and job.attempts == 0:
            before = lost.previous
            job.previous = before
            job.next = lost
            lost.previous = job
            if before is None:
                self.first = job
            else:
                before.next = job
            self.count += 1
            return
        if lost is None and job.attempts > 0:
            self.first_lost = job
        last = self.last
        job.previous = last
        job.next = None
        if last is None:
            self.first = job
        else:
            last.next = job
        self.last = job
        self.count += 1

    def take(self) -> Job:
        """Take out the job whose turn it is; there must be one."""
        job = self.first
        assert job is not None
        lost = self.first_lost
        if lost is not None:
            if job is lost or self.passed >= MAX_PASSED:
                job = lost
                self.passed = 0
            else:
                self.passed += 1
        self.remove(job)
        return job

    def remove(self, job: Job) -> None:
        """Take out a job wherever it stands."""
        previous = job.previous
        following = job.next
        if job is self.first_lost:
            self.first_lost = following
        if previous is None:
            self.first = following
        else:
            previous.next = following
        if following is None:
            self.last = previous
        else:
            following.previous = previous
        job.previous = None
        job.next = None
        self.count -= 1


@final
class Function:
    """One function: its lines, its workers, its live uniques, its limits and its counters."""

    def __init__(self, name: bytes) -> None:
        self.name: bytes = name
        self.high: Line = Line()
        self.normal: Line = Line()
        self.low: Line = Line()
        self.queued: i64 = 0  # jobs in the three lines
        self.running: i64 = 0
        self.delayed: i64 = 0
        self.uniques: dict[bytes, Job] = {}  # live jobs by their unique
        self.workloads: dict[bytes, Job] = {}  # live jobs whose unique is "-", by their workload (section 3.4)

        self.workers: i64 = 0
        self.first_sleeper: Ability | None = None
        self.last_sleeper: Ability | None = None
        self.woken: i64 = 0  # workers that got a NOOP for this function and have not grabbed since

        self.max_high: i64 = 0  # maxqueue (section 3.10); 0: no limit
        self.max_normal: i64 = 0
        self.max_low: i64 = 0

        self.submitted: i64 = 0
        self.coalesced: i64 = 0
        self.refused: i64 = 0
        self.completed: i64 = 0
        self.failed: i64 = 0
        self.timed_out: i64 = 0
        self.cancelled: i64 = 0
        self.abandoned: i64 = 0  # foreground jobs dropped since nobody waited for them any more
        self.lost: i64 = 0  # assignments lost with their worker
        self.last_lost: i64 = 0  # when that was last, as a count of all losses at the server; 0: never

    @property
    def total(self) -> i64:
        """All jobs of the function: queued, delayed and running."""
        return self.queued + self.delayed + self.running

    def line(self, priority: i64) -> Line:
        """The line of this priority."""
        if priority == NORMAL:
            return self.normal
        return self.high if priority == HIGH else self.low

    def best_priority(self) -> i64:
        """The best priority that has a job waiting; the function must have one."""
        if self.high.count > 0:
            return HIGH
        return NORMAL if self.normal.count > 0 else LOW

    def limit(self, priority: i64) -> i64:
        """How many jobs may be here for a submission of this priority to be taken; 0: any number."""
        if priority == NORMAL:
            return self.max_normal
        return self.max_high if priority == HIGH else self.max_low

    def __repr__(self) -> str:
        return f"<Function {self.name!r} queued={self.queued} running={self.running} workers={self.workers}>"


@final
class Ability:
    """A function that a peer said it can do, with its time limit in seconds (0: none).

    ``order`` counts up with each registration.
    """

    def __init__(self, peer: Peer, function: Function, timeout: float, order: i64) -> None:
        self.peer: Peer = peer
        self.function: Function = function
        self.timeout: float = timeout
        self.order: i64 = order
        self.previous: Ability | None = None  # in the peer's ring
        self.next: Ability | None = None
        self.previous_sleeper: Ability | None = None  # in the function's list of sleepers
        self.next_sleeper: Ability | None = None

    def leave_ring(self) -> None:
        """Leave the peer's ring."""
        peer = self.peer
        previous = self.previous
        following = self.next
        if previous is None:
            peer.first_ability = following
        else:
            previous.next = following
        if following is None:
            peer.last_ability = previous
        else:
            following.previous = previous

    def take_last_turn(self) -> None:
        """Go to the end of the peer's ring."""
        self.leave_ring()
        peer = self.peer
        last = peer.last_ability
        self.previous = last
        self.next = None
        if last is None:
            peer.first_ability = self
        else:
            last.next = self
        peer.last_ability = self

    def lie_down(self) -> None:
        """Become the last of the function's sleepers."""
        function = self.function
        last = function.last_sleeper
        self.previous_sleeper = last
        if last is None:
            function.first_sleeper = self
        else:
            last.next_sleeper = self
        function.last_sleeper = self

    def get_up(self) -> None:
        """Leave the function's sleepers."""
        function = self.function
        previous = self.previous_sleeper
        following = self.next_sleeper
        if previous is None:
            function.first_sleeper = following
        else:
            previous.next_sleeper = following
        if following is None:
            function.last_sleeper = previous
        else:
            following.previous_sleeper = previous
        self.previous_sleeper = None
        self.next_sleeper = None
