"""The blocking worker: threads that each grab, run and answer one job at a time."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
import time
from collections.abc import Iterator

from geartrain.errors import GeartrainError
from geartrain.worker.base import BaseWorker
from geartrain.worker.hand import Hand
from geartrain.worker.soft_limit import Alarms

logger = logging.getLogger("geartrain.worker")


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

    hands: tuple[Hand, ...] = ()

    def run(self, *, threads: int = 1, grace: float = 30.0) -> None:
        """Work with ``threads`` threads until SIGTERM or SIGINT.

        The first signal lets the jobs at hand finish for at most ``grace`` seconds; what is not done by then, or at a
        second signal, is given up and goes back to its job server, and SystemExit is raised.
        """
        with _signals() as signals:
            self.start(threads=threads)
            stop_at = None
            while not self.join(0):
                left = 0.5 if stop_at is None else max(min(stop_at - time.monotonic(), 0.5), 0.01)
                try:
                    number = signals.get(timeout=left)
                except queue.Empty:
                    number = None
                if number is not None and stop_at is None:
                    logger.info("%s: finishing the jobs at hand", signal.Signals(number).name)
                    self.stop()
                    stop_at = time.monotonic() + grace
                elif stop_at is not None and (number is not None or time.monotonic() >= stop_at):
                    busy = [hand.job for hand in self.hands if hand.is_alive() and hand.job is not None]
                    logger.warning("leaving now, giving up %s", busy or "nothing")
                    for hand in self.hands:
                        hand.give_up()
                    raise SystemExit(1)

    def start(self, *, threads: int = 1) -> None:
        """Begin to work in ``threads`` threads in the background."""
        self.check()
        if not self.join(0):
            raise GeartrainError("this worker is running already")
        if threads < 1:
            raise ValueError(f"a worker needs at least one thread, not {threads}")
        functions, alarms = self.functions.values(), Alarms()
        hands = [
            # A limit on a function's concurrency holds because so many hands, and no more, can do it.
            Hand(self, index, [each for each in functions if index < (each.limits.concurrency or threads)], alarms)
            for index in range(threads)
        ]
        self.hands = tuple(hands)
        for hand in hands:
            hand.start()

    def stop(self) -> None:
        """Grab no more jobs and end when those at hand are done; returns at once."""
        for hand in self.hands:
            hand.leave()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all threads have ended, at most ``timeout`` seconds; returns whether they have.

        Raises what ended a thread that did not end in good order.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for hand in self.hands:
            hand.join(None if deadline is None else max(deadline - time.monotonic(), 0))
        for hand in self.hands:
            if hand.error is not None:
                self.stop()
                raise hand.error
        return not any(hand.is_alive() for hand in self.hands)

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.join()


@contextlib.contextmanager
def _signals() -> Iterator[queue.SimpleQueue[int]]:
    """The signals to leave, as they come; only in the main thread can they be listened to."""
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    def note(number: int, _: object) -> None:
        signals.put(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, action in before.items():
            signal.signal(number, action)
