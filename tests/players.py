"""Players of conversations: in memory against the rules, over sockets against a running job server.

A player owns a job server in its first state and keeps, for each connection, what was received and not told yet.
Over sockets every request is followed by a fence: an ECHO_REQ of our own on the same connection. Its answer says that
the server has dealt with all before it, which orders requests of different connections, and makes "nothing" a fact
found at once instead of a silence waited for.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import geartrain.daemon.config
import geartrain.daemon.process  # noqa: F401 (for the forked daemons)
from conversation import HEADER, Conversation, Message, Step, told
from geartrain.cli.main import main
from geartrain.jobserver import JobServer, Origin
from geartrain.jobserver.model import Peer
from geartrain.jobserver.settings import Settings
from servers import free_port, wait_until

OURS = ("--job-handle-prefix=H:t",)
REFEREE = ("--job-handle-prefix=H:t", "--threads=1")
"""What gearmand is started with. Where it fails inside it closes the connection; with several threads it is a matter of
luck whether it does, or never answers."""

PATIENCE = 10.0
"""Seconds to wait for bytes that must come."""


@contextlib.contextmanager
def forked_geartrain(*options: str) -> Iterator[int]:
    """Our daemon with ``options``, on the port that is given back.

    A process for each story, forked from this one: it has imported the daemon already, which takes longer than a story.
    """
    port = free_port()
    command = ["geartrain", "serve", f"--port={port}", "--listen=127.0.0.1", "--store=memory:", "--log-file=none"]
    command += options
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(command,))
    process.start()
    try:
        wait_until(lambda: _accepts(port) or process.exitcode is not None, f"{command} accepts connections")
        assert process.exitcode is None, f"{command} did not start: see its words below"
        yield port
    finally:
        process.terminate()
        process.join(10)
    assert process.exitcode == 0, f"{command} left with {process.exitcode}"


def _serve(command: list[str]) -> None:
    sys.argv = command
    main()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Player(ABC):
    """Plays the steps of a conversation; how bytes and time pass is what players differ in."""

    listeners: tuple[str, ...]  # whose lines this player plays

    def __init__(self) -> None:
        self.received: dict[str, bytes] = {}

    @abstractmethod
    def now(self) -> int:
        """The Unix time, in whole seconds."""

    @abstractmethod
    def open(self, name: str) -> None:
        """Connect."""

    @abstractmethod
    def send(self, name: str, data: bytes) -> None:
        """Send, and return when the job server has dealt with it."""

    @abstractmethod
    def more_comes(self, name: str) -> bool:
        """Add to ``received`` what comes; False if nothing does, or the server has closed."""

    @abstractmethod
    def nothing_comes(self, name: str) -> bool:
        """Whether everything was told already."""

    @abstractmethod
    def was_closed(self, name: str) -> bool:
        """Whether everything was told already and the job server has closed the connection; forget it."""

    @abstractmethod
    def close(self, name: str) -> None:
        """Leave, and return when the job server has dealt with it."""

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Let time pass."""

    @abstractmethod
    def leave(self) -> None:
        """Close every connection."""

    def play(self, conversation: Conversation) -> None:
        try:
            self._play(conversation)
        finally:
            self.leave()

    def _play(self, conversation: Conversation) -> None:
        for step in conversation.steps:
            if not step.is_for(self.listeners):
                continue
            if step.verb == "stop":
                return
            self._play_step(conversation.path, step)
        for name in list(self.received):
            self._check(conversation.path, None, self.nothing_comes(name), f"{name} got at the end", name)

    def _play_step(self, path: Path, step: Step) -> None:
        name = step.who
        if name and name not in self.received:
            self.received[name] = b""
            self.open(name)
        if step.verb == "->":
            self.send(name, b"".join(message.sent(self.now()) for message in step.messages))
        elif step.verb == "<-":
            for message in step.messages:
                self._check(path, step, self._take(name, step, message), f"{name} got", name)
        elif step.verb == "nothing":
            self._check(path, step, self.nothing_comes(name), f"{name} got", name)
        elif step.verb == "is closed":
            self._check(path, step, self.was_closed(name), f"{name} is open, or got", name)
            del self.received[name]
        elif step.verb == "closes":
            self.close(name)
            del self.received[name]
        elif step.verb == "wait":
            self.wait(float(step.value))

    def _take(self, name: str, step: Step, message: Message) -> bool:
        deadline = time.monotonic() + PATIENCE
        while (length := message.found_in(self.received[name], self.now())) is None:
            if time.monotonic() > deadline or not self.more_comes(name):
                return False
        self.received[name] = self.received[name][length:]
        return length > 0

    def _check(self, path: Path, step: Step | None, good: bool, instead: str, name: str) -> None:
        if not good:
            where = f"{path.name}:{step.line}: {step.text}" if step else path.name
            raise AssertionError(f"{where}\n{instead}\n{told(self.received.get(name, b''))}")


