"""Peers for links: a socket that listens, and TLS contexts of a certificate made for the test."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from geartrain.link import Address


@dataclass
class Listener:
    """A listening socket; ``accept`` gives the peer's end of the next connection."""

    sock: socket.socket
    address: Address

    def accept(self) -> socket.socket:
        self.sock.settimeout(10)
        peer = self.sock.accept()[0]
        peer.settimeout(10)
        return peer


@contextlib.contextmanager
def listening(family: int = socket.AF_INET, path: str = "", backlog: int = 16) -> Iterator[Listener]:
    with socket.socket(family) as sock:
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        sock.bind(path or (host, 0))
        sock.listen(backlog)
        address = Address(path=path) if path else Address(host, sock.getsockname()[1])
        yield Listener(sock, address)


def received(peer: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes of what the peer gets, or all until the end."""
    data = b""
    while len(data) < size and (more := peer.recv(size - len(data))):
        data += more
    return data


@contextlib.contextmanager
def silent_host() -> Iterator[tuple[str, int]]:
    """An address that does not answer the attempt to connect: its line of new connections is full."""
    with listening(backlog=0) as listener, contextlib.ExitStack() as stack:
        where = ("127.0.0.1", listener.address.port)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(where)
        yield where
