"""The supervisor: keeps a number of worker processes at work, and does nothing else.

Each process is a fork of this one with its threads or its event loop. The supervisor starts another when one ends,
kills one that is over a hard time limit, asks one to leave that is too old or too large, and answers whether all are
ready. It runs no job, imports nothing and has no threads, so it is there whatever the jobs do.

    SIGTERM, SIGINT   finish the jobs at hand, for at most ``grace`` seconds, and leave; a second one: leave now
    SIGHUP            finish the jobs at hand and start the program again, with its code as it then is
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import uniform
from typing import NoReturn, TypedDict

from geartrain.link import Backoff
from geartrain.systemd import Systemd
from geartrain.worker.heartbeat import WorkerProcess
from geartrain.worker.readiness import ReadyFile, ReadyPort
from geartrain.worker.reload import Sources, restart
from geartrain.worker.signals import LEAVE

logger = logging.getLogger("geartrain.worker")

TICK = 0.25  # seconds between two looks at the processes
SILENCE = 5.0  # seconds after which a process that reports nothing does not count as ready
SHORT_LIFE = 2.0  # seconds; a process that ends sooner without a job is started again with growing pauses
JOB_PAUSE = 0.2  # seconds until a process that a job has ended is replaced
NAMED_JOBS = 5  # of a process that has ended, in the log
LAST_WORDS = 2.0  # seconds from the demand to leave now to the kill


class PoolOptions(TypedDict, total=False):
    """How worker processes are looked after; any of these but ``grace`` brings a supervisor.

    ``grace``
        How many seconds jobs at hand may take to finish after SIGTERM (30).
    ``max_jobs``, ``max_minutes``, ``max_megabytes``
        After so many jobs, at such an age, at such a size of its memory a process finishes its jobs and is replaced.
    ``ready_file``
        The path of a file that exists while all processes are registered and polling.
    ``ready_port``
        A port that answers HTTP requests with 200 while all processes are registered and polling, else with 503.
    ``reload``
        For development: start again when a file of the program changes.
    """

    grace: float
    max_jobs: int | None
    max_minutes: float | None
    max_megabytes: float | None
    ready_file: str | os.PathLike[str] | None
    ready_port: int | None
    reload: bool


def check_options(options: PoolOptions) -> None:
    """Raises TypeError for an option that there is not, ValueError for one that makes no sense."""
    for name, value in options.items():
        if name not in PoolOptions.__annotations__:
            raise TypeError(
                f"a worker has no option {name!r} to run with; it has {', '.join(PoolOptions.__annotations__)}"
            )
        if name.startswith("max_") and isinstance(value, (int, float)) and value <= 0:
            raise ValueError(f"{name} must be above 0, not {value!r}; leave it out for no limit")


@dataclass
class Child:
    """One worker process."""

    pid: int
    process: WorkerProcess
    born_at: float
    old_at: float  # when it is to be replaced
    is_told: bool = False  # to leave
    is_killed: bool = False

    def tell(self) -> None:
        """Tell it to leave: once, when its jobs are done; twice, now."""
        self.is_told = True
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.is_killed = True
        os.kill(self.pid, signal.SIGKILL)

    def megabytes(self) -> float:
        """Its resident memory; 0 where the system does not tell."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
        except OSError:
            return 0.0


