"""The jobs of each function that have ended last, for whoever looks at the job server: some of them, and for a while.

**What it costs.** Nothing until somebody wants to see them (``JobServer.want_ends``, once a second). Then each end of a
job costs one comparison: of how many of its function have been noted with how many are wanted by now. That number grows
by ``ENDS_A_SECOND`` each second, without anybody going through the functions. Failures have a number of their own, so
that many successes do not hide them. ``MOST_A_SECOND`` are noted of all functions together.

**Memory.** Of each function the last ``KEPT`` ends and as many failures are kept, and ``MAX_ERRORS`` kinds of errors.
All functions together take ``MOST_BYTES`` at most: then those go of which nothing has been noted for longest.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, final

from geartrain.jobserver.error_line import cut, error_line
from geartrain.native import i64

ENDS_A_SECOND: Final = 5  # of a function
FAILURES_A_SECOND: Final = 20
MOST_A_SECOND: Final = 1000  # of all functions, failures aside; and as many failures
MOST_BYTES: Final = 16 * 1024 * 1024
KEPT: Final = 50  # jobs of a function that have not failed; and as many that have
MAX_ERRORS: Final = 20  # kinds of errors of a function
LONGEST_TEXT: Final = 500  # bytes
LONGEST_UNIQUE: Final = 256
LONGEST_HISTORY: Final = 4096

# What the interpreter needs beside the bytes that were chosen by peers.
JOB_COST: Final = 500
ERROR_COST: Final = 350
FUNCTION_COST: Final = 2500

# How a job has ended, beside the reasons for which attempts do not succeed.
COMPLETED: Final = "completed"
FAILED: Final = "failed"  # its worker said no more than that
CANCELLED: Final = "cancelled"
ABANDONED: Final = "abandoned"


@final
class EndedJob:
    """A job that has ended, or is a dead letter now. Unix times; 0: it never came to that."""

    def __init__(
        self,
        number: int,
        unique: bytes,
        priority: int,
        background: bool,
        size: int,
        how: str,
        created: float,
        stored_at: float,
        queued: float,
        started: float,
        ended: float,
        worker: bytes,
        attempts: int,
        text: bytes,
        history: bytes,
    ) -> None:
        self.number: int = number
        self.function: bytes = b""
        self.unique: bytes = unique[:LONGEST_UNIQUE]
        self.priority: int = priority
        self.background: bool = background
        self.size: int = size  # bytes of the workload; 0 of one that was in the store alone
        self.how: str = how
        self.created: float = created
        self.stored_at: float = stored_at  # when the store had committed it
        self.queued: float = queued  # when it came into its queue last
        self.started: float = started  # its last attempt
        self.ended: float = ended
        self.worker: bytes = worker[:LONGEST_UNIQUE]
        self.attempts: int = attempts  # that did not succeed
        self.text: bytes = cut(text, LONGEST_TEXT)
        self.history: bytes = history if len(history) <= LONGEST_HISTORY else b""  # see ``letters``

    def cost(self) -> int:
        """Bytes of memory."""
        return JOB_COST + len(self.unique) + len(self.worker) + len(self.text) + len(self.history)


@final
class ErrorKind:
    """Failures that are told by the same words: how the jobs ended, and the line of their error."""

    def __init__(self, how: str, line: bytes, since: float) -> None:
        self.how: str = how
        self.line: bytes = line
        self.count: int = 0
        self.since: float = since  # Unix times
        self.last: float = since
        self.newest: int = 0  # the number of the job


@final
class EndedOfFunction:
    """What is kept of one function, the newest last."""

    def __init__(self, name: bytes) -> None:
        self.name: bytes = name
        self.jobs: deque[EndedJob] = deque()
        self.failures: deque[EndedJob] = deque()
        self.errors: OrderedDict[tuple[str, bytes], ErrorKind] = OrderedDict()
        self.failure_count: int = 0  # failures that were noted
        self.cost: int = FUNCTION_COST + len(name)

    def note_error(self, job: EndedJob, line: bytes) -> None:
        """A job has failed, which is told by this line."""
        self.failure_count += 1
        key = (job.how, line)
        kind = self.errors.get(key)
        if kind is None:
            if len(self.errors) >= MAX_ERRORS:
                _, oldest = self.errors.popitem(last=False)
                self.cost -= ERROR_COST + len(oldest.line)
            kind = self.errors[key] = ErrorKind(job.how, line, job.ended)
            self.cost += ERROR_COST + len(line)
        else:
            self.errors.move_to_end(key)
        kind.count += 1
        kind.last = job.ended
        kind.newest = job.number


@final
class EndedJobs:
    """Those of all functions, that which has moved last at the end."""

    def __init__(self) -> None:
        self.functions: OrderedDict[bytes, EndedOfFunction] = OrderedDict()
        self.by_number: dict[int, EndedJob] = {}
        self.bytes: int = 0
        self.seconds: i64 = 0  # how often they were wanted
        self.left: i64 = 0  # how many more may be noted in this second
        self.failures_left: i64 = 0

    def note(self, name: bytes, job: EndedJob, failed: bool, text: bytes) -> None:
        """A job of the function of this name has ended; with this text, if it has ``failed``."""
        of_function = self.functions.get(name)
        if of_function is None:
            of_function = self.functions[name] = EndedOfFunction(name)
            before = 0
        else:
            self.functions.move_to_end(name)
            before = of_function.cost
        job.function = of_function.name
        if failed:
            of_function.note_error(job, error_line(text))
        ring = of_function.failures if failed else of_function.jobs
        if len(ring) >= KEPT:
            self._forget(of_function, ring.popleft())
        ring.append(job)
        of_function.cost += job.cost()
        self.by_number[job.number] = job
        self.bytes += of_function.cost - before
        while self.bytes > MOST_BYTES:
            self._forget_function()

    def _forget(self, of_function: EndedOfFunction, job: EndedJob) -> None:
        of_function.cost -= job.cost()
        if self.by_number.get(job.number) is job:  # a dead letter may have been tried again
            del self.by_number[job.number]

    def _forget_function(self) -> None:
        _, of_function = self.functions.popitem(last=False)
        self.bytes -= of_function.cost
        for ring in (of_function.jobs, of_function.failures):
            for job in ring:
                self._forget(of_function, job)
