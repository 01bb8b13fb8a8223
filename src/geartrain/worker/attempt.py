"""The steps around one job, in their order, for the blocking and the asyncio worker alike.

    attempt = Attempt(worker, session, job, post)
    if attempt.begin():
        with attempt, Around(worker.middleware, job):
            attempt.result = ... attempt.function() ...
        attempt.end()

Nothing here waits or takes a lock: how the function is called, and when what was said leaves, is for the worker.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from geartrain.errors import GeartrainError, Reject, Retry
from geartrain.worker.failure import failure_text
from geartrain.worker.functions import Function
from geartrain.worker.heartbeat import NO_DEADLINE
from geartrain.worker.job import AssignedJob
from geartrain.worker.session import WorkerSession

if TYPE_CHECKING:
    from geartrain.worker.base import BaseWorker


class Attempt:
    """One run of ``job``, which came by ``session``; what the job says on its way leaves through ``post``.

    Within the context nothing is raised: what the function raised is how the job ends.
    """

    __slots__ = (
        "_entry",
        "_failure",
        "_function",
        "_has_failed",
        "_pid",
        "_session",
        "_verdict",
        "_worker",
        "job",
        "post",
        "result",
    )

    def __init__(self, worker: BaseWorker, session: WorkerSession, job: AssignedJob, post: Callable[..., None]) -> None:
        self.job = job
        self.result = b""
        self._worker = worker
        self._session = session
        self.post = post
        self._pid = os.getpid()
        self._function: Function | None = None
        self._has_failed = False
        self._failure: bytes | None = None
        self._verdict: Retry | Reject | None = None
        self._entry: int | None = None

    def begin(self) -> bool:
        """Whether to run the job; False if its connection has ended, so that somebody else does it."""
        job = self.job
        if job.lost:
            self._session.fail(job)
            return False
        job.post = self._say
        self._function = self._worker.by_wire_name.get(job.function)
        if self._function is not None:
            job.function = self._function.name
        return True

    def function(self) -> Function:
        """The function to call; raises what keeps the job from being run."""
        if self.job.error is not None:
            raise self.job.error
        if self._function is None:
            raise GeartrainError(f"this worker has no function {self.job.function!r}")
        return self._function

    def __enter__(self) -> Attempt:
        process = self._worker.process
        if not process.is_alone:
            limit = None if self._function is None else self._function.limits.hard_limit
            deadline = NO_DEADLINE if limit is None else time.monotonic() + limit
            self._entry = process.heartbeat.begin(self.job, deadline)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if self._entry is not None:
            self._worker.process.heartbeat.end(self._entry)
        if error is not None:
            self._has_failed = True
            self._failure = failure_text(error) if self._worker.exceptions else None
            if isinstance(error, (Retry, Reject)):
                self._verdict = error
        return True

    def end(self) -> None:
        """Tell the job server how it ended."""
        self.job.post = _unheard  # and not this attempt's: the two need no garbage collector then
        if not self._has_failed:
            self._session.complete(self.job, self.result)
        elif self._verdict is not None:
            self._session.declined(self.job, _as_word(self._verdict), self._failure or b"")
        elif self._failure is None:
            self._session.fail(self.job)
        else:
            self._session.raised(self.job, self._failure)

    def _say(self, type: int, *arguments: bytes) -> None:
        if os.getpid() != self._pid:
            raise GeartrainError(f"{self.job!r} is the parent's: a forked child can't speak for it")
        self.post(type, *arguments)


def _as_word(verdict: Retry | Reject) -> bytes:
    """What the job server is told: ``reject``, ``retry``, or ``retry=`` and seconds."""
    if isinstance(verdict, Reject):
        return b"reject"
    return b"retry" if verdict.after is None else b"retry=%.3f" % verdict.after


def _unheard(type: int, *arguments: bytes) -> None:
    """What a job says that has ended goes nowhere."""