class Pool:
    """``processes`` forks that each call ``work``, told which of them they are, and end when it returns.

    ``has_narrow`` says that some function may run only so many times at once in all processes together: then no
    process is replaced before it is gone.
    """

    def __init__(
        self,
        work: Callable[[WorkerProcess], None],
        *,
        processes: int,
        slots: int,
        has_narrow: bool,
        options: PoolOptions,
    ) -> None:
        if processes < 1:
            raise ValueError(f"a worker needs at least one process, not {processes}")
        self._work = work
        self._processes = processes
        self._slots = slots
        self._has_narrow = has_narrow
        self._options = options
        self._children: list[Child] = []
        self._backoff = Backoff(first=0.5)
        self._start_at = 0.0
        self._is_leaving = False
        self._has_given_up = False
        self._leave_now_at = self._kill_at = float("inf")
        self._is_to_restart = False
        self._selector = selectors.DefaultSelector()
        self._wake_us, self._waker = socket.socketpair()
        self._life, self._our_life = os.pipe()  # the children see its end when we are gone, however we went
        self._systemd = Systemd()
        self._watchdog_at = 0.0
        self._was_ready = False
        self._signs: list[ReadyFile | ReadyPort] = []
        self._sources = Sources() if options.get("reload") else None

    def run(self) -> None:
        """Supervise until told to leave; raises SystemExit if jobs had to be given up."""
        with self._signals():
            self._show_readiness()
            try:
                while not self._is_leaving or self._children:
                    self._replace()
                    for key, _ in self._selector.select(TICK):
                        key.data()
                    self._reap()
                    self._look_after(time.monotonic())
            finally:
                for child in self._children:
                    child.kill()
                self._set_ready(False)
                for sign in self._signs:
                    if isinstance(sign, ReadyPort):
                        sign.close()
        if self._is_to_restart:
            restart()
        if self._has_given_up:
            raise SystemExit(1)

    # Processes.

    def _replace(self) -> None:
        """Start as many processes as are missing."""
        while not self._is_leaving and time.monotonic() >= self._start_at:
            counted = [one for one in self._children if self._has_narrow or not one.process.heartbeat.is_leaving]
            if len(counted) >= self._processes:
                return
            taken = {one.process.index for one in counted}
            self._start(min(index for index in range(self._processes) if index not in taken))

    def _start(self, index: int) -> None:
        process = WorkerProcess(index, self._processes, self._slots, self._options.get("max_jobs"), is_alone=False)
        sys.stdout.flush()  # or both of us will
        sys.stderr.flush()
        # What is meant for the child waits until it can listen.
        signal.pthread_sigmask(signal.SIG_BLOCK, LEAVE)
        pid = os.fork()
        if pid == 0:
            self._be_child(process)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, LEAVE)
        now = time.monotonic()
        minutes = self._options.get("max_minutes")
        # Those that were started together need not all leave together.
        old_at = float("inf") if minutes is None else now + minutes * 60 * uniform(0.9, 1.1)
        self._children.append(Child(pid, process, now, old_at))
        logger.info("started process %d", pid)

    def _be_child(self, process: WorkerProcess) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A terminal sends these to all its processes; it is for the supervisor to say what they mean.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self._selector.close()
            self._wake_us.close()
            self._waker.close()
            for sign in self._signs:
                if isinstance(sign, ReadyPort):
                    sign.close()
            os.close(self._our_life)
            grace = self._options.get("grace", 30.0)
            threading.Thread(target=_outlive, args=(self._life, grace), name="geartrain life", daemon=True).start()
            self._work(process)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        """See who has ended."""
        for child in list(self._children):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            self._children.remove(child)
            code = os.waitstatus_to_exitcode(status)
            if code == 0:
                logger.info("process %d has left", pid)
                continue
            how = f"ended with code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
            jobs = child.process.heartbeat.jobs
            if jobs:
                more = f" and {len(jobs) - NAMED_JOBS} more" if len(jobs) > NAMED_JOBS else ""
                how += f" while it did {', '.join(jobs[:NAMED_JOBS])}{more}"
            logger.log(logging.INFO if self._is_leaving else logging.ERROR, "process %d %s", pid, how)
            self._pause_after(child, has_worked=bool(jobs))

    def _pause_after(self, child: Child, *, has_worked: bool) -> None:
        """Wait before the next process, longer and longer if the program can't start.

        If it was a job that ended the process, the next job may be a good one, which must not wait for long.
        """
        now = time.monotonic()
        if has_worked:
            self._start_at = max(self._start_at, now + JOB_PAUSE)
        elif now - child.born_at < SHORT_LIFE:
            self._start_at = now + self._backoff.failed()
        else:
            self._backoff.succeeded()

    # What the supervisor sees to.

    def _look_after(self, now: float) -> None:
        for child in self._children:
            if child.is_killed:
                continue
            if child.process.heartbeat.is_overdue(now):
                jobs = ", ".join(child.process.heartbeat.jobs[:NAMED_JOBS])
                logger.error("process %d is over a hard time limit with %s: killing it", child.pid, jobs)
                child.kill()
            elif not child.is_told:
                self._check_age(child, now)
        if now >= self._leave_now_at:
            self._leave_now()
        if now >= self._kill_at:
            for child in self._children:
                child.kill()
        if self._is_leaving:
            return
        if self._sources is not None and (changed := self._sources.changed(now)):
            logger.info("starting again: %s has changed", ", ".join(changed))
            self._leave(restart=True)
            return
        ready = sum(child.process.heartbeat.is_ready(SILENCE) for child in self._children)
        self._set_ready(ready >= self._processes)
        self._feed_watchdog(now)
        if self._systemd.untold:
            self._systemd.tell()

    def _feed_watchdog(self, now: float) -> None:
        seconds = self._systemd.watchdog_seconds
        if seconds is None or now < self._watchdog_at:
            return
        if all(child.process.heartbeat.is_alive(seconds) for child in self._children):
            self._watchdog_at = now + seconds / 4
            self._systemd.tell(WATCHDOG=1)

    def _check_age(self, child: Child, now: float) -> None:
        limit = self._options.get("max_megabytes")
        if now >= child.old_at:
            logger.info("process %d is old: replacing it", child.pid)
            child.tell()
        elif limit is not None and child.megabytes() > limit:
            logger.info("process %d has grown to %.0f MB: replacing it", child.pid, child.megabytes())
            child.tell()

    def _show_readiness(self) -> None:
        file, port = self._options.get("ready_file"), self._options.get("ready_port")
        if file is not None:
            self._signs.append(ReadyFile(file))
        if port is not None:
            self._signs.append(ReadyPort(port, self._selector))

    def _set_ready(self, is_ready: bool) -> None:
        if is_ready == self._was_ready:
            return
        self._was_ready = is_ready
        for sign in self._signs:
            sign.set(is_ready)
        if is_ready:
            self._systemd.tell(READY=1, STATUS=f"{self._processes} processes are ready")
        else:
            self._systemd.tell(STATUS="not all processes are registered at a job server")

    # Leaving.

    def _leave(self, *, restart: bool = False) -> None:
        self._is_leaving = True
        self._is_to_restart = restart
        self._set_ready(False)
        if not restart:
            self._systemd.tell(STOPPING=1)
        self._leave_now_at = time.monotonic() + self._options.get("grace", 30.0)
        for child in self._children:
            if not child.is_told:  # a second word would mean now
                child.tell()

    def _leave_now(self) -> None:
        self._has_given_up = True
        logger.warning("leaving now: the jobs of %d processes are given up", len(self._children))
        for child in self._children:
            child.tell()
        self._leave_now_at = float("inf")
        self._kill_at = time.monotonic() + LAST_WORDS

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals wake the loop and be taken there; only in the main thread can they be listened to."""
        self._wake_us.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._wake_us, selectors.EVENT_READ, self._take_signals)
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        before_fd = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before_fd)
            for number, action in before.items():
                signal.signal(number, action)
            self._selector.close()
            self._wake_us.close()
            self._waker.close()
            os.close(self._life)
            os.close(self._our_life)

    def _take_signals(self) -> None:
        for number in self._wake_us.recv(1024):
            if number == signal.SIGHUP and not self._is_leaving:
                logger.info("SIGHUP: finishing the jobs at hand, then starting again")
                self._leave(restart=True)
            elif number in (signal.SIGTERM, signal.SIGINT):
                if self._is_leaving and not self._is_to_restart:
                    self._leave_now()
                else:
                    logger.info("%s: finishing the jobs at hand", signal.Signals(number).name)
                    self._leave()


def _outlive(life: int, grace: float) -> None:
    """In a child: when the supervisor is gone, leave as if told to."""
    os.read(life, 1)
    logger.error("the supervisor is gone: finishing the jobs at hand")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os.kill(os.getpid(), signal.SIGTERM)
