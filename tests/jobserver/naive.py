"""A job server without any cleverness, to hold the real one against.

It is written from the protocol reference and the rules that the project decided on, keeps everything in plain lists
and searches them for each question. It must be right, and need be nothing else.

``outbox`` holds what each peer is to get, piece by piece: bytes that must come exactly so, or a ``Refusal``, of which
only the code matters, or what was ``Raised``.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from conversation import NAMES, PACKETS

FIRST_BYTES = 16 * 1024  # all arguments but the last must end within so many bytes of a packet
JOB_COST, KEY_COST, REDUCER_COST, DELAYED_COST, SUBSCRIBER_COST = 200, 100, 50, 150, 100
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # what changes the direction of text
FUNCTION_COST, TALLY_COST, ABILITY_COST, REVOKED_COST = 1600, 800, 250, 100
FORMER = 1000
TO_SERVER = {
    "CAN_DO", "CANT_DO", "RESET_ABILITIES", "PRE_SLEEP", "SUBMIT_JOB", "GRAB_JOB", "WORK_STATUS", "WORK_COMPLETE",
    "WORK_FAIL", "GET_STATUS", "ECHO_REQ", "SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH", "SET_CLIENT_ID", "CAN_DO_TIMEOUT",
    "ALL_YOURS", "WORK_EXCEPTION", "OPTION_REQ", "WORK_DATA", "WORK_WARNING", "GRAB_JOB_UNIQ", "SUBMIT_JOB_HIGH_BG",
    "SUBMIT_JOB_LOW", "SUBMIT_JOB_LOW_BG", "SUBMIT_JOB_SCHED", "SUBMIT_JOB_EPOCH", "SUBMIT_REDUCE_JOB",
    "SUBMIT_REDUCE_JOB_BACKGROUND", "GRAB_JOB_ALL", "GET_STATUS_UNIQUE",
}  # fmt: skip
REPORTS = {"WORK_STATUS", "WORK_COMPLETE", "WORK_EXCEPTION", "WORK_DATA", "WORK_WARNING"}
METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"}
VERSIONS = {b"HTTP/" + number for number in (b"0.9", b"1.0", b"1.1", b"2", b"2.0", b"3")}
OTHER_VERSIONS = {b"RTSP/1.0", b"RTSP/2.0", b"SIP/2.0"}
REQUEST = re.compile(rb"\s*\S+\s+(?:/|\*|\S*://)(?:.*\s)?(HTTP|RTSP|SIP)/[0-9]+(?:\.[0-9]+)?\s*", re.DOTALL)
NO_WEB_SERVER = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 54\r\n\r\n"
    b"This is a Gearman job server. It does not speak HTTP.\n"
)
ASSIGNS = {"JOB_ASSIGN", "JOB_ASSIGN_UNIQ", "JOB_ASSIGN_ALL"}
HIGH, NORMAL, LOW = 0, 1, 2
SCHEDULE = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))


def is_binary(byte: bytes) -> bool:
    """Whether no line of text begins with this byte."""
    return byte != b"" and byte not in (b"\b", b"\t", b"\n", b"\r", b"\x1b") and not b" " <= byte <= b"\x7f"


def foreign(line: bytes) -> bytes:
    """The protocol that a connection's first line is of; none: this one."""
    words = line.upper().split()
    if is_binary(line[:1]):
        return b"binary"
    if words and words[0] in METHODS:
        return b"HTTP"
    if words and words[0] in (b"CLIENT", b"PROXY"):
        return words[0]
    if words and words[-1] in VERSIONS | OTHER_VERSIONS:
        return words[-1].partition(b"/")[0]
    if found := REQUEST.fullmatch(line.upper()):
        return found[1]
    return b"binary" if any(is_binary(bytes([byte])) for byte in line if byte < 128) else b""


@dataclass
class Options:
    """The settings that the model knows."""

    handle_prefix: bytes = b"H:t"
    job_retries: int = -1
    worker_wakeup: int = 1
    listed_order: bool = False
    exceptions: bool = False
    wake_timeout: float = 1.0
    max_body: int = 1 << 20
    max_line: int = 8192
    max_function: int = 512
    max_unique: int = 64
    max_functions: int = 100_000
    max_memory: int = 0
    max_abilities: int = 1000
    forget_after: float = 1e9
    exact_timeouts: bool = False


@dataclass(frozen=True)
class Refusal:
    """An ERROR packet, or with ``line`` an ERR line, with this code and some text."""

    code: bytes
    line: bool = False


@dataclass(frozen=True)
class Raised:
    """A WORK_EXCEPTION of the job server's own: the job's handle, and some text."""

    handle: bytes


@dataclass
class NaiveJob:
    number: int
    function: bytes
    unique: bytes
    workload: bytes
    priority: int
    background: bool
    reducer: bytes = b""
    state: str = "queued"
    queued_at: int = 0  # its place in the order of everything that ever happened
    due: float = 0.0
    worker: str | None = None
    assigned_at: int = 0
    timer: float = 0.0
    listeners: list[str] = field(default_factory=list)
    attempts: int = 0
    numerator: int = 0
    denominator: int = 0


