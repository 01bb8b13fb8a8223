"""Clients that need no job server: a submitted job is run at once, by the function that a worker declares.

They are the ordinary clients, with a driver that runs what it is to send. So everything is checked and encoded as it
is on its way over the network, events and errors come out as they would, and only the waiting is gone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from geartrain.client.async_client import AsyncClient
from geartrain.client.async_driver import AsyncDriver
from geartrain.client.client import Client
from geartrain.client.command import quoted
from geartrain.client.driver import Driver
from geartrain.client.request import Answer, EchoRequest, Follower, JobStatus, Request
from geartrain.client.result import ResultQuestion
from geartrain.client.submission import DataEvent, JobHandle, StatusEvent, Submission, WarningEvent
from geartrain.errors import GeartrainError, JobFailedError, JobRaisedError, UnknownJobError
from geartrain.wire.packets import SUBMIT_JOB_EPOCH, WORK_DATA, WORK_STATUS
from geartrain.worker import AssignedJob
from geartrain.worker.base import BaseWorker
from geartrain.worker.failure import failure_text
from geartrain.worker.functions import Function, call_async, call_plain
from geartrain.worker.middleware import Around

_HEADER = 12  # bytes of a packet before its body
_TYPE = slice(4, 8)


class EagerClient(Client):
    """A client that runs each job before ``submit`` returns, by the functions that ``workers`` declare.

    A job that fails raises when its result is asked for, as ever; its cause (``__cause__``) is what the function
    raised. No job is tried again: Retry and Reject fail it, with their reason as its text, whatever its function's
    policy. A background job that fails raises at once, so that a test does not miss it. One with ``when`` does not
    wait for its time. Their results are kept for ``result``, whatever the policy. A job for a function that no worker
    declares raises GeartrainError; functions are found with their worker's namespace and without.
    """

    def __init__(self, *workers: BaseWorker) -> None:
        self._functions = _Functions(workers)
        super().__init__("localhost")  # which it never asks

    def _start(self) -> None:
        self._driver = _EagerDriver(self._functions)

    def _fetch(self, question: ResultQuestion) -> bytes:
        return self._functions.result(question)


class EagerAsyncClient(AsyncClient):
    """The same for asyncio: each job begins at once, and has ended when ``submit`` returns."""

    def __init__(self, *workers: BaseWorker) -> None:
        self._functions = _Functions(workers)
        super().__init__("localhost")

    def _start(self) -> None:
        self._driver = _EagerAsyncDriver(self._functions)

    async def _fetch(self, question: ResultQuestion) -> bytes:
        return self._functions.result(question)


class _Functions:
    """All functions of some workers, and how a job is run by them."""

    def __init__(self, workers: Iterable[BaseWorker]) -> None:
        self._workers = tuple(workers)
        self._count = 0
        self._results: dict[tuple[bytes, ...], bytes] = {}  # of background jobs, by the words that ask for one

    def call(self, request: Request[Any]) -> Call | None:
        """What is to be run for a request; None for one that has been answered already."""
        if isinstance(request, EchoRequest):
            request.resolve(request.packet[_HEADER:])
        elif isinstance(request, Submission):
            name = request.function.decode("utf-8", "surrogateescape")
            for worker in self._workers:
                for function in worker.functions.values():
                    if name in (function.name, worker.wire_name(function)):
                        self._count += 1
                        return Call(worker, function, request, b"H:eager:%d" % self._count, self._keep)
            known = ", ".join(one for worker in self._workers for one in worker.functions)
            raise GeartrainError(f"no worker declares a function {name!r}; there are: {known or 'none'}")
        else:  # jobs that have ended are not known to a job server either
            request.resolve(JobStatus(known=False, running=False, clients=0))
        return None

    def result(self, question: ResultQuestion) -> bytes:
        """What a background job gave."""
        if question.words not in self._results:
            raise UnknownJobError("UNKNOWN_JOB", f"no background job has ended well that {question!r} means")
        return self._results[question.words]

    def _keep(self, submission: Submission, result: bytes) -> None:
        self._results[(submission.handle or b"",)] = result
        if submission.unique:
            self._results[(b"unique", quoted(submission.function), quoted(submission.unique))] = result


class Call:
    """One job, from the side of the client and of the worker at once."""

    def __init__(
        self,
        worker: BaseWorker,
        function: Function,
        submission: Submission,
        handle: bytes,
        keep: Callable[[Submission, bytes], None],
    ) -> None:
        self.function = function
        self._keep = keep
        self._worker = worker
        self._submission = submission
        arguments = 3 if int.from_bytes(submission.packet[_TYPE]) == SUBMIT_JOB_EPOCH else 2  # before the workload
        workload = submission.packet[_HEADER:].split(b"\0", arguments)[-1]
        submission.handle = JobHandle(handle)
        self.job = AssignedJob(workload, function=function.name, handle=handle, unique=submission.unique)
        self.job.post = self._post

    def run(self) -> None:
        """Run it here; a coroutine in a loop of its own."""
        if self.function.is_async:
            _run(self.run_async)
            return
        try:
            with Around(self._worker.middleware, self.job):
                result = call_plain(self.function, self.job)
        except Exception as error:
            self._fail(error)
        else:
            self._end(result)

    async def run_async(self) -> None:
        """Run it in the loop that runs."""
        if not self.function.is_async:
            self.run()
            return
        try:
            with Around(self._worker.middleware, self.job):
                result = await call_async(self.function, self.job)
        except Exception as error:
            self._fail(error)
        else:
            self._end(result)

    def _post(self, type: int, *arguments: bytes) -> None:
        if type == WORK_DATA:
            self._submission.add_event(DataEvent(*arguments))
        elif type == WORK_STATUS:
            self._submission.add_event(StatusEvent(*map(int, arguments)))
        else:
            self._submission.add_event(WarningEvent(*arguments))

    def _end(self, result: bytes) -> None:
        submission = self._submission
        if submission.is_background:
            self._keep(submission, result)
        submission.resolve(submission.handle or b"" if submission.is_background else result)
        submission.tell_followers()

    def _fail(self, error: Exception) -> None:
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next  # without our own frame
        text = failure_text(error) if self._worker.exceptions else None
        failure: GeartrainError = JobFailedError() if text is None else JobRaisedError(text)
        failure.__cause__ = error
        self._submission.fail(failure)
        self._submission.tell_followers()


class _EagerDriver(Driver):
    """What ``Client`` asks of a driver, without sockets."""

    def __init__(self, functions: _Functions) -> None:
        self._functions = functions
        self._lock = threading.Lock()

    def ask(self, request: Request[Answer], deadline: float | None, late: Callable[[], GeartrainError]) -> Answer:
        self.send([request])
        return request.outcome()

    def send(
        self, requests: Iterable[Request[Any]], deadline: float | None = None, follower: Follower | None = None
    ) -> None:
        for request in requests:
            if follower is not None:
                request.follow(follower)
            call = self._functions.call(request)
            if call is not None:
                call.run()

    def wait(self, requests: Iterable[Request[Any]], until: Callable[[], bool], deadline: float | None = None) -> bool:
        return until()

    def finish(self, request: Request[Answer], deadline: float | None, late: Callable[[], GeartrainError]) -> Answer:
        return request.outcome()

    def give_up(self, request: Request[Any], error: GeartrainError) -> None:
        pass

    def look(self) -> None:
        pass

    def close(self, error: GeartrainError) -> None:
        pass


class _EagerAsyncDriver(AsyncDriver):
    """What ``AsyncClient`` asks of a driver, without links; its own ways to wait will do."""

    def __init__(self, functions: _Functions) -> None:
        self._functions = functions
        self._tasks: set[asyncio.Task[None]] = set()

    def place(self, *requests: Request[Any], follower: Follower | None = None) -> None:
        for request in requests:
            if follower is not None:
                request.follow(follower)
            call = self._functions.call(request)
            if call is not None:
                task = asyncio.get_running_loop().create_task(call.run_async())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def sent(self, request: Request[Any]) -> None:
        await self.wait(request, lambda: request.done, None)

    def give_up(self, request: Request[Any], error: GeartrainError) -> None:
        if not request.done:
            request.fail(error)
            request.tell_followers()

    async def close(self, error: GeartrainError) -> None:
        await asyncio.gather(*self._tasks)


def _run(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end; where a loop runs already, in a thread beside it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(make())
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(make())).result()
