"""The batch: jobs of one function that are run together, from the first that comes to the end of the last.

    open ──size jobs are here, or the first is ``wait`` old──► closed ──every grab is answered──► due ──► running ─┐
     ▲                                                                                                             │
     └───────────────────────────────────────────── the last job has ended ────────────────────────────────────────┘

A batch function has a connection of its own to each job server, since a grab can't say which function it is for. The
sessions on them grab as slots allow: as many as fit while the batch is open, none while it is closed. All of it takes
one slot among the others of its worker, so a worker holds no job that waits for another call.

NO_JOB does not close a batch: ``wait`` is for jobs that are still to come, and the NOOP that tells of one leads to the
next grab. What was grabbed for is awaited before the batch runs, so that nothing comes too late for it and has
to wait for the next.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from geartrain.worker.attempt import Attempt
from geartrain.worker.batch_function import BatchFunction, Row
from geartrain.worker.fork import OneProcess
from geartrain.worker.job import AssignedJob
from geartrain.worker.middleware import Around
from geartrain.worker.slots import BatchSlots, Slots

if TYPE_CHECKING:
    from geartrain.worker.base import BaseWorker


class Batch:
    """The jobs of one call of ``function``, which takes one slot of those ``within``; sessions grab with ``slots``."""

    def __init__(self, function: BatchFunction[Any, Any, Any], within: Slots) -> None:
        self.function = function
        self.slots = BatchSlots(function.size, within)
        self._wait = function.wait
        self._since: float | None = None  # when the first job was seen
        self._attempts: list[Attempt] = []

    def add(self, attempt: Attempt) -> None:
        """A job has come."""
        self._attempts.append(attempt)
        if len(self._attempts) == self.slots.count:
            self.slots.is_closed = True

    def tick(self, now: float) -> float | None:
        """Let the time be ``now``; returns when to be told it again."""
        if self.slots.is_closed or not self._attempts:
            return None
        if self._since is None:
            self._since = now
        close_at = self._since + self._wait
        if now < close_at:
            return close_at
        self.slots.is_closed = True
        return None

    def drain(self) -> None:
        """No more jobs will come."""
        self._wait = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is to be run now."""
        return self.slots.is_closed and 0 < len(self._attempts) == self.slots.used

    def take(self) -> list[Attempt]:
        """The jobs of the batch that is due; those that follow are of the next."""
        attempts, self._attempts, self._since = self._attempts, [], None
        return attempts


class Run:
    """One call of ``function`` for the jobs of one batch, each with its own middleware, arguments and end.

        with Run(worker, function, batch.take()) as run:
            if run.jobs:
                run.call()
        for attempt in run.attempts:
            attempt.end()

    Within the context nothing is raised: what the function raised is how each job ends.
    """

    def __init__(self, worker: BaseWorker, function: BatchFunction[Any, Any, Any], attempts: Sequence[Attempt]) -> None:
        self._worker = worker
        self._function = function
        self.attempts = [one for one in attempts if one.begin()]  # all but those whose connection has ended
        self.jobs: list[AssignedJob] = []  # those that the call is for
        self._rows: list[Row] = []
        self._steps: list[Generator[Row, Any, None]] = []
        self._outcomes: Sequence[Any] = ()

    def __enter__(self) -> Run:
        for attempt in self.attempts:
            steps = self._around(attempt)
            row = next(steps, None)
            if row is not None:
                self.jobs.append(attempt.job)
                self._rows.append(row)
                self._steps.append(steps)
        return self

    def call(self) -> None:
        """Call a function that is not async."""
        with OneProcess(self.jobs[0]):
            self._outcomes = self._function.outcomes(self._function.call(self._rows), len(self._rows))

    async def call_async(self) -> None:
        """Call one that is."""
        with OneProcess(self.jobs[0]):
            self._outcomes = self._function.outcomes(await self._function.call(self._rows), len(self._rows))

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        outcomes = self._outcomes if error is None else [error] * len(self._steps)
        for steps, outcome in zip(self._steps, outcomes, strict=True):
            frames = getattr(outcome, "__traceback__", None)
            with contextlib.suppress(StopIteration):
                steps.send(outcome)
            if isinstance(outcome, BaseException):  # one may be that of many jobs, each of which would add our frames
                outcome.__traceback__ = frames
        return True

    def _around(self, attempt: Attempt) -> Generator[Row, Any, None]:
        """The steps around one job; gives its arguments, if it is to be run, and is sent its outcome."""
        with attempt, Around(self._worker.middleware, attempt.job):
            attempt.function()  # raises what keeps the job from being run
            outcome = yield self._function.row(attempt.job)
            attempt.result = self._function.encode_outcome(outcome)
