"""A bare peer for tests of the daemon: bytes out, packets in."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios
from typing import Self

from geartrain.wire.parser import Packet


class DaemonPeer:
    """One TCP connection to a job server on this machine."""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> Packet:
        """The next packet, with all its arguments."""
        _, type, size = struct.unpack(">4sII", self._read(12))
        return Packet(type, tuple(self._read(size).split(b"\0")) if size else ())

    def is_stuck(self) -> bool:
        """Whether the server has taken nothing for a tenth of a second, and all buffers on the way to it are full."""
        return not select.select([], [self.socket], [], 0.1)[1]

    def unread(self) -> int:
        """How many bytes have arrived and wait to be received."""
        return int(struct.unpack("i", fcntl.ioctl(self.socket, termios.FIONREAD, bytes(4)))[0])

    def is_closed(self) -> bool:
        """Whether the server closes the connection without another byte."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            assert more, "the server hung up"
            data += more
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
