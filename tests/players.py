"""Players of conversations: in memory against the rules, over sockets against a running job server.

A player owns a job server in its first state and keeps, for each connection, what was received and not told yet.
Over sockets every request is followed by a fence: an ECHO_REQ of our own on the same connection. Its answer says that
the server has dealt with all before it, which orders requests of different connections, and makes "nothing" a fact
found at once instead of a silence waited for.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from pathlib import Path

from geartrain.jobserver import JobServer
from geartrain.jobserver.peer import Peer
from geartrain.jobserver.settings import Settings

from conversation import HEADER, Conversation, Message, Step, told

PATIENCE = 5.0
"""Seconds to wait for bytes that must come."""


class Player:
    """Plays the steps of a conversation; what differs between memory and sockets is in the methods below."""

    listeners: tuple[str, ...]

    def __init__(self) -> None:
        self.received: dict[str, bytes] = {}

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

    ``piece`` is how many bytes the server is given at once: all that was sent, or one by one.
    """

    listeners = ("memory", "geartrain")

    def __init__(self, options: list[str], began: float | None = None, piece: int = 1 << 30) -> None:
        super().__init__()
        self.server = JobServer(settings_from(options))
        self.clock = 1000.0
        self.wall_at_zero = (began or 1_800_000_000) - self.clock
        self.piece = piece
        self.peers: dict[str, Peer] = {}
        self._tick(self.clock)

    def now(self) -> int:
        return int(self.clock + self.wall_at_zero)

    def open(self, name: str) -> None:
        self.peers[name] = self.server.connect("127.0.0.1", 30 + len(self.server.peers))

    def send(self, name: str, data: bytes) -> None:
        peer = self.peers[name]
        for start in range(0, len(data), self.piece):
            self.server.receive(peer, data[start : start + self.piece])
            self._collect()

    def _collect(self) -> None:
        """What the daemon does at the end of a turn: write what is owed, and go on with peers that had to wait."""
        names = {peer: name for name, peer in self.peers.items()}
        while self.server.touched:
            touched = self.server.touched[:]
            self.server.touched.clear()
            for peer in touched:
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
        self._tick(end)

    def more_comes(self, name: str) -> bool:
        return False

    def nothing_comes(self, name: str) -> bool:
        return not self.received[name]

    def was_closed(self, name: str) -> bool:
        peer = self.peers.pop(name)
        self.server.lost(peer)
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
            case "--round-robin":
                pass  # functions take turns anyway
            case _:
                raise ValueError(f"no story has needed {word} so far: say here what it means")
    return settings


class SocketPlayer(Player):
    """Plays over TCP against the job server at ``host:port``; ``kind`` is gearmand or geartrain."""

    def __init__(self, kind: str, host: str, port: int) -> None:
        super().__init__()
        self.listeners = ("sockets", kind)
        self.address = (host, port)
        self.sockets: dict[str, socket.socket] = {}
        self.unfinished: dict[str, bytes] = {}
        self.fences = 0

    def now(self) -> int:
        return int(time.time())

    def open(self, name: str) -> None:
        self.sockets[name] = socket.create_connection(self.address, timeout=PATIENCE)
        self.sockets[name].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unfinished[name] = b""

    def send(self, name: str, data: bytes) -> None:
        self.unfinished[name] = _unfinished(self.unfinished[name] + data)
        with contextlib.suppress(ConnectionError):
            self.sockets[name].sendall(data)
        if not self.unfinished[name]:
            self._fence(name)

    def _fence(self, name: str) -> None:
        self.fences += 1
        token = b"fence %d" % self.fences
        answer = struct.pack(">4sII", b"\0RES", 17, len(token)) + token
        with contextlib.suppress(ConnectionError):
            self.sockets[name].sendall(struct.pack(">4sII", b"\0REQ", 16, len(token)) + token)
        while answer not in self.received[name] and self.more_comes(name):
            pass
        self.received[name] = self.received[name].replace(answer, b"")

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
        else:
            self._fence(name)
        return not self.received[name]

    def was_closed(self, name: str) -> bool:
        while self.more_comes(name):
            pass
        return not self.received[name] and self._is_at_end(name)

    def _is_at_end(self, name: str) -> bool:
        self.sockets[name].settimeout(0)
        try:
            return self.sockets[name].recv(1) == b""
        except ConnectionError:
            return True
        except BlockingIOError:
            return False

    def close(self, name: str) -> None:
        """Say goodbye and wait until the server has closed its side: then it has dealt with the loss."""
        connection = self.sockets.pop(name)
        with contextlib.suppress(ConnectionError):
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass
        connection.close()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def leave(self) -> None:
        for connection in self.sockets.values():
            connection.close()


def _unfinished(sent: bytes) -> bytes:
    """What is left of ``sent`` after its whole messages."""
    while sent:
        if sent[0]:
            _, newline, rest = sent.partition(b"\n")
            if not newline:
                break
        else:
            size = struct.unpack(">I", sent[8:HEADER])[0] if len(sent) >= HEADER else 0
            if len(sent) < HEADER + size:
                break
            rest = sent[HEADER + size :]
        sent = rest
    return sent
