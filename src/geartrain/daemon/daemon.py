"""The process that gives a job server sockets, a clock and a log.

An iteration: the loop delivers what the sockets brought (``Connection.data_received`` applies it), then ``flush`` runs
once: one joined write for each peer that has something to get, each extension's own flush, events to the log, the timer
set to the next deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from geartrain.daemon.connection import UNIX, Connection, Iteration
from geartrain.daemon.extension import Extension
from geartrain.daemon.flow import UnreadOutput
from geartrain.daemon.gauges import Gauges
from geartrain.errors import ConfigError
from geartrain.jobserver import JobServer, Origin
from geartrain.jobserver.events import EVENTS
from geartrain.jobserver.outbox import FEW, take_first, take_ready
from geartrain.jobserver.rights import OPERATE
from geartrain.jobserver.rules.answers import OK
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geartrain.daemon.config import Config
    from geartrain.daemon.epoll import EpollLoop
    from geartrain.daemon.fleet_view import FleetView
    from geartrain.daemon.outlet import Outlet
    from geartrain.daemon.transport import Listener
    from geartrain.jobserver import Peer
    from geartrain.jobserver.outbox import Outbox

log = logging.getLogger("geartrain.daemon")

_GLANCE = 0.01  # seconds between looks at what has arrived, on leaving
_LONGEST_TIMEOUT_MS = 2**31 - 1  # that the kernel takes


class Clock(Protocol):
    """What tells the job server's time; the module ``time`` is one."""

    def monotonic(self) -> float: ...

    def time(self) -> float: ...


