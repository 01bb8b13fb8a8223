"""A JobServer and the naive one side by side: whatever is done to both, each peer must get the same.

After each step the outputs are compared byte by byte, the insides of the real one are checked (``structure``), and so
is that it asks to be called in time for the next thing that must happen.

With ``durable`` the real one has a store, which answers when ``commit`` is called: until then answers may be held back,
and afterwards everybody must have everything, and the store exactly the background jobs, in their order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, cast

from naive import NaiveServer, Options, Raised, Refusal
from structure import check

from conversation import PACKETS, told
from geartrain.jobserver import JobServer, Origin, Peer, Settings
from geartrain.jobserver.model import KEY_SLOT_COST
from geartrain.jobserver.policy import Policy, read_policy
from geartrain.jobserver.records import Batch, StoredJob

SOON = 1e-6
COUNTERS = ("submitted", "coalesced", "refused", "started", "completed", "failed", "timed_out", "cancelled",
            "abandoned", "lost", "bytes_in", "bytes_out")  # fmt: skip


def request(name: str, *arguments: bytes) -> bytes:
    """A packet to the job server, from any arguments."""
    body = b"\0".join(arguments)
    return struct.pack(">4sII", b"\0REQ", PACKETS[name][0], len(body)) + body


def go_on(server: JobServer, peer: Peer) -> None:
    """What a driver does in its next iteration for a peer whose requests had to wait."""
    server.tick(server.now, server.wall)
    server.receive(peer, b"")


def settings_for(options: Options) -> Settings:
    settings = Settings()
    for name, value in vars(options).items():
        setattr(settings, name, value)
    settings.version = b"model"
    settings.packet_timeout = 1e9
    settings.store_timeout = 1e9
    return settings


class World:
    def __init__(self, *, durable: bool = False, policy: str = "", **options: Any) -> None:
        """``policy``: of all functions at the real one. It must change nothing that anybody sees."""
        self.naive = NaiveServer(Options(**options))
        settings = settings_for(self.naive.options)
        settings.durable = durable
        if policy:
            settings.policies = {b"*": cast(Policy, read_policy(policy.split()))}
        self.real = JobServer(settings)
        self.batch: Batch | None = None  # on its way to the store
        self.stored: dict[int, StoredJob] = {}
        self.peers: dict[str, Peer] = {}
        self.received: dict[str, bytes] = {}
        self.sleeps: dict[str, int] = {}  # NOOPs that each peer may still get
        self.next_fd = 10
        self.now = 1000.0
        self.wall = 1_800_000_000.0
        self._tick()

    # ── what can be done ────────────────────────────────────────────────────────────────────────────────────────

    def connect(self, name: str) -> None:
        self.next_fd += 1
        self.peers[name] = self.real.connect(Origin("127.0.0.1", self.next_fd))
        self.received[name] = b""
        self.naive.connect(name, "127.0.0.1", self.next_fd)

    def send(self, name: str, data: bytes, cuts: Iterable[int] = ()) -> None:
        """Let a peer send bytes, in pieces that end at ``cuts``."""
        edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
        for start, end in pairwise(edges):
            self.real.receive(self.peers[name], data[start:end])
            self.naive.receive(name, data[start:end])
            self.compare()

    def disconnect(self, name: str) -> None:
        self.real.lost(self.peers.pop(name))
        self.naive.lost(name)
        del self.received[name]
        self.compare()

    def hand_over(self) -> None:
        """What has gathered goes to the store, which thinks about it."""
        if self.batch is None:
            self.batch = self.real.take_batch()

    def commit(self) -> None:
        """The store has what was on its way, and all that has gathered since."""
        while True:
            self.hand_over()
            if self.batch is None:
                break
            self._store(self.batch)
            self.real.written(self.batch)
            self.batch = None
            self.compare()
        for name, peer in self.peers.items():
            assert peer.first_deferred is None, f"{name} is still held back"
        self._compare_store()

    def _store(self, batch: Batch) -> None:
        """As a store must: added, moved, removed, in this order."""
        for job in batch.added:
            self.stored[job.number] = job
        for change in batch.changed:
            stored = self.stored.get(change.number)
            if stored is not None:
                stored.position, stored.attempts = change.position, change.attempts
                stored.due = change.due
                assert change.priority == stored.priority
        for number in batch.removed:
            self.stored.pop(number, None)

    def wait(self, seconds: float) -> None:
        """Time passes; both are told of it when the real one wants to be, and at the end."""
        end = self.now + seconds
        while self.now < (at := self.real.next_deadline()) <= end:
            self._pass_to(at)
        self._pass_to(end)

    def _pass_to(self, now: float) -> None:
        self.wall += now - self.now
        self.now = now
        self._tick()
        self.compare()

    def _tick(self) -> None:
        self.real.tick(self.now, self.wall)
        self.naive.tick(self.now, self.wall)

    # ── what must hold ──────────────────────────────────────────────────────────────────────────────────────────

    def compare(self) -> None:
        names = {peer: name for name, peer in self.peers.items()}
        while self.real.touched:
            touched = cast(list[Peer], self.real.touched[:])
            self.real.touched.clear()
            for peer in touched:
                data = b"".join(peer.take())
                if peer in names:
                    self.received[names[peer]] += data
                else:
                    assert not data, f"{peer} is gone and gets {told(data)}"
                if peer.stalled:
                    go_on(self.real, peer)
        for name, peer in self.peers.items():
            self._compare_output(name)
            assert peer.closing == (name in self.naive.closed)
        check(self.real)
        self._compare_state()
        self._check_deadline()

    def _compare_output(self, name: str) -> None:
        got = self.received[name]
        outbox = self.naive.outbox[name]
        held_back = self.peers[name].first_deferred is not None
        count = 0
        for expected in outbox:
            if held_back and not got:
                break
            length = _length_of(expected, got)
            assert length, f"{name} got\n{told(got)}\ninstead of\n{_shown(expected)}"
            got = got[length:]
            count += 1
        assert not got, f"{name} got beside what it should\n{told(got)}"
        self.received[name] = b""
        del outbox[:count]

    def _compare_state(self) -> None:
        real, naive = self.real, self.naive
        assert real.memory - self._slot_memory() == naive.memory
        assert real.next_number == naive.next_number
        assert list(real.functions) == list(naive.functions)
        for name, function in real.functions.items():
            for priority, queue in enumerate((function.high, function.normal, function.low)):
                numbers = []
                job = queue.first
                while job is not None:
                    numbers.append(job.number)
                    job = job.next
                assert numbers == [job.number for job in naive.queued(name) if job.priority == priority]
            for priority, counters in enumerate((function.high_counters, function.counters, function.low_counters)):
                counted = naive.counters.get((name, priority))
                assert (counters is None) == (counted is None)
                if counters is None or counted is None:
                    continue
                for counter in COUNTERS:
                    assert getattr(counters, counter) == counted[counter], f"{name!r} {counter} {priority}"

    def _slot_memory(self) -> int:
        gates = [function.gate for function in self.real.functions.values()]
        return KEY_SLOT_COST * sum(len(gate.keys or ()) for gate in gates if gate is not None)

    def _compare_store(self) -> None:
        """Every background job that is alive, and nothing else, is in the store, in an order that a restart keeps.

        (A job that came due goes to the end of its line; after a restart it stands where it was submitted.)
        """
        if not self.real.durable:
            return
        alive = {job.number: job for job in self.naive.jobs if job.background}
        assert self.stored.keys() == alive.keys()
        for number, job in alive.items():
            stored = self.stored[number]
            assert (stored.function, stored.unique, stored.workload, stored.priority, stored.reducer) == (
                job.function, job.unique, job.workload, job.priority, job.reducer,
            )  # fmt: skip
            assert stored.attempts == job.attempts
            assert stored.due == job.due
        for name in self.naive.functions:
            line = [job for job in self.naive.queued(name) if job.background and not job.due]
            assert [job.number for job in line] == [
                job.number
                for job in sorted(
                    line, key=lambda job: (job.priority, job.attempts > 0, self.stored[job.number].position)
                )
            ]

    def _check_deadline(self) -> None:
        """The real one must want to be called before anything is due."""
        naive = self.naive
        planned = [peer.woken_until for peer in naive.peers.values() if peer.woken_for is not None]
        planned += [job.timer for job in naive.jobs if job.timer]
        planned += [self.now + job.due - self.wall for job in naive.jobs if job.state == "delayed"]
        deadline = self.real.next_deadline()
        if planned:
            assert 0 < deadline <= min(planned) + SOON
        assert deadline == 0 or deadline > self.now - SOON, "it would be called again and again"


def _length_of(expected: bytes | Refusal | Raised, got: bytes) -> int:
    """How many bytes at the start of ``got`` are what was expected; 0 if they are something else."""
    if isinstance(expected, bytes):
        return len(expected) if got.startswith(expected) else 0
    size = 12 + int.from_bytes(got[8:12], "big")
    name, nul, text = got[12:size].partition(b"\0")
    is_whole = nul and text and len(got) >= size
    if isinstance(expected, Raised):
        head = struct.pack(">4sI", b"\0RES", PACKETS["WORK_EXCEPTION"][0])
        return size if got.startswith(head) and is_whole and name == expected.handle else 0
    if expected.line:
        line, end, _ = got.partition(b"\r\n")
        return len(line) + len(end) if end and line.startswith(b"ERR " + expected.code + b" ") else 0
    head = struct.pack(">4sI", b"\0RES", PACKETS["ERROR"][0])
    return size if got.startswith(head) and is_whole and name == expected.code else 0


def _shown(expected: bytes | Refusal | Raised) -> str:
    return told(expected) if isinstance(expected, bytes) else repr(expected)
