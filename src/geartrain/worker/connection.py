"""One thread's connection to one job server: made in the background, kept, and made anew for ever.

To connect may take as long as a name server and a network like, so it happens in a thread of its own for that moment,
and the job servers that are there are never delayed by one that is not.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable

from geartrain.errors import GeartrainError, ServerError
from geartrain.link import Address, Backoff, BlockingLink
from geartrain.worker.job import AssignedJob
from geartrain.worker.session import WorkerSession

logger = logging.getLogger("geartrain.worker")


class Connection:
    """A session and, most of the time, its link.

    ``call_soon`` runs a function in the thread that the connection belongs to; ``watch`` is told of each new link, and
    of its end.
    """

    def __init__(
        self,
        address: Address,
        session: WorkerSession,
        *,
        call_soon: Callable[[Callable[[], None]], None],
        watch: Callable[[Connection, BlockingLink, bool], None],
        connect_within: float,
        send_within: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.address = address
        self.session = session
        self.link: BlockingLink | None = None
        self._watch = watch
        self._call_soon = call_soon
        self._connect_within = connect_within
        self._send_within = send_within
        self._tls = tls
        self._backoff = Backoff()
        self._is_connecting = False
        self._try_at = 0.0

    def tick(self, now: float) -> float | None:
        """Do what is due at ``now``; returns when something will be due."""
        if self.link is not None:
            try:
                return self.session.tick(now)
            except GeartrainError as error:
                self.drop(error)
                return self._try_at
        if self._is_connecting:
            return None
        if now < self._try_at:
            return self._try_at
        self._is_connecting = True
        threading.Thread(target=self._connect, name=f"connect to {self.address}", daemon=True).start()
        return None

    def read(self) -> list[AssignedJob | ServerError]:
        """What the job server has sent; to be called when the link is readable."""
        if self.link is None:
            return []
        try:
            data = self.link.receive_now()
            if data is None:
                return []
            if data:
                was_registered = self.session.is_registered
                events = self.session.receive(data)
                if self.session.is_registered and not was_registered:
                    self._backoff.succeeded()
                    logger.info("registered at %s", self.address)
                return events
            self.drop(None)
        except GeartrainError as error:
            self.drop(error)
        return []

    def flush(self) -> bool:
        """Send what the session has to say, waiting for room if need be; False if the connection was lost by it."""
        if self.link is None:
            return True
        data = self.session.take()
        if data:
            try:
                self.link.send(data, self._send_within)
            except GeartrainError as error:
                self.drop(error)
                return False
        return True

    def drop(self, error: GeartrainError | None) -> None:
        """Give the link up and pause before the next."""
        link, self.link = self.link, None
        if link is None:
            return
        self._watch(self, link, False)
        link.close()
        self.session.lost()
        pause = self._pause()
        logger.warning("%s; next attempt in %.1f s", error or f"{self.address} ended the connection", pause)

    def close(self) -> None:
        """End it in good order."""
        if self.link is not None:
            self._watch(self, self.link, False)
            self.link.close()
            self.link = None
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
        self.link = link
        self._watch(self, link, True)
        self.flush()
