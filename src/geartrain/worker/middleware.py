"""Middleware: what is to happen before and after every job, whatever its function.

Our own log of jobs is written with it, and so are the metrics (``geartrain.worker.metrics``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from geartrain.errors import JobFailedError, Reject, Retry
from geartrain.units import shown_seconds
from geartrain.worker.job import AssignedJob

logger = logging.getLogger("geartrain.worker")


class Middleware:
    """Something to be told of every job; override what you need.

    All three are called where the job runs: in its thread, or in the event loop, where they must not wait. What
    ``before`` raises makes the job fail as if its function had raised it, and only those entered before are told of
    that; what the others raise is logged.
    """

    wants_traces: bool = False  # whether job servers are to be asked where jobs belong in a trace

    def before(self, job: AssignedJob) -> None:
        """A job is about to start."""

    def after(self, job: AssignedJob, seconds: float) -> None:
        """A job is done; it took ``seconds``."""

    def failed(self, job: AssignedJob, error: BaseException, seconds: float) -> None:
        """A job failed with ``error`` after ``seconds``."""


class Around:
    """Tells ``members`` of a job that runs within this context: in order before it, in reverse after it."""

    __slots__ = ("_entered", "_job", "_members", "_started")

    def __init__(self, members: Sequence[Middleware], job: AssignedJob) -> None:
        self._members = members
        self._job = job
        self._entered = 0
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        try:
            for member in self._members:
                member.before(self._job)
                self._entered += 1
        except BaseException as error:
            self._leave(error)
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        seconds = time.perf_counter() - self._started
        for member in reversed(self._members[: self._entered]):
            try:
                if error is None:
                    member.after(self._job, seconds)
                else:
                    member.failed(self._job, error, seconds)
            except Exception:
                logger.exception("%r failed after %r", member, self._job)


class JobLog(Middleware):
    """Logs each job: done ones at ``level``, failed ones as errors with their traceback, those whose function asked to
    be tried again as warnings."""

    def __init__(self, logger: logging.Logger | None = None, level: int = logging.DEBUG) -> None:
        self.logger = logger or logging.getLogger("geartrain.jobs")
        self.level = level

    def after(self, job: AssignedJob, seconds: float) -> None:
        if self.logger.isEnabledFor(self.level):
            self.logger.log(self.level, "%s %s done in %.3f s", job.function, _name(job), seconds)

    def failed(self, job: AssignedJob, error: BaseException, seconds: float) -> None:
        if isinstance(error, Retry):
            after = "" if error.after is None else f" in {shown_seconds(error.after)}"
            self.logger.warning(
                "%s %s is to be tried again%s, after %.3f s: %s", job.function, _name(job), after, seconds, error
            )
            return
        traceback = None if isinstance(error, (JobFailedError, Reject)) else error
        self.logger.error("%s %s failed after %.3f s: %s", job.function, _name(job), seconds, error, exc_info=traceback)


def _name(job: AssignedJob) -> str:
    name = job.handle.decode(errors="replace")
    return f"{name} ({job.unique.decode(errors='replace')})" if job.unique else name
