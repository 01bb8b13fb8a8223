"""A waker: a self-pipe that ends another thread's ``poll`` or ``select``."""

from __future__ import annotations

import contextlib
import socket


class Waker:
    """Poll its ``fileno`` for reading: it is ready once ``wake`` was called, until ``reset`` is."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        return self._reader.fileno()

    def wake(self) -> None:
        """May be called by any thread; after ``close`` it does nothing."""
        with contextlib.suppress(OSError):  # it is full, so it is ready already; or it is closed
            self._writer.send(b"\0")

    def reset(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)

    def close(self) -> None:
        self._reader.close()
        self._writer.close()
