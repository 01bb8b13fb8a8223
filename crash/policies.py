"""Traffic for functions with policies, and the ledger of each job's attempts.

*crash-retry* is tried four times, with pauses: its workers report failures and exceptions, hang up, take too long, and
succeed at the second, third or fourth attempt, or never. *crash-keys* runs one job of a key at a time. The results of
*crash-results* are kept. *crash-expire* has no worker, so its jobs expire. *crash-paused* is paused, and must not be
begun before it is resumed. *crash-runs* is run four times a second by a schedule, which makes up for missed runs; a run
is known by the unique of its job. A clerk sets and unsets policies and pauses functions.

Which attempts may be made again is known exactly. The job server has read the end of one when the worker gets its next
answer, and the store has it when a job of a paused function was acknowledged that was submitted after that (another job
may be acknowledged without having been stored, if it has ended meanwhile). Such an attempt is *sure*: it is never made
again. Any other may be, if the job server is killed.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from traffic import Threads, receive

from geartrain import Client
from geartrain.errors import GeartrainError
from geartrain.link.address import Address
from geartrain.link.blocking import BlockingLink
from geartrain.wire import Packet, Parser, pack_request
from geartrain.wire import packets as p
from servers import RunningServer

LIMIT = 4
PAUSE = 0.3  # seconds between two attempts
SLACK = 0.1  # a pause counts from the beginning of the job server's turn, and that may be long on a busy machine
TIMEOUT = 1.0
POLICIES = {
    b"crash-retry": f"attempts={LIMIT} backoff=constant delay={PAUSE}s jitter=0 timeout={TIMEOUT}s dead_count=1000000",
    b"crash-keys": "key_concurrency=1 attempts=2",
    b"crash-results": "results=1h attempts=2",
    b"crash-expire": "expires=2s dead_count=1000000",
}
RETRY, KEYS, RESULTS, EXPIRE, PAUSED, RUNS = FUNCTIONS = (*POLICIES, b"crash-paused", b"crash-runs")
WORKED_ON = (RETRY, KEYS, RESULTS, PAUSED, RUNS)
SCHEDULE = "crash-schedule"
EVERY = 250  # milliseconds
WINDOW = 8
PATIENCE = 120.0

Ask = Callable[[str], list[str]]


def function_of(number: int) -> bytes:
    """Half of all jobs are to be tried again; the number of a run is its time, below zero."""
    if number < 0:
        return RUNS
    return (RETRY, RESULTS, KEYS, RETRY, EXPIRE, RETRY, PAUSED, RETRY)[number % 8]


def end_of(number: int, attempt: int, mercy: bool) -> str:
    """How the worker ends this attempt, the first one is 1: ``done``, or a reason of the policy's."""
    chance = number // 8
    if function_of(number) != RETRY or mercy or attempt > chance % 5 != 4:
        return "done"
    if chance % 100 == 7 and attempt == 1:
        return "timeout"
    return ("fail", "exception", "fail", "lost")[(chance // 5 + attempt) % 4]


@dataclass
class Attempt:
    """What a worker saw of one attempt; times are monotonic, ``read`` is when its end was known to be read."""

    life: int
    began: float
    reason: str
    ended: float = 0.0
    read: float = 0.0


@dataclass
class Ledger:
    """What was promised and what was tried; every thread writes, under the lock."""

    life: Callable[[], int]  # how often the job server has been killed
    lock: threading.Lock = field(default_factory=threading.Lock)
    next_id: int = 0
    promised: dict[int, str] = field(default_factory=dict)  # id: handle
    runs: dict[int, tuple[str, int]] = field(default_factory=dict)  # handle of each run's job, and in which life
    scheduled_at: float = 0.0
    refused: int = 0
    attempts: defaultdict[int, list[Attempt]] = field(default_factory=lambda: defaultdict(list))
    proofs: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    mercy: bool = False  # from now on every attempt succeeds
    resumed: bool = False
    repeated: int = 0
    faults: list[str] = field(default_factory=list)
    clerk: threading.Lock = field(default_factory=threading.Lock)
    policies: dict[str, str] = field(default_factory=dict)  # as acknowledged; empty: unset
    pauses: list[str] = field(default_factory=list)

    def new_id(self) -> int:
        with self.lock:
            self.next_id += 1
            return self.next_id

    def is_sure(self, attempt: Attempt) -> bool:
        """Whether the store had the attempt's end when the job server was killed next."""
        return attempt.read > 0 and (attempt.life == self.life() or attempt.read <= self.proofs[attempt.life])


class PolicyTraffic(Threads):
    """Submitters, workers and a clerk."""

    def __init__(self, address: Address, ledger: Ledger) -> None:
        super().__init__(address)
        self.ledger = ledger

    def start(self, submitters: int = 0, workers: int = 0, clerks: int = 0) -> None:
        """Start so many of each."""
        for count, body in ((submitters, self._submit), (workers, self._work), (clerks, self._administrate)):
            for _ in range(count):
                self.run(body)

    def _submit(self, link: BlockingLink) -> None:
        ledger, life, parser = self.ledger, self.ledger.life(), Parser()
        while not self.stopping.wait(0.02):
            numbers = [ledger.new_id() for _ in range(WINDOW)]
            sent = time.monotonic()
            link.send(b"".join(_submission(number) for number in numbers), timeout=10)
            while numbers:
                for packet in receive(link, parser, 10):
                    number = numbers.pop(0)
                    with ledger.lock:
                        if packet.type != p.JOB_CREATED:
                            ledger.refused += 1
                            continue
                        ledger.promised[number] = packet.arguments[0].decode()
                        if function_of(number) == PAUSED:
                            ledger.proofs[life] = max(ledger.proofs[life], sent)

    def _work(self, link: BlockingLink) -> None:
        ledger, life, parser = self.ledger, self.ledger.life(), Parser()
        link.send(b"".join(pack_request(p.CAN_DO, name) for name in WORKED_ON))
        before: Attempt | None = None
        while not self.stopping.is_set():
            link.send(pack_request(p.GRAB_JOB_UNIQ))
            (packet,) = receive(link, parser, 15)
            if before is not None:
                with ledger.lock:
                    before.read = time.monotonic()
                before = None
            if packet.type == p.NO_JOB:
                self.stopping.wait(0.01)
            else:
                before = self._end(link, life, packet)

    def _end(self, link: BlockingLink, life: int, packet: Packet) -> Attempt:
        ledger = self.ledger
        handle, function, unique, workload = packet.arguments
        number = int(workload) if workload else _run(unique)
        with ledger.lock:
            attempts = ledger.attempts[number]
            reason = end_of(number, len(attempts) + 1, ledger.mercy)
            attempt = Attempt(life, time.monotonic(), reason)
            attempts.append(attempt)
            if function == PAUSED and not ledger.resumed:
                ledger.faults.append(f"job {number} was begun though its function is paused")
            known = ledger.promised.get(number) or handle.decode()
            if number < 0:  # a run whose job was not stored when the job server died is made again
                seen, in_life = ledger.runs.get(number, ("", -1))
                known = seen if in_life == life else known
                ledger.runs[number] = handle.decode(), life
            if function != function_of(number) or known != handle.decode():
                ledger.faults.append(f"job {number} came back as {handle!r} of {function!r}, not {known}")
        if reason == "timeout":
            self.stopping.wait(1.2 * TIMEOUT)
        with ledger.lock:
            attempt.ended = attempt.began if reason == "timeout" else time.monotonic()
        if reason == "lost":
            raise GeartrainError("the worker dies")
        if reason == "done":
            link.send(pack_request(p.WORK_COMPLETE, handle, b"of %d" % number))
        elif reason == "exception":
            link.send(pack_request(p.WORK_EXCEPTION, handle, b"number %d" % number))
        else:
            link.send(pack_request(p.WORK_FAIL, handle))
        return attempt

    def _administrate(self, link: BlockingLink) -> None:
        ledger = self.ledger
        while not self.stopping.wait(0.005):
            number = ledger.new_id()
            with ledger.clerk:
                if number % 3 == 0:
                    _command(link, f"pause crash-pause-{number}")
                    ledger.pauses.append(f"crash-pause-{number}")
                    continue
                name = f"crash-policy-{number}"
                _command(link, f"policy set {name} attempts={number % 1000 + 1}")
                ledger.policies[name] = f"attempts={number % 1000 + 1}"
                if number % 3 == 1:
                    del ledger.policies[name]  # it may be there or not until the answer comes
                    _command(link, f"policy unset {name}")
                    ledger.policies[name] = ""


def _submission(number: int) -> bytes:
    function = function_of(number)
    unique = b"key-%d:%d" % (number % 50, number) if function in (KEYS, RESULTS) else b""
    kind = (p.SUBMIT_JOB_BG, p.SUBMIT_JOB_HIGH_BG, p.SUBMIT_JOB_LOW_BG)[number % 3]
    return pack_request(kind, function, unique, b"%d" % number)


def _run(unique: bytes) -> int:
    """The number of a run."""
    time = datetime.fromisoformat(unique.decode().split(":", 2)[2])
    return -round(time.timestamp() * 1000)


def _command(link: BlockingLink, line: str) -> None:
    link.send(line.encode() + b"\n", timeout=10)
    answer = link.receive(10)
    if answer != b"OK\r\n":
        raise GeartrainError(f"{line}: {answer!r}")


def set_up(ledger: Ledger, ask: Ask) -> None:
    """Set the policies, the pause and the schedule."""
    for name, policy in POLICIES.items():
        assert ask(f"policy set {name.decode()} {policy}") == ["OK"]
    assert ask(f"pause {PAUSED.decode()} until the end") == ["OK"]
    ledger.scheduled_at = time.time()
    assert ask(f"schedule set {SCHEDULE} every={EVERY}ms function={RUNS.decode()} missed=all overlap=allow") == ["OK"]


def check_policies(ledger: Ledger, ask: Ask) -> None:
    """Policies are as the clerk was told that they are."""
    with ledger.clerk:
        shown = {name: text for name, _, text in (line.split("\t") for line in ask("policy show"))}
        for name, text in ledger.policies.items():
            if shown.get(name, "") != text:
                ledger.faults.append(f"policy {name} is {shown.get(name, '')!r}, not {text!r}")


def resume(ledger: Ledger, ask: Ask) -> None:
    """What was paused still is, until now."""
    ledger.resumed = True
    for name in (PAUSED.decode(), *ledger.pauses):
        if ask(f"resume {name}") != ["OK"]:
            ledger.faults.append(f"{name} is paused no more")


def await_ends(server: RunningServer) -> None:
    """Wait until no job waits or runs."""
    give_up_at = time.monotonic() + PATIENCE
    while left := {name: count for name in FUNCTIONS if (count := server.jobs_of(name.decode())) != (0, 0)}:
        if time.monotonic() > give_up_at:
            raise SystemExit(f"these did not end: {left}")
        time.sleep(0.1)


def letters(ask: Ask) -> dict[str, tuple[str, ...]]:
    """Every dead letter by its handle: function, time of death, reason, attempts, and the reason of each attempt."""
    found = {}
    for line in ask("dead list"):
        handle, function, _, died, reason, attempts, *_ = line.split("\t")
        rows = [row.split("\t") for row in ask(f"show job {handle}")] if int(attempts) else []
        history = [f"{row[1]}:{row[4]}" for row in rows if row[0] == "attempt"]
        found[handle] = (function, died, reason, attempts, *history)
    return found


def check(ledger: Ledger, dead: dict[str, tuple[str, ...]]) -> None:
    """Every acknowledged job was done or is dead, as it had to be; no attempt was forgotten, or made too early."""
    for number, handle in ledger.promised.items():
        function = function_of(number)
        attempts = ledger.attempts[number]
        letter = dead.get(handle)
        done = any(attempt.reason == "done" for attempt in attempts)
        if function == EXPIRE:
            _expect(ledger, number, letter is not None and letter[2:] == ("expired", "0"), f"not expired: {letter}")
        elif end_of(number, LIMIT, False) != "done":
            good = letter is not None and letter[3] == str(LIMIT) and _is_told(letter, attempts)
            _expect(ledger, number, good, f"not dead as it should be: {letter}, {attempts}")
        else:
            _expect(ledger, number, done and letter is None, f"not done: {letter}, {attempts}")
        ledger.repeated += max(len(attempts) - _needed(number), 0)
    for number, attempts in ledger.attempts.items():
        sure = [attempt for attempt in attempts if ledger.is_sure(attempt)]
        _expect(ledger, number, len(sure) <= LIMIT, f"tried more than {LIMIT} times: {attempts}")
        for one, following in itertools.pairwise(attempts):
            if ledger.is_sure(one):
                _expect(ledger, number, one.reason != "done", f"done, and begun again: {attempts}")
                early = one.ended + PAUSE - following.began
                is_retry = function_of(number) == RETRY
                _expect(ledger, number, not is_retry or early < SLACK, f"begun {early:.3f} s too early: {attempts}")


def check_letters(
    ledger: Ledger, dead: dict[str, tuple[str, ...]], found: dict[str, tuple[str, ...]], *, retried: bool
) -> None:
    """The dead letters are those that there were; with ``retried`` but for those that are tried again."""
    left = {handle: letter for handle, letter in dead.items() if not (retried and letter[0] == RETRY.decode())}
    if found != left:
        strange = {handle: (left.get(handle), found.get(handle)) for handle in left.keys() ^ found.keys()}
        strange |= {
            handle: (left[handle], found[handle])
            for handle in left.keys() & found.keys()
            if left[handle] != found[handle]
        }
        ledger.faults.append(f"{len(strange)} letters of {len(left)} have changed, such as {list(strange.items())[:3]}")


def end_schedule(ask: Ask) -> float:
    """End the schedule once its missed runs have been made; when that was."""
    give_up_at = time.monotonic() + PATIENCE
    while float(ask("schedule list")[0].split("\t")[2]) < time.time() - EVERY / 1000:
        if time.monotonic() > give_up_at:
            raise SystemExit("the missed runs of the schedule were not made")
    ended_at = time.time()
    assert ask(f"schedule unset {SCHEDULE}") == ["OK"]
    return ended_at


def check_runs(ledger: Ledger, ended_at: float) -> None:
    """No run of the schedule is missing."""
    times = sorted(-number for number in ledger.runs)
    at_ends = times and times[0] < ledger.scheduled_at * 1000 + 2 * EVERY and times[-1] > ended_at * 1000 - 2 * EVERY
    missing = [one for one, following in itertools.pairwise(times) if following - one != EVERY]
    if missing or not at_ends:
        ledger.faults.append(f"of {len(times)} runs those after {missing} are missing: {times[:1]} to {times[-1:]}")


def check_results(ledger: Ledger, address: str) -> int:
    """Every job whose result the store had has it; how many there are."""
    numbers = [
        number
        for number in ledger.promised
        if function_of(number) == RESULTS
        and any(one.reason == "done" and ledger.is_sure(one) for one in ledger.attempts[number])
    ]
    with Client(address) as client:
        for number in numbers:
            try:
                good = client.result(ledger.promised[number], timeout=0) == b"of %d" % number
                _expect(ledger, number, good, "has another result")
            except GeartrainError as error:
                _expect(ledger, number, False, f"has no result: {error}")
    return len(numbers)


def check_mercy(ledger: Ledger, dead: dict[str, tuple[str, ...]]) -> None:
    """All dead letters that were tried again have been done."""
    for number, handle in ledger.promised.items():
        if handle in dead and dead[handle][0] == RETRY.decode():
            done = any(attempt.reason == "done" for attempt in ledger.attempts[number])
            _expect(ledger, number, done, f"was tried again, and not done: {ledger.attempts[number]}")


def _needed(number: int) -> int:
    """How many attempts a job needs."""
    if function_of(number) == EXPIRE:
        return 0
    return next((one for one in range(1, LIMIT) if end_of(number, one, False) == "done"), LIMIT)


def _is_told(letter: tuple[str, ...], attempts: list[Attempt]) -> bool:
    """Whether a letter tells of four attempts as the workers saw them; one that was repeated is told once.

    On a slow machine any attempt may take too long.
    """
    told = [attempt.partition(":") for attempt in letter[4:]]
    seen = iter(attempts)
    counted = [int(number) for number, _, _ in told] == list(range(1, LIMIT + 1))
    return counted and all(any(reason in (one.reason, "timeout") for one in seen) for _, _, reason in told)


def _expect(ledger: Ledger, number: int, good: bool, what: str) -> None:
    if not good:
        ledger.faults.append(f"job {number} ({function_of(number).decode()}) {what}")