@dataclass
class NaivePeer:
    name: str
    host: str
    fd: int
    exceptions: bool
    abilities: list[bytes] = field(default_factory=list)  # whose turn it is comes first
    registered: list[bytes] = field(default_factory=list)  # last registered first
    timeouts: dict[bytes, float] = field(default_factory=dict)
    asleep: dict[bytes, int] | None = None  # since when, for each ability
    woken_for: bytes | None = None
    woken_until: float = 0.0
    woken_at: int = 0
    former: list[int] = field(default_factory=list)
    id: bytes = b""
    had_turn: bool = False
    greeted: bool = False  # whether its first message was one of Gearman
    buffer: bytes = b""
    skip: int = 0  # bytes of a report too large that are still to come


def packet(name: str, *arguments: bytes) -> bytes:
    body = b"\0".join(arguments)
    return struct.pack(">4sII", b"\0RES", PACKETS[name][0], len(body)) + body


class NaiveServer:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.now = 0.0
        self.wall = 0.0
        self.events = 0  # counts up, to order what happens
        self.next_number = 1
        self.jobs: list[NaiveJob] = []
        self.peers: dict[str, NaivePeer] = {}
        self.functions: dict[bytes, tuple[int, int, int]] = {}  # and their limits
        self.idle: dict[bytes, float] = {}  # functions without jobs, workers and limits: since when
        self.counters: dict[tuple[bytes, int], Counter[str]] = {}  # by priority too; of high and low as far as need be
        self.outbox: dict[str, list[bytes | Refusal | Raised]] = {}
        self.closed: set[str] = set()
        self.passed: dict[bytes, Counter[int]] = defaultdict(Counter)
        self.losses = 0
        self.last_lost: Counter[bytes] = Counter()  # as a count of losses
        self.draining = False

    # ── questions ───────────────────────────────────────────────────────────────────────────────────────────────

    def queued(self, function: bytes) -> list[NaiveJob]:
        """The jobs that wait, in the order in which they must be given out."""
        waiting = [job for job in self.jobs if job.function == function and job.state == "queued"]
        return sorted(waiting, key=lambda job: (job.priority, job.attempts > 0, job.queued_at))

    def _next(self, function: bytes) -> NaiveJob:
        """The job whose turn it is; of those that have lost a worker one is taken when a hundred have passed them."""
        waiting = self.queued(function)
        line = [job for job in waiting if job.priority == waiting[0].priority]
        lost = [job for job in line if job.attempts]
        passed = self.passed[function]
        if lost and (line[0] is lost[0] or passed[line[0].priority] >= 100):
            passed[line[0].priority] = 0
            return lost[0]
        passed[line[0].priority] += bool(lost)
        return line[0]

    def running(self, peer: NaivePeer) -> list[NaiveJob]:
        """Most recently assigned first."""
        return sorted((job for job in self.jobs if job.worker == peer.name), key=lambda job: -job.assigned_at)

    def count(self, function: bytes, state: str = "", priority: int = -1) -> int:
        return sum(
            job.function == function and state in ("", job.state) and priority in (-1, job.priority)
            for job in self.jobs
        )

    def sleepers(self, function: bytes) -> list[NaivePeer]:
        """Longest asleep first."""
        peers = [peer for peer in self.peers.values() if peer.asleep is not None and function in peer.asleep]
        return sorted(peers, key=lambda peer: (peer.asleep or {})[function])

    def woken(self, function: bytes) -> int:
        return sum(peer.woken_for == function for peer in self.peers.values())

    def find(self, handle: bytes) -> NaiveJob | None:
        return next((job for job in self.jobs if self.handle(job) == handle), None)

    def find_present(self, function: bytes, unique: bytes, workload: bytes) -> NaiveJob | None:
        if unique == b"" or (unique == b"-" and workload == b""):
            return None
        for job in self.jobs:
            same = job.workload == workload if unique == b"-" else True
            if job.function == function and job.unique == unique and same:
                return job
        return None

    def handle(self, job: NaiveJob) -> bytes:
        return self.options.handle_prefix + b":%d" % job.number

    @property
    def memory(self) -> int:
        return (
            sum(
                _cost(job.unique, job.workload, job.reducer, job.due) + SUBSCRIBER_COST * len(job.listeners)
                for job in self.jobs
            )
            + sum(_function_cost(name) for name in self.functions)
            + sum(TALLY_COST for _, priority in self.counters if priority != NORMAL)
            + sum(ABILITY_COST * len(peer.abilities) + REVOKED_COST * len(peer.former) for peer in self.peers.values())
        )

    # ── the four verbs ──────────────────────────────────────────────────────────────────────────────────────────

    def connect(self, name: str, host: str, fd: int) -> None:
        self.peers[name] = NaivePeer(name, host, fd, self.options.exceptions)
        self.outbox[name] = []

    def receive(self, name: str, data: bytes) -> None:
        peer = self.peers.get(name)
        if peer is None:
            return  # it was hung up on
        peer.buffer += data[peer.skip :]
        peer.skip = max(peer.skip - len(data), 0)
        while name in self.peers and peer.buffer and self._message(peer):
            self._note_idle()
        if name in self.peers and not peer.greeted and is_binary(peer.buffer[:1]):
            self._hang_up(peer)
        self._note_idle()

    def lost(self, name: str) -> None:
        self._leave(name)
        self._note_idle()
        self.outbox.pop(name)
        self.closed.discard(name)

    def tick(self, now: float, wall: float) -> None:
        self.now, self.wall = now, wall
        while True:
            late = [peer for peer in self.peers.values() if peer.woken_for is not None and peer.woken_until <= now]
            if not late:
                break
            peer = min(late, key=lambda peer: peer.woken_at)
            function, peer.woken_for = peer.woken_for, None
            self._wake(function)
        for job in sorted((job for job in self.jobs if 0 < job.timer <= now), key=lambda j: (j.timer, j.number)):
            assert job.worker is not None
            self._remember(self.peers[job.worker], job)
            self._tally(job).update(timed_out=1, failed=1)
            self._tell(job, packet("WORK_FAIL", self.handle(job)))
            self.jobs.remove(job)
        due = [job for job in self.jobs if job.state == "delayed" and job.due <= wall]
        for job in sorted(due, key=lambda job: (job.due, job.number)):
            self._enqueue(job)
        self._note_idle()
        for name in [name for name, since in self.idle.items() if since + self.options.forget_after <= now]:
            self._forget(name)

    def _note_idle(self) -> None:
        for name, limits in self.functions.items():
            if any(limits) or self.count(name) or self._workers_of(name):
                self.idle.pop(name, None)
            else:
                self.idle.setdefault(name, self.now)

    def _forget(self, name: bytes) -> None:
        del self.functions[name]
        self.idle.pop(name, None)
        for priority in (HIGH, NORMAL, LOW):
            self.counters.pop((name, priority), None)
        self.passed.pop(name, None)
        self.last_lost.pop(name, None)

    # ── messages ────────────────────────────────────────────────────────────────────────────────────────────────

    def _message(self, peer: NaivePeer) -> bool:
        """Take one message off the peer's buffer; False if none is whole."""
        data = peer.buffer
        if data[0] != 0:
            line, newline, rest = data.partition(b"\n")
            if len(line) + 1 > self.options.max_line or (not newline and len(data) >= self.options.max_line):
                protocol = b"" if peer.greeted else foreign(data[: min(64, self.options.max_line)])
                if protocol:
                    self._refuse_foreign(peer, protocol)
                else:
                    self._hang_up(peer, Refusal(b"LINE_TOO_LONG", line=True))
                return False
            if not newline:
                return False
            peer.buffer = rest
            if not peer.greeted and (protocol := foreign(line)):
                self._refuse_foreign(peer, protocol)
                return False
            peer.greeted = peer.greeted or bool(line.split())
            self._line(peer, line.removesuffix(b"\r"))
            return True
        peer.greeted = True
        if len(data) < 12:
            return False
        magic, number, size = struct.unpack(">4sII", data[:12])
        if magic not in (b"\0REQ", b"\0RES"):
            self._hang_up(peer, *([] if data.startswith(b"\0\r\nQUIT\n") else [Refusal(b"INVALID_MAGIC")]))
            return False
        if size > self.options.max_body and NAMES.get(number) in (REPORTS if magic == b"\0REQ" else REPORTS | ASSIGNS):
            return self._too_large(peer, magic, NAMES[number], size)
        if size > self.options.max_body:
            self._hang_up(peer, Refusal(b"ARGUMENT_TOO_LARGE"))
            return False
        if len(data) < 12 + size:
            return False
        peer.buffer = data[12 + size :]
        if magic == b"\0RES":
            self._refuse(peer, b"INVALID_MAGIC")
        elif NAMES.get(number) not in TO_SERVER:
            self._refuse(peer, b"INVALID_COMMAND")
        else:
            self._packet(peer, NAMES[number], data[12 : 12 + size])
        return True

    def _packet(self, peer: NaivePeer, name: str, body: bytes) -> None:
        match name:
            case "CAN_DO":
                self._can_do(peer, body, 0.0)
            case "CAN_DO_TIMEOUT":
                function, nul, text = body.partition(b"\0")
                milliseconds = _whole_number(text.strip(b"\0 \t\r\n"))
                if milliseconds is None or milliseconds > 10**15:
                    milliseconds = 0  # no limit
                elif 0 < milliseconds < 1000 and not self.options.exact_timeouts:
                    milliseconds = 1000
                if not nul:
                    self._refuse(peer, b"INVALID_PACKET")
                else:
                    self._can_do(peer, function, max(milliseconds, 0) / 1000)
            case "CANT_DO":
                self._cant_do(peer, body)
            case "RESET_ABILITIES":
                self._reset_abilities(peer)
            case "PRE_SLEEP":
                self._fall_asleep(peer)
            case "GRAB_JOB" | "GRAB_JOB_UNIQ" | "GRAB_JOB_ALL":
                self._grab(peer, name)
            case "WORK_STATUS" | "WORK_COMPLETE" | "WORK_FAIL" | "WORK_EXCEPTION" | "WORK_DATA" | "WORK_WARNING":
                self._report(peer, name, body)
            case "GET_STATUS":
                handle = body.partition(b"\0")[0]
                self._send(peer.name, packet("STATUS_RES", handle, *_state(self.find(handle))))
            case "GET_STATUS_UNIQUE":
                unique = body.partition(b"\0")[0]
                found = [job for job in self.jobs if unique not in (b"", b"-") and job.unique == unique]
                job = max(found, key=lambda job: job.number, default=None)
                clients = b"%d" % (len(job.listeners) if job else 0)
                self._send(peer.name, packet("STATUS_RES_UNIQUE", unique, *_state(job), clients))
            case "ECHO_REQ":
                self._send(peer.name, packet("ECHO_RES", body))
            case "SET_CLIENT_ID":
                peer.id = body[:127]
            case "OPTION_REQ":
                if body.lower() == b"exceptions":
                    peer.exceptions = True
                    self._send(peer.name, packet("OPTION_RES", body))
                else:
                    self._refuse(peer, b"UNKNOWN_OPTION")
            case "ALL_YOURS":
                pass
            case _:
                self._submit(peer, name, body)

    # ── submission ──────────────────────────────────────────────────────────────────────────────────────────────

    def _submit(self, peer: NaivePeer, name: str, body: bytes) -> None:
        extra = {"SUBMIT_JOB_EPOCH": 1, "SUBMIT_JOB_SCHED": 5, "SUBMIT_REDUCE_JOB": 1,
                 "SUBMIT_REDUCE_JOB_BACKGROUND": 1}.get(name, 0)  # fmt: skip
        arguments, workload = _split(body, 2)
        if len(arguments) < 2:
            return self._refuse(peer, b"INVALID_PACKET")
        function, unique = arguments
        if len(unique) > self.options.max_unique:
            return self._refuse(peer, b"ARGUMENT_TOO_LARGE")
        arguments, workload = _split(body, 2 + extra)
        if len(arguments) < 2 + extra:
            return self._refuse(peer, b"INVALID_PACKET")
        due = 0.0
        reducer = b""
        if name == "SUBMIT_JOB_EPOCH":
            seconds = _whole_number(arguments[2])
            if seconds is None:
                return self._refuse(peer, b"INVALID_ARGUMENT")
            due = float(max(seconds, 0))
        elif name == "SUBMIT_JOB_SCHED":
            found = next_minute(arguments[2:], self.wall)
            if found is None:
                return self._refuse(peer, b"INVALID_ARGUMENT")
            due = found
        elif "REDUCE" in name:
            reducer = arguments[2]
            if len(reducer) > self.options.max_function:
                return self._refuse(peer, b"ARGUMENT_TOO_LARGE")
            with_aggregator, rest = _split(body, 4)
            if len(with_aggregator) == 4:
                workload = rest
        if not self._know(peer, function):
            return None

        background = name.endswith(("_BG", "_BACKGROUND", "_EPOCH", "_SCHED"))
        job = self.find_present(function, unique, workload)
        if job is not None:
            if background:
                job.background = True
            elif self._is_full(SUBSCRIBER_COST):
                self._tally_of(function, job.priority)["refused"] += 1
                return self._refuse(peer, b"QUEUE_ERROR")
            else:
                job.listeners.append(peer.name)
            self._tally(job)["coalesced"] += 1
            return self._send(peer.name, packet("JOB_CREATED", self.handle(job)))

        priority = HIGH if "_HIGH" in name else LOW if "_LOW" in name else NORMAL
        limit = self.functions[function][priority]
        cost = _cost(unique, workload, reducer, due if due > self.wall else 0) + (0 if background else SUBSCRIBER_COST)
        if (0 < limit <= self.count(function)) or self.draining or self._is_full(cost):
            self._tally_of(function, priority)["refused"] += 1
            return self._refuse(peer, b"QUEUE_ERROR")
        job = NaiveJob(self.next_number, function, unique, workload, priority, background, reducer)
        self.next_number += 1
        self.jobs.append(job)
        if not background:
            job.listeners.append(peer.name)
        counters = self._tally_of(function, priority)
        counters["submitted"] += 1
        counters["bytes_in"] += len(workload)
        self._send(peer.name, packet("JOB_CREATED", self.handle(job)))
        if due > self.wall:
            job.state = "delayed"
            job.due = due
        else:
            self._enqueue(job)
        return None

    def _tally_of(self, function: bytes, priority: int) -> Counter[str]:
        """Where a submission is counted; with the normal ones as long as there is no room for more counters."""
        if (function, priority) not in self.counters and not self._is_full(TALLY_COST):
            self.counters[function, priority] = Counter()
        return self.counters.get((function, priority), self.counters[function, NORMAL])

    def _tally(self, job: NaiveJob) -> Counter[str]:
        return self.counters.get((job.function, job.priority), self.counters[job.function, NORMAL])

    def _is_full(self, cost: int) -> bool:
        return 0 < self.options.max_memory < self.memory + cost

    def _know(self, peer: NaivePeer, function: bytes) -> bool:
        """Make the function if need be; False if a limit forbids it, which the peer was told."""
        if function in self.functions:
            return True
        if len(function) > self.options.max_function:
            self._refuse(peer, b"ARGUMENT_TOO_LARGE")
        elif not self._may_create(function):
            self._refuse(peer, b"QUEUE_ERROR")
        else:
            self._create(function)
        return function in self.functions

    def _may_create(self, function: bytes) -> bool:
        """Whether the limits let it be made; for that the function that is idle for longest may be forgotten."""
        if len(function) > self.options.max_function:
            return False
        if len(self.functions) >= self.options.max_functions:
            if not self.idle:
                return False
            self._forget(next(iter(self.idle)))
        return not self._is_full(_function_cost(function))

    def _create(self, function: bytes) -> None:
        self.functions.setdefault(function, (0, 0, 0))
        self.counters.setdefault((function, NORMAL), Counter())
        self._note_idle()

    def _enqueue(self, job: NaiveJob) -> None:
        self.events += 1
        if job.attempts and not any(
            other.attempts and other.priority == job.priority for other in self.queued(job.function)
        ):
            self.passed[job.function][job.priority] = 0
        job.state = "queued"
        job.queued_at = self.events
        self._wake(job.function)

    # ── wake-ups ────────────────────────────────────────────────────────────────────────────────────────────────

    def _wake(self, function: bytes | None) -> None:
        """As many sleepers as jobs wait are woken, longest asleep first; those woken before and silent still count."""
        if function is None:
            return
        wakeups = self.options.worker_wakeup
        while (sleepers := self.sleepers(function)) and (waiting := len(self.queued(function))):
            if wakeups and self.woken(function) >= waiting * wakeups:
                return
            self._rouse(sleepers[0], function)

    def _rouse(self, peer: NaivePeer, function: bytes) -> None:
        self.events += 1
        peer.asleep = None
        peer.woken_for = function
        peer.woken_until = self.now + self.options.wake_timeout
        peer.woken_at = self.events
        self._send(peer.name, packet("NOOP"))

    def _fall_asleep(self, peer: NaivePeer) -> None:
        was, peer.woken_for = peer.woken_for, None
        self._wake(was)
        for function in peer.abilities:
            if self.queued(function):
                return self._rouse(peer, function)
        if peer.asleep is None:
            self.events += 1
            peer.asleep = dict.fromkeys(peer.abilities, self.events)
        return None

    # ── workers ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _can_do(self, peer: NaivePeer, function: bytes, timeout: float) -> None:
        if function not in peer.abilities:
            if len(peer.abilities) >= self.options.max_abilities:
                return self._refuse(peer, b"QUEUE_ERROR")
            if not self._know(peer, function):
                return None
            if self._is_full(ABILITY_COST):
                return self._refuse(peer, b"QUEUE_ERROR")
            peer.abilities.insert(0, function)
            peer.registered.insert(0, function)
            if peer.asleep is not None:
                self.events += 1
                peer.asleep[function] = self.events
        peer.timeouts[function] = timeout
        return self._wake(function)

    def _cant_do(self, peer: NaivePeer, function: bytes) -> None:
        if function not in peer.abilities:
            return
        peer.abilities.remove(function)
        peer.registered.remove(function)
        if peer.asleep is not None:
            del peer.asleep[function]
        for job in self.running(peer):
            if job.function == function:
                self._remember(peer, job)
                self._lose(job)
        if peer.woken_for == function:
            peer.woken_for = None
            self._wake(function)

    def _reset_abilities(self, peer: NaivePeer) -> None:
        peer.abilities.clear()
        peer.registered.clear()
        if peer.asleep is not None:
            peer.asleep.clear()
        for job in self.running(peer):
            self._remember(peer, job)
            self._lose(job)
        was, peer.woken_for = peer.woken_for, None
        self._wake(was)

    def _grab(self, peer: NaivePeer, name: str) -> None:
        was, peer.woken_for = peer.woken_for, None
        peer.asleep = None
        able = [function for function in peer.abilities if self.queued(function)]
        if not able:
            self._send(peer.name, packet("NO_JOB"))
        else:
            if self.options.listed_order:
                function = able[0]
            else:
                last_lost = Counter[bytes]() if peer.had_turn else self.last_lost
                function = min(able, key=lambda function: (self.queued(function)[0].priority, last_lost[function]))
                if len(peer.abilities) > 1:
                    peer.had_turn = True
                peer.abilities.remove(function)
                peer.abilities.append(function)
            self._assign(peer, self._next(function), name)
        self._wake(was)

    def _assign(self, peer: NaivePeer, job: NaiveJob, name: str) -> None:
        self.events += 1
        self._tally(job)["started"] += 1
        job.state = "running"
        job.worker = peer.name
        job.assigned_at = self.events
        timeout = peer.timeouts[job.function]
        job.timer = self.now + timeout if timeout else 0.0
        if job.number in peer.former:
            peer.former.remove(job.number)
        arguments = [self.handle(job), job.function, job.workload]
        if name != "GRAB_JOB":
            arguments.insert(2, job.unique)
        if name == "GRAB_JOB_ALL" and job.reducer:
            arguments.insert(3, job.reducer)
        kind = {3: "JOB_ASSIGN", 4: "JOB_ASSIGN_UNIQ", 5: "JOB_ASSIGN_ALL"}[len(arguments)]
        self._send(peer.name, packet(kind, *arguments))

    def _report(self, peer: NaivePeer, name: str, body: bytes) -> None:
        arguments, rest = _split(body, 1)
        handle = arguments[0] if arguments else body
        job = self.find(handle)
        if job is None or job.worker != peer.name:
            if not any(handle == self.options.handle_prefix + b":%d" % number for number in peer.former):
                self._refuse(peer, b"JOB_NOT_FOUND")
            return
        data = rest if arguments else b""
        told = packet(name, handle, data)
        if name == "WORK_STATUS":
            numerator, _, denominator = data.partition(b"\0")
            job.numerator, job.denominator = _c_number(numerator), _c_number(denominator)
            told = packet(name, handle, numerator, denominator)
        elif name == "WORK_FAIL":
            told = packet(name, handle)
        self._tell(job, told)
        if name in ("WORK_COMPLETE", "WORK_DATA"):
            self._tally(job)["bytes_out"] += len(data)
        if name in ("WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION"):
            self._tally(job)["completed" if name == "WORK_COMPLETE" else "failed"] += 1
            if name == "WORK_EXCEPTION":
                self._remember(peer, job)
            self.jobs.remove(job)

    def _too_large(self, peer: NaivePeer, magic: bytes, name: str, size: int) -> bool:
        """The job of such a report fails, and the report is left out; what is about no job of the peer ends it."""
        names = {"WORK_STATUS": 2, "JOB_ASSIGN": 2, "JOB_ASSIGN_UNIQ": 3, "JOB_ASSIGN_ALL": 4}.get(name, 1)
        head = peer.buffer[12 : min(12 + size, FIRST_BYTES)]
        if head.count(b"\0") < names and len(head) < min(size, FIRST_BYTES - 12):
            return False
        handle, nul, _ = head.partition(b"\0")
        job = self.find(handle) if nul or len(head) == size else None
        former = any(handle == self.options.handle_prefix + b":%d" % number for number in peer.former)
        if magic == b"\0RES":
            self._hang_up(peer, Refusal(b"ARGUMENT_TOO_LARGE"))
            return False
        if job is not None and job.worker == peer.name:
            self._refuse(peer, b"ARGUMENT_TOO_LARGE")
            for listener in job.listeners:
                if self.peers[listener].exceptions:
                    self.outbox[listener].append(Raised(self.handle(job)))
                else:
                    self._send(listener, packet("WORK_FAIL", self.handle(job)))
            self._tally(job)["failed"] += 1
            self._remember(peer, job)
            self.jobs.remove(job)
        elif not former:
            self._hang_up(peer, Refusal(b"ARGUMENT_TOO_LARGE"))
            return False
        peer.skip = max(12 + size - len(peer.buffer), 0)
        peer.buffer = peer.buffer[12 + size :]
        return True

    def _tell(self, job: NaiveJob, told: bytes) -> None:
        """Every client of the job gets the packet; who knows no exceptions gets WORK_FAIL in their place."""
        for listener in job.listeners:
            if told[4:8] == b"\0\0\0\x19" and not self.peers[listener].exceptions:
                self._send(listener, packet("WORK_FAIL", self.handle(job)))
            else:
                self._send(listener, told)

    def _remember(self, peer: NaivePeer, job: NaiveJob) -> None:
        if job.number in peer.former:
            return
        peer.former.append(job.number)
        del peer.former[:-FORMER]

    def _lose(self, job: NaiveJob) -> None:
        job.worker = None
        job.timer = 0.0
        job.attempts += 1
        job.numerator = job.denominator = 0
        counters = self._tally(job)
        counters["lost"] += 1
        self.losses += 1
        self.last_lost[job.function] = self.losses
        if not job.background and not job.listeners:
            counters["abandoned"] += 1
            self.jobs.remove(job)
        elif self.options.job_retries >= 0 and job.attempts >= max(self.options.job_retries, 1):
            counters["failed"] += 1
            self._tell(job, packet("WORK_FAIL", self.handle(job)))
            self.jobs.remove(job)
        elif job.attempts > 1:
            job.state = "delayed"
            job.due = self.wall + min(2 ** (job.attempts - 2), 60)
        else:
            self._enqueue(job)

    # ── the end of a peer ───────────────────────────────────────────────────────────────────────────────────────

    def _refuse_foreign(self, peer: NaivePeer, protocol: bytes) -> None:
        self._hang_up(peer, *([NO_WEB_SERVER] if protocol == b"HTTP" else []))

    def _hang_up(self, peer: NaivePeer, *last_word: bytes | Refusal) -> None:
        self.outbox[peer.name] += last_word
        self._leave(peer.name)
        self.closed.add(peer.name)

    def _leave(self, name: str) -> None:
        peer = self.peers.pop(name, None)
        if peer is None:
            return
        for job in list(self.jobs):
            if name in job.listeners:
                job.listeners = [listener for listener in job.listeners if listener != name]
                if not job.listeners and not job.background and job.state != "running":
                    self._tally(job)["abandoned"] += 1
                    self.jobs.remove(job)
        self._wake(peer.woken_for)
        for job in self.running(peer):
            self._lose(job)

    # ── text ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _line(self, peer: NaivePeer, line: bytes) -> None:
        first, *rest = line.partition(b"\0")[0].split(b" ")
        words = [word for word in rest if word]
        if len(words) > 4:
            self._hang_up(peer, Refusal(b"TOO_MANY_WORDS", line=True))
            return
        answer = self._answer(peer, first, words)
        if isinstance(answer, list):
            answer = b"".join(line + b"\n" for line in [*answer, b"."])
        self._send(peer.name, answer)

    def _answer(self, peer: NaivePeer, first: bytes, words: list[bytes]) -> bytes | list[bytes] | Refusal:
        command = first.lower()
        match [command, *words]:
            case [b"status", *_]:
                return [
                    b"%b\t%d\t%d\t%d"
                    % (_shown(name), self.count(name), self.count(name, "running"), self._workers_of(name))
                    for name in self.functions
                ]
            case [b"prioritystatus", *_]:
                return [self._priority_line(name) for name in self.functions]
            case [b"workers", *_]:
                return [
                    b"%d %b %b :%b"
                    % (
                        peer.fd,
                        peer.host.encode(),
                        (b" " + _shown(peer.id)).replace(b" :", b" \\x3a")[1:] or b"-",
                        b"".join(b" " + _shown(name) for name in peer.registered),
                    )
                    for peer in self.peers.values()
                ]
            case [b"show", word] if word.lower() == b"jobs":
                return [
                    b"%b\t%d\t%d\t%d" % (self.handle(job), job.attempts, _is_unwanted(job), job.background)
                    for job in self.jobs
                ]
            case [b"show", one, two] if (one.lower(), two.lower()) == (b"unique", b"jobs"):
                return [_shown(job.unique) if job.unique != b"." else b"\\x2e" for job in self.jobs]
            case [b"show", _, *_]:
                return b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"
            case [b"version", *_]:
                return b"OK model\n"
            case [b"getpid", *_]:
                return b"OK 0\n"
            case [b"verbose", *_]:
                return b"OK ERROR\n"
            case [b"create", word, name] if word.lower() == b"function":
                if name not in self.functions and not self._may_create(name):
                    return b"ERR CREATE_FUNCTION %b\r\n" % name
                self._create(name)
                return b"OK\r\n"
            case [b"drop", word, name] if word.lower() == b"function":
                return self._drop(name)
            case [b"maxqueue", name, *limits]:
                return self._maxqueue(name, limits)
            case [(b"create" | b"drop" | b"maxqueue"), *_]:
                return b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+%b\r\n" % command
            case [b"cancel", word, handle] if word.lower() == b"job":
                return self._cancel(self.find(handle))
            case [b"cancel", _, _, *_]:
                return b"ERR UNKNOWN_ERROR\r\n"
        return b"ERR UNKNOWN_COMMAND Unknown+server+command%b\r\n" % first

    def _workers_of(self, function: bytes) -> int:
        return sum(function in peer.abilities for peer in self.peers.values())

    def _priority_line(self, name: bytes) -> bytes:
        high, normal, low = (self.count(name, "queued", priority) for priority in (HIGH, NORMAL, LOW))
        normal += self.count(name, "delayed")
        return b"%b\t%d\t%d\t%d\t%d" % (_shown(name), high, normal, low, self._workers_of(name))

    def _drop(self, name: bytes) -> bytes:
        if name not in self.functions:
            return b"ERR function not found\r\n"
        if self._workers_of(name) or self.count(name, "running"):
            return b"ERR there are still connected workers or executing clients\r\n"
        for job in self.queued(name) + [job for job in self.jobs if job.function == name and job.state == "delayed"]:
            self._cancel(job)
        self._forget(name)
        return b"OK\r\n"

    def _maxqueue(self, name: bytes, words: list[bytes]) -> bytes | Refusal:
        limits = [min(int(word), 2**32) if word.isdigit() and len(word) < 20 else 0 for word in words]
        if len(limits) == 1:
            limits *= 3
        high, normal, low = (*limits, 0, 0, 0)[:3]
        if name not in self.functions and not any((high, normal, low)):
            return b"OK\r\n"
        if name not in self.functions and not self._may_create(name):
            return Refusal(b"MAXQUEUE", line=True)
        self._create(name)
        self.functions[name] = (high, normal, low)
        return b"OK\r\n"

    def _cancel(self, job: NaiveJob | None) -> bytes:
        if job is None:
            return b"ERR UNKNOWN_JOB\r\n"
        self._tally(job)["cancelled"] += 1
        self._tell(job, packet("WORK_FAIL", self.handle(job)))
        if job.worker is not None:
            self._remember(self.peers[job.worker], job)
        self.jobs.remove(job)
        return b"OK\r\n"

    # ── output ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, name: str, data: bytes | Refusal) -> None:
        self.outbox[name].append(data)

    def _refuse(self, peer: NaivePeer, code: bytes) -> None:
        self.outbox[peer.name].append(Refusal(code))


