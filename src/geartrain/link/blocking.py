"""The link for blocking code: a socket that one thread may write while another reads.

The socket itself never blocks; who must wait waits in ``poll``, with a time limit of his own. So one thread's limit is
never another's, and a thread that finds no room to write can go on reading meanwhile (``send_now`` and ``wait``).
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import ssl
import threading
import time
from typing import Any, cast

from geartrain.errors import ConnectError, ConnectionLostError, TimedOutError
from geartrain.link.address import Address
from geartrain.link.fork import abandon_when_forked
from geartrain.link.tuning import tune, unconfirmed

READ_SIZE = 64 * 1024  # above 128 KiB the C library fetches and returns pages for each read, which costs more than it
CONNECT_SECONDS = 5.0
SOON_SECONDS = 0.005
# To fall asleep and be woken takes longer than most answers, above all on a virtual machine. So one that is due soon is
# asked for again and again, for as long as nobody else wants the processor or the interpreter's lock; where that was in
# vain, the next ones are slept for.
SPIN_SECONDS = 0.0002
CROWDED_SECONDS = 0.00005  # for one look: somebody else had a turn meanwhile
SLEPT_FOR = 10

_AGAIN = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BlockingLink:
    """A connected byte pipe to one job server; made by ``BlockingLink.connect``.

    One thread may send while another receives. ``close`` may be called by any thread at any time, more than once; a
    thread that waits in ``receive`` then gets ``b""``.
    """

    def __init__(self, address: Address, sock: socket.socket) -> None:
        self.address = address
        self.closed = False
        self._socket = sock
        self._sent = 0
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        # OpenSSL must not be entered by two threads at once; nobody waits while holding this.
        self._tls_lock = threading.Lock()
        self._to_sleep_for = 0  # how many answers are not spun for
        # The descriptor is given back only when nobody waits for it: its number may soon be somebody else's.
        self._gate = threading.Lock()
        self._waiting = 0
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._any = select.poll()
        self._any.register(sock, select.POLLIN | select.POLLOUT)
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)
        abandon_when_forked(self)

    @classmethod
    def connect(
        cls, address: Address, *, timeout: float = CONNECT_SECONDS, tls: ssl.SSLContext | None = None
    ) -> BlockingLink:
        """Connect to ``address``: its name is looked up again, and everything it stands for is tried in turn.

        ``timeout`` is in seconds, for all attempts (and the TLS handshake) together; a host that does not answer uses
        only its share of it. With a ``tls`` context the link is encrypted.

        Raises ConnectError.
        """
        deadline = time.monotonic() + timeout
        try:
            sock = _connect_any(address, deadline)
        except (OSError, UnicodeError) as error:  # the latter for a name that can't be one
            raise ConnectError(f"no job server at {address}: {_reason(error)}") from error
        try:
            tune(sock)
            if tls is not None:
                sock.settimeout(max(deadline - time.monotonic(), 0.001))
                sock = tls.wrap_socket(sock, server_hostname=address.host or "localhost")
            sock.setblocking(False)
        except OSError as error:  # also what ssl raises
            sock.close()
            raise ConnectError(f"no encrypted connection to {address}: {_reason(error)}") from error
        return cls(address, sock)

    def send(self, data: bytes, timeout: float | None = None) -> None:
        """Send all of ``data``, waiting for room as long as it takes, at most ``timeout`` seconds.

        Raises ConnectionLostError, or TimedOutError; after either the link is of no more use, since a part of ``data``
        may have been sent.
        """
        sent = self.send_now(data)
        if sent == len(data):
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        rest = memoryview(data)[sent:]
        while rest:
            left = None if deadline is None else deadline - time.monotonic()
            if not self._poll(self._writable, left):
                raise TimedOutError(f"{self.address} took no more bytes for {timeout} s")
            rest = rest[self.send_now(rest) :]

    def send_now(self, data: bytes | memoryview) -> int:
        """Send what there is room for, without waiting; returns the count of bytes sent.

        Raises ConnectionLostError.
        """
        try:
            if self._is_tls:
                with self._tls_lock:
                    sent = self._socket.send(data)
            else:
                sent = self._socket.send(data)
            self._sent += sent
            return sent
        except _AGAIN:
            return 0
        except (OSError, ValueError) as error:
            raise self._lost(error) from error

    def receive(self, timeout: float | None = None) -> bytes:
        """Wait for bytes, at most ``timeout`` seconds (``None``: for ever), and return what has come.

        Returns ``b""`` when the connection has ended cleanly or by ``close``. Raises TimedOutError when nothing
        came, ConnectionLostError when the connection broke.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        # Decrypted bytes may wait inside the TLS layer, where poll does not see them.
        ready = self._is_tls
        while True:
            if ready or self._poll(self._readable, timeout):
                data = self.receive_now()
                if data is not None:
                    return data
                ready = False
            elif self.closed:
                return b""
            if deadline is not None:
                timeout = deadline - time.monotonic()
                if timeout <= 0:
                    raise TimedOutError(f"nothing came from {self.address} in time")

    def receive_now(self) -> bytes | None:
        """What has come, without waiting: ``None`` for nothing, ``b""`` for the end. Raises ConnectionLostError."""
        try:
            if not self._is_tls:
                return self._socket.recv(READ_SIZE)
            with self._tls_lock:
                return self._socket.recv(READ_SIZE)
        except _AGAIN:
            return None
        except ssl.SSLEOFError:
            return b""
        except (OSError, ValueError) as error:
            if self.closed:
                return b""
            raise self._lost(error) from error

    def receive_soon(self, *, spin: bool = True) -> bytes | None:
        """The same, but waits ``SOON_SECONDS`` for something to come: an answer that is on its way.

        Of several threads that do this at a time none should ``spin``: they take the interpreter's lock in turn.
        """
        data = self._spin() if spin else None
        if data is None and (self.has_pending() or self._poll(self._readable, SOON_SECONDS) or self.closed):
            data = self.receive_now()
        return data

    def _spin(self) -> bytes | None:
        if self._to_sleep_for:
            self._to_sleep_for -= 1
            return None
        if not self._hold():
            return b""
        try:
            began = now = time.monotonic()
            looked_at = math.inf
            while now < began + SPIN_SECONDS and now < looked_at + CROWDED_SECONDS:
                data = self.receive_now()
                if data is not None:
                    return data
                os.sched_yield()
                looked_at, now = now, time.monotonic()
        finally:
            self._release()
        self._to_sleep_for = SLEPT_FOR
        return None

    def has_pending(self) -> bool:
        """Whether the TLS layer holds bytes that ``select`` and ``poll`` do not see."""
        return self._is_tls and not self.closed and cast(ssl.SSLSocket, self._socket).pending() > 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is room to send or something to receive; False if ``timeout`` seconds passed first."""
        return self._poll(self._any, timeout)

    def wait_to_send(self, timeout: float | None = None) -> bool:
        """Wait until there is room to send; False if ``timeout`` seconds passed first."""
        return self._poll(self._writable, timeout)

    @property
    def confirmed(self) -> int:
        """About how many bytes have arrived at the other side's machine; grows as long as anything moves."""
        return self._sent - unconfirmed(self._socket)

    def fileno(self) -> int:
        """The socket's descriptor, for ``select`` and the like; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the connection. Bytes that were sent still arrive."""
        with self._gate:
            if self.closed:
                return
            self.closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes who waits
            if not self._waiting:
                self._socket.close()

    def abandon(self) -> None:
        """Let go of the connection in a forked child, without ending it for the parent."""
        self.closed = True
        with contextlib.suppress(OSError):
            socket.close(self._socket.detach())

    def _poll(self, poll: select.poll, timeout: float | None) -> bool:
        if not self._hold():
            return False
        try:
            ready = poll.poll(None if timeout is None else math.ceil(max(timeout, 0) * 1000))
        finally:
            self._release()
        return bool(ready) and not self.closed

    def _hold(self) -> bool:
        """Keep the descriptor while this thread waits; False if it is given back already."""
        with self._gate:
            if not self.closed:
                self._waiting += 1
            return not self.closed

    def _release(self) -> None:
        with self._gate:
            self._waiting -= 1
            if self.closed and not self._waiting:
                self._socket.close()

    def _lost(self, error: Exception) -> ConnectionLostError:
        what = "it was closed on this side" if self.closed else _reason(error)
        return ConnectionLostError(f"the connection to {self.address} ended: {what}")

    def __enter__(self) -> BlockingLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<BlockingLink to {self.address}{', closed' if self.closed else ''}>"


def _connect_any(address: Address, deadline: float) -> socket.socket:
    if address.path:
        path = "\0" + address.path[1:] if address.path.startswith("@") else address.path
        return _connect_one(socket.AF_UNIX, path, deadline - time.monotonic())
    where: Any  # each family has its own kind of address
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    trouble: OSError = OSError("its name stands for no address")
    for tried, (family, _, _, _, where) in enumerate(found):
        try:
            return _connect_one(family, where, (deadline - time.monotonic()) / (len(found) - tried))
        except OSError as error:
            trouble = error
    raise trouble


def _connect_one(family: int, where: Any, timeout: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(max(timeout, 0.001))
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
