"""The asyncio driver around ``Servers``: links, timers and futures on one loop.

What arrives goes from the link through the session to the future that waits for it within one call; what is sent in
one turn of the loop leaves in one write for each server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from geartrain.client.request import Answer, Follower, Request
from geartrain.client.servers import Server, Servers
from geartrain.errors import ConnectError, ConnectionLostError, GeartrainError
from geartrain.link import Address, AsyncLink


class Connect(Protocol):
    """Makes a link to ``address``."""

    def __call__(
        self, address: Address, on_data: Callable[[bytes], None], on_lost: Callable[[Exception | None], None]
    ) -> Awaitable[AsyncLink]: ...


class Waiter:
    """Somebody who awaits ``future`` until a request is touched."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def touched(self, request: Request[Any]) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Connection:
    """A link on its way between a server and the driver."""

    __slots__ = ("_confirmed", "_driver", "closed", "early", "link", "server")

    def __init__(self, driver: AsyncDriver, server: Server) -> None:
        self._driver = driver
        self.server = server
        self.link: AsyncLink | None = None
        self._confirmed = 0
        self.early = b""  # what came before the driver knew the link
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def notice_sending(self) -> None:
        """Count it as a sign of life that bytes have arrived over there."""
        if self.link is not None and self.server.session is not None and self.link.confirmed != self._confirmed:
            self._confirmed = self.link.confirmed
            self.server.session.moved()

    def on_data(self, data: bytes) -> None:
        if self.link is None:
            self.early += data
        else:
            self._driver.received(self, data)

    def on_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        self._driver.lost(self, error)


