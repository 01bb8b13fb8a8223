"""What goes wrong between a client and a job server: a proxy that cuts or holds up connections."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

from servers import RunningServer

RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close() resets the connection


class Proxy:
    """Passes bytes on between clients and a job server, until told otherwise.

    ``cut_after`` so many bytes from the server the connection is reset, in the middle of whatever is underway; it is
    for one connection and then no more. An ``is_frozen`` proxy passes nothing on. ``hang_up`` ends all connections. An
    ``is_slow`` one passes on about two megabytes a second and has little room.
    """

    def __init__(self, server: RunningServer, *, is_slow: bool = False) -> None:
        self.server = server
        self.is_slow = is_slow
        self.listener = socket.socket()
        if is_slow:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.cut_after: int | None = None
        self.is_frozen = False
        self.connections = 0
        self._is_over = False
        self._hangs_up = threading.Event()
        self._other: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def hang_up(self) -> None:
        """End all connections; returns when that is done."""
        self._hangs_up.set()
        while self._hangs_up.is_set():
            self._thread.join(0.005)

    def close(self) -> None:
        self._is_over = True
        self._thread.join(10)
        self._end(*self._clients)
        self.listener.close()

    def _run(self) -> None:
        while not self._is_over:
            if self._hangs_up.is_set():
                self._end(*self._clients)
                self._hangs_up.clear()
            sources = [self.listener] if self.is_frozen else [self.listener, *self._other]
            for source in select.select(sources, [], [], 0.005)[0]:
                if source is self.listener:
                    self._accept()
                elif source in self._other:
                    self._pass_on(source, self._other[source])

    def _accept(self) -> None:
        near = self.listener.accept()[0]
        far = socket.create_connection((self.server.host, self.server.port))
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._other |= {near: far, far: near}
        self._clients.add(near)
        self.connections += 1

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        client = source if source in self._clients else sink
        try:
            data = source.recv(8192 if self.is_slow else 65536)
            if self.is_slow:
                time.sleep(0.004)
            if sink is client and self.cut_after is not None:
                if len(data) >= self.cut_after:
                    sink.sendall(data[: self.cut_after])
                    sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    self.cut_after = None
                    data = b""
                else:
                    self.cut_after -= len(data)
            sink.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._end(client)

    def _end(self, *clients: socket.socket) -> None:
        for client in clients:
            self._clients.remove(client)
            far = self._other.pop(client)
            del self._other[far]
            client.close()
            far.close()


@contextlib.contextmanager
def proxied(server: RunningServer, *, is_slow: bool = False) -> Iterator[Proxy]:
    proxy = Proxy(server, is_slow=is_slow)
    try:
        yield proxy
    finally:
        proxy.close()


@contextlib.contextmanager
def silent_host() -> Iterator[str]:
    """An address that does not answer the attempt to connect: its line of new connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield f"127.0.0.1:{address[1]}"
