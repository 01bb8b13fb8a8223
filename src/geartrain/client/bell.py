"""A bell that wakes a thread from ``poll``."""

from __future__ import annotations

import contextlib
import socket


class Bell:
    """Poll its ``fileno`` for reading: it is ready once ``ring`` was called, until ``silence`` is."""

    def __init__(self) -> None:
        self._ear, self._hammer = socket.socketpair()
        self._ear.setblocking(False)
        self._hammer.setblocking(False)

    def fileno(self) -> int:
        return self._ear.fileno()

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it rings already
            self._hammer.send(b"!")

    def silence(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(4096)

    def close(self) -> None:
        self._ear.close()
        self._hammer.close()
