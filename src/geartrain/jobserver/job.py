"""One request to run a function, and the clients that wait for its result.

A job is linked through itself: in the line of its function while it waits, among the running jobs of its worker while
it runs. There may be millions, so each field is a pointer or a small number, and neither class takes part in garbage
collection: every way out of a list unlinks, and every list is linked both ways (compiled code can't free a long chain
of such objects that is linked one way).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.native import i16, i32, i64, mypyc_attr

if TYPE_CHECKING:
    from geartrain.jobserver.function import Function
    from geartrain.jobserver.journal import Slot
    from geartrain.jobserver.peer import Peer


HIGH: Final = 0
NORMAL: Final = 1
LOW: Final = 2

QUEUED: Final = 0  # in its function's line: a worker may grab it
RUNNING: Final = 1  # assigned to a worker
DELAYED: Final = 2  # its time has not come
ENDED: Final = 3  # completed, failed, cancelled or dropped: the server knows it no more

JOB_COST: Final = 200  # bytes a job takes beside its unique and workload, for the memory limit
LISTENER_COST: Final = 100


@final
@mypyc_attr(acyclic=True)
class Job:
    """A job that the server knows; see the comments for the fields' meaning."""

    def __init__(
        self,
        number: i64,
        function: Function,
        unique: bytes,
        workload: bytes,
        priority: i16,
        background: bool,
        created: float,
    ) -> None:
        self.number: i64 = number  # the handle is "<prefix>:<number>"
        self.function: Function = function
        self.unique: bytes = unique
        self.workload: bytes = workload
        self.reducer: bytes = b""  # empty: not a reduce job
        self.previous: Job | None = None
        self.next: Job | None = None
        self.worker: Peer | None = None  # set exactly while RUNNING
        self.listeners: Listener | None = None  # the clients that wait for the result
        self.created: float = created  # Unix time
        self.due: float = 0.0  # Unix time; 0: at once
        self.numerator: i32 = 0  # as WORK_STATUS last said, unsigned 32 bit kept in a signed field
        self.denominator: i32 = 0
        self.attempts: i32 = 0  # assignments that were lost
        self.assignments: i32 = 0  # all assignments; tells a timer whether it still means this one
        self.priority: i16 = priority
        self.state: i16 = QUEUED
        self.background: bool = background  # lives on without clients
        self.timed: bool = False  # has a timer for the running assignment
        self.spilled: bool = False  # the workload is in the store alone
        self.stored: i16 = 0  # see the journal
        self.slots: Slot | None = None  # answers that wait for the store

    def __repr__(self) -> str:
        state = ("queued", "running", "delayed", "ended")[self.state]
        kind = "background" if self.background else "foreground"
        return f"<Job {self.number} {self.function.name!r} {state} {kind}>"


@final
@mypyc_attr(acyclic=True)
class Listener:
    """One foreground submission: ``peer`` gets every packet about ``job``.

    It stands in two lists, that of the job's listeners and that of the jobs its peer waits for.
    """

    def __init__(self, job: Job, peer: Peer) -> None:
        self.job: Job = job
        self.peer: Peer = peer
        self.previous_of_job: Listener | None = None
        self.next_of_job: Listener | None = job.listeners
        self.previous_of_peer: Listener | None = None
        self.next_of_peer: Listener | None = peer.listening
        first = job.listeners
        if first is not None:
            first.previous_of_job = self
        job.listeners = self
        first = peer.listening
        if first is not None:
            first.previous_of_peer = self
        peer.listening = self

    def leave(self) -> None:
        """Leave both lists."""
        previous = self.previous_of_job
        following = self.next_of_job
        if previous is not None:
            previous.next_of_job = following
        else:
            self.job.listeners = following
        if following is not None:
            following.previous_of_job = previous
        previous = self.previous_of_peer
        following = self.next_of_peer
        if previous is not None:
            previous.next_of_peer = following
        else:
            self.peer.listening = following
        if following is not None:
            following.previous_of_peer = previous
        self.previous_of_job = None
        self.next_of_job = None
        self.previous_of_peer = None
        self.next_of_peer = None