class AsyncDriver:
    """Gives ``Servers`` their links and timers on the running loop.

    ``make_servers`` makes their state, at the beginning and when another loop runs (as in a forked child). No
    timer is longer than ``longest_timer`` seconds, which must not be above the time limit of an answer: what is asked
    while one runs is then never looked after too late.
    """

    def __init__(self, make_servers: Callable[[], Servers], connect: Connect, longest_timer: float) -> None:
        self._longest_timer = longest_timer
        self._make_servers = make_servers
        self._connect = connect
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._servers = make_servers()
        self._connections: dict[Address, Connection] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """The time by which deadlines are given."""
        return asyncio.get_running_loop().time()

    def place(self, *requests: Request[Any], follower: Follower | None = None) -> None:
        """Let requests go to their servers, as soon as these are connected; ``follower`` is told of their changes."""
        if self._is_closed:
            raise GeartrainError("the client is closed: make a new one")
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._leave_loop_behind(loop)
        now = loop.time()
        for request in requests:
            if follower is not None:
                request.follow(follower)
            self._servers.place(request, now)
        self._flush()

    async def sent(self, request: Request[Any]) -> None:
        """Wait until ``request`` has gone to a server that takes it."""
        while request.sent_to is None and not request.done:
            await self.wait(request, lambda: request.sent_to is not None or request.done, None)
        connection = self._connections.get(request.sent_to) if request.sent_to is not None else None
        if connection is not None and connection.link is not None and connection.link.is_full:
            await connection.link.drain()

    async def wait(self, request: Request[Any], until: Callable[[], bool], deadline: float | None) -> bool:
        """Wait until ``until()``, which must become true by a change of ``request``; False if it was too late."""
        loop = asyncio.get_running_loop()
        while not until():
            waiter = Waiter(loop.create_future())
            request.follow(waiter)
            try:
                if deadline is None:
                    await waiter.future
                else:
                    async with asyncio.timeout_at(deadline):
                        await waiter.future
            except TimeoutError:
                return until()
            finally:
                request.unfollow(waiter)
        return True

    async def finish(
        self, request: Request[Answer], deadline: float | None, late: Callable[[], GeartrainError]
    ) -> Answer:
        """Wait for the outcome of ``request``; at ``deadline`` it is given up with the error ``late()``."""
        if not request.done and not await self.wait(request, lambda: request.done, deadline):
            self.give_up(request, late())
        return request.outcome()

    def give_up(self, request: Request[Any], error: GeartrainError) -> None:
        """Let go of ``request`` if it is not done."""
        if not request.done:
            self._servers.give_up(request, error)
            self._flush()

    async def close(self, error: GeartrainError) -> None:
        """Close all connections and fail what is open with ``error``; returns when they are closed."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._servers.end(error)
        if asyncio.get_running_loop() is not self._loop:  # then what there was has ended with its loop
            self._connections.clear()
            self._dials.clear()
        closing = [connection.closed for connection in self._connections.values()]
        self._flush()
        for dial in self._dials:
            dial.cancel()
        await asyncio.gather(*closing, *self._dials, return_exceptions=True)

    def received(self, connection: Connection, data: bytes) -> None:
        """Bytes came over ``connection``."""
        if self._is_current(connection):
            self._servers.received(connection.server, data, self.now())
            self._flush()

    def lost(self, connection: Connection, error: Exception | None) -> None:
        """``connection`` has ended."""
        if self._is_current(connection):
            address = connection.server.address
            how = f"broke: {error}" if error is not None else "was closed by the job server"
            self._servers.lost(connection.server, ConnectionLostError(f"the connection to {address} {how}"), self.now())
            self._flush()

    def _is_current(self, connection: Connection) -> bool:
        return self._connections.get(connection.server.address) is connection

    def _leave_loop_behind(self, loop: asyncio.AbstractEventLoop) -> None:
        """What an earlier loop had ended with it."""
        if self._loop is not None:
            self._servers.end(ConnectionLostError("this was asked in another event loop, which has ended"))
            self._servers = self._make_servers()
            self._connections = {}
            self._dials = set()
            self._timer = None
        self._loop = loop

    def _flush(self) -> None:
        """Do what the servers have to be done, and see that they are told the time."""
        servers = self._servers
        while True:
            while servers.to_hang_up or servers.to_dial or servers.to_write or servers.touched:
                self._do_errands(servers)
            if self._is_closed or (self._timer is not None and not servers.has_waiting):
                return
            now = self.now()
            next_tick = servers.tick(now)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if next_tick is not None:
                self._timer = asyncio.get_running_loop().call_at(
                    min(next_tick, now + self._longest_timer), self._time_has_come
                )
            if not (servers.to_hang_up or servers.to_dial or servers.to_write or servers.touched):
                return

    def _do_errands(self, servers: Servers) -> None:
        while servers.to_hang_up:
            connection = self._connections.pop(servers.to_hang_up.pop().address, None)
            if connection is not None and connection.link is not None:
                connection.link.close() if self._is_closed else connection.link.abort()
        while servers.to_dial:
            dial = asyncio.get_running_loop().create_task(self._dial(servers.to_dial.pop(), servers))
            self._dials.add(dial)
            dial.add_done_callback(self._dials.discard)
        while servers.to_write:
            server = servers.to_write.pop()
            link = self._connections[server.address].link
            if server.session is not None and link is not None:
                link.send(server.session.take())
        touched, servers.touched = servers.touched, []
        for request in touched:
            request.tell_followers()

    async def _dial(self, server: Server, servers: Servers) -> None:
        connection = Connection(self, server)
        try:
            link = await self._connect(server.address, connection.on_data, connection.on_lost)
        except GeartrainError as error:
            servers.refused(server, error, self.now())
        except Exception as error:  # whatever it is, requests must not wait for ever
            servers.refused(server, ConnectError(f"no connection to {server.address}: {error!r}"), self.now())
        else:
            if servers is not self._servers or self._is_closed:
                link.abort()
                return
            connection.link = link
            self._connections[server.address] = connection
            servers.connected(server, self.now())
            if connection.early:
                servers.received(server, connection.early, self.now())
            if link.closed:
                self.lost(connection, None)
        self._flush()

    def _time_has_come(self) -> None:
        self._timer = None
        for connection in self._connections.values():
            connection.notice_sending()
        self._flush()