class Daemon:
    """A job server with its listeners; make it and run it within one event loop.

    ``clock`` tells the time by which jobs are delayed and limited; tests give one that they can advance.
    """

    def __init__(
        self,
        config: Config,
        server: JobServer | None = None,
        extensions: Sequence[Extension] = (),
        *,
        clock: Clock = time,
    ) -> None:
        self.config = config
        self.server = server or JobServer(config.rules())
        self.extensions = list(extensions)
        # Asked in each iteration, or at each connection, so only those that have something to say.
        self._flushing = [each for each in extensions if type(each).flush is not Extension.flush]
        self._hearing = [each for each in extensions if type(each).hear is not Extension.hear]
        self._timed = [each for each in extensions if type(each).next_deadline is not Extension.next_deadline]
        self._doorkeepers = [each for each in extensions if type(each).admit is not Extension.admit]
        self.receive = self.server.receive  # looked up at every read
        self.loop = asyncio.get_running_loop()
        self.clock = clock
        # Bound once, since each is called in every iteration.
        self._tick, self._next_deadline = self.server.tick, self.server.next_deadline
        self._monotonic, self._time = clock.monotonic, clock.time
        self.unread = UnreadOutput(config.max_unsent, config.max_unsent_total)
        self.gauges = Gauges()
        self.iteration: Iteration = Iteration()
        self.fleet: FleetView | None = None
        self.lease_ends = 0.0  # 0: there is none
        self.leaving = False
        self.drained = asyncio.Event()  # set when, on leaving, no extension owes anything any more
        self.connections: set[Connection] = set()
        self.attached: set[Outlet] = set()  # of the peers that extensions have connected
        self.listeners: list[Listener] = []
        self.addresses: list[str] = []
        self.stopped = asyncio.Event()
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at = math.inf
        self.accepted = 0
        self.server.add_command(b"drain", self._on_drain, OPERATE)
        self.server.tick(clock.monotonic(), clock.time())
        # The transport follows from the loop: see transport.loop_factory.
        self._epoll_loop = cast("EpollLoop", self.loop) if hasattr(self.loop, "open_listener") else None
        if self._epoll_loop is not None:
            self.iteration = cast(Iteration, self._epoll_loop.poll)
            self._epoll_loop.poll.attach(self, take_ready, bool(self._flushing or self._timed))

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Start the extensions, and only then accept connections at these bound sockets."""
        for listener in sockets:
            self.listeners.append(await self._listener(listener))
            self.addresses.append(show_address(listener.getsockname(), listener.family))
        failed = self._tell("start", lambda each: each.start(self))
        if failed:  # one that is missing may be the one that keeps jobs, or says who may connect
            self._close_listeners()
            self._tell("stop", lambda each: each.stop(self.config.stop_timeout), backwards=True)
            raise ConfigError(f"can't start: {'; '.join(failed)}")
        for opened, address in zip(list(self.listeners), self.addresses, strict=False):
            if self.server.draining or self.stopped.is_set():  # a signal may come at each of these waits
                break
            await opened.start_serving()
            log.info("listening", extra={"fields": {"address": address}})
        if self.server.draining:
            self._close_listeners()  # those that were not there yet when the drain began

    def reload(self) -> None:
        """The operator has sent SIGHUP."""
        self._tell("reload", lambda each: each.reload())

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

    def _on_drain(self, peer: Peer, words: list[bytes]) -> None:
        """The text command."""
        peer.send(OK)
        self.server.event("drain_ordered", peer, {})
        self.drain("the command drain")

    async def _leave(self) -> None:
        self._close_listeners()
        self.server.drain()
        self.drained.clear()  # it may have been so at some moment of a drain
        self._tell("leave", lambda each: each.leave())
        self.flush()
        # What clients wait for is acknowledged, or refused, before any connection is closed.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.drained.wait(), self.config.stop_timeout)
        self._tell("give_up", lambda each: each.give_up())
        self.flush()
        while self.server.touched:
            self.flush()
        self.leaving = True
        deadline = self.loop.time() + self.config.stop_timeout
        attached = list(self.attached)
        for outlet in (*self.connections, *attached):
            try:
                outlet.drain_close(self.config.stop_timeout)
            except Exception as error:
                self.failed(error, outlet)
        while (self.connections or any(each.unread for each in attached)) and self.loop.time() < deadline:
            for connection in self.connections:
                if connection.is_delivered():
                    connection.transport.abort()
            await asyncio.sleep(_GLANCE)
        for connection in self.connections:
            connection.transport.abort()
        await asyncio.sleep(0)
        if self.timer is not None:
            self.timer.cancel()
        # The store comes first and goes last.
        self._tell("stop", lambda each: each.stop(self.config.stop_timeout), backwards=True)
        log.info("stopped", extra={"fields": {"connections_accepted": self.accepted, "jobs": len(self.server.jobs)}})

    def _close_listeners(self) -> None:
        if self.listeners:
            self.config.remove_unix_sockets()  # while they are ours: another job server may take the path next
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()

    # ── extensions ──────────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, method: str, act: Callable[[Extension], None], *, backwards: bool = False) -> list[str]:
        """Give each extension its turn, whatever comes of another's; a sentence for each that has raised."""
        failed = []
        for extension in reversed(self.extensions) if backwards else self.extensions:
            try:
                act(extension)
            except Exception as error:
                _extension_failed(extension, method)
                failed.append(f"{type(extension).__name__} failed: {error or type(error).__name__}")
        return failed

    def _is_drained(self) -> bool:
        for extension in self.extensions:
            try:
                if not extension.is_drained:
                    return False
            except Exception:  # it can't tell, so it is not waited for
                _extension_failed(extension, "is_drained")
        return True

    def _admits(self, origin: Origin) -> bool:
        for extension in self._doorkeepers:
            try:
                if extension.admit(origin):
                    continue
            except Exception:  # whoever can't be judged stays outside
                _extension_failed(extension, "admit")
            fields = {"host": origin.host, "extension": type(extension).__name__}
            log.warning("connection_refused", extra={"fields": fields})
            return False
        return True

    # ── iterations ──────────────────────────────────────────────────────────────────────────────────────────────

    def open_iteration(self) -> None:
        """Tell the job server the time, and have ``flush`` run when this iteration's input has been applied."""
        if not self.iteration.open:
            self.iteration.open = True
            self.loop.call_soon(self.flush)  # whatever becomes of what is due
            self._tick(self._monotonic(), self._time())

    def flush(self) -> None:
        """The end of an iteration."""
        self.iteration.open = False
        if self.lease_ends and self._monotonic() >= self.lease_ends:
            self.lease_over()
        touched = self.server.touched
        if touched:
            if len(touched) > FEW:
                touched = self._first()
            for peer in touched:
                outlet = peer.outlet
                if outlet is not None:  # else its connection is gone
                    try:
                        outlet.write()
                    except Exception as error:
                        self.failed(error, outlet)
                else:
                    peer.touched = False
            touched.clear()
        self.settle()

    def settle(self) -> None:
        """What follows when all has been written."""
        server = self.server
        for extension in self._flushing:
            try:
                extension.flush()
            except Exception:
                _extension_failed(extension, "flush")
        if server.events:
            for event, who, fields in server.take_events():
                for extension in self._hearing:
                    try:
                        extension.hear(event, who, fields)
                    except Exception:
                        _extension_failed(extension, "hear")
                self.log_event(event, who, fields)
        at = self._next_deadline()
        for extension in self._timed:
            try:
                its = extension.next_deadline()
            except Exception:
                _extension_failed(extension, "next_deadline")
                continue
            if its and (not at or its < at):
                at = its
        if at and at < self.timer_at:
            self._set_timer(at)
        if server.draining:
            if self._is_drained():
                self.drained.set()
            if not self.stopped.is_set() and not server.running:
                self.stop("no job is running")

    def hold_lease(self, until: float) -> None:
        """What is stored is this job server's until then, on the clock of ``time.monotonic``, unless that changes."""
        self.open_iteration()
        self.server.renew_lease(until)
        self.lease_ends = until
        if self._epoll_loop is not None:
            self._epoll_loop.poll.lease_ends = until

    def lease_over(self) -> None:
        """The lease has not been renewed in time: what is stored is handed out no more.

        This process may have stood still since it was decided what to hand out; so workers to which something is
        still to be written are dropped, since it may be a job that is another's now.
        """
        self.lease_ends = 0.0
        self.open_iteration()
        self.server.end_lease()
        for connection in list(self.connections):
            if connection.unread:
                self._drop_worker(connection)

    def drop_workers(self) -> None:
        """Drop the connections of those who run something, which is another's now."""
        for connection in list(self.connections):
            self._drop_worker(connection)

    def _drop_worker(self, connection: Connection) -> None:
        peer = connection.peer
        if peer is not None and peer.running is not None:
            connection.transport.abort()

    def _first(self) -> list[Outbox]:
        """Those that are written to in this iteration; the others have to wait for the next one."""
        first = take_first(self.server.output)
        if self.server.touched:
            self.open_iteration()
        return first

    def relieve(self) -> None:
        """Drop the worst readers if all peers together leave too much unread."""
        while (worst := self.unread.worst()) is not None:
            worst.abort()

    def _set_timer(self, at: float) -> None:
        if self.timer is not None:
            self.timer.cancel()
        # Jobs for later wait in the time of day, timers do not: a minute bounds the harm of a clock that was set.
        self.timer_at = min(at, self.server.now + 60)
        self.timer = self.loop.call_later(max(self.timer_at - self.clock.monotonic(), 0), self._on_timer)

    def _on_timer(self) -> None:
        self.timer = None
        self.timer_at = math.inf
        self.open_iteration()

    # ── connections ─────────────────────────────────────────────────────────────────────────────────────────────

    async def _listener(self, listener: socket.socket) -> Listener:
        """What accepts connections at a bound socket, once it is told to."""
        backlog = self.config.backlog
        if self._epoll_loop is not None:
            return self._epoll_loop.open_listener(listener, backlog, partial(self._epoll_loop.begin, self))
        if listener.family == socket.AF_UNIX:
            # What has opened it removes its file, which is the service manager's where that has passed the socket.
            cleanup: Any = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
            return await self.loop.create_unix_server(
                self._connection, sock=listener, backlog=backlog, start_serving=False, **cleanup
            )
        return await self.loop.create_server(self._connection, sock=listener, backlog=backlog, start_serving=False)

    def _connection(self) -> Connection:
        return Connection(self)

    def failed(self, error: BaseException, outlet: Outlet | None = None) -> None:
        """What ought not to be raised has been; if on behalf of one outlet, that is dropped."""
        self.loop.call_exception_handler({"message": "a connection failed", "exception": error})
        if outlet is not None:
            try:
                outlet.abort()
            except Exception as another:
                self.failed(another)

    def on_connect(self, connection: Connection, connected: socket.socket) -> Peer | None:
        """A new connection's peer; None if there are too many, or an extension refuses it, and it has been closed."""
        self.accepted += 1
        transport = connection.transport
        host = UNIX
        if connected.family != socket.AF_UNIX:
            try:
                host = connected.getpeername()[0]
            except OSError:  # it is gone already
                transport.abort()
                return None
        limit = self.config.max_connections
        if not (_is_loopback(host) or host == connected.getsockname()[0]):
            limit -= min(self.config.reserved_connections, limit // 2)
        if len(self.connections) >= limit:
            transport.abort()
            log.warning("connection_refused", extra={"fields": {"host": host, "limit": limit}})
            return None
        origin = Origin(host, connected.fileno())
        if not self._admits(origin):
            transport.abort()
            return None
        self.connections.add(connection)
        peer = self.server.connect(origin)
        peer.outlet = connection
        log.debug("connected", extra={"fields": {"peer": repr(peer)}})
        return peer

    def on_disconnect(self, connection: Connection, peer: Peer, error: Exception | None) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        log.debug("disconnected", extra={"fields": {"peer": repr(peer), "error": str(error or "")}})
        self.lost(peer)

    def connect(self, outlet: Outlet, origin: Origin) -> Peer:
        """A peer that an extension brings. Raises ConnectionRefusedError if none may come, or not this one."""
        if self.server.draining:
            raise ConnectionRefusedError("the job server takes no more connections, since it is about to stop")
        if not self._admits(origin):
            raise ConnectionRefusedError(f"the job server takes no connection from {origin.host}")
        peer = self.server.connect(origin)
        peer.outlet = outlet
        self.attached.add(outlet)
        return peer

    def lost(self, peer: Peer) -> None:
        """A peer is gone, whoever brought it."""
        self.open_iteration()
        if not self.leaving:  # else their jobs are not lost by their workers: the store has them, for the next start
            self.server.lost(peer)
        self.attached.discard(peer.outlet)
        peer.outlet = None

    def on_abort(self, peer: Peer | None, unread: int) -> None:
        """A connection is dropped since it does not read."""
        limits = {"limit": self.unread.most_of_one, "limit_of_all": self.unread.most_of_all}
        self.log_event("peer_aborted", peer, {"unread": unread, **limits})

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
                ("TCP_USER_TIMEOUT", min(1000 * patience, _LONGEST_TIMEOUT_MS)),
            ):
                if hasattr(socket, option):
                    connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def log_event(self, event: str, peer: Peer | None, fields: Mapping[str, object]) -> None:
        """One line for what an operator may want to know."""
        level = logging.getLevelName(EVENTS[event][0])
        who: dict[str, object] = {}
        if peer is not None:
            who = {"host": peer.host, "fd": peer.fd, "id": as_text(peer.client_id)}
        log.log(level, event, extra={"fields": {**who, **fields}})


def _extension_failed(extension: Extension, method: str) -> None:
    """What is being handled as an exception, in the log."""
    log.exception("extension_failed", extra={"fields": {"extension": type(extension).__name__, "method": method}})


def _is_loopback(host: str) -> bool:
    """Whether a peer has come by loopback or a Unix socket."""
    return host in (UNIX, "::1") or host.startswith(("127.", "::ffff:127."))


def show_address(name: object, family: int) -> str:
    """A listener's address as a person writes it."""
    if family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(cast(bytes, name))}".replace("\0", "@")
    host, port = cast(tuple[str, int], name)[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def spare_the_collector() -> None:
    """Let the garbage collector look at young objects alone: a full pass over a million of them stops all for 100 ms.

    What the job server drops is freed by counting references, since whatever leaves a list is unlinked.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 1_000_000)


def keep_freed_memory() -> None:
    """Keep freed memory for the next large payload instead of giving pages back and fetching them again."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((-3, 32 << 20), (-1, 256 << 20), (-2, 16 << 20)):  # MMAP_THRESHOLD, TRIM, TOP_PAD
            mallopt(parameter, value)
