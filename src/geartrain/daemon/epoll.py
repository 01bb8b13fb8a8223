"""The lean transport: an event loop of asyncio whose waiting is done in C, where sockets are served as well.

An ``EpollLoop`` is asyncio's own loop with another selector. While that waits for asyncio's descriptors it serves the
job server's connections (``_epoll.c``): a turn is one wait, one read for each socket that has something, and one write
for each peer that is to get something. It comes back to asyncio when that has something to do.

``EpollConnection`` is the protocol of such a socket, called only for what is out of the ordinary; ``EpollListener``
accepts them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import selectors
import socket
from collections.abc import Callable
from contextvars import Context
from typing import Final, TypeVarTuple, cast

from geartrain.daemon._epoll import Poll, Socket
from geartrain.daemon.connection import Connection, Switchboard

log = logging.getLogger("geartrain.daemon")

ACCEPTED_AT_ONCE: Final = 100  # connections, before others have their turn
RETRY_SECONDS: Final = 1.0  # until it is tried again to accept connections for which there was no room
_Arguments = TypeVarTuple("_Arguments")
_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _Selector(selectors.EpollSelector):
    """asyncio's selector, which serves sockets while it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.poll = Poll(self.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = []
        known = self.get_map()
        for descriptor, event in self.poll.select(timeout):
            if descriptor not in known:  # a socket that has just been closed
                continue
            key = known[descriptor]
            # An error or hang-up is news for whoever waits for anything.
            events = selectors.EVENT_WRITE if event & ~select.EPOLLIN else 0
            events |= selectors.EVENT_READ if event & ~select.EPOLLOUT else 0
            ready.append((key, events & key.events))
        return ready


class EpollLoop(asyncio.SelectorEventLoop):
    """An event loop that also serves the sockets of one daemon."""

    def __init__(self) -> None:
        selector = _Selector()
        self.poll = selector.poll
        super().__init__(selector)

    def open_listener(
        self, listener: socket.socket, backlog: int, begin: Callable[[socket.socket], object]
    ) -> EpollListener:
        """What accepts connections at a bound socket, once it is told to, and gives each to ``begin``."""
        return EpollListener(self, listener, backlog, begin)

    def begin(self, daemon: Switchboard, connected: socket.socket) -> None:
        """Serve a connection to the job server."""
        connected.setblocking(False)
        connection = EpollConnection(daemon)
        transport = self.poll.add(connected.fileno(), connected.family != socket.AF_UNIX)
        failure = None
        try:
            connection.begin(cast(asyncio.Transport, transport), connected)
        except Exception as error:
            failure = error
        connected.detach()  # the transport closes it, or has closed it
        peer = connection.peer
        if peer is not None:
            peer.socket = transport
            transport.start(connection, peer)
        if failure is not None:
            daemon.failed(failure)
            transport.abort()

    def call_soon(
        self, callback: Callable[[*_Arguments], object], *args: *_Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        self.poll.interrupt()
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*_Arguments], object], *args: *_Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self.poll.interrupt()
        return super().call_at(when, callback, *args, context=context)


class EpollConnection(Connection):
    """The protocol of a socket that is served without it, until anything is out of the ordinary."""

    __slots__ = ()

    def watch(self) -> None:
        super().watch()
        direct = not (self.watched or self.full)
        cast(Socket, self.transport).direct = direct
        if self.peer is not None:
            self.peer.socket = self.transport if direct else None


class EpollListener:
    """A listening socket, whose connections are served by the loop."""

    def __init__(
        self, loop: EpollLoop, listener: socket.socket, backlog: int, begin: Callable[[socket.socket], object]
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._backlog = backlog
        self._begin = begin
        self._retry: asyncio.TimerHandle | None = None

    async def start_serving(self) -> None:
        self._listener.setblocking(False)
        self._listener.listen(self._backlog)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connected, _name = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                log.warning("accept_failed", extra={"fields": {"reason": str(error), "again_in": RETRY_SECONDS}})
                self._loop.remove_reader(self._listener)
                self._retry = self._loop.call_later(RETRY_SECONDS, self._go_on)
                return
            self._begin(connected)

    def _go_on(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listener, self._accept)
