"""The asyncio client: the same methods as the blocking one has, with ``await``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Self, cast

from geartrain.client.async_driver import AsyncDriver
from geartrain.client.async_job import AsyncJob
from geartrain.client.async_map import AsyncWindow, Workloads, mapped
from geartrain.client.base import BaseClient, Text
from geartrain.client.client import unanswered
from geartrain.client.job import too_late
from geartrain.client.request import Answer, EchoRequest, JobStatus, Request
from geartrain.client.result import ResultQuestion, fetch_async
from geartrain.client.submission import JobHandle, Priority, When
from geartrain.errors import ConnectionLostError, GeartrainError
from geartrain.link import Address, AsyncLink


class AsyncClient(BaseClient):
    """Runs jobs and awaits them.

    Use it as an asynchronous context manager or await ``close``. It connects when it is first used, and belongs to the
    loop that runs then; used in a later loop it begins again.
    """

    _driver: AsyncDriver

    async def run(
        self,
        function: Text,
        workload: bytes = b"",
        *,
        unique: Text | None = None,
        priority: Priority = "normal",
        timeout: float | None = None,  # noqa: ASYNC109 - the same words as Client
    ) -> bytes:
        """Run a job and wait for its result, for at most ``timeout`` seconds; raises as ``AsyncJob.result``.

        Jobs with the same function and ``unique`` key that are underway at the same time are one job with one result.
        If the caller is cancelled the job is given up.
        """
        submission = self._submission(function, workload, unique, priority)
        return await self._ask(submission, timeout, lambda: too_late(submission, timeout))

    async def submit(
        self,
        function: Text,
        workload: bytes = b"",
        *,
        unique: Text | None = None,
        priority: Priority = "normal",
    ) -> AsyncJob:
        """Submit a job whose result is wanted later; returns when its server takes it.

        The job server drops the job if this client leaves before its end. Thousands may be underway at a time.
        """
        submission = self._submission(function, workload, unique, priority)
        self._driver.place(submission)
        await self._driver.sent(submission)
        return AsyncJob(self._driver, submission)

    async def submit_background(
        self,
        function: Text,
        workload: bytes = b"",
        *,
        unique: Text | None = None,
        priority: Priority = "normal",
        when: When | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> JobHandle:
        """Submit a job that nobody waits for; returns its handle when the job server has accepted it.

        ``when`` and the errors are as in ``Client.submit_background``.
        """
        submission = self._submission(function, workload, unique, priority, background=True, when=when)
        return cast(JobHandle, await self._ask(submission, timeout, lambda: unanswered(timeout)))

    async def map(
        self,
        function: Text,
        workloads: Workloads,
        *,
        window: int = 64,
        ordered: bool = True,
        priority: Priority = "normal",
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> AsyncIterator[bytes]:
        """The results of a job for each workload, in their order or, if not ``ordered``, as they come.

        At most ``window`` jobs are underway at a time; workloads are taken, from an iterable of either kind, only as
        fast as results are taken from here. ``timeout`` is for each job, in seconds from its submission.

        Raises as ``AsyncJob.result`` for the first job that fails, and gives up the others; to go on after failures use
        ``map_jobs``.
        """
        jobs = self.map_jobs(function, workloads, window=window, ordered=ordered, priority=priority, timeout=timeout)
        async with contextlib.aclosing(jobs):
            async for job in jobs:
                yield await job.result()

    async def map_jobs(
        self,
        function: Text,
        workloads: Workloads,
        *,
        window: int = 64,
        ordered: bool = True,
        priority: Priority = "normal",
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> AsyncGenerator[AsyncJob, None]:
        """As ``map``, but gives the jobs themselves when they have ended, well or not; raises for none of them."""
        submissions = mapped(
            self._driver,
            workloads,
            lambda workload: self._submission(function, workload, None, priority),
            AsyncWindow(window, ordered=ordered, timeout=timeout),
        )
        async with contextlib.aclosing(submissions):
            async for submission in submissions:
                yield AsyncJob(self._driver, submission)

    async def map_background(
        self,
        function: Text,
        workloads: Workloads,
        *,
        window: int = 1000,
        priority: Priority = "normal",
        when: When | None = None,
    ) -> AsyncIterator[JobHandle]:
        """Submit a background job for each workload, many at a time; gives their handles in order.

        A job was accepted when its handle has come: take them all. Raises as ``submit_background``.
        """
        submissions = mapped(
            self._driver,
            workloads,
            lambda workload: self._submission(function, workload, None, priority, background=True, when=when),
            AsyncWindow(window, ordered=True, timeout=None),
        )
        async with contextlib.aclosing(submissions):
            async for submission in submissions:
                yield cast(JobHandle, submission.outcome())

    async def result(
        self,
        handle: JobHandle | Text | None = None,
        *,
        function: Text | None = None,
        unique: Text | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> bytes:
        """The result of any job, also of one in the background; asked, waited for and raised as ``Client.result``."""
        return await self._fetch(self._result_question(handle, function, unique, timeout))

    async def status(
        self,
        handle: JobHandle | Text | None = None,
        *,
        unique: Text | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> JobStatus:
        """What a job server knows of a job, by its handle or its unique key; raises as ``Client.status``."""
        return await self._ask(self._status_request(handle, unique), timeout, lambda: unanswered(timeout))

    async def echo(
        self,
        data: bytes = b"geartrain",
        *,
        server: Address | str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> bytes:
        """Have ``data`` sent back by a job server, one of them or ``server``; raises as ``status``."""
        address = Address.parse(server) if isinstance(server, str) else server
        return await self._ask(EchoRequest(data, address), timeout, lambda: unanswered(timeout))

    async def close(self) -> None:
        """Close the connections. Foreground jobs that are not done fail, and the job servers drop them."""
        await self._driver.close(ConnectionLostError("the client was closed before the answer came"))

    def _start(self) -> None:
        self._driver = AsyncDriver(self._make_servers, self._connect, self._answer_timeout)

    async def _connect(
        self, address: Address, on_data: Callable[[bytes], None], on_lost: Callable[[Exception | None], None]
    ) -> AsyncLink:
        return await AsyncLink.connect(address, on_data, on_lost, timeout=self._connect_timeout, tls=self._tls)

    async def _fetch(self, question: ResultQuestion) -> bytes:
        return await fetch_async(question, self._connect_timeout, self._tls)

    async def _ask(
        self,
        request: Request[Answer],
        timeout: float | None,  # noqa: ASYNC109 - as above
        late: Callable[[], GeartrainError],
    ) -> Answer:
        deadline = None if timeout is None else self._driver.now() + timeout
        self._driver.place(request)
        try:
            return await self._driver.finish(request, deadline, late)
        finally:
            self._driver.give_up(request, ConnectionLostError("nobody awaits this any more"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
