"""One thread's connection to one job server: made in the background, kept, and made again for ever.

To connect may take as long as a name server and a network like, so it happens in a thread of its own for that moment;
and what the network has no room for waits here until it has. So the job servers that are there are never delayed by one
that is not.
"""

from __future__ import annotations

import logging
import selectors
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable

from geartrain.errors import GeartrainError
from geartrain.link import Address, Backoff, BlockingLink
from geartrain.worker.session import Event, WorkerSession
from geartrain.worker.stall import StallWatch

logger = logging.getLogger("geartrain.worker")


class Connection:
    """A session and, most of the time, its link.

    ``call_soon`` runs a function in the thread that the connection belongs to; ``watch`` is told which events of the
    link (as in ``selectors``) are waited for from now on, none at its end. ``spins`` is for ``receive_soon``.
    """

    def __init__(
        self,
        address: Address,
        session: WorkerSession,
        *,
        call_soon: Callable[[Callable[[], None]], None],
        watch: Callable[[Connection, BlockingLink, int], None],
        connect_within: float,
        send_within: float,
        tls: ssl.SSLContext | None,
        spins: bool,
    ) -> None:
        self.address = address
        self.session = session
        self.link: BlockingLink | None = None
        self._call_soon = call_soon
        self._watch = watch
        self._connect_within = connect_within
        self._send_within = send_within
        self._tls = tls
        self._spins = spins
        self._backoff = Backoff()
        self._is_connecting = False
        self._is_closed = False
        self._try_at = 0.0
        self._unsent: deque[memoryview] = deque()
        self._stall: StallWatch | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is underway here, so that a draining worker may leave."""
        return self.link is None or (self.session.is_idle and not self._unsent)

    def tick(self, now: float) -> float | None:
        """Do what is due at ``now``; returns when something will be due."""
        if self.link is not None and self._stall is not None:
            try:
                self._stall.tick(now, is_waiting=bool(self._unsent))
                return self.session.tick(now)
            except GeartrainError as error:
                self._drop(error)
                return self._try_at
        if self._is_connecting:
            return None
        if now < self._try_at:
            return self._try_at
        self._is_connecting = True
        threading.Thread(target=self._connect, name=f"connect to {self.address}", daemon=True).start()
        return None

    def read(self, *, soon: bool = False) -> list[Event]:
        """What the job server has sent; with ``soon`` this waits a moment for it, as the link does."""
        events: list[Event] = []
        was_registered = self.session.is_registered
        try:
            while self.link is not None:
                data = self.link.receive_soon(spin=self._spins) if soon else self.link.receive_now()
                if data:
                    events += self.session.receive(data)
                elif data is not None:
                    self._drop("it ended the connection")
                if not data or not self.link.has_pending():
                    break
        except GeartrainError as error:
            self._drop(error)
        if self.session.is_registered and not was_registered:
            self._backoff.succeeded()
            logger.info("registered at %s", self.address)
        return events

    def flush(self) -> bool:
        """Send what there is room for; False if the connection was lost by it."""
        link = self.link
        if link is None:
            return True
        was_waiting = bool(self._unsent)
        data = self.session.take()
        try:
            if not was_waiting:
                sent = link.send_now(data) if data else 0
                if sent == len(data):
                    return True
                data = data[sent:]
            if data:
                self._unsent.append(memoryview(data))
            while self._unsent:
                first = self._unsent[0]
                sent = link.send_now(first)
                if sent < len(first):
                    self._unsent[0] = first[sent:]
                    break
                self._unsent.popleft()
        except GeartrainError as error:
            self._drop(error)
            return False
        is_waiting = bool(self._unsent)
        if is_waiting != was_waiting:
            self._watch(self, link, selectors.EVENT_READ | (selectors.EVENT_WRITE if is_waiting else 0))
        return True

    def flush_all(self) -> None:
        """Send what the session has to say, waiting for room as long as anything moves."""
        while self.flush() and self._unsent and self.link is not None and self._stall is not None:
            self.link.wait_to_send(1.0)
            try:
                self._stall.tick(time.monotonic(), is_waiting=True)
            except GeartrainError as error:
                self._drop(error)

    def close(self) -> None:
        """End it cleanly, and for ever."""
        self._is_closed = True
        self._let_go()

    def _drop(self, reason: object) -> None:
        """Give the link up and pause before the next."""
        if self.link is not None:
            self._let_go()
            logger.warning("lost %s: %s; next attempt in %.1f s", self.address, reason, self._pause())

    def _let_go(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            self._watch(self, link, 0)
            link.close()
            self._unsent.clear()
            self.session.lost()

    def _pause(self) -> float:
        pause = self._backoff.failed()
        self._try_at = time.monotonic() + pause
        return pause

    def _connect(self) -> None:
        """In a thread of its own."""
        try:
            link = BlockingLink.connect(self.address, timeout=self._connect_within, tls=self._tls)
        except Exception as error:
            reason = error
            self._call_soon(lambda: self._refused(reason))
        else:
            self._call_soon(lambda: self._connected(link))

    def _refused(self, error: Exception) -> None:
        self._is_connecting = False
        first = self._backoff.failures == 0
        pause = self._pause()
        logger.log(logging.WARNING if first else logging.INFO, "%s; next attempt in %.1f s", error, pause)

    def _connected(self, link: BlockingLink) -> None:
        self._is_connecting = False
        if self._is_closed:
            link.close()
            return
        self.link = link
        self._stall = StallWatch(link, self.session, self._send_within)
        self._watch(self, link, selectors.EVENT_READ)
        self.flush()
