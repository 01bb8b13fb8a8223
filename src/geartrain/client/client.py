"""The blocking client: run jobs and wait for them.

A client may be used by any number of threads at once, and goes on working in a forked child with connections of its
own. Nothing runs behind its back: what arrives is read while somebody waits (see ``driver``), so a program that
submits jobs and never asks for them leaves their answers at the job server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self, cast

from geartrain.client.base import BaseClient, Text
from geartrain.client.driver import Driver
from geartrain.client.job import SubmittedJob, too_late
from geartrain.client.request import Answer, EchoRequest, JobStatus, Request
from geartrain.client.result import ResultQuestion, fetch
from geartrain.client.submission import JobHandle, Priority, Submission, When
from geartrain.client.window import GATHER_SECONDS, Window
from geartrain.errors import ConnectionLostError, GeartrainError, TimedOutError
from geartrain.link import Address, BlockingLink


class Client(BaseClient):
    """Runs jobs and waits for them.

    Use it as a context manager or call ``close``. It connects when it is first used.
    """

    _driver: Driver

    def run(
        self,
        function: Text,
        workload: bytes = b"",
        *,
        unique: Text | None = None,
        priority: Priority = "normal",
        timeout: float | None = None,
    ) -> bytes:
        """Run a job and wait for its result, for at most ``timeout`` seconds; raises as ``SubmittedJob.result``.

        Jobs with the same function and ``unique`` key that are underway at the same time are one job with one result.
        """
        submission = self._submission(function, workload, unique, priority)
        return self._ask(submission, timeout, lambda: too_late(submission, timeout))

    def submit(
        self,
        function: Text,
        workload: bytes = b"",
        *,
        unique: Text | None = None,
        priority: Priority = "normal",
    ) -> SubmittedJob:
        """Submit a job whose result is wanted later; returns when it has been sent, or has failed.

        What goes wrong is raised by the job's ``result``, even if no job server could be reached. The job server drops
        the job if this client leaves before its end. Thousands may be underway at a time.
        """
        submission = self._submission(function, workload, unique, priority)
        self._driver.send([submission])
        return SubmittedJob(self._driver, submission)

    def submit_background(
        self,
        function: Text,
        workload: bytes = b"",
        *,
        unique: Text | None = None,
        priority: Priority = "normal",
        when: When | None = None,
        timeout: float | None = None,
    ) -> JobHandle:
        """Submit a job that nobody waits for; returns its handle when the job server has accepted it.

        With ``when`` (a datetime, a timedelta from now, or Unix time in seconds) it runs no earlier than that; a
        datetime without a time zone is local time.

        Raises QueueFullError or another ServerError if the job server refused the job, ConnectError or
        ConnectionLostError if no job server could be reached or kept, and TimedOutError after ``timeout`` seconds; the
        last two leave open whether it was accepted.
        """
        submission = self._submission(function, workload, unique, priority, background=True, when=when)
        return cast(JobHandle, self._ask(submission, timeout, lambda: unanswered(timeout)))

    def map(
        self,
        function: Text,
        workloads: Iterable[bytes],
        *,
        window: int = 64,
        ordered: bool = True,
        priority: Priority = "normal",
        timeout: float | None = None,
    ) -> Iterator[bytes]:
        """The results of a job for each workload, in their order or, if not ``ordered``, as they come.

        At most ``window`` jobs are underway at a time; workloads are taken from the iterable only as fast as results
        are taken from here. ``timeout`` is for each job, in seconds from its submission.

        Raises as ``SubmittedJob.result`` for the first job that fails, and gives up the others; to go on after failures
        use ``map_jobs``.
        """
        for job in self.map_jobs(
            function, workloads, window=window, ordered=ordered, priority=priority, timeout=timeout
        ):
            yield job.result()

    def map_jobs(
        self,
        function: Text,
        workloads: Iterable[bytes],
        *,
        window: int = 64,
        ordered: bool = True,
        priority: Priority = "normal",
        timeout: float | None = None,
    ) -> Iterator[SubmittedJob]:
        """As ``map``, but gives the jobs themselves when they have ended, well or not; raises for none of them."""
        submissions = (self._submission(function, workload, None, priority) for workload in workloads)
        for submission in self._map(submissions, window, ordered, timeout):
            yield SubmittedJob(self._driver, submission)

    def map_background(
        self,
        function: Text,
        workloads: Iterable[bytes],
        *,
        window: int = 1000,
        priority: Priority = "normal",
        when: When | None = None,
    ) -> Iterator[JobHandle]:
        """Submit a background job for each workload, many at a time; gives their handles in order.

        A job was accepted when its handle has come: take them all. Raises as ``submit_background``.
        """
        submissions = (
            self._submission(function, workload, None, priority, background=True, when=when) for workload in workloads
        )
        for submission in self._map(submissions, window, True, None):
            yield cast(JobHandle, submission.outcome())

    def result(
        self,
        handle: JobHandle | Text | None = None,
        *,
        function: Text | None = None,
        unique: Text | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """The result of any job, also of one in the background: by its handle, or by its function and unique key.

        Waits for a job that still waits or runs, at most ``timeout`` seconds; with 0 for the job server's answer alone.
        It is asked on a connection of its own, at all job servers in turn unless the handle says its server. The job
        server keeps results under the function's policy ``results``.

        Raises JobRaisedError or JobFailedError for a job that failed, UnknownJobError if no job server knows the job or
        has kept its result, TimedOutError after ``timeout`` seconds, ConnectError, and ConnectionLostError.
        """
        return self._fetch(self._result_question(handle, function, unique, timeout))

    def status(
        self, handle: JobHandle | Text | None = None, *, unique: Text | None = None, timeout: float | None = None
    ) -> JobStatus:
        """What a job server knows of a job, by its handle or its unique key.

        A handle must say its server where the client has several, as those from ``submit_background`` do. Raises
        ConnectError, ConnectionLostError, or TimedOutError after ``timeout`` seconds.
        """
        return self._ask(self._status_request(handle, unique), timeout, lambda: unanswered(timeout))

    def echo(
        self, data: bytes = b"geartrain", *, server: Address | str | None = None, timeout: float | None = None
    ) -> bytes:
        """Have ``data`` sent back by a job server, one of them or ``server``; raises as ``status``."""
        address = Address.parse(server) if isinstance(server, str) else server
        return self._ask(EchoRequest(data, address), timeout, lambda: unanswered(timeout))

    def close(self) -> None:
        """Close the connections. Foreground jobs that are not done fail, and the job servers drop them."""
        self._driver.close(ConnectionLostError("the client was closed before the answer came"))

    def _start(self) -> None:
        self._driver = Driver(self._make_servers, self._connect, self._answer_timeout)

    def _connect(self, address: Address) -> BlockingLink:
        return BlockingLink.connect(address, timeout=self._connect_timeout, tls=self._tls)

    def _fetch(self, question: ResultQuestion) -> bytes:
        return fetch(question, self._connect_timeout, self._tls)

    def _ask(self, request: Request[Answer], timeout: float | None, late: Callable[[], GeartrainError]) -> Answer:
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._driver.ask(request, deadline, late)

    def _map(
        self, submissions: Iterator[Submission], size: int, ordered: bool, timeout: float | None
    ) -> Iterator[Submission]:
        """Keep ``size`` submissions underway; give out those that are done."""
        window = Window(size, ordered=ordered, timeout=timeout)
        try:
            while not window.is_over:
                batch = self._gather(submissions, window)
                if batch:
                    self._driver.send(batch, follower=window)
                if window.has_room:
                    self._driver.look()
                elif window.underway and not self._driver.wait(window.awaited(), window.has_ready, window.deadline):
                    self._driver.give_up(window.oldest, too_late(window.oldest, timeout))
                yield from window.take_ready()
        finally:
            for submission in window.underway:
                self._driver.give_up(submission, ConnectionLostError("the map was left before the job's end"))

    def _gather(self, submissions: Iterator[Submission], window: Window) -> list[Submission]:
        """Fill the window; where the workloads come slowly, only with those that come soon."""
        batch: list[Submission] = []
        began = now = time.monotonic()
        while window.has_room and now - began < GATHER_SECONDS:
            submission = next(submissions, None)
            now = time.monotonic()
            if submission is None:
                window.is_exhausted = True
            else:
                window.add(submission, now)
                batch.append(submission)
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def unanswered(timeout: float | None) -> TimedOutError:
    return TimedOutError(f"the job server gave no answer within {timeout or 0:g} s")
