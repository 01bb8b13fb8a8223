"""The blocking worker: threads that each grab, run and answer one job, or one batch of jobs, at a time."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import signal
import time
from typing import Self, Unpack

from geartrain.errors import GeartrainError
from geartrain.worker.base import BaseWorker
from geartrain.worker.functions import Function
from geartrain.worker.heartbeat import WorkerProcess
from geartrain.worker.job_thread import JobThread
from geartrain.worker.pool import PoolOptions
from geartrain.worker.signals import leave_signals
from geartrain.worker.soft_limit import Alarms

logger = logging.getLogger("geartrain.worker")

REPORT = 1.0  # seconds between two reports while nothing happens


class Worker(BaseWorker):
    """A worker whose functions may block; see BaseWorker for its settings.

        worker = Worker("127.0.0.1:4730")

        @worker.function("reverse")
        def reverse(job):
            return job.workload[::-1]

        worker.run()

    ``run`` works until it is told to stop by a signal; ``start`` and ``stop``, or a ``with`` block, are for programs
    that do something else meanwhile.
    """

    def _set_up(self) -> None:
        self.threads: tuple[JobThread, ...] = ()
        # Signals to leave, by their numbers, and None for something to report.
        self._events: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    def run(self, *, processes: int | None = None, threads: int = 1, **options: Unpack[PoolOptions]) -> None:
        """Work until SIGTERM or SIGINT: in this process or, with ``processes``, in so many that are supervised.

        Each process has ``threads`` threads, each with a job of its own. The first signal lets the jobs at hand finish
        within ``grace`` seconds; what is not done by then, or at a second signal, is given up and goes back to its job
        server, and SystemExit is raised. For the other options see ``geartrain.worker.pool.PoolOptions``.
        """
        self.check(threads)
        grace = options.get("grace", 30.0)
        jobs = threads * max(one.size for one in self.functions.values())
        self.supervise(lambda process: self._work(process, threads, grace), processes, jobs, options)

    def _work(self, process: WorkerProcess, threads: int, grace: float) -> None:
        """Work in this process; within a supervised one it is for the supervisor to lose its patience."""
        self.process = process
        with leave_signals(self._events.put):
            self.start(threads=threads)
            is_told, give_up_at = False, float("inf")
            while not self.join(0):
                self._report()
                number = None
                with contextlib.suppress(queue.Empty):
                    number = self._events.get(timeout=max(0, min(REPORT, give_up_at - time.monotonic())))
                if number is not None and not is_told:
                    logger.info("%s: finishing the jobs at hand", signal.Signals(number).name)
                    self.stop()
                    is_told = True
                    if process.is_alone:
                        give_up_at = time.monotonic() + grace
                elif number is not None or time.monotonic() >= give_up_at:
                    self._give_up()
                    raise SystemExit(1)

    def _report(self) -> None:
        is_leaving = any(thread.is_leaving for thread in self.threads)
        self.process.heartbeat.report(is_ready=all(thread.is_ready for thread in self.threads), is_leaving=is_leaving)

    def _count_job(self) -> None:
        """Called by each thread after each job."""
        if next(self._jobs_done) == self.process.max_jobs:
            logger.info("%d jobs are done: leaving", self.process.max_jobs)
            self.stop()

    def _give_up(self) -> None:
        busy = [job for thread in self.threads if thread.is_alive() for job in thread.at_hand]
        logger.warning("leaving now, giving up %s", busy or "nothing")
        for thread in self.threads:
            thread.give_up()

    def start(self, *, threads: int = 1) -> None:
        """Begin to work in ``threads`` threads in the background."""
        self.check(threads)
        if not self.join(0):
            raise GeartrainError("this worker is running already")
        if self.process.is_alone:
            self.process = WorkerProcess(slots=threads)
            self.warn_of_hard_limits()
        alarms = Alarms()
        self._jobs_done = itertools.count(1)
        self.threads = tuple(
            JobThread(
                self,
                index,
                self._functions_of(index, threads),
                is_only=threads == 1,
                alarms=alarms,
                on_done=self._count_job,
                on_change=lambda: self._events.put(None),
            )
            for index in range(threads)
        )
        for thread in self.threads:
            thread.start()

    def _functions_of(self, index: int, threads: int) -> list[Function]:
        """A limit on a function's concurrency holds because so many threads, and no more, can do it."""
        return [
            function
            for function in self.functions.values()
            if index < self.process.share(function.limits.concurrency or threads * self.process.processes)
        ]

    def stop(self) -> None:
        """Grab no more jobs and end when those at hand are done; returns at once."""
        for thread in self.threads:
            thread.leave()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all threads have ended, at most ``timeout`` seconds; returns whether they have.

        Raises what ended a thread that did not end cleanly.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self.threads:
            thread.join(None if deadline is None else max(deadline - time.monotonic(), 0))
        for thread in self.threads:
            if thread.error is not None:
                self.stop()
                raise thread.error
        return not any(thread.is_alive() for thread in self.threads)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.join()
