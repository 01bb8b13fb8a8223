"""The blocking driver around ``Servers``: sockets, threads that wait, and no thread of its own.

A thread that waits reads for all. The first thread that has to wait becomes the *leader*: it polls every connection and
hands what arrives to the session it belongs to; threads that come to wait meanwhile are *followers* and sleep until
something touches a request of theirs. A leader that has what it wanted wakes a follower to lead after it. So a lone
thread pays for no switch of threads, and a thousand threads never read the same socket.

Everything but the waiting happens under one lock, and nothing that waits does so while holding it. Connections are made
by short-lived threads, so that a server which can't be reached, or a name that can't be looked up, holds up nobody.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from geartrain.client.connection import Connection
from geartrain.client.request import Answer, Follower, Request
from geartrain.client.servers import Server, Servers
from geartrain.errors import ConnectError, ConnectionLostError, GeartrainError
from geartrain.link import Address, BlockingLink
from geartrain.link.blocking import SOON_SECONDS
from geartrain.link.waker import Waker

IDLE_SECONDS = 0.02  # a connection not read for so long may have ended unseen


class Sleeper:
    """A thread that sleeps until a request it follows is touched, or it is its turn to lead."""

    __slots__ = ("_signal",)

    def __init__(self) -> None:
        self._signal = threading.Lock()
        self._signal.acquire()

    def touched(self, request: Request[Any]) -> None:
        self.wake()

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is awake already
            self._signal.release()

    def sleep(self, seconds: float | None) -> None:
        self._signal.acquire(timeout=-1 if seconds is None else max(seconds, 0))


class Driver:
    """Gives ``Servers`` their sockets, and waits.

    ``make_servers`` makes their state, at the beginning and in a forked child; ``connect`` makes a link. No poll
    lasts longer than ``longest_poll`` seconds, which must not be above the time limit of an answer.
    """

    def __init__(
        self, make_servers: Callable[[], Servers], connect: Callable[[Address], BlockingLink], longest_poll: float
    ) -> None:
        self._longest_poll = longest_poll
        self._make_servers = make_servers
        self._connect = connect
        self._fork_lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._is_closed = False
        self._lock = threading.Lock()
        self._servers = self._make_servers()
        self._connections: dict[Address, Connection] = {}
        self._by_fileno: dict[int, Connection] = {}
        self._poll = select.poll()
        self._waker: Waker | None = None  # wakes the leader; made for the first connection
        self._is_led = False
        self._is_answer_due = False  # as far as can be told; a job may take any time
        self._sleepers: dict[Sleeper, None] = {}

    # What the client asks for. Each method takes the lock, and gives it back while it waits.

    def ask(self, request: Request[Answer], deadline: float | None, late: Callable[[], GeartrainError]) -> Answer:
        """Send ``request`` and wait for its outcome; at ``deadline`` it is given up with the error ``late()``."""
        self._leave_parent_behind()
        with self._lock:
            self._place((request,), None)
            if self._is_led and not self._are_sent((request,)):
                self._wake_leader()
            return self._finish(request, deadline, late)

    def send(
        self, requests: Iterable[Request[Any]], deadline: float | None = None, follower: Follower | None = None
    ) -> None:
        """Send requests; returns when the network has them or, at the latest, at ``deadline``.

        ``follower`` is told of all their changes.
        """
        self._leave_parent_behind()
        with self._lock:
            asked = tuple(requests)
            self._place(asked, follower)
            if not self._are_sent(asked):
                self._wake_leader()
                self._wait(asked, lambda: self._are_sent(asked), deadline)

    def wait(self, requests: Iterable[Request[Any]], until: Callable[[], bool], deadline: float | None = None) -> bool:
        """Wait until ``until()``, which must become true by a change of ``requests``; False if it was too late."""
        self._leave_parent_behind()
        with self._lock:
            return self._wait(tuple(requests), until, deadline)

    def finish(self, request: Request[Answer], deadline: float | None, late: Callable[[], GeartrainError]) -> Answer:
        """Wait for the outcome of ``request``; at ``deadline`` it is given up with the error ``late()``."""
        self._leave_parent_behind()
        with self._lock:
            return self._finish(request, deadline, late)

    def give_up(self, request: Request[Any], error: GeartrainError) -> None:
        """Let go of ``request`` if it is not done."""
        self._leave_parent_behind()
        with self._lock:
            self._servers.give_up(request, error)
            self._flush()

    def look(self) -> None:
        """Take in what has arrived, without waiting."""
        self._leave_parent_behind()
        with self._lock:
            if not self._is_led and self._connections:
                try:
                    self._lead(time.monotonic(), 0.0)
                finally:
                    self._hand_over()

    @property
    def lock(self) -> threading.Lock:
        """Held by the thread that reads or changes a request."""
        return self._lock

    def close(self, error: GeartrainError) -> None:
        """Close all connections and fail what is open with ``error``."""
        self._leave_parent_behind()
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._servers.end(error)
            self._flush()
            self._wake_leader()
            for sleeper in self._sleepers:
                sleeper.wake()
            if not self._is_led:
                self._quiet_waker()

    # What goes on inside, always with the lock held.

    def _leave_parent_behind(self) -> None:
        """In a forked child the connections are the parent's: let go of them, and begin again."""
        if os.getpid() == self._pid:
            return
        with self._fork_lock:
            if os.getpid() == self._pid:
                return
            servers, connections = self._servers, self._connections
            for connection in connections.values():
                connection.link.abandon()
            if self._waker is not None:
                self._waker.close()
            was_closed = self._is_closed
            self._begin()
            self._is_closed = was_closed
            servers.end(ConnectionLostError("this was asked before the process forked; the parent has the answer"))

    def _place(self, requests: tuple[Request[Any], ...], follower: Follower | None) -> None:
        if self._is_closed:
            raise GeartrainError("the client is closed: make a new one")
        now = time.monotonic()
        if not self._is_led:
            self._look_at_idle(now)
        for request in requests:
            if follower is not None:
                request.follow(follower)
            self._servers.place(request, now)
        self._is_answer_due = True
        if self._is_led:
            self._servers.tick(now)  # starts the time limit of the answers before the leader comes to it
        self._flush()

    def _finish(self, request: Request[Answer], deadline: float | None, late: Callable[[], GeartrainError]) -> Answer:
        if not self._wait((request,), lambda: request.done, deadline):
            self._servers.give_up(request, late())
            self._flush()
        return request.outcome()

    def _wait(self, requests: tuple[Request[Any], ...], until: Callable[[], bool], deadline: float | None) -> bool:
        sleeper: Sleeper | None = None
        try:
            while not until():
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    return False
                if not self._is_led:
                    self._lead(now, None if deadline is None else deadline - now)
                    continue
                if sleeper is None:
                    sleeper = Sleeper()
                    self._sleepers[sleeper] = None
                    for request in requests:
                        request.follow(sleeper)
                self._lock.release()
                try:
                    sleeper.sleep(None if deadline is None else deadline - now)
                finally:
                    self._lock.acquire()
            return True
        finally:
            if sleeper is not None:
                del self._sleepers[sleeper]
                for request in requests:
                    request.unfollow(sleeper)
            self._hand_over()

    def _hand_over(self) -> None:
        """Have another thread lead, if there is one that waits; to be called by the thread that led and leaves."""
        if not self._is_led and self._sleepers:
            next(iter(self._sleepers)).wake()

    def _lead(self, now: float, seconds: float | None) -> None:
        """Tick, then read once for everybody; waits for at most ``seconds``."""
        next_tick = self._servers.tick(now)
        if self._flush():
            return
        limit = self._longest_poll
        if seconds is not None and seconds < limit:
            limit = seconds
        if next_tick is not None and next_tick - now < limit:
            limit = next_tick - now
        if self._is_answer_due and limit >= SOON_SECONDS and len(self._connections) == 1:
            (connection,) = self._connections.values()
            if not connection.unsent:
                self._read(connection, soon=True)
                self._flush()
                return
        self._is_led = True
        self._lock.release()
        try:
            # Rounded up, so that the time has really come when the poll ends.
            ready = self._poll.poll(int(limit * 1000 + 0.999) if limit > 0 else 0)
        finally:
            self._lock.acquire()
            self._is_led = False
        if not ready:
            for connection in self._connections.values():
                connection.notice_sending()
        for fileno, events in ready:
            found = self._by_fileno.get(fileno)
            if found is None:
                self._quiet_waker()
                continue
            if events & select.POLLOUT:
                self._write(found)
            if events & ~select.POLLOUT:
                self._read(found)
        self._flush()

    def _flush(self) -> bool:
        """Do what the servers have to be done; returns whether any request was touched."""
        servers = self._servers
        has_touched = False
        while servers.to_hang_up or servers.to_dial or servers.to_write or servers.touched:
            while servers.to_hang_up:
                self._hang_up(servers.to_hang_up.pop())
            while servers.to_dial:
                self._start_dial(servers.to_dial.pop())
            while servers.to_write:
                self._write(self._connections[servers.to_write.pop().address])
            if servers.touched:
                has_touched = True
                touched, servers.touched = servers.touched, []
                for request in touched:
                    request.tell_followers()
        return has_touched

    def _start_dial(self, server: Server) -> None:
        if self._waker is None:
            self._waker = Waker()
            self._poll.register(self._waker, select.POLLIN)
        dial = threading.Thread(target=self._dial, args=(server, self._servers), name="geartrain-dial", daemon=True)
        try:
            dial.start()
        except RuntimeError as error:  # the system gives no more threads
            trouble = ConnectError(f"no connection to {server.address}: {error}")
            self._servers.refused(server, trouble, time.monotonic())

    def _dial(self, server: Server, servers: Servers) -> None:
        """Connect, in a thread of its own."""
        link: BlockingLink | None = None
        try:
            link = self._connect(server.address)
        except GeartrainError as error:
            trouble = error
        except Exception as error:  # whatever it is, requests must not wait for ever
            trouble = ConnectError(f"no connection to {server.address}: {error!r}")
        with self._lock:
            if servers is not self._servers or self._is_closed:
                if link is not None:
                    link.close()
                return
            now = time.monotonic()
            if link is None:
                servers.refused(server, trouble, now)
            else:
                connection = Connection(server, link)
                self._connections[server.address] = connection
                self._by_fileno[link.fileno()] = connection
                self._poll.register(link.fileno(), select.POLLIN)
                servers.connected(server, now)
            self._flush()
            self._wake_leader()
            self._wake_senders()

    def _hang_up(self, server: Server) -> None:
        connection = self._connections.pop(server.address, None)
        if connection is not None:
            fileno = connection.link.fileno()
            del self._by_fileno[fileno]
            self._poll.unregister(fileno)
            connection.link.close()
            self._wake_senders()

    def _read(self, connection: Connection, *, soon: bool = False) -> None:
        """Take in what has come, or what comes ``soon``."""
        server = connection.server
        while server.session is not None:
            ended: ConnectionLostError | None = None
            try:
                data = self._receive_soon(connection.link) if soon else connection.link.receive_now()
            except ConnectionLostError as error:
                data, ended = b"", error
            if soon and self._connections.get(server.address) is not connection:
                return  # another thread has given it up meanwhile
            self._is_answer_due = data is not None
            if data is None:
                return
            connection.read_at = now = time.monotonic()
            if not data:
                ended = ended or ConnectionLostError(f"the job server at {server.address} closed the connection")
                self._servers.lost(server, ended, now)
                return
            self._servers.received(server, data, now)
            if not connection.link.has_pending():
                return

    def _receive_soon(self, link: BlockingLink) -> bytes | None:
        """As the only one who reads, without the lock while it waits."""
        self._is_led = True
        self._lock.release()
        try:
            return link.receive_soon()
        finally:
            self._lock.acquire()
            self._is_led = False

    def _write(self, connection: Connection) -> None:
        session = connection.server.session
        assert session is not None
        had_unsent = bool(connection.unsent)
        try:
            if connection.write(session.take()):
                session.moved()
        except ConnectionLostError as error:
            self._servers.lost(connection.server, error, time.monotonic())
            return
        has_unsent = bool(connection.unsent)
        if has_unsent != had_unsent:
            self._poll.modify(connection.link.fileno(), select.POLLIN | (select.POLLOUT if has_unsent else 0))
            if has_unsent:
                self._wake_leader()
            else:
                self._wake_senders()

    def _look_at_idle(self, now: float) -> None:
        """Notice in time that a server has closed a connection while nobody was looking."""
        for connection in list(self._connections.values()):
            session = connection.server.session
            if session is not None and session.is_idle and now - connection.read_at > IDLE_SECONDS:
                self._read(connection)

    def _are_sent(self, requests: tuple[Request[Any], ...]) -> bool:
        for request in requests:
            if request.done:
                continue
            if request.sent_to is None:
                return False
            connection = self._connections.get(request.sent_to)
            if connection is not None and connection.unsent:
                return False
        return True

    def _wake_senders(self) -> None:
        for sleeper in self._sleepers:
            sleeper.wake()

    def _wake_leader(self) -> None:
        """Have the leader look again at what it polls, and for how long."""
        if self._is_led and self._waker is not None:
            self._waker.wake()

    def _quiet_waker(self) -> None:
        if self._waker is not None:
            self._waker.reset()
            if self._is_closed:
                self._waker.close()
                self._waker = None
