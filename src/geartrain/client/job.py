"""A foreground job in the hands of the program that submitted it through a blocking ``Client``."""

from __future__ import annotations

import time
from collections.abc import Iterator

from geartrain.client.driver import Driver
from geartrain.client.submission import JobEvent, JobHandle, Submission
from geartrain.errors import GeartrainError, TimedOutError


class JobView:
    """What can be seen of a job without waiting; common to both kinds of client."""

    __slots__ = ("_submission",)

    def __init__(self, submission: Submission) -> None:
        self._submission = submission

    @property
    def done(self) -> bool:
        """Whether the job has ended, well or not, by what has arrived so far; does not wait."""
        if not self._submission.done:
            self._look()
        return self._submission.done

    @property
    def exception(self) -> GeartrainError | None:
        """The error that ``result`` would raise; ``None`` for a job that ended well or has not ended."""
        return self._submission.error if self.done else None

    @property
    def handle(self) -> JobHandle | None:
        """The job server's name for the job; ``None`` until that has arrived. A resend changes it."""
        if self._submission.handle is None:
            self._look()
        return self._submission.handle

    @property
    def progress(self) -> tuple[int, int] | None:
        """The last status that has arrived: numerator and denominator."""
        if not self._submission.done:
            self._look()
        return self._submission.progress

    @property
    def function(self) -> bytes:
        """The function's name as it was sent, namespace included."""
        return self._submission.function

    @property
    def unique(self) -> bytes:
        """The unique key; empty for a job without one."""
        return self._submission.unique

    def _look(self) -> None:
        """Take in what has arrived."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._submission.told()}>"


class SubmittedJob(JobView):
    """A job that was submitted and will have a result; made by ``Client.submit``.

    What arrives is read only while some thread waits: by these methods, or by others of the same client.
    """

    __slots__ = ("_driver",)

    def __init__(self, driver: Driver, submission: Submission) -> None:
        super().__init__(submission)
        self._driver = driver

    def result(self, timeout: float | None = None) -> bytes:
        """Wait for the job's result: all data that the worker sent, except what ``events`` gave out.

        Raises JobFailedError or JobRaisedError if the worker failed, QueueFullError or another ServerError if the job
        server refused the job, ConnectError or ConnectionLostError if no job server could be reached or kept.

        After ``timeout`` seconds the job is given up and TimedOutError raised: what the job held is freed, and its end
        will not be seen any more. To wait in portions use ``wait``.
        """
        return self._driver.finish(self._submission, _deadline(timeout), lambda: too_late(self._submission, timeout))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended, at most ``timeout`` seconds; returns whether it has."""
        submission = self._submission
        return self._driver.wait((submission,), lambda: submission.done, _deadline(timeout))

    def events(self, timeout: float | None = None) -> Iterator[JobEvent]:
        """The job's data, warnings and statuses as they arrive, each once; ends when the job has ended in any way.

        If the next one takes longer than ``timeout`` seconds, the job is given up and TimedOutError raised.
        """
        submission = self._submission
        while True:
            if not self._driver.wait(
                (submission,), lambda: submission.done or bool(submission.events), _deadline(timeout)
            ):
                error = too_late(submission, timeout)
                self._driver.give_up(submission, error)
                raise error
            with self._driver.lock:
                event = submission.events.popleft() if submission.events else None
            if event is not None:
                yield event
            elif submission.done:
                return

    def _look(self) -> None:
        self._driver.look()


def too_late(submission: Submission, timeout: float | None) -> TimedOutError:
    name = submission.function.decode("utf-8", "replace")
    return TimedOutError(f"no result of {name!r} within {timeout or 0:g} s; the job itself goes on at the job server")


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout
