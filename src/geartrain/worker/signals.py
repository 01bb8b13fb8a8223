"""The signals that tell a worker to leave: the first to finish the jobs at hand, the second to go now."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

LEAVE = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def leave_signals(told: Callable[[int], object]) -> Iterator[None]:
    """Have ``told`` called with the number of each signal to leave, between two steps of the main thread.

    Only the main thread can listen; elsewhere nothing happens. A signal that is ignored stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in LEAVE}
    heard = [number for number in LEAVE if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, lambda number, _: told(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)  # a supervisor holds them back until here
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
