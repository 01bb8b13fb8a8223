"""What an HTTP connection is at first: plain submissions go straight to the job server, and their results come back.

No task, no parser of HTTP and no application stands between: the connection is the outlet of a peer of its own, and the
packets for that peer are made an answer. The first request that is not plain, and all behind it, goes to the
connection that ``Plain.hand_over`` makes. One request is answered after the other; what comes before its turn waits.
"""

from __future__ import annotations

from typing import Any, Final, final

from geartrain.daemon.flow import DRAIN, FULL, GO_ON, Flow
from geartrain.jobserver import JobServer
from geartrain.jobserver.model import Peer
from geartrain.native import i64
from geartrain.web.plain_request import MORE, PlainReader
from geartrain.wire.packets import (
    JOB_CREATED,
    OPTION_RES,
    WORK_COMPLETE,
    request_head,
)
from geartrain.wire.parser import LARGEST_BODY, Parser

MAX_PARTS: Final = 8  # reads in which a plain request comes at most


@final
class Plain:
    """What all these connections share: the job server, the reader of requests, and ``host``, the daemon.

    ``face`` does what is rare, see ``PlainFace``. ``head`` is what stands before the handle in the answers
    of most jobs; ``face`` renews it each second, since it tells the time.
    """

    def __init__(self, server: JobServer, reader: PlainReader, host: Any, face: Any) -> None:
        self.server: JobServer = server
        self.reader: PlainReader = reader
        self.host = host
        self.face = face
        self.head = b""
        self.connections: dict[PlainConnection, None] = {}