def _split(body: bytes, count: int) -> tuple[list[bytes], bytes]:
    """Up to ``count`` arguments that end in a NUL where one must stand, and what follows them."""
    arguments: list[bytes] = []
    start = 0
    while len(arguments) < count and (end := body.find(b"\0", start, FIRST_BYTES - 12)) >= 0:
        arguments.append(body[start:end])
        start = end + 1
    return arguments, body[start:]


def _cost(unique: bytes, workload: bytes, reducer: bytes, due: float) -> int:
    """What a job takes of the memory limit, its clients aside."""
    cost = JOB_COST + len(workload)
    if unique:
        cost += len(unique) + KEY_COST
    if reducer:
        cost += len(reducer) + REDUCER_COST
    return cost + (DELAYED_COST if due else 0)


def _function_cost(name: bytes) -> int:
    shown = _shown(name)
    return FUNCTION_COST + len(name) + (0 if shown == name else len(shown))


def _shown(name: bytes) -> bytes:
    """A name as listings have it: what ends lines, steers terminals or turns text round is escaped."""
    shown = ""
    for character in name.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if 0xDC80 <= code < 0xDCA0:
            shown += f"\\x{code - 0xDC00:02x}"
        elif unicodedata.category(character) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(character) in TURNS:
            names = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
            shown += names.get(character) or (f"\\x{code:02x}" if code < 128 else f"\\u{code:04x}")
        else:
            shown += character
    return shown.encode("utf-8", "surrogateescape")


