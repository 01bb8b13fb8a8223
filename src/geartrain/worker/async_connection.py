"""A connection of the asyncio worker to one job server: made, kept, and made again for ever."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from geartrain.errors import ConnectError, GeartrainError, ServerError
from geartrain.link import Address, AsyncLink, Backoff
from geartrain.worker.job import AssignedJob
from geartrain.worker.session import PolicyRefusal, WorkerSession
from geartrain.worker.stall import StallWatch

logger = logging.getLogger("geartrain.worker")


class AsyncConnection:
    """A session and, most of the time, its link.

    ``on_job`` is called for each job that comes, ``on_refusal`` for what the job server refuses, ``on_output`` when
    there may be something to send, ``on_change`` when the connection was made or registered, or lost.
    """

    def __init__(
        self,
        address: Address,
        session: WorkerSession,
        *,
        on_job: Callable[[AsyncConnection, AssignedJob], None],
        on_refusal: Callable[[Address, ServerError | PolicyRefusal], None],
        on_output: Callable[[], None],
        on_change: Callable[[], None],
        connect_within: float,
        send_within: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.address = address
        self.session = session
        self.link: AsyncLink | None = None
        self._on_job = on_job
        self._on_refusal = on_refusal
        self._on_output = on_output
        self._on_change = on_change
        self._connect_within = connect_within
        self._send_within = send_within
        self._tls = tls
        self._backoff = Backoff()
        self._connecting: asyncio.Task[None] | None = None
        self._try_at = 0.0
        self._stall: StallWatch | None = None

    def tick(self, now: float) -> float | None:
        """Do what is due at ``now``; returns when something will be due."""
        if self.link is None or self._stall is None:
            if self._connecting is not None:
                return None
            if now < self._try_at:
                return self._try_at
            self._connecting = asyncio.create_task(self._connect(), name=f"connect to {self.address}")
            return None
        try:
            self._stall.tick(now, is_waiting=self.link.is_full)
            return self.session.tick(now)
        except GeartrainError as error:
            self._drop(error)
            return self._try_at

    def flush(self) -> None:
        """Send what the session has to say."""
        if self.link is not None:
            data = self.session.take()
            if data:
                self.link.send(data)

    def close(self) -> None:
        """End it cleanly."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self.link is not None:
            link, self.link = self.link, None
            link.close()
            self.session.lost()

    def abort(self) -> None:
        """End it at once, so that the jobs at hand go back."""
        if self.link is not None:
            link, self.link = self.link, None
            link.abort()
            self.session.lost()

    def _received(self, data: bytes) -> None:
        if self.link is None:  # given up, but something was still underway
            return
        was_registered = self.session.is_registered
        try:
            events = self.session.receive(data)
        except GeartrainError as error:
            self._drop(error)
            return
        if self.session.is_registered and not was_registered:
            self._backoff.succeeded()
            logger.info("registered at %s", self.address)
            self._on_change()
        for event in events:
            if isinstance(event, AssignedJob):
                self._on_job(self, event)
            else:
                self._on_refusal(self.address, event)
        self._on_output()

    def _lost(self, link: AsyncLink, error: Exception | None) -> None:
        if self.link is link:
            self._drop(error)

    def _drop(self, error: Exception | None) -> None:
        """Give the link up and pause before the next."""
        if self.link is None:
            return
        self.abort()
        pause = self._pause()
        logger.warning("lost %s: %s; next attempt in %.1f s", self.address, error or "it ended the connection", pause)
        self._on_change()

    def _pause(self) -> float:
        pause = self._backoff.failed()
        self._try_at = asyncio.get_running_loop().time() + pause
        return pause

    async def _connect(self) -> None:
        made: list[AsyncLink] = []
        try:
            link = await AsyncLink.connect(
                self.address,
                self._received,
                lambda error: self._lost(made[0], error) if made else None,
                timeout=self._connect_within,
                tls=self._tls,
            )
            if link.closed:
                raise ConnectError(f"{self.address} ended the connection at once")
        except Exception as error:
            first = self._backoff.failures == 0
            pause = self._pause()
            logger.log(logging.WARNING if first else logging.INFO, "%s; next attempt in %.1f s", error, pause)
        else:
            made.append(link)
            self.link = link
            self._stall = StallWatch(link, self.session, self._send_within)
        finally:
            self._connecting = None
        self._on_change()