class MemoryPlayer(Player):
    """Plays against a JobServer that has no sockets and lives in a time of its own.

    The server is given what was sent in pieces of at most ``piece`` bytes.
    """

    listeners = ("memory", "geartrain")

    def __init__(self, options: list[str], began: datetime | None = None, piece: int = 1 << 30) -> None:
        super().__init__()
        began = began or datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
        settings = settings_from(options)
        settings.zone = began.tzinfo or UTC
        self.server = JobServer(settings)
        self.clock = 1000.0
        self.wall_at_zero = began.timestamp() - self.clock
        self.piece = piece
        self.peers: dict[str, Peer] = {}
        self._tick(self.clock)

    def now(self) -> int:
        return int(self.clock + self.wall_at_zero)

    def open(self, name: str) -> None:
        self.peers[name] = self.server.connect(Origin("127.0.0.1", 30 + len(self.server.peers)))

    def send(self, name: str, data: bytes) -> None:
        peer = self.peers[name]
        for start in range(0, len(data), self.piece):
            self.server.receive(peer, data[start : start + self.piece])
            self._collect()

    def _collect(self) -> None:
        """What the daemon does at the end of a turn: write what is owed, and go on with peers that had to wait."""
        names = {peer: name for name, peer in self.peers.items()}
        while self.server.touched:
            touched = cast(list[Peer], self.server.touched[:])
            self.server.touched.clear()
            for peer in (peer for peer in touched if not peer.gone):
                self.received[names[peer]] += b"".join(peer.take())
                if peer.stalled:
                    self.server.receive(peer, b"")

    def _tick(self, now: float) -> None:
        self.clock = now
        self.server.tick(now, now + self.wall_at_zero)
        self._collect()

    def wait(self, seconds: float) -> None:
        end = self.clock + seconds
        while 0 < (deadline := self.server.next_deadline()) <= end:
            self._tick(max(deadline, self.clock))
        before = dict(self.received)
        self._tick(end)
        assert self.received == before, "next_deadline() did not announce what has happened"

    def more_comes(self, name: str) -> bool:
        return False

    def nothing_comes(self, name: str) -> bool:
        return not self.received[name]

    def was_closed(self, name: str) -> bool:
        peer = self.peers[name]
        self.close(name)
        return peer.closing and not self.received[name]

    def close(self, name: str) -> None:
        self.server.lost(self.peers.pop(name))
        self._collect()

    def leave(self) -> None:
        for name in list(self.peers):
            self.close(name)


def settings_from(options: list[str]) -> Settings:
    """What the daemon makes of gearmand's options, for those that stories use."""
    settings = Settings()
    settings.handle_prefix = b"H:t"
    words = iter(options)
    for word in words:
        match word:
            case "--job-retries":
                settings.job_retries = int(next(words))
            case "--worker-wakeup":
                settings.worker_wakeup = int(next(words))
            case "--exceptions":
                settings.exceptions = True
            case "--exact-timeouts":
                settings.exact_timeouts = True
            case "--function-order":
                settings.listed_order = next(words) == "listed"
            case "--max-packet":
                settings.max_body = int(next(words))
            case "--max-memory":
                settings.max_memory = int(next(words))
            case "--round-robin":
                pass  # functions take turns anyway
            case _:
                raise ValueError(f"no story has needed {word} so far: say here what it means")
    return settings


