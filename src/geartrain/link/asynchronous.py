"""The link for asyncio: a Protocol that hands on bytes as they come and writes once per turn of the loop.

What arrives goes straight to a callback, without a task or a queue in between. What is sent is gathered, and leaves in
one joined write when the loop comes round; a sender of much awaits ``drain`` so that a peer that reads slowly slows
the sender.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import cast

from geartrain.errors import ConnectError
from geartrain.link.address import Address
from geartrain.link.blocking import CONNECT_SECONDS
from geartrain.link.fork import abandon_when_forked
from geartrain.link.tuning import tune, unconfirmed

HIGH_WATER = 1024 * 1024  # unsent bytes above which drain() waits


class AsyncLink(asyncio.Protocol):
    """A connected byte pipe to one job server; made by ``await AsyncLink.connect(...)``."""

    def __init__(
        self, address: Address, on_data: Callable[[bytes], None], on_lost: Callable[[Exception | None], None]
    ) -> None:
        self.address = address
        self.closed = False
        self._on_data = on_data
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._written = 0
        self._is_paused = False
        self._waiters: list[asyncio.Future[None]] = []

    @classmethod
    async def connect(
        cls,
        address: Address,
        on_data: Callable[[bytes], None],
        on_lost: Callable[[Exception | None], None],
        *,
        timeout: float = CONNECT_SECONDS,  # noqa: ASYNC109 - the same words as the blocking link
        tls: ssl.SSLContext | None = None,
    ) -> AsyncLink:
        """Connect to ``address`` within ``timeout`` seconds; its name is looked up again and all it stands for tried.

        From then on ``on_data(data)`` is called for all that arrives and ``on_lost(error)`` once when the connection
        has ended, by whichever side; ``error`` is None where it ended cleanly. With a ``tls`` context the link
        is encrypted.

        Raises ConnectError.
        """
        name = (address.host or "localhost") if tls is not None else None

        def make() -> AsyncLink:
            return cls(address, on_data, on_lost)

        try:
            async with asyncio.timeout(timeout):
                link = await _connect_any(address, make, timeout, tls, name)
        except TimeoutError as error:
            raise ConnectError(f"no job server at {address}: no answer in time") from error
        except (OSError, UnicodeError) as error:  # the latter for a name that can't be one
            reason = getattr(error, "strerror", None) or error
            raise ConnectError(f"no job server at {address}: {reason}") from error
        return link

    def send(self, data: bytes) -> None:
        """Let ``data`` leave at the end of this turn of the loop; after the end of the connection it goes nowhere."""
        if self.closed or not data:
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)
        self._unsent_size += len(data)

    @property
    def is_full(self) -> bool:
        """Whether so much is unsent that a sender should ``await drain()``."""
        return self._is_paused or self._unsent_size > HIGH_WATER

    @property
    def confirmed(self) -> int:
        """About how many bytes have arrived at the other side's machine; grows as long as anything moves."""
        if self._transport is None:
            return 0
        sock: socket.socket | None = self._transport.get_extra_info("socket")
        return self._written - self._transport.get_write_buffer_size() - (0 if sock is None else unconfirmed(sock))

    async def drain(self) -> None:
        """Wait until the peer has taken enough; returns at once when little is unsent or the connection has ended."""
        while self.is_full and not self.closed:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def close(self) -> None:
        """Send what is gathered, then end the connection; ``on_lost`` is called when that is done."""
        if self.closed:
            return
        self._flush()
        self.closed = True
        if self._transport is not None:
            self._transport.close()
        self._release()

    def abort(self) -> None:
        """End the connection at once; what is unsent is dropped."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
        self._release()

    def abandon(self) -> None:
        """Let go of the connection in a forked child, without ending it for the parent."""
        self.closed = True
        sock: socket.socket | None = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is None:
            return
        with contextlib.suppress(OSError, ValueError):
            # Its descriptor stays taken, since the loop will close it by its number.
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, sock.fileno(), inheritable=False)
            os.close(null)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not descend from it
        abandon_when_forked(self)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is not None:
            tune(sock)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        self._on_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._unsent.clear()
        self._release()
        self._on_lost(error)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._release()

    def _flush(self) -> None:
        if self.closed or not self._unsent or self._transport is None:
            return
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        self._unsent.clear()
        self._unsent_size = 0
        self._transport.write(data)
        self._written += len(data)
        if not self._is_paused:
            self._release()

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        return f"<AsyncLink to {self.address}{', closed' if self.closed else ''}>"


async def _connect_any(
    address: Address,
    make: Callable[[], AsyncLink],
    timeout: float,  # noqa: ASYNC109 - shared out among the attempts
    tls: ssl.SSLContext | None,
    name: str | None,
) -> AsyncLink:
    """As the blocking link does it; the loops' own ways to try all addresses of a name differ."""
    loop = asyncio.get_running_loop()
    if address.path:
        path = "\0" + address.path[1:] if address.path.startswith("@") else address.path
        return (await loop.create_unix_connection(make, path, ssl=tls, server_hostname=name))[1]
    deadline = loop.time() + timeout
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    trouble: OSError = OSError("its name stands for no address")
    for tried, (_, _, _, _, where) in enumerate(found):
        host, port = cast(tuple[str, int], where[:2])
        try:
            async with asyncio.timeout((deadline - loop.time()) / (len(found) - tried)):
                return (await loop.create_connection(make, host, port, ssl=tls, server_hostname=name))[1]
        except OSError as error:  # also what a time-out is
            trouble = error
    raise trouble
