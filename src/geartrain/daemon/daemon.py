"""The process that gives a job server sockets, a clock and a log.

A turn: the loop delivers what the sockets brought (``Connection.data_received`` applies it), then ``settle`` runs once:
one joined write for each connection that has something to say, notices to the log, the alarm set to the next deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from geartrain.daemon.connection import Connection
from geartrain.daemon.keeper import Keeper
from geartrain.jobserver import JobServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geartrain.daemon.config import Config
    from geartrain.jobserver import Peer

log = logging.getLogger("geartrain.daemon")

_GLANCE = 0.01  # seconds between looks at what has arrived, on leaving
_WARNINGS = frozenset((
    "peer_cut_off",
    "memory_full",
    "stream_broken",
    "packet_too_slow",
    "report_too_large",
    "retries_used_up",
    "worker_lost",
))  # fmt: skip


class Clock(Protocol):
    """What tells the job server's time; the module ``time`` is one."""

    def monotonic(self) -> float: ...

    def time(self) -> float: ...


class Daemon:
    """A job server with its listeners; make it and run it within one event loop.

    ``clock`` tells the time by which jobs are delayed and limited; tests give one that they can advance.
    """

    def __init__(
        self, config: Config, server: JobServer | None = None, keeper: Keeper | None = None, *, clock: Clock = time
    ) -> None:
        self.config = config
        self.server = server or JobServer(config.rules())
        self.keeper = keeper
        self.receive = self.server.receive  # looked up at every read
        self.loop = asyncio.get_running_loop()
        self.clock = clock
        self.max_unsent = config.max_unsent
        self.turn_open = False
        self.leaving = False
        self.kept = asyncio.Event()  # set when, on leaving, nothing is left to be stored
        self.connections: set[Connection] = set()
        self.listeners: list[asyncio.Server] = []
        self.addresses: list[str] = []
        self.stopped = asyncio.Event()
        self.alarm: asyncio.TimerHandle | None = None
        self.alarm_at = 0.0
        self.accepted = 0
        self.server.tick(clock.monotonic(), clock.time())

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections at these bound sockets, and begin to write to the store."""
        if self.keeper is not None:
            self.keeper.start(self.open_turn, self.loop.call_soon_threadsafe)
        for listener in sockets:
            if listener.family == socket.AF_UNIX:
                opened = await self.loop.create_unix_server(
                    self._connection, sock=listener, backlog=self.config.backlog
                )
            else:
                opened = await self.loop.create_server(self._connection, sock=listener, backlog=self.config.backlog)
            self.listeners.append(opened)
            self.addresses.append(show_address(listener.getsockname(), listener.family))
            log.info("listening", extra={"fields": {"address": self.addresses[-1]}})

    async def run(self) -> None:
        """Serve, once started, until ``stop`` or a finished ``drain``; then say what is owed and leave."""
        await self.stopped.wait()
        await self._leave()

    def stop(self, why: str) -> None:
        """Stop soon: no new connections, what is owed is written, then every connection is closed."""
        if not self.stopped.is_set():
            log.info("stopping", extra={"fields": {"reason": why}})
            self.stopped.set()

    def drain(self, why: str) -> None:
        """Refuse connections and submissions, and stop when no job runs any more or the time limit is up."""
        if self.server.draining:
            return
        self.server.drain()
        running = self.server.running
        log.info("draining", extra={"fields": {"reason": why, "running": running, "limit": self.config.drain_timeout}})
        self._close_listeners()
        self.loop.call_later(self.config.drain_timeout, self.stop, "the time limit for running jobs is up")
        if not running:
            self.stop("no job is running")

    async def _leave(self) -> None:
        self._close_listeners()
        self.server.drain()
        self.kept.clear()  # it may have been so at some moment of a drain
        self.settle()
        if self.keeper is not None:
            # What is owed to clients is acknowledged, or refused, before anybody is sent away.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.kept.wait(), self.config.stop_timeout)
            self.keeper.give_up("the job server stops")
            self.settle()
        self.leaving = True
        deadline = self.loop.time() + self.config.stop_timeout
        for connection in self.connections:
            connection.linger(self.config.stop_timeout)
        while self.connections and self.loop.time() < deadline:
            for connection in self.connections:
                if connection.is_delivered():
                    connection.transport.abort()
            await asyncio.sleep(_GLANCE)
        for connection in self.connections:
            connection.transport.abort()
        await asyncio.sleep(0)
        if self.alarm is not None:
            self.alarm.cancel()
        if self.keeper is not None:
            self.keeper.close(self.config.stop_timeout)
        log.info("stopped", extra={"fields": {"connections_accepted": self.accepted, "jobs": len(self.server.jobs)}})

    def _close_listeners(self) -> None:
        if self.listeners:
            self.config.remove_unix_sockets()  # while they are ours: another job server may take the path next
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()

    # ── turns ───────────────────────────────────────────────────────────────────────────────────────────────────

    def open_turn(self) -> None:
        """Tell the job server the time, and have ``settle`` run when this turn's input has been applied."""
        if not self.turn_open:
            self.turn_open = True
            self.server.tick(self.clock.monotonic(), self.clock.time())
            self.loop.call_soon(self.settle)

    def settle(self) -> None:
        """The end of a turn."""
        self.turn_open = False
        server = self.server
        touched = server.touched
        if touched:
            for peer in touched:
                if not peer.gone:
                    cast(Connection, peer.owner).write(peer)
                else:
                    peer.touched = False
            touched.clear()
        keeper = self.keeper
        if keeper is not None:
            keeper.settle()
            if server.draining and not keeper.busy:
                self.kept.set()
        if server.notices:
            for event, who, fields in server.take_notices():
                self.log_event(event, who, fields)
        at = server.next_deadline()
        if keeper is not None:
            keepers = keeper.next_deadline()
            if keepers and (not at or keepers < at):
                at = keepers
        if at and (self.alarm is None or at < self.alarm_at):
            if self.alarm is not None:
                self.alarm.cancel()
            # Jobs for later wait in the time of day, alarms do not: a minute bounds the harm of a clock that was set.
            self.alarm_at = min(at, server.now + 60)
            self.alarm = self.loop.call_later(max(self.alarm_at - self.clock.monotonic(), 0), self._ring)
        if server.draining and not self.stopped.is_set() and not server.running:
            self.stop("no job is running")

    def _ring(self) -> None:
        self.alarm = None
        self.open_turn()

    # ── connections ─────────────────────────────────────────────────────────────────────────────────────────────

    def _connection(self) -> Connection:
        return Connection(self)

    def welcome(self, connection: Connection) -> Peer | None:
        """A new connection's peer; None if there are too many already, and the connection has been closed."""
        self.accepted += 1
        transport = connection.transport
        if len(self.connections) >= self.config.max_connections:
            transport.abort()
            if self.accepted % 100 == 1 or len(self.connections) == self.config.max_connections:
                log.warning("connection_refused", extra={"fields": {"limit": self.config.max_connections}})
            return None
        self.connections.add(connection)
        name = transport.get_extra_info("peername")
        host = name[0] if isinstance(name, tuple) else "unix"
        peer = self.server.connect(host, transport.get_extra_info("socket").fileno())
        peer.owner = connection
        log.debug("connected", extra={"fields": {"peer": repr(peer)}})
        return peer

    def farewell(self, connection: Connection, peer: Peer, error: Exception | None) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        log.debug("disconnected", extra={"fields": {"peer": repr(peer), "error": str(error or "")}})
        self.open_turn()
        if not self.leaving:  # else the jobs are not lost by their workers, but kept for our next life
            self.server.lost(peer)
        peer.owner = None

    def tune(self, connected: socket.socket) -> None:
        """Keepalive, so that the jobs of a dead host come back within a minute; no delay for small packets."""
        config = self.config
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if config.keepalive:
            patience = config.keepalive_idle + config.keepalive_count * config.keepalive_interval
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (
                ("TCP_KEEPIDLE", config.keepalive_idle),
                ("TCP_KEEPINTVL", config.keepalive_interval),
                ("TCP_KEEPCNT", config.keepalive_count),
                # Data that a dead host never acknowledges keeps keepalive from probing; this bounds it as well.
                ("TCP_USER_TIMEOUT", 1000 * patience),
            ):
                if hasattr(socket, option):
                    connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def log_event(self, event: str, peer: Peer | None, fields: Mapping[str, object]) -> None:
        """One line for what an operator may want to know."""
        level = logging.WARNING if event in _WARNINGS else logging.INFO
        who: dict[str, object] = {}
        if peer is not None:
            who = {"host": peer.host, "fd": peer.fd, "id": peer.client_id.decode("utf-8", "backslashreplace")}
        log.log(level, event, extra={"fields": {**who, **fields}})


def show_address(name: object, family: int) -> str:
    """A listener's address as a person writes it."""
    if family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(cast(bytes, name))}"
    host, port = cast(tuple[str, int], name)[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def keep_freed_memory() -> None:
    """Keep freed memory for the next large payload instead of giving pages back and fetching them again."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((-3, 32 << 20), (-1, 256 << 20), (-2, 16 << 20)):  # MMAP_THRESHOLD, TRIM, TOP_PAD
            mallopt(parameter, value)
