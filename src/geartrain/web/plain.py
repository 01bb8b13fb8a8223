"""The rare part of plain connections: how they begin and end, and the answers that most requests never get."""

from __future__ import annotations

import socket
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from geartrain.jobserver import Origin
from geartrain.web.dialect import SERVER, Answer, Dialect
from geartrain.web.gate import is_ours
from geartrain.web.plain_connection import Plain, PlainConnection
from geartrain.web.plain_request import PlainReader
from geartrain.web.problems import Problem
from geartrain.web.protocol import HEAD_SECONDS
from geartrain.web.submitting import Outcome, RefusedError, stopping
from geartrain.wire.packets import ERROR, OPTION_REQ, pack_request

if TYPE_CHECKING:
    import asyncio

    from geartrain.jobserver import Peer
    from geartrain.web.face import Face
    from geartrain.web.protocol import Protocol
    from geartrain.wire.parser import Packet

KEEP_ALIVE: Final = 75.0  # seconds that a connection may be idle between two requests


class PlainFace:
    """What plain connections ask for when it is more than submitting and passing on a result.

    ``make_protocol`` makes what serves a connection that is plain no more.
    """

    def __init__(self, face: Face, make_protocol: Callable[[], Protocol], count: Callable[[], int]) -> None:
        self._face = face
        self._host = face.host
        self._make_protocol = make_protocol
        self._count = count
        self._dialect = Dialect(face)
        reader = PlainReader(self._function, self._is_host_of_ours, self._may_submit)
        self.plain = Plain(face.server, reader, face.host, self)
        self.each_second()

    # ── for the listener, and each second ───────────────────────────────────────────────────────────────────────

    def begin(self, connected: socket.socket) -> None:
        """Serve a connection over the transport in C."""
        poll = self._host.loop.poll  # type: ignore[attr-defined]  # an EpollLoop
        connected.setblocking(False)
        connection = PlainConnection(self.plain)
        try:
            connection.name = (connected.getpeername(), connected.getsockname())
        except OSError:  # it is gone already
            connected.close()
            return
        transport = poll.add(connected.fileno(), connected.family != socket.AF_UNIX)
        connected.detach()  # the transport closes it
        connection.connection_made(transport)
        if not transport.is_closing():
            transport.start(connection, None)
            transport.direct = False
            transport.opens_iteration = True

    def make(self) -> asyncio.Protocol:
        """A connection for a transport of asyncio."""
        return cast("asyncio.Protocol", PlainConnection(self.plain))

    def each_second(self) -> None:
        """The time in the answers of the next second; the end of what has come to nothing."""
        plain = self.plain
        date = formatdate(usegmt=True).encode()
        head = b"HTTP/1.1 200 OK\r\ndate: %b\r\nserver: %b\r\nx-content-type-options: nosniff\r\n" % (date, SERVER)
        plain.head = head + b"content-type: application/octet-stream\r\nx-gearman-job-handle: "
        self._host.open_iteration()  # for the time
        now = self._face.server.now
        for connection in list(plain.connections):
            if connection.asked_at:
                if now - connection.asked_at > self._face.config.http_timeout and not connection.background:
                    handle = connection.handle
                    connection.leave_peer()
                    connection.answer(self._written(self._dialect.answer(Outcome(handle, 0))))
            elif connection.parts and not connection.full:
                connection.hand_over(connection.begun)  # it takes long: others know how long it may
            elif now - connection.active_at > (KEEP_ALIVE if connection.has_asked else HEAD_SECONDS):
                connection.transport.close()

    def leave(self) -> None:
        """The job server begins to stop: connections that wait for nothing are closed."""
        for connection in list(self.plain.connections):
            if not connection.asked_at:
                connection.transport.close()

    def stop(self) -> None:
        """Nothing goes on."""
        for connection in list(self.plain.connections):
            connection.transport.abort()

    # ── for a connection ────────────────────────────────────────────────────────────────────────────────────────

    def is_crowded(self) -> bool:
        """Whether a connection that has just come about is one too many."""
        is_crowded = len(self.plain.connections) + self._count() >= self._face.config.http_max_connections
        self._face.refused += is_crowded
        return is_crowded

    def host_of(self, connection: PlainConnection, transport: asyncio.Transport) -> str:
        """The client's host."""
        name = connection.name[0] if connection.name is not None else transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else "unix"

    def connect(self, connection: PlainConnection) -> Peer | None:
        """A peer for a connection; None if the job server takes no more."""
        try:
            peer = self._host.connect(connection, Origin("http"))
        except ConnectionError:
            return None
        self._host.open_iteration()
        self._face.server.receive(peer, pack_request(OPTION_REQ, b"exceptions"))
        return peer

    def follow(self, number: int) -> None:
        """A background job has just been submitted."""
        self._face.events.follow(number)

    def note(self, connection: PlainConnection, packet: Packet) -> bytes | None:
        """Take what has come of a job beside a whole result; the answer, if that was its end."""
        if packet.type == ERROR:
            return self._written(self._dialect.refusal(RefusedError(packet.arguments[0], packet.arguments[1])))
        outcome = connection.outcome = connection.outcome or Outcome(connection.handle, self._face.config.max_packet)
        try:
            return self._written(self._dialect.answer(outcome)) if outcome.note(packet) else None
        except Problem as problem:
            connection.leave_peer()
            return self._problem(problem)

    def stopping(self) -> bytes:
        """The answer to a request whose job has not ended when the job server stops."""
        return self._problem(stopping())

    def hand_over(self, connection: PlainConnection, transport: asyncio.Transport, data: bytes) -> None:
        """Have a connection served as any other of HTTP; ``data`` has come already."""
        protocol = self._make_protocol()
        transport.set_protocol(protocol)
        protocol.begin(transport, connection.name)
        if not transport.is_closing():
            protocol.data_received(data)

    def _problem(self, problem: Problem) -> bytes:
        response = problem.response()
        return self._written(Answer(problem.status, response.raw_headers, bytes(response.body)))

    def _written(self, answer: Answer) -> bytes:
        lines = [b"HTTP/1.1 %d %b" % (answer.status, HTTPStatus(answer.status).phrase.encode())]
        lines.append(b"date: " + formatdate(usegmt=True).encode())
        lines += [name + b": " + value for name, value in answer.headers]
        return b"\r\n".join(lines) + b"\r\n\r\n" + answer.body

    # ── for the reader ──────────────────────────────────────────────────────────────────────────────────────────

    def _function(self, target: bytes) -> bytes:
        path = target.decode("ascii")
        return b"" if is_ours(path) else self._dialect.function(target)

    def _is_host_of_ours(self, host: bytes) -> bool:
        if not host:
            return False
        try:
            self._face.access.check_host(host.decode("ascii"), "")
        except Problem:
            return False
        return True

    def _may_submit(self, host: str, authorization: bytes, function: bytes) -> bool:
        """Whether it may; where it may not, or it is not known who asks, the gate says so."""
        identity = self._face.access.known(authorization.decode("ascii"), host)
        return identity is not None and identity.may("submit", function)
