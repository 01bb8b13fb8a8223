"""The job servers of a client, without I/O: which of them live, and which one takes a request.

A request with a key goes to the server that the key belongs to: every client that knows the same servers ranks them for
a key in the same order (rendezvous hashing), and takes the first that lives. So equal unique keys meet at one server
and coalesce, and when a server goes away only its own keys move. Requests without a key take the servers in turn.

A server that can't be reached, or whose connection ends, is *down* until it answers again: it is tried after
growing, jittered pauses, and meanwhile nobody waits for it as long as another lives. The requests it had are sent
again elsewhere, each as often as it allows.

What a driver has to do for it stands in four lists that the driver empties (``to_dial``, ``to_write``, ``to_hang_up``,
``touched``); it tells what came of it by ``connected``, ``refused``, ``received`` and ``lost``.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from geartrain.client.request import EchoRequest, Request
from geartrain.client.session import ClientSession
from geartrain.client.submission import Submission
from geartrain.errors import AddressError, ConnectError, ConnectionLostError, GeartrainError
from geartrain.link import Address, Backoff

PATIENCE_SECONDS = 5.0


class Server:
    """One job server as its client sees it; connected where it has a ``session``.

    It is dialing until it is connected and, if it was down before, has answered.
    """

    __slots__ = ("_salt", "address", "backoff", "error", "is_dialing", "is_down", "retry_at", "session")

    def __init__(self, address: Address, source: random.Random) -> None:
        self.address = address
        self.session: ClientSession | None = None
        self.is_dialing = False
        self.is_down = False
        self.retry_at = 0.0
        self.backoff = Backoff(first=0.1, source=source)
        self.error: GeartrainError | None = None  # why it is down
        self._salt = hashlib.blake2b(str(address).encode()).digest()

    def weight(self, key: bytes) -> bytes:
        """Its place in the order of servers for ``key``: the highest is first."""
        return hashlib.blake2b(key, key=self._salt, digest_size=8).digest()

    def __repr__(self) -> str:
        state = "up" if self.session else "down" if self.is_down else "new"
        return f"<Server {self.address}, {state}{', dialing' if self.is_dialing else ''}>"


class Servers:
    """Chooses a server for each request, and finds another when that one is lost.

    When all servers are down but one was up before, requests wait ``patience`` seconds for any of them; when none was
    ever up they fail as soon as each has been tried. All times are in seconds of one steady clock.
    """

    def __init__(
        self,
        addresses: Iterable[Address],
        make_session: Callable[[], ClientSession],
        *,
        patience: float = PATIENCE_SECONDS,
        source: random.Random | None = None,
    ) -> None:
        self.patience = patience
        self.to_dial: list[Server] = []
        self.to_write: set[Server] = set()
        self.to_hang_up: list[Server] = []
        self.touched: list[Request[Any]] = []
        self._make_session = make_session
        source = source or random.Random()
        self._servers = {address: Server(address, source) for address in addresses}
        self._up: list[Server] = []
        self._turn = source.randrange(len(self._servers))  # so that many clients do not all begin with the same one
        self._retry_at = math.inf  # when the first of the servers that are down may be tried again
        self._was_up = False
        self._waiting: list[tuple[Request[Any], float]] = []  # with the time when each is given up

    def __iter__(self) -> Iterator[Server]:
        return iter(self._servers.values())

    def place(self, request: Request[Any], now: float) -> None:
        """Send a request to its server, or keep it until that is connected."""
        if now >= self._retry_at:
            self._dial_due(now)
        server = self._choose(request)
        if server is not None:
            self._send(server, request)
            return
        if request.address is not None and request.address not in self._servers:
            known = ", ".join(map(str, self._servers))
            self._fail(request, AddressError(f"{request.address} is not one of this client's job servers: {known}"))
            return
        self._waiting.append((request, now + self.patience if self._was_up else now))
        # A client that has no server at all does not sit out a pause.
        for candidate in self._candidates(request):
            self._dial(candidate)

    def connected(self, server: Server, now: float) -> None:
        """A connection to ``server`` was made.

        One that was down must answer before it is trusted with anything: a dying or frozen one may still accept
        connections, and each request that it swallows costs a resend.
        """
        session = server.session = self._make_session()
        self.to_write.add(server)
        if not server.is_down:
            self._put_up(server, now)
        elif session.is_idle:
            session.send(EchoRequest(b"", resends=0))

    def refused(self, server: Server, error: GeartrainError, now: float) -> None:
        """No connection to ``server`` could be made."""
        server.is_dialing = False
        self._put_down(server, error, now)
        self._place_waiting(now)

    def received(self, server: Server, data: bytes, now: float) -> None:
        """Bytes came from ``server``."""
        assert server.session is not None
        try:
            self.touched += server.session.receive(data)
        except GeartrainError as error:
            self.lost(server, error, now)
            return
        if server.is_dialing:
            self._put_up(server, now)

    def lost(self, server: Server, error: GeartrainError, now: float) -> None:
        """The connection to ``server`` has ended, or must be ended."""
        session = server.session
        if session is None:
            return
        server.session = None
        server.is_dialing = False
        if server in self._up:
            self._up.remove(server)
        self.to_write.discard(server)
        self.to_hang_up.append(server)
        if session.has_heard:
            server.backoff.succeeded()
        self._put_down(server, error, now)
        for request in session.lost():
            if not request.resends:
                self._fail(request, ConnectionLostError(f"{error}{_fate(request)}"))
                continue
            request.resends -= 1
            if isinstance(request, Submission):
                request.restart()
                self.touched.append(request)
            self.place(request, now)
        self._place_waiting(now)

    @property
    def has_waiting(self) -> bool:
        """Whether requests wait for a server; then the time of the next tick may come nearer."""
        return bool(self._waiting)

    def tick(self, now: float) -> float | None:
        """Say what time it is; returns when to call again, ``None`` for never."""
        soonest = math.inf
        for server in self._servers.values():
            if server.session is None:
                continue
            try:
                deadline = server.session.tick(now)
            except GeartrainError as error:
                self.lost(server, error, now)
                continue
            if deadline is not None and deadline < soonest:
                soonest = deadline
        if self._waiting:
            self._dial_due(now)
            self._place_waiting(now)
            soonest = min([soonest, self._retry_at, *(at for _, at in self._waiting if at > now)])
        return None if soonest == math.inf else soonest

    def give_up(self, request: Request[Any], error: GeartrainError) -> None:
        """Let go of a request that nobody waits for any longer."""
        if request.done:
            return
        if isinstance(request, Submission):
            request.events.clear()
        self._fail(request, error)

    def end(self, error: GeartrainError) -> None:
        """Fail everything that is open; all connections are to be closed."""
        for server in self._servers.values():
            if server.session is not None:
                for request in server.session.lost():
                    self._fail(request, error)
                server.session = None
                self.to_hang_up.append(server)
        self._up.clear()
        self.to_write.clear()
        for request, _ in self._waiting:
            self.give_up(request, error)
        self._waiting.clear()

    def _choose(self, request: Request[Any]) -> Server | None:
        """The connected server for a request; ``None`` if it has to wait for one."""
        if request.address is not None:
            server = self._servers.get(request.address)
            return server if server in self._up else None
        if request.key is not None and len(self._servers) > 1:
            alive = self._candidates(request)
            return alive[0] if alive[0].session is not None else None
        if not self._up:
            return None
        self._turn += 1
        return self._up[self._turn % len(self._up)]

    def _candidates(self, request: Request[Any]) -> list[Server]:
        """The servers a request may go to, the best first: those alive or, where none is, all."""
        if request.address is not None:
            server = self._servers.get(request.address)
            return [server] if server is not None else []
        servers = [server for server in self._servers.values() if not server.is_down] or list(self._servers.values())
        key = request.key
        if key is not None and len(servers) > 1:
            servers.sort(key=lambda server: server.weight(key), reverse=True)
        return servers

    def _send(self, server: Server, request: Request[Any]) -> None:
        assert server.session is not None
        request.sent_to = server.address
        server.session.send(request)
        self.to_write.add(server)

    def _dial(self, server: Server) -> None:
        if server.session is None and not server.is_dialing:
            server.is_dialing = True
            self.to_dial.append(server)

    def _dial_due(self, now: float) -> None:
        """Try those again whose pause is over."""
        resting = [server for server in self._servers.values() if server.is_down and not server.is_dialing]
        for server in resting:
            if server.retry_at <= now:
                self._dial(server)
        self._retry_at = min((server.retry_at for server in resting if not server.is_dialing), default=math.inf)

    def _put_up(self, server: Server, now: float) -> None:
        server.is_dialing = server.is_down = False
        server.error = None
        self._was_up = True
        self._up.append(server)
        self._place_waiting(now)

    def _put_down(self, server: Server, error: GeartrainError, now: float) -> None:
        server.is_down = True
        server.error = error
        server.retry_at = now + server.backoff.failed()
        self._retry_at = min(self._retry_at, server.retry_at)

    def _place_waiting(self, now: float) -> None:
        """Try again for the requests that found no server, and give up those that can't find one in time."""
        waiting, self._waiting = self._waiting, []
        for request, give_up_at in waiting:
            if request.done:
                continue
            server = self._choose(request)
            if server is not None:
                self._send(server, request)
                self.touched.append(request)  # for who waits until it is sent
                continue
            candidates = self._candidates(request)
            if now < give_up_at or any(candidate.is_dialing for candidate in candidates):
                self._waiting.append((request, give_up_at))
                for candidate in candidates:
                    if not candidate.is_down:
                        self._dial(candidate)
                continue
            reasons = "; ".join(str(candidate.error) for candidate in candidates)
            if request.sent_to is not None:
                self._fail(request, ConnectionLostError(f"{reasons}{_fate(request)}"))
            else:
                self._fail(request, ConnectError(reasons))

    def _fail(self, request: Request[Any], error: GeartrainError) -> None:
        request.fail(error)
        self.touched.append(request)

    def __repr__(self) -> str:
        return f"<Servers {list(self._servers.values())}, {len(self._waiting)} requests waiting>"


def _fate(request: Request[Any]) -> str:
    return "; the job may or may not have run" if isinstance(request, Submission) else ""
