"""A job server on a desk: peers that send packets and are handed what they get, and a clock that one may turn."""

from __future__ import annotations

import struct
from typing import cast

from structure import check

from conversation import NAMES, PACKETS
from geartrain.jobserver import JobServer, Origin, Peer, Settings
from geartrain.jobserver.records import Batch, Record, StoredJob, restore_order

WALL = 1_800_000_000.0


class Desk:
    """``send`` gives a peer's packets or lines to the server, ``take`` what the peer has got since."""

    def __init__(self, *, durable: bool = False, **settings: object) -> None:
        self.settings = Settings()
        self.settings.handle_prefix = b"H"
        self.settings.durable = durable
        self.settings.packet_timeout = 1e9
        for name, value in settings.items():
            setattr(self.settings, name, value)
        self.now = 1000.0
        self.wall = WALL
        self.jobs: dict[int, StoredJob] = {}  # in the store
        self.records: dict[tuple[str, bytes], Record] = {}
        self.is_first_life = True
        self.is_checked = True  # its structure, after each step: dear where there is much
        self._start()

    def _start(self) -> None:
        self.server = JobServer(self.settings)
        self.peers: dict[str, Peer] = {}
        self.got: dict[Peer, bytes] = {}
        self.server.tick(self.now, self.wall)

    def peer(self, name: str) -> Peer:
        if name not in self.peers:
            self.peers[name] = self.server.connect(Origin("127.0.0.1", 10 + len(self.peers)))
            self.got[self.peers[name]] = b""
        return self.peers[name]

    def send(self, name: str, packet: str, *arguments: bytes) -> None:
        body = b"\0".join(arguments)
        self.write(name, struct.pack(">4sII", b"\0REQ", PACKETS[packet][0], len(body)) + body)

    def write(self, name: str, data: bytes) -> None:
        self.server.receive(self.peer(name), data)
        self.settle()

    def text(self, name: str, line: str) -> str:
        """The answer to a text command."""
        assert not self.take(name)
        self.write(name, line.encode() + b"\n")
        self.commit()
        peer = self.peer(name)
        answer, self.got[peer] = self.got[peer], b""
        return answer.decode()

    def take(self, name: str) -> list[tuple[str | bytes, ...]]:
        """The packets that a peer has got: the name and the arguments of each."""
        peer = self.peer(name)
        data, self.got[peer] = self.got[peer], b""
        packets: list[tuple[str | bytes, ...]] = []
        while data:
            magic, type, size = struct.unpack(">4sII", data[:12])
            assert magic == b"\0RES", data
            body = data[12 : 12 + size]
            packets.append((NAMES[type], *(body.split(b"\0", PACKETS[NAMES[type]][1] - 1) if body else ())))
            data = data[12 + size :]
        return packets

    def leave(self, name: str) -> None:
        self.server.lost(self.peers.pop(name))
        self.settle()

    def wait(self, seconds: float) -> None:
        """Time passes, and the server is told of it when it wants to be."""
        end = self.now + seconds
        while True:
            at = self.server.next_deadline()
            if at == 0 or at > end:
                break
            self._pass(max(at, self.now))
        self._pass(end)

    def _pass(self, now: float) -> None:
        self.wall += now - self.now
        self.now = now
        self.server.tick(self.now, self.wall)
        self.settle()

    def settle(self) -> None:
        while self.server.touched:
            touched = cast(list[Peer], self.server.touched[:])
            self.server.touched.clear()
            for peer in touched:
                self.got[peer] = self.got.get(peer, b"") + b"".join(peer.take())
                if peer.stalled:
                    self.server.receive(peer, b"")
        if self.is_checked:
            check(self.server, is_first_life=self.is_first_life)

    # ── workers and clients in a word ───────────────────────────────────────────────────────────────────────────

    def works(self, name: str, *functions: bytes, verdicts: bool = False) -> None:
        """A worker that can do this."""
        for function in functions:
            self.send(name, "CAN_DO", function)
        if verdicts:
            self.send(name, "OPTION_REQ", b"policies")
            assert self.take(name) == [("OPTION_RES", b"policies")]

    def grab(self, name: str) -> bytes | None:
        """The handle of the job that a worker gets; None if it gets none."""
        self.send(name, "GRAB_JOB")
        (answer,) = [packet for packet in self.take(name) if packet[0] != "NOOP"]
        return cast(bytes, answer[1]) if answer[0] == "JOB_ASSIGN" else None

    def submit(self, function: bytes, unique: bytes = b"", workload: bytes = b"w", kind: str = "SUBMIT_JOB_BG",
               client: str = "client") -> bytes:  # fmt: skip
        """The handle of a new job."""
        self.send(client, kind, function, unique, workload)
        self.commit()
        (answer,) = self.take(client)
        assert answer[0] == "JOB_CREATED", answer
        return cast(bytes, answer[1])

    # ── the store ───────────────────────────────────────────────────────────────────────────────────────────────

    def commit(self) -> None:
        """The store takes all that there is for it."""
        while (batch := self.server.take_batch()) is not None:
            self.store(batch)
            self.server.written(batch)
            self.settle()

    def store(self, batch: Batch) -> None:
        """Keep a batch as a store does."""
        self.jobs.update((job.number, job) for job in batch.added)
        for change in batch.changed:
            if change.number in self.jobs:
                job = self.jobs[change.number]
                job.position, job.due, job.priority, job.attempts = (
                    change.position, change.due, change.priority, change.attempts,
                )  # fmt: skip
        for number in batch.removed:
            self.jobs.pop(number, None)
        for record in batch.records:
            if record.value is None:
                self.records.pop((record.kind, record.key), None)
            else:
                self.records[record.kind, record.key] = record

    def restart(self, *, commits: bool = True) -> None:
        """The process ends as by kill -9, and a new one starts from the store."""
        if commits:
            self.commit()
        number = self.server.next_number
        self.is_first_life = False
        self._start()
        self.server.next_number = number
        first = ("policy", "pause")
        for name in [name for name, record in self.records.items() if 0 < record.expires <= self.wall]:
            del self.records[name]
        for record in list(self.records.values()):
            if record.kind in first:
                self.server.restore_record(record)
        for job in sorted(self.jobs.values(), key=lambda job: job.position):
            self.server.restore(job)
        others = [self.records[name] for name in sorted(self.records) if self.records[name].kind not in first]
        for record in sorted(others, key=restore_order):
            self.server.restore_record(record)
        self.server.restored()
        self.settle()