def _whole_number(text: bytes) -> int | None:
    digits = text.removeprefix(b"-")
    return int(text) if digits.isdigit() and len(digits) <= 18 else None


def _c_number(text: bytes) -> int:
    """As C's atoi reads it, wrapped to unsigned 32 bits."""
    text = text[:20].lstrip()
    sign = -1 if text[:1] == b"-" else 1
    if text[:1] in (b"-", b"+"):
        text = text[1:]
    digits = text[: len(text) - len(text.lstrip(b"0123456789"))]
    return (sign * int(digits or b"0")) % 2**32


def _state(job: NaiveJob | None) -> tuple[bytes, bytes, bytes, bytes]:
    if job is None:
        return b"0", b"0", b"0", b"0"
    return b"1", b"1" if job.state == "running" else b"0", b"%d" % job.numerator, b"%d" % job.denominator


def _is_unwanted(job: NaiveJob) -> bool:
    return job.state == "running" and not job.background and not job.listeners


def next_minute(fields: list[bytes], wall: float) -> float | None:
    """The first minute after ``wall`` (UTC) that matches all fields of a schedule."""
    wanted: list[int | None] = []
    for text, (_, low, high) in zip(fields, SCHEDULE, strict=True):
        if text in (b"", b"*"):
            wanted.append(None)
        elif text.isdigit() and len(text) <= 4 and low <= int(text) <= high:
            wanted.append(int(text))
        else:
            return None
    minute, hour, day, month, weekday = wanted
    start = datetime.fromtimestamp(wall, UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    date = start.replace(hour=0, minute=0)
    for _ in range(366 * 41):
        if day in (None, date.day) and month in (None, date.month) and weekday in (None, date.weekday()):
            hours = range(24) if hour is None else [hour]
            minutes = range(60) if minute is None else [minute]
            for at in (date.replace(hour=h, minute=m) for h in hours for m in minutes):
                if at >= start:
                    return at.timestamp()
        date += timedelta(days=1)
    return None
