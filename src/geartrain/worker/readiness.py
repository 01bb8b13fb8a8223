"""The readiness answer for what starts and watches the worker: a file that is there, or a port that says yes.

Both are true only while every process of the worker is registered at a job server and polling.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections import deque
from pathlib import Path

_MAX_PROBES = 32  # at once; an older one that still has not asked is cut off


class ReadyFile:
    """A file that exists while the worker is ready."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self.set(False)

    def set(self, is_ready: bool) -> None:
        if is_ready:
            self._path.write_text("ready\n")
        else:
            self._path.unlink(missing_ok=True)


class ReadyPort:
    """A port that answers any HTTP request with 200 while the worker is ready, else with 503.

    It listens on all addresses of the machine and is driven by ``selector``, whose keys hold what to call.
    """

    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self._is_ready = False
        self._selector = selector
        self._probes: deque[socket.socket] = deque()
        if socket.has_dualstack_ipv6():
            self._listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            self._listener = socket.create_server(("", port))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def set(self, is_ready: bool) -> None:
        self._is_ready = is_ready

    def close(self) -> None:
        """Close all sockets, without touching the selector: in a forked child it is the parent's."""
        for probe in self._probes:
            probe.close()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            probe, _ = self._listener.accept()
            probe.setblocking(False)
            self._selector.register(probe, selectors.EVENT_READ, lambda: self._answer(probe))
            self._probes.append(probe)
            if len(self._probes) > _MAX_PROBES:
                self._end(self._probes[0])

    def _answer(self, probe: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if probe.recv(4096):
                status, body = ("200 OK", "ready\n") if self._is_ready else ("503 Service Unavailable", "not ready\n")
                head = f"HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
                probe.send((head + body).encode())
        self._end(probe)

    def _end(self, probe: socket.socket) -> None:
        self._selector.unregister(probe)
        self._probes.remove(probe)
        probe.close()
