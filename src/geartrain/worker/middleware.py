"""Middleware: what is to happen before and after every job, whatever its function.

Our own log of jobs is written with it, and so are the metrics (``geartrain.worker.metrics``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from geartrain.errors import JobFailedError
from geartrain.worker.job import AssignedJob

logger = logging.getLogger("geartrain.worker")


class Middleware:
    """Something to be told of every job; override what you need.

    All three are called where the job runs: in its thread, or in the event loop, where they must not wait. What
    ``before`` raises makes the job fail as if its function had raised it; what the others raise is logged.
    """

    def before(self, job: AssignedJob) -> None:
        """A job is about to start."""

    def after(self, job: AssignedJob, seconds: float) -> None:
        """A job is done; it took ``seconds``."""

    def failed(self, job: AssignedJob, error: BaseException, seconds: float) -> None:
        """A job failed with ``error`` after ``seconds``."""


class Chain(Middleware):
    """Several in a row, entered in order and left in reverse; what fails after a job harms nobody."""

    def __init__(self, members: Iterable[Middleware]) -> None:
        self.members = list(members)

    def before(self, job: AssignedJob) -> None:
        for member in self.members:
            member.before(job)

    def after(self, job: AssignedJob, seconds: float) -> None:
        for member in reversed(self.members):
            try:
                member.after(job, seconds)
            except Exception:
                logger.exception("%r failed after %r", member, job)

    def failed(self, job: AssignedJob, error: BaseException, seconds: float) -> None:
        for member in reversed(self.members):
            try:
                member.failed(job, error, seconds)
            except Exception:
                logger.exception("%r failed after %r", member, job)


class JobLog(Middleware):
    """Logs each job: done ones at ``level``, failed ones as errors with their traceback."""

    def __init__(self, logger: logging.Logger | None = None, level: int = logging.DEBUG) -> None:
        self.logger = logger or logging.getLogger("geartrain.jobs")
        self.level = level

    def after(self, job: AssignedJob, seconds: float) -> None:
        if self.logger.isEnabledFor(self.level):
            self.logger.log(self.level, "%s %s done in %.3f s", job.function, _name(job), seconds)

    def failed(self, job: AssignedJob, error: BaseException, seconds: float) -> None:
        traceback = None if isinstance(error, JobFailedError) else error
        self.logger.error(
            "%s %s failed after %.3f s: %s", job.function, _name(job), seconds, error, exc_info=traceback
        )


def _name(job: AssignedJob) -> str:
    name = job.handle.decode(errors="replace")
    return f"{name} ({job.unique.decode(errors='replace')})" if job.unique else name
