"""A job server in memory with its history and a store, and time as an argument."""

from __future__ import annotations

import asyncio
import struct
from typing import cast

from geartrain.daemon.extension import Host
from geartrain.daemon.fleet_view import FleetView
from geartrain.jobserver import JobServer, Origin, Peer, Settings
from geartrain.jobserver.records import Record
from geartrain.web.history import History
from geartrain.wire.packets import CAN_DO, GRAB_JOB, SUBMIT_JOB_BG, WORK_COMPLETE

START = 1_764_288_000  # a day begins


class MemorySite:
    """A job server whose seconds pass when they are told to."""

    def __init__(self, *, most: int = 64 << 20, durable: bool = False, at: int = START, **settings: int) -> None:
        self.most = most
        self.settings = Settings()
        self.settings.durable = durable
        self.settings.policies = {}
        for name, value in settings.items():
            setattr(self.settings, name, value)
        self.wall = float(at)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.fleet: FleetView | None = None
        self.monotonic_time = 1000.0
        self.records: dict[tuple[str, bytes], Record] = {}
        self.begin()

    def begin(self) -> None:
        self.server = JobServer(self.settings)
        self.peers: dict[str, Peer] = {}
        self.open_iteration()
        for record in self.records.values():
            if not 0 < record.expires <= self.wall:
                self.server.restore_record(record)
        self.history = History(cast(Host, self), self.most, clock=self)
        self.history.begin()

    def stop(self) -> None:
        """Do what is done when the job server is stopped."""
        for _ in self.history.look(int(self.wall)):
            pass
        for _ in self.history.save_all():
            pass
        self.commit()

    def commit(self) -> None:
        while (batch := self.server.take_batch()) is not None:
            for record in batch.records:
                if record.value is None:
                    self.records.pop((record.kind, record.key), None)
                else:
                    self.records[record.kind, record.key] = record
            self.server.written(batch)

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.monotonic_time

    def open_iteration(self) -> None:
        self.server.tick(self.monotonic_time, self.wall)

    def send(self, name: str, type: int, *arguments: bytes) -> None:
        if name not in self.peers:
            self.peers[name] = self.server.connect(Origin("127.0.0.1", len(self.peers)))
        body = b"\0".join(arguments)
        self.server.receive(self.peers[name], struct.pack(">4sII", b"\0REQ", type, len(body)) + body)
        self.server.touched.clear()

    def take(self, name: str) -> bytes:
        return b"".join(self.peers[name].take())

    def submit(self, function: bytes, count: int = 1) -> None:
        for _ in range(count):
            self.send("client", SUBMIT_JOB_BG, function, b"", b"")
        self.commit()
        if count:
            self.take("client")

    def work(self, function: bytes, count: int = 1, type: int = WORK_COMPLETE) -> None:
        """A worker does so many jobs."""
        worker = function.decode()
        self.send(worker, CAN_DO, function)
        for _ in range(count):
            self.take(worker)
            self.send(worker, GRAB_JOB)
            handle = self.take(worker)[12:].split(b"\0")[0]
            self.send(worker, type, handle, *((b"",) if type == WORK_COMPLETE else ()))
        self.commit()

    def leave(self, name: str) -> None:
        self.server.lost(self.peers.pop(name))
        self.server.touched.clear()

    def passes(self, seconds: float = 1.0) -> None:
        """So much time passes, and then the second that has ended is looked at."""
        self.wall += seconds
        self.monotonic_time += max(seconds, 0.0)
        self.open_iteration()
        for _ in self.history.look(int(self.wall) - 1):
            pass
        self.commit()