class SocketPlayer(Player):
    """Plays over TCP against the job server at ``port``; ``kind`` is gearmand or geartrain."""

    def __init__(self, kind: str, port: int) -> None:
        super().__init__()
        self.listeners = ("sockets", kind)
        self.address = ("127.0.0.1", port)
        self.sockets: dict[str, socket.socket] = {}
        self.unfinished: dict[str, bytes] = {}
        self.fences = 0

    def now(self) -> int:
        return int(time.time())

    def open(self, name: str) -> None:
        self.sockets[name] = socket.create_connection(self.address, timeout=PATIENCE)
        self.sockets[name].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unfinished[name] = b""
        self._await_the_gone()

    def send(self, name: str, data: bytes) -> None:
        self.unfinished[name] = _unfinished(self.unfinished[name] + data)
        with contextlib.suppress(ConnectionError):
            self.sockets[name].sendall(data)
        if not self.unfinished[name]:
            self._fence(name)

    def _fence(self, name: str) -> bool:
        """Whether the server has answered all that came before, and is still there."""
        self.fences += 1
        token = b"fence %d" % self.fences
        answer = struct.pack(">4sII", b"\0RES", 17, len(token)) + token
        with contextlib.suppress(ConnectionError):
            self.sockets[name].sendall(struct.pack(">4sII", b"\0REQ", 16, len(token)) + token)
        while answer not in self.received[name] and self.more_comes(name):
            pass
        before, found, after = self.received[name].partition(answer)
        self.received[name] = before + after
        return bool(found)

    def more_comes(self, name: str, seconds: float = PATIENCE) -> bool:
        """Read once; False if the server closed the connection, or stays silent for ``seconds``."""
        self.sockets[name].settimeout(seconds)
        try:
            data = self.sockets[name].recv(1 << 20)
        except (ConnectionError, TimeoutError):
            return False
        self.received[name] += data
        return bool(data)

    def nothing_comes(self, name: str) -> bool:
        if self.unfinished[name]:
            self.more_comes(name, 0.05)  # a fence would become part of the half-sent message
            return not self.received[name]
        return self._fence(name) and not self.received[name]

    def was_closed(self, name: str) -> bool:
        while self.more_comes(name):
            pass
        with self.sockets.pop(name) as connection:
            return not self.received[name] and _is_at_end(connection)

    def close(self, name: str) -> None:
        """Say goodbye and wait until the server has closed its side: then it has dealt with the loss."""
        connection = self.sockets.pop(name)
        with contextlib.suppress(ConnectionError):
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass
        connection.close()
        self._await_the_gone()

    def _await_the_gone(self) -> None:
        """gearmand closes a socket before it deals with the loss, and lists the connection as -1 in between."""
        if "gearmand" not in self.listeners:
            return
        names = [name for name in self.sockets if not self.unfinished[name] and self._fence(name)]
        deadline = time.monotonic() + PATIENCE
        while names and b"-1" in self._listed(names[0]):
            if time.monotonic() > deadline:
                raise AssertionError("gearmand has not dealt with a closed connection")

    def _listed(self, name: str) -> list[bytes]:
        """The file descriptors that the text command `workers` lists, asked on this connection."""
        at = len(self.received[name])
        self.sockets[name].sendall(b"workers\n")
        while True:
            while self.received[name][at : at + 1] == b"\0" and (size := _message_size(self.received[name][at:])):
                at += size  # a packet that came before the list
            listing, dot, rest = self.received[name][at:].partition(b"\n.\n")
            if dot:
                self.received[name] = self.received[name][:at] + rest
                return [line.split(b" ")[0] for line in listing.splitlines()]
            if not self.more_comes(name):
                return []

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def leave(self) -> None:
        for connection in self.sockets.values():
            connection.close()


def _is_at_end(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except BlockingIOError:
        return False


def _message_size(data: bytes) -> int:
    """The size of the packet or text line that ``data`` begins with; 0 if it is not there whole."""
    if data[0]:
        return data.find(b"\n") + 1
    size = HEADER + struct.unpack(">I", data[8:HEADER])[0] if len(data) >= HEADER else HEADER
    return size if len(data) >= size else 0


def _unfinished(sent: bytes) -> bytes:
    """What is left of ``sent`` after its whole messages."""
    while sent and (size := _message_size(sent)):
        sent = sent[size:]
    return sent
