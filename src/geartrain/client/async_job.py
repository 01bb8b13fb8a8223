"""A foreground job in the hands of the program that submitted it through an ``AsyncClient``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import Any

from geartrain.client.async_driver import AsyncDriver
from geartrain.client.job import JobView, too_late
from geartrain.client.submission import JobEvent, Submission


class AsyncJob(JobView):
    """A job that was submitted and will have a result; made by ``AsyncClient.submit``. ``await job`` is its result."""

    __slots__ = ("_driver",)

    def __init__(self, driver: AsyncDriver, submission: Submission) -> None:
        super().__init__(submission)
        self._driver = driver

    def __await__(self) -> Generator[Any, Any, bytes]:
        return self.result().__await__()

    async def result(self, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the same words as SubmittedJob
        """Wait for the job's result: all data that the worker sent, except what ``events`` gave out.

        Raises as ``SubmittedJob.result``. After ``timeout`` seconds the job is given up and TimedOutError raised: what
        the job held is freed, and its end will not be seen any more. To wait in portions use ``wait``.
        """
        submission = self._submission
        return await self._driver.finish(submission, self._deadline(timeout), lambda: too_late(submission, timeout))

    async def wait(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as above
        """Wait until the job has ended, at most ``timeout`` seconds; returns whether it has."""
        submission = self._submission
        return await self._driver.wait(submission, lambda: submission.done, self._deadline(timeout))

    async def events(self, timeout: float | None = None) -> AsyncIterator[JobEvent]:  # noqa: ASYNC109 - as above
        """The job's data, warnings and statuses as they arrive, each once; ends when the job has ended in any way.

        If the next one takes longer than ``timeout`` seconds, the job is given up and TimedOutError raised.
        """
        submission = self._submission
        while True:
            if not await self._driver.wait(
                submission, lambda: submission.done or bool(submission.events), self._deadline(timeout)
            ):
                error = too_late(submission, timeout)
                self._driver.give_up(submission, error)
                raise error
            if submission.events:
                yield submission.events.popleft()
            elif submission.done:
                return

    def _deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else self._driver.now() + timeout