@final
class PlainConnection:
    """One connection, as asyncio's protocol and as the daemon's outlet."""

    def __init__(self, plain: Plain) -> None:
        self.plain: Plain = plain
        self.transport: Any = None
        self.name: Any = None  # the addresses of both ends, where the transport does not know them
        self.host = ""  # of the client
        self.peer: Peer | None = None
        self.parser: Parser = Parser(LARGEST_BODY)
        self.begun = b""  # what has come of the next request
        self.parts: i64 = 0  # in how many reads
        self.asked_at: float = 0.0  # when the request was read that is not answered yet; 0: all are
        self.active_at: float = 0.0  # when anything came or went
        self.has_asked: bool = False
        self.background: bool = False
        self.handle = b""
        self.outcome: Any = None  # what has come beside a result, as ``submitting.Outcome``
        self.full: bool = False  # the client does not read
        self.paused: bool = False  # the client is not read
        self.flow: Any = Flow()

    # ── what the transport tells ────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: Any) -> None:
        if self.plain.face.is_crowded():
            transport.abort()
            return
        self.transport = transport
        self.active_at = self.plain.server.now
        self.host = self.plain.face.host_of(self, transport)
        self.plain.connections[self] = None

    def data_received(self, data: bytes) -> None:
        if self.begun:
            data = self.begun + data
        if self.asked_at or self.full:
            self.begun = data
            if len(data) > FULL:
                self.paused = True
                self.transport.pause_reading()
                self._count()
            return
        self.begun = b""
        self.read(data)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.full = True
        self._count()

    def resume_writing(self) -> None:
        self.full = False
        self._count()
        self.go_on()

    def connection_lost(self, error: Any) -> None:
        self.leave()

    # ── requests ────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, data: bytes) -> None:
        """Read a request, and submit what it asks for."""
        plain = self.plain
        server = plain.server
        reader = plain.reader
        size = reader.read(data, self.host)
        if size == MORE and self.parts < MAX_PARTS:
            self.begun = data
            self.parts += 1
            return
        if size <= 0 or server.draining:
            self.hand_over(data)
            return
        peer = self.peer
        if peer is None:
            peer = plain.face.connect(self)
            if peer is None:
                self.hand_over(data)
                return
            self.peer = peer
        self.parts = 0
        if size < len(data):
            self.begun = data[size:]
        plain.host.open_iteration()
        self.asked_at = server.now
        self.has_asked = True
        self.background = reader.background
        function = reader.function
        unique = reader.unique
        workload = reader.workload
        body: i64 = len(function) + len(unique) + len(workload) + 2
        submission = b"%b%b\0%b\0%b" % (request_head(reader.type, body), function, unique, workload)
        number: i64 = server.next_number
        server.receive(peer, submission)
        if self.background and server.next_number != number:
            plain.face.follow(int(server.next_number) - 1)

    def go_on(self) -> None:
        """Read the request that has come meanwhile, once the one before is answered and its answer has been taken."""
        if self.asked_at or self.full or self.transport is None or self.transport.is_closing():
            return
        if self.paused:
            self.paused = False
            self.transport.resume_reading()
        data = self.begun
        if data:
            self.begun = b""
            self.read(data)

    def hand_over(self, data: bytes) -> None:
        """Let another protocol go on, which is given what has not been read here."""
        transport = self.transport
        self.leave()
        if not transport.is_closing():
            if self.paused:
                transport.resume_reading()
            self.plain.face.hand_over(self, transport, data)

    def leave(self) -> None:
        """This connection is no more; a foreground job that it waits for has lost its client."""
        plain = self.plain
        plain.connections.pop(self, None)
        plain.host.unread.forget(self)
        self.begun = b""
        self.transport = None
        self.leave_peer()

    def leave_peer(self) -> None:
        """Give up the job that is waited for, and the peer with it; the next request has another."""
        peer = self.peer
        if peer is not None:
            self.peer = None
            self.parser = Parser(LARGEST_BODY)
            self.outcome = None
            self.plain.host.lost(peer)

    # ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self) -> None:
        peer = self.peer
        if peer is None:
            return
        if peer.overflown:
            self.abort()
            return
        parser = self.parser
        for buffer in peer.take():
            parser.feed(bytes(buffer))
            while True:
                type = parser.advance()
                if type < 0:
                    break
                self._came(parser, type)
        if peer.is_unsettled and self.peer is not None:
            self._look_after(peer)

    def _came(self, parser: Parser, type: i64) -> None:
        if not self.asked_at:
            return
        if type == JOB_CREATED:
            self.handle = parser.data[parser.body : parser.end]
            if self.background:
                rest = b"x-gearman-command: JOB_CREATED\r\ncontent-length: 0"
                self.answer(b"%b%b\r\n%b\r\n\r\n" % (self.plain.head, self.handle, rest))
        elif type == WORK_COMPLETE and self.outcome is None and parser.pieces is None:
            start: i64 = parser.body + len(self.handle) + 1
            size: i64 = parser.end - start
            self.answer(
                b"%b%b\r\nx-gearman-command: WORK_COMPLETE\r\ncontent-length: %d\r\n\r\n%b"
                % (self.plain.head, self.handle, int(size), parser.data[start : parser.end])
            )
        elif type != OPTION_RES:
            self._note(parser.packet())

    def _note(self, packet: Any) -> None:
        """What is not the whole result of a job that has gone well."""
        answer = self.plain.face.note(self, packet)
        if answer is not None:
            self.answer(answer)
        elif self.outcome is not None:
            self._count()

    def answer(self, answer: bytes) -> None:
        """Write the answer to the request at hand."""
        self.asked_at = 0.0
        self.active_at = self.plain.server.now
        self.outcome = None
        self.transport.write(answer)
        if self.begun:
            self.plain.host.loop.call_soon(self.go_on)

    def _look_after(self, peer: Peer) -> None:
        """What most writes need not do."""
        loop = self.plain.host.loop
        if peer.has_more:
            loop.call_soon(self._write_on)
        step = self.flow.after_write(peer)
        if step == GO_ON:
            loop.call_soon(self._receive_on)
        elif step == DRAIN:
            self.drain_close(0.0)

    def _write_on(self) -> None:
        peer = self.peer
        if peer is not None and peer.has_more:
            self.plain.host.open_iteration()
            peer.touch()

    def _receive_on(self) -> None:
        peer = self.peer
        if peer is not None and peer.stalled:
            self.plain.host.open_iteration()
            self.plain.server.receive(peer, b"")

    # ── what the daemon asks ────────────────────────────────────────────────────────────────────────────────────

    @property
    def unread(self) -> int:
        held = len(self.begun)
        if self.full and self.transport is not None:
            held += self.transport.get_write_buffer_size()
        if self.outcome is not None:
            held += self.outcome.size
        if self.peer is not None:
            held += int(self.peer.held)
        return int(held)

    def _count(self) -> None:
        host = self.plain.host
        if self.full or self.unread > FULL:
            host.unread.note(self, self.unread)
            host.relieve()
        else:
            host.unread.forget(self)

    def abort(self) -> None:
        transport = self.transport
        if transport is not None:
            self.plain.host.on_abort(self.peer, self.unread)
            transport.abort()
        self.leave()

    def drain_close(self, seconds: float) -> None:
        transport = self.transport
        if transport is None:
            return
        if self.asked_at:
            self.answer(self.plain.face.stopping())
        transport.close()
        self.leave()
