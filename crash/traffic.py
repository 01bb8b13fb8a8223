"""Submitters and workers that go on through every crash, and the ledger of what they saw.

Each job's workload can be made again from its id, so that a worker recognises a damaged one. A submission that was not
acknowledged when the connection broke is nobody's promise: it may come back or not.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from geartrain.errors import GeartrainError
from geartrain.link.address import Address
from geartrain.link.blocking import BlockingLink
from geartrain.wire import Packet, Parser, pack_request
from geartrain.wire import packets as p

FUNCTIONS = (b"crash-a", b"crash-b", b"crash-c")
SUBMITS = (p.SUBMIT_JOB_BG, p.SUBMIT_JOB_HIGH_BG, p.SUBMIT_JOB_LOW_BG)
WINDOW = 64  # submissions that a submitter has unanswered


def workload_of(number: int, largest: int) -> bytes:
    """The workload of job ``number``: its number, and bytes that follow from it; now and then a large one."""
    chance = random.Random(number)
    size = chance.choice((0, 10, 100, 1000, largest if chance.random() < 0.02 else 300))
    body = hashlib.shake_128(b"%d" % number).digest(size)
    return b"%d:" % number + body


@dataclass
class Ledger:
    """What was promised and what was done; every thread writes, under the lock."""

    largest: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    next_id: int = 0
    promised: dict[int, bytes] = field(default_factory=dict)  # id: handle
    refused: int = 0
    started: Counter[int] = field(default_factory=Counter)
    done: Counter[int] = field(default_factory=Counter)
    damaged: list[str] = field(default_factory=list)
    drained: list[tuple[bytes, int, int]] = field(default_factory=list)  # (function, priority, id) in the last drain

    def new_id(self) -> int:
        with self.lock:
            self.next_id += 1
            return self.next_id


class Threads:
    """Threads that talk to one address, and connect again, until told to stop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.stopping = threading.Event()
        self.threads: list[threading.Thread] = []

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)

    def run(self, body: Callable[[BlockingLink], None]) -> None:
        """Start a thread that has ``body`` talk over each of its connections."""
        thread = threading.Thread(target=self._for_ever, args=(body,), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _for_ever(self, body: Callable[[BlockingLink], None]) -> None:
        while not self.stopping.is_set():
            try:
                link = BlockingLink.connect(self.address, timeout=2)
            except GeartrainError:
                self.stopping.wait(0.02)
                continue
            try:
                body(link)
            except (GeartrainError, OSError):
                pass
            finally:
                link.close()


class Traffic(Threads):
    """Threads that submit and work."""

    def __init__(self, address: Address, ledger: Ledger) -> None:
        super().__init__(address)
        self.ledger = ledger

    def start(self, submitters: int, workers: int, pause: float) -> None:
        """``pause``: seconds that a worker takes for a job, so that a queue builds up."""
        for _ in range(submitters):
            self.run(self._submit)
        for _ in range(workers):
            self.run(lambda link: self._work(link, pause))

    def _submit(self, link: BlockingLink) -> None:
        parser = Parser()
        waiting: list[int] = []
        while not self.stopping.is_set():
            packets = []
            while len(waiting) < WINDOW:
                number = self.ledger.new_id()
                waiting.append(number)
                unique = (b"", b"-", b"u%d" % number)[number % 3]
                packets.append(
                    pack_request(
                        SUBMITS[number // 3 % 3],
                        FUNCTIONS[number % 3],
                        unique,
                        workload_of(number, self.ledger.largest),
                    )
                )
            link.send(b"".join(packets), timeout=10)
            for packet in receive(link, parser, 10):
                number = waiting.pop(0)
                with self.ledger.lock:
                    if packet.type == p.JOB_CREATED:
                        self.ledger.promised[number] = packet.arguments[0]
                    else:
                        self.ledger.refused += 1

    def _work(self, link: BlockingLink, pause: float) -> None:
        for _ in take_jobs(link, self.ledger, self.stopping.is_set):
            if pause:
                time.sleep(pause)  # a worker's work


def receive(link: BlockingLink, parser: Parser, seconds: float) -> list[Packet]:
    """At least one packet; raises GeartrainError when the connection ends or nothing comes."""
    while True:
        data = link.receive(seconds)
        if not data:
            raise GeartrainError("the connection ended")
        parser.feed(data)
        packets = []
        while (packet := parser.next_packet()) is not None:
            packets.append(packet)
        if packets:
            return packets


def take_jobs(
    link: BlockingLink, ledger: Ledger, enough: Callable[[], bool]
) -> Iterator[tuple[bytes, int, int] | None]:
    """Grab jobs, check and complete them; yields each one's (function, priority, id) before it is completed.

    Yields None where there is no job for a moment, after a short sleep.
    """
    parser = Parser()
    link.send(b"".join(pack_request(p.CAN_DO, name) for name in FUNCTIONS))
    while not enough():
        link.send(pack_request(p.GRAB_JOB_UNIQ))
        (packet,) = receive(link, parser, 15)
        if packet.type == p.NO_JOB:
            yield None
            time.sleep(0.01)
            continue
        handle, function, unique, workload = packet.arguments
        number = int(workload.partition(b":")[0] or b"0")
        expected = (FUNCTIONS[number % 3], (b"", b"-", b"u%d" % number)[number % 3])
        with ledger.lock:
            ledger.started[number] += 1
            if (function, unique) != expected or workload != workload_of(number, ledger.largest):
                ledger.damaged.append(f"job {number}: {function!r} {unique!r} {len(workload)} bytes")
            if ledger.promised.get(number, handle) != handle:
                ledger.damaged.append(f"job {number} came back as {handle!r}, not {ledger.promised[number]!r}")
        yield function, (1, 0, 2)[number // 3 % 3], number
        link.send(pack_request(p.WORK_COMPLETE, handle, b""))
        with ledger.lock:
            ledger.done[number] += 1
