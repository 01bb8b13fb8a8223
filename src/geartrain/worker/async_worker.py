"""The asyncio worker: one event loop in which many jobs are underway at once.

An ``async def`` runs as a task of the loop, a plain function in a thread beside it. All jobs share one connection to
each job server (and one more for each function with a concurrency of its own and for each batch, since a grab can't say
which function it is for); what many jobs have to say in one turn of the loop leaves in one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from types import AsyncGeneratorType
from typing import Any, Self, Unpack

from geartrain.errors import GeartrainError
from geartrain.worker.async_connection import AsyncConnection
from geartrain.worker.attempt import Attempt
from geartrain.worker.base import BaseWorker
from geartrain.worker.batch import Batch, Run
from geartrain.worker.batch_function import BatchFunction
from geartrain.worker.fork import OneProcess
from geartrain.worker.functions import Function, call_plain
from geartrain.worker.heartbeat import WorkerProcess
from geartrain.worker.job import AssignedJob
from geartrain.worker.middleware import Around
from geartrain.worker.pool import PoolOptions
from geartrain.worker.signals import leave_signals
from geartrain.worker.slots import Slots
from geartrain.worker.soft_limit import Alarms, limited
from geartrain.worker.threads import Threads

logger = logging.getLogger("geartrain.worker")

HEARTBEAT = 1.0  # seconds; the longest the worker waits without a look around


class AsyncWorker(BaseWorker):
    """A worker on asyncio; see BaseWorker for its settings, and Worker for the words that both know.

        worker = AsyncWorker("127.0.0.1:4730")

        @worker.function()
        async def fetch(url: str) -> int:
            ...

        worker.run(concurrency=200)

    Within a program that has an event loop already: ``async with worker: ...``, or ``await worker.start()``,
    ``worker.stop()`` and ``await worker.join()``.
    """

    def _set_up(self) -> None:
        self._is_running = False

    def run(self, *, processes: int | None = None, concurrency: int = 100, **options: Unpack[PoolOptions]) -> None:
        """Work until SIGTERM or SIGINT: in this process or, with ``processes``, in so many that are supervised.

        Each process has an event loop of its own (uvloop's where that is installed) with up to ``concurrency`` jobs
        underway. The first signal lets the jobs at hand finish within ``grace`` seconds; what is not done by then, or
        at a second signal, is given up and goes back to its job server, and SystemExit is raised. For the other
        options see ``geartrain.worker.pool.PoolOptions``.
        """
        self.check(concurrency)
        grace = options.get("grace", 30.0)
        more = sum((one.size - 1) * (one.limits.concurrency or 1) for one in self.functions.values())
        self.supervise(lambda process: self._work(process, concurrency, grace), processes, concurrency + more, options)

    def _work(self, process: WorkerProcess, concurrency: int, grace: float) -> None:
        """Work in this process; within a supervised one it is for the supervisor to lose its patience."""
        self.process = process
        with asyncio.Runner(loop_factory=_uvloop()) as runner:
            if not runner.run(self._run(concurrency, grace if process.is_alone else None)):
                if not process.is_alone:
                    os._exit(1)  # no job's refusal to be cancelled must hold us back
                raise SystemExit(1)

    async def start(self, *, concurrency: int = 100) -> None:
        """Begin to work in the running event loop, with up to ``concurrency`` jobs underway."""
        self.check(concurrency)
        if self._is_running:
            raise GeartrainError("this worker is running already")
        if self.process.is_alone:
            self.warn_of_hard_limits()
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._jobs: dict[asyncio.Task[None], Sequence[AssignedJob]] = {}
        self._threads = Threads(self._loop)
        self._alarms = Alarms()
        self._jobs_done = 0
        self._is_running = True
        self.is_leaving = False
        self._is_flushing = False
        self._batches: list[Batch] = []
        self.connections = self._connections(concurrency)
        self._keeper = self._loop.create_task(self._keep_time(), name="geartrain worker")

    def stop(self) -> None:
        """Grab no more jobs and end when those at hand are done; returns at once. May be called by any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, so the worker has
            self._loop.call_soon_threadsafe(self._leave)

    async def join(self) -> None:
        """Wait until the worker has ended after ``stop``."""
        await asyncio.shield(self._keeper)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        await self.join()

    @property
    def is_ready(self) -> bool:
        """Whether at least one job server knows all that this worker can do."""
        return any(
            all(one.session.is_registered for one in self.connections if one.address == address)
            for address in self.addresses
        )

    @property
    def jobs(self) -> list[AssignedJob]:
        """The jobs that are underway."""
        return [job for jobs in self._jobs.values() for job in jobs]

    async def _run(self, concurrency: int, grace: float | None) -> bool:
        """Work until a signal; returns whether all jobs could finish."""
        signals: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        with leave_signals(lambda number: loop.call_soon_threadsafe(signals.put_nowait, number)):
            await self.start(concurrency=concurrency)
            signalled = loop.create_task(signals.get())
            await asyncio.wait((self._keeper, signalled), return_when=asyncio.FIRST_COMPLETED)
            if not self._keeper.done():
                logger.info("%s: finishing the jobs at hand", signal.Signals(signalled.result()).name)
                self._leave()
                signalled = loop.create_task(signals.get())
                await asyncio.wait((self._keeper, signalled), timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            signalled.cancel()
            if self._keeper.done():
                self._keeper.result()
                return True
            logger.warning("leaving now, giving up %s", self.jobs or "nothing")
            self._give_up()
            return False

    # The conversation with the job servers.

    def _connections(self, concurrency: int) -> list[AsyncConnection]:
        """For each job server one connection for most functions, one for each with a limit of its own, and one for each
        batch that may run."""
        slots = Slots(concurrency)
        groups: list[tuple[list[Function], Slots, Callable[[AsyncConnection, AssignedJob], None]]] = []
        unlimited: list[Function] = []
        for function in self.functions.values():
            limit = function.limits.concurrency
            if isinstance(function, BatchFunction):
                for _ in range(self.process.share(limit or self.process.processes)):
                    batch = Batch(function, slots)
                    self._batches.append(batch)
                    groups.append(([function], batch.slots, functools.partial(self._add_to_batch, batch)))
            elif limit is None:
                unlimited.append(function)
            else:
                groups.append(([function], Slots(self.process.share(limit), within=slots), self._start_job))
        if unlimited:
            groups.insert(0, (unlimited, slots, self._start_job))
        return [
            AsyncConnection(
                address,
                self.new_session(functions, own_slots),
                on_job=on_job,
                on_refusal=self.log_refusal,
                on_output=self._flush_soon,
                on_change=self._changed.set,
                connect_within=self.connect_within,
                send_within=self.answer_within,
                tls=self.tls,
            )
            for functions, own_slots, on_job in groups
            if own_slots.count
            for address in self.addresses
        ]

    async def _keep_time(self) -> None:
        """Look after the connections until the worker is to end and has nothing more to do."""
        try:
            while not (self.is_leaving and self._is_idle()):
                self._changed.clear()
                now = self._loop.time()
                deadlines = [connection.tick(now) for connection in self.connections]
                deadlines += [batch.tick(now) for batch in self._batches]
                self._flush()
                self.process.heartbeat.report(is_ready=self.is_ready, is_leaving=self.is_leaving)
                wake_at = min((one for one in deadlines if one is not None), default=now + HEARTBEAT)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(min(wake_at, now + HEARTBEAT)):
                        await self._changed.wait()
        finally:
            for connection in self.connections:
                connection.close()
            self._threads.close()
            self._is_running = False

    def _is_idle(self) -> bool:
        return not self._jobs and all(one.link is None or one.session.is_idle for one in self.connections)

    def _leave(self) -> None:
        self.is_leaving = True
        for connection in self.connections:
            connection.session.drain()
        for batch in self._batches:
            batch.drain()
        self._changed.set()

    def _give_up(self) -> None:
        for connection in self.connections:
            connection.abort()
        for task in self._jobs:
            task.cancel()

    def _flush_soon(self) -> None:
        """Send at the end of this turn of the loop, all that was said in it at once."""
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)
        if self.is_leaving:
            self._changed.set()

    def _flush(self) -> None:
        self._is_flushing = False
        for batch in self._batches:
            if batch.is_due:
                self._start_batch(batch)
        for connection in self.connections:
            connection.flush()

    # Jobs.

    def _start_job(self, connection: AsyncConnection, job: AssignedJob) -> None:
        self._start(self._do(connection, job), (job,))

    def _start(self, work: Coroutine[Any, Any, None], jobs: Sequence[AssignedJob]) -> None:
        task = self._loop.create_task(work)
        self._jobs[task] = jobs
        task.add_done_callback(self._job_ended)

    def _job_ended(self, task: asyncio.Task[None]) -> None:
        del self._jobs[task]
        if self.is_leaving:
            self._changed.set()

    def _attempt(self, connection: AsyncConnection, job: AssignedJob) -> Attempt:
        session = connection.session

        def post(type: int, *arguments: bytes) -> None:
            session.post(job, type, *arguments)
            self._flush_soon()

        return Attempt(self, session, job, post)

    async def _do(self, connection: AsyncConnection, job: AssignedJob) -> None:
        attempt = self._attempt(connection, job)
        if not attempt.begin():
            return
        with attempt, Around(self.middleware, job):
            function = attempt.function()
            perform = self._perform if function.is_async else self._perform_in_thread
            attempt.result = await perform(connection, function, attempt)
        self._end([attempt])

    def _end(self, attempts: Sequence[Attempt]) -> None:
        """Say how they ended and, in the same write, ask for more."""
        for _ in attempts:
            self._count_job()
        for attempt in attempts:
            attempt.end()
        self._flush_soon()

    def _count_job(self) -> None:
        self._jobs_done += 1
        if self._jobs_done == self.process.max_jobs:
            logger.info("%d jobs are done: leaving", self._jobs_done)
            self._leave()

    async def _perform(self, connection: AsyncConnection, function: Function, attempt: Attempt) -> bytes:
        job = attempt.job
        with OneProcess(job):
            value = function.start(job)
            if isinstance(value, AsyncGeneratorType):
                value = _send_all(connection, function, job, value)
            limit = function.limits.soft_limit
            return function.encode_result(await (value if limit is None else limited(limit, value)))

    async def _perform_in_thread(self, connection: AsyncConnection, function: Function, attempt: Attempt) -> bytes:
        self._let_threads_post(connection, attempt)
        result: bytes = await self._call_in_thread(function, functools.partial(call_plain, function, attempt.job))
        return result

    def _call_in_thread(self, function: Function, call: Callable[[], Any]) -> asyncio.Future[Any]:
        limit = function.limits.soft_limit
        return self._threads.call(call if limit is None else functools.partial(self._alarms.call, limit, call))

    def _let_threads_post(self, connection: AsyncConnection, attempt: Attempt) -> None:
        post = attempt.post

        async def post_and_drain(*arguments: Any) -> None:
            post(*arguments)
            await _drain(connection)

        def post_from_thread(*arguments: Any) -> None:
            asyncio.run_coroutine_threadsafe(post_and_drain(*arguments), self._loop).result()

        attempt.post = post_from_thread

    # Batches of them.

    def _add_to_batch(self, batch: Batch, connection: AsyncConnection, job: AssignedJob) -> None:
        attempt = self._attempt(connection, job)
        if not batch.function.is_async:
            self._let_threads_post(connection, attempt)
        batch.add(attempt)
        self._changed.set()  # it is for the keeper of time to see it wait

    def _start_batch(self, batch: Batch) -> None:
        attempts = batch.take()
        self._start(self._do_batch(batch.function, attempts), [one.job for one in attempts])

    async def _do_batch(self, function: BatchFunction[Any, Any, Any], attempts: Sequence[Attempt]) -> None:
        with Run(self, function, attempts) as run:
            if run.jobs and function.is_async:
                limit = function.limits.soft_limit
                await (run.call_async() if limit is None else limited(limit, run.call_async()))
            elif run.jobs:
                await self._call_in_thread(function, run.call)
        self._end(run.attempts)


async def _send_all(
    connection: AsyncConnection, function: Function, job: AssignedJob, parts: AsyncGeneratorType[Any, Any]
) -> None:
    """Send what a generator yields, no faster than the job server takes it."""
    async for part in parts:
        job.send(function.encode_part(part))
        await _drain(connection)


async def _drain(connection: AsyncConnection) -> None:
    connection.flush()
    link = connection.link
    if link is not None and link.is_full:
        await link.drain()


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
