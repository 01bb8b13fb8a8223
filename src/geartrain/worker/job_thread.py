"""One thread of a worker, with connections of its own to every job server and room for one job, or for one batch.

It waits for all its servers at once, grabs from whichever has work, runs the job and answers, all in this one thread:
nothing is handed over, so nothing waits for a lock or a queue.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import queue
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from geartrain.link import Address, BlockingLink
from geartrain.link.waker import Waker
from geartrain.worker.attempt import Attempt
from geartrain.worker.base import BaseWorker
from geartrain.worker.batch import Batch, Run
from geartrain.worker.batch_function import BatchFunction
from geartrain.worker.connection import Connection
from geartrain.worker.functions import Function, call_async, call_plain
from geartrain.worker.job import AssignedJob
from geartrain.worker.middleware import Around
from geartrain.worker.session import WorkerSession
from geartrain.worker.slots import Slots
from geartrain.worker.soft_limit import Alarms, limited

logger = logging.getLogger("geartrain.worker")

HEARTBEAT = 1.0  # seconds; the longest a thread waits without a look around
LOOK_EVERY = 0.01  # seconds; how long a thread that gets job after job looks at nothing else


class JobThread(threading.Thread):
    """Thread number ``index`` of ``worker``, able to do ``functions``; ``is_only`` says that there is no other.

    ``on_done`` is called after each job, before its end is sent; ``on_change`` when the thread is registered, or is no
    longer, or ends.
    """

    def __init__(
        self,
        worker: BaseWorker,
        index: int,
        functions: Sequence[Function],
        *,
        is_only: bool,
        alarms: Alarms,
        on_done: Callable[[], None],
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(name=f"geartrain worker {index}", daemon=True)
        self._worker = worker
        self._on_done = on_done
        self._on_change = on_change
        self._alarms = alarms
        self._is_only = is_only
        self.is_leaving = False
        self._jobs: deque[tuple[Connection, AssignedJob]] = deque()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waker = Waker()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._waker, selectors.EVENT_READ, self._woken)
        # A function may let threads of its own speak for its job.
        self._lock = threading.RLock()
        self._runner: asyncio.Runner | None = None
        slot = Slots(1)
        self._batches = [Batch(one, slot) for one in functions if isinstance(one, BatchFunction)]
        single = [one for one in functions if not isinstance(one, BatchFunction)]
        self._batch_of: dict[Connection, Batch] = {}
        self._servers = [self._connections(address, single, slot) for address in worker.addresses]
        self.connections = [connection for server in self._servers for connection in server]
        self._single = [connection for connection in self.connections if connection not in self._batch_of]
        self._looked_around_at = time.monotonic()
        self._was_registered = False
        self.at_hand: Sequence[AssignedJob] = ()  # what runs now
        self.error: BaseException | None = None

    def leave(self) -> None:
        """Finish the job at hand, grab no more, and end. May be called by any thread."""
        self.is_leaving = True
        self.call_soon(self._drain)

    def give_up(self) -> None:
        """End all connections at once, so that the job at hand goes back. May be called by any thread."""
        for connection in self.connections:
            link = connection.link
            if link is not None:
                link.close()

    def call_soon(self, what: Callable[[], None]) -> None:
        """Run ``what`` in this thread, as soon as no job runs."""
        self._inbox.put(what)
        self._waker.wake()

    @property
    def is_ready(self) -> bool:
        """Whether at least one job server knows this thread's functions, and it polls or is busy."""
        is_polling = bool(self.at_hand) or time.monotonic() - self._looked_around_at < 3 * HEARTBEAT
        return self._is_registered() and is_polling and self.is_alive()

    def run(self) -> None:
        try:
            wake_at = 0.0
            while not (self.is_leaving and self._is_idle()):
                wake_at = self._step(wake_at)
        except BaseException as error:
            logger.exception("%s ended by an error", self.name)
            self.error = error
        finally:
            for connection in self.connections:
                connection.close()
            self._woken(0)  # a link may have come about just now
            if self._runner is not None:
                self._runner.close()
            self._selector.close()
            self._waker.close()
            self._on_change()

    def _step(self, wake_at: float) -> float:
        """Wait, read, keep time, run what came; returns when to wake next."""
        now = time.monotonic()
        ready = self._selector.select(min(max(wake_at - now, 0), HEARTBEAT))
        with self._lock:
            for key, events in ready:
                key.data(events)
            now = self._looked_around_at = time.monotonic()
            deadlines = [connection.tick(now) for connection in self.connections]
            deadlines += [batch.tick(now) for batch in self._batches]
            self._flush()
        if self._is_registered() != self._was_registered:
            self._was_registered = not self._was_registered
            self._on_change()
        self._work()
        for batch in self._batches:
            if batch.is_due:
                self._do_batch(batch)
        return min((deadline for deadline in deadlines if deadline is not None), default=now + HEARTBEAT)

    def _work(self) -> None:
        """Run the jobs that have come one by one. While the answer to a grab for such a job is on its way there is room
        for nothing else: it is read as it comes, without a look at what else there is."""
        look_at = self._looked_around_at + LOOK_EVERY
        while True:
            while self._jobs:
                connection, job = self._jobs.popleft()
                self._do(connection, job)
            for connection in self._single:
                if connection.session.is_grabbing:
                    break
            else:
                return
            if time.monotonic() >= look_at:
                return
            with self._lock:
                self._read(connection, soon=True)
                if not self._jobs:
                    self._flush()

    def _is_registered(self) -> bool:
        return any(all(connection.session.is_registered for connection in server) for server in self._servers)

    def _is_idle(self) -> bool:
        return all(connection.is_idle for connection in self.connections)

    def _drain(self) -> None:
        for connection in self.connections:
            connection.session.drain()
        for batch in self._batches:
            batch.drain()

    def _flush(self) -> None:
        is_done = False
        while not is_done:
            is_done = True
            for connection in self.connections:
                if not connection.flush():
                    is_done = False  # it was lost, and another may have taken its slot

    def _woken(self, events: int) -> None:
        self._waker.reset()
        while True:
            try:
                what = self._inbox.get_nowait()
            except queue.Empty:
                return
            what()

    def _read(self, connection: Connection, *, soon: bool = False) -> None:
        """Room to send is used by the flush of every step."""
        batch = self._batch_of.get(connection)
        for event in connection.read(soon=soon):
            if not isinstance(event, AssignedJob):
                self._worker.log_refusal(connection.address, event)
            elif batch is not None:
                batch.add(self._attempt(connection, event))
            else:
                self._jobs.append((connection, event))

    def _connections(self, address: Address, single: Sequence[Function], slot: Slots) -> list[Connection]:
        """One to ``address`` for the functions of one job, and one for each batch."""
        connections = []
        if single or not self._batches:
            connections.append(self._connection(address, self._worker.new_session(single, slot)))
        for batch in self._batches:
            connection = self._connection(address, self._worker.new_session([batch.function], batch.slots))
            self._batch_of[connection] = batch
            connections.append(connection)
        return connections

    def _connection(self, address: Address, session: WorkerSession) -> Connection:
        return Connection(
            address,
            session,
            call_soon=self.call_soon,
            watch=self._watch,
            connect_within=self._worker.connect_within,
            send_within=self._worker.answer_within,
            tls=self._worker.tls,
            spins=self._is_only,
        )

    def _watch(self, connection: Connection, link: BlockingLink, events: int) -> None:
        if not events:
            self._selector.unregister(link)
        elif link in self._selector.get_map():
            self._selector.modify(link, events, self._reader(connection))
        else:
            self._selector.register(link, events, self._reader(connection))

    def _reader(self, connection: Connection) -> Callable[[int], None]:
        def ready(events: int) -> None:
            if events & selectors.EVENT_READ:
                self._read(connection)

        return ready

    # A job, or many.

    def _attempt(self, connection: Connection, job: AssignedJob) -> Attempt:
        session = connection.session

        def post(type: int, *arguments: bytes) -> None:
            with self._lock:
                session.post(job, type, *arguments)
                connection.flush_all()

        return Attempt(self._worker, session, job, post)

    def _do(self, connection: Connection, job: AssignedJob) -> None:
        attempt = self._attempt(connection, job)
        if not attempt.begin():
            return
        self.at_hand = (job,)
        with attempt, Around(self._worker.middleware, job):
            function = attempt.function()
            call = call_async if function.is_async else call_plain
            attempt.result = self._perform(function, functools.partial(call, function, job))
        self._end([attempt])

    def _do_batch(self, batch: Batch) -> None:
        function = batch.function
        with Run(self._worker, function, batch.take()) as run:
            self.at_hand = run.jobs
            if run.jobs:
                self._perform(function, run.call_async if function.is_async else run.call)
        self._end(run.attempts)

    def _end(self, attempts: Sequence[Attempt]) -> None:
        """Say how they ended and, in the same write, ask for more."""
        for _ in attempts:
            self._on_done()
        with self._lock:
            if self.is_leaving:
                self._drain()
            for attempt in attempts:
                attempt.end()
            self._flush()
        self.at_hand = ()

    def _perform(self, function: Function, call: Callable[[], Any]) -> Any:
        """What ``call`` gives, or the coroutine that it gives, within the function's soft limit."""
        limit = function.limits.soft_limit
        if function.is_async:
            if self._runner is None:
                self._runner = asyncio.Runner()
            return self._runner.run(call() if limit is None else limited(limit, call()))
        return call() if limit is None else self._alarms.call(limit, call)
