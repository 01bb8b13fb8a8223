"""The text commands about single jobs and dead letters: ``why``, ``show job``, ``retry``, ``priority``, ``dead``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.chores import Chore
from geartrain.jobserver.letters import Paced, unpack_attempts
from geartrain.jobserver.model import (
    BLOCKED,
    DEAD,
    DELAYED,
    HIGH,
    LOW,
    MOVING,
    NORMAL,
    QUEUED,
    RUNNING,
    SPILLED,
    STATES,
    UNSTORED,
    Job,
)
from geartrain.jobserver.policy import REASONS, reason_name
from geartrain.jobserver.records import ATTEMPTS_KIND, number_key
from geartrain.jobserver.results import WORDS
from geartrain.jobserver.rights import OPERATE, READ
from geartrain.jobserver.rules.answers import acknowledge, ask_elsewhere, error, find_job, list_lines, refuse
from geartrain.jobserver.rules.dead_letters import purge, revive
from geartrain.jobserver.rules.explaining import Explanation, reason_at_once
from geartrain.jobserver.rules.long_work import begin
from geartrain.jobserver.rules.queueing import enqueue, leave_queue
from geartrain.jobserver.rules.status import status_of
from geartrain.jobserver.shown import show_name, show_value
from geartrain.jobserver.snapshot import FunctionView
from geartrain.native import i64, u8
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geartrain.jobserver.letter_groups import LetterGroup
    from geartrain.jobserver.letters import DeadLetter
    from geartrain.jobserver.model import Function, Peer
    from geartrain.jobserver.results import Result
    from geartrain.jobserver.state import State

PRIORITIES: Final = {b"high": HIGH, b"normal": NORMAL, b"low": LOW}
_NAMES: Final = (b"high", b"normal", b"low")
MAX_PACED: Final = 100  # commands that try letters again at a rate, at once
_AT_ONCE: Final = 200  # letters in one slice
_SHOWN_TEXT: Final = 200  # bytes of a text in a listing
_CONTINUED: Final = bytes(range(0x80, 0xC0))  # what is left of a character of UTF-8 that was cut through


def _why(state: State, peer: Peer, arguments: list[bytes]) -> None:
    job = find_job(state, peer, arguments[0])
    if job is not None:
        begin(state, Explanation(state, peer, job, _Sentence(peer)))


@final
class _Sentence:
    """Sends an explanation as the answer to ``why``."""

    def __init__(self, peer: Peer) -> None:
        self.peer: Peer = peer

    def __call__(self, text: str) -> None:
        self.peer.send(b"OK %b\n" % show_name(text.encode("utf-8", "backslashreplace")))


def show_job(state: State, peer: Peer, handle: bytes) -> None:
    """``show job HANDLE``: all that is known of a job, a value a line, and its attempts; also of its result alone."""
    number = state.handles.number(handle)
    result = state.results.by_number.get(int(number))
    if result is not None and state.jobs.get(number) is None:
        list_lines(state, peer, _result_rows(state, result))
        return
    job = find_job(state, peer, handle)
    if job is not None:
        list_lines(state, peer, _job_rows(state, job))


def show_status(state: State, peer: Peer, handle: bytes) -> None:
    """``show status HANDLE``: ``OK`` and what STATUS_RES says: known, running, numerator, denominator."""
    job = find_job(state, peer, handle)
    if job is not None:
        peer.send(b"OK %b %b %b %b\n" % status_of(job))


def _result_rows(state: State, result: Result) -> Iterator[bytes]:
    yield b"handle\t%b\n" % state.handles.make(result.number)
    yield b"state\tended\n"
    yield b"outcome\t%b\n" % WORDS[result.outcome]
    yield b"result_size\t%d\n" % result.size
    yield b"kept_until\t%.3f\n" % result.record.expires


def show_function(state: State, peer: Peer, name: bytes) -> None:
    """``show function NAME``: its jobs by where they stand, its policy, and all that was counted, a value a line."""
    function = state.functions.get(name)
    if function is None:
        refuse(peer, b"UNKNOWN_FUNCTION", f"No function {as_text(name)} is known")
    else:
        list_lines(state, peer, _function_rows(state, function))


def _function_rows(state: State, function: Function) -> Iterator[bytes]:
    view = FunctionView(state, function)
    rows: list[tuple[bytes, object]] = [
        (b"function", view.name),
        (b"high", view.high),
        (b"normal", view.normal),
        (b"low", view.low),
        (b"blocked", view.blocked),
        (b"delayed", view.delayed),
        (b"running", view.running),
        (b"dead", view.dead),
        (b"workers", view.workers),
        (b"idle", view.idle),
        (b"oldest_waiting", view.oldest_waiting),
        (b"paused", int(view.paused)),
    ]
    if view.policy:
        rows.append((b"policy", view.policy.encode("utf-8", "surrogateescape")))
    for name, value in rows:
        yield b"%b\t%b\n" % (name, _shown(value))
    counters = view.counters
    for counter, count in counters.rows:
        yield b"%b\t%d\n" % (counter, count)
    for name, seconds in counters.times:
        yield b"%b\t%.6f\n" % (name, seconds)


def _job_rows(state: State, job: Job) -> Iterator[bytes]:
    ago = state.wall - state.now
    rows: list[tuple[bytes, object]] = [
        (b"handle", state.handles.make(job.number)),
        (b"function", job.function.name),
        (b"unique", job.unique),
        (b"state", STATES[job.state].encode()),
        (b"priority", _NAMES[job.priority]),
        (b"background", b"1" if job.background else b"0"),
        (b"created", job.created),
    ]
    stored_at = state.commits.time_of(job)
    if stored_at > 0:
        rows.append((b"stored_at", stored_at))
    if job.stored != SPILLED:
        rows.append((b"size", len(job.workload)))
    if job.due > 0:
        rows.append((b"due", job.due))
    rows.append((b"attempts", int(job.attempts)))
    policy = job.function.policy
    if policy is not None and policy.attempts > 0:
        rows.append((b"max_attempts", int(policy.attempts)))
    rows.append((b"clients", int(job.subscriber_count)))
    if job.state == RUNNING:
        if job.worker is not None:
            rows.append((b"worker", job.worker.shown_name))
        rows.append((b"running_since", job.started_at + ago))
    letter = state.dead.all.get(int(job.number))
    if letter is not None:
        rows += [(b"died", letter.died), (b"reason", reason_name(letter.reason).encode()), (b"text", letter.text)]
    reason = reason_at_once(state, job)
    if reason:
        rows.append((b"why", reason.encode("utf-8", "backslashreplace")))
    for name, value in rows:
        yield b"%b\t%b\n" % (name, _shown(value))
    record = state.records.get(ATTEMPTS_KIND, number_key(job.number))
    if record is not None and record.value is not None:
        for attempt in unpack_attempts(record.value):
            yield b"attempt\t%d\t%.3f\t%.3f\t%b\t%b\t%b\n" % (
                attempt.number,
                attempt.started,
                attempt.ended,
                reason_name(attempt.reason).encode(),
                show_value(attempt.worker),
                show_value(attempt.text),
            )


def _shown(value: object) -> bytes:
    if isinstance(value, bytes):
        return show_value(value)
    return b"%.3f" % value if isinstance(value, float) else b"%d" % value if isinstance(value, int) else b""


def _retry(state: State, peer: Peer, arguments: list[bytes]) -> None:
    """A dead job waits again, and a delayed one does so now."""
    job = find_job(state, peer, arguments[0])
    if job is None:
        return
    if not retry_now(state, job):
        refuse(peer, b"NOT_WAITING", f"The job {as_text(arguments[0])} is {STATES[job.state]}, not dead or delayed")
        return
    state.event("job_retried", peer, {"handle": state.shown_handle(job), "function": as_text(job.function.shown)})
    acknowledge(state, peer)


def retry_now(state: State, job: Job) -> bool:
    """Have a dead job wait again, and a delayed one now; whether it is one of these."""
    if job.state == DEAD:
        revive(state, job)
    elif job.state == DELAYED:
        leave_queue(state, job)
        job.state = QUEUED
        state.delayed.drop()
        state.set_due(job, 0.0)
        if job.stored != UNSTORED:
            state.changes.move_behind(job, state.next_number)
        enqueue(state, job)
    else:
        return False
    return True


def _priority(state: State, peer: Peer, arguments: list[bytes]) -> None:
    """A job that waits goes to the end of another queue; a delayed one will."""
    priority = PRIORITIES.get(arguments[1].lower())
    if priority is None:
        refuse(peer, b"INVALID_ARGUMENTS", f"There is no priority {as_text(arguments[1])}: it is high, normal or low")
        return
    job = find_job(state, peer, arguments[0])
    if job is None:
        return
    if job.state == RUNNING:
        refuse(peer, b"NOT_WAITING", f"The job {as_text(arguments[0])} runs already")
        return
    change_priority(state, job, priority)
    acknowledge(state, peer)


def change_priority(state: State, job: Job, priority: i64) -> None:
    """Have a job that does not run wait with another priority, behind the others."""
    if job.priority == priority:
        return
    is_queued = job.state in (QUEUED, BLOCKED)
    if is_queued:
        leave_queue(state, job)
    job.priority = u8(priority)
    state.tally(job.function, priority)
    if job.stored != UNSTORED:
        state.changes.move_behind(job, state.next_number)
    if is_queued:
        enqueue(state, job)


def _dead(state: State, peer: Peer, arguments: list[bytes]) -> None:
    what = arguments[0].lower()
    rest = arguments[1:]
    if what == b"list":
        asked = _asked(state, peer, rest, (b"function", b"reason", b"group", b"count"))
        if asked is not None:
            list_lines(state, peer, _letter_lines(state, asked))
    elif what == b"workload" and len(rest) == 1:
        _workload(state, peer, rest[0])
    elif what in (b"retry", b"purge") and rest:
        if peer.rights & OPERATE == 0:
            peer.send(b"ERR NOT_ALLOWED This+connection+has+no+right+to+dead+%b\r\n" % what)
            state.event("request_refused", peer, {"request": "dead"})
        elif rest[0].lower() == b"all":
            allowed = (b"function", b"reason", b"group", b"rate")
            asked = _asked(state, peer, rest[1:], allowed[: 4 if what == b"retry" else 3])
            if asked is not None:
                _all_letters(state, peer, what == b"retry", asked)
        else:
            _one_letter(state, peer, what == b"retry", rest)
    else:
        refuse(
            peer,
            b"INVALID_ARGUMENTS",
            "Write dead list, dead workload HANDLE, dead retry HANDLE|all, dead purge HANDLE|all",
        )


@final
class Asked:
    """Which dead letters a command means; empty: any."""

    def __init__(self) -> None:
        self.function: bytes = b""
        self.reason: int = -1
        self.group: LetterGroup | None = None
        self.count: int = 1 << 60
        self.interval: float = 0.0  # seconds from one to the next

    def means(self, letter: DeadLetter) -> bool:
        """Whether a letter is one of them."""
        return (
            (not self.function or letter.job.function.name == self.function)
            and self.reason in (-1, letter.reason)
            and (self.group is None or letter.group is self.group)
        )


def _asked(state: State, peer: Peer, words: list[bytes], allowed: tuple[bytes, ...]) -> Asked | None:
    """What ``key=value`` words ask for; None if they can't be read, and the peer was told."""
    asked = Asked()
    for word in words:
        key, _, value = word.partition(b"=")
        text = as_text(value)
        if key not in allowed or not value:
            refuse(
                peer,
                b"INVALID_ARGUMENTS",
                f"{as_text(word)}: write {', '.join(as_text(one) + '=...' for one in allowed)}",
            )
            return None
        if key == b"function":
            asked.function = value
        elif key == b"reason":
            if text not in REASONS:
                refuse(peer, b"INVALID_ARGUMENTS", f"{as_text(word)}: the reasons are {', '.join(REASONS)}")
                return None
            asked.reason = REASONS.index(text)
        elif key == b"group":
            asked.group = state.dead.groups.by_number.get(int(value)) if value.isdigit() and len(value) < 19 else None
            if asked.group is None:
                refuse(peer, b"UNKNOWN_GROUP", f"There is no group {text} of dead letters: it has gone, or never was")
                return None
        elif key == b"count":
            if not (value.isdigit() and 0 < len(value) < 10):
                refuse(peer, b"INVALID_ARGUMENTS", f"{as_text(word)}: write a whole number")
                return None
            asked.count = int(value)
        else:
            digits = value.removesuffix(b"/s")
            if not (digits.isdigit() and 0 < len(digits) < 7 and int(digits) > 0):
                refuse(peer, b"INVALID_ARGUMENTS", f"{as_text(word)}: write a rate such as 10/s")
                return None
            asked.interval = 1.0 / int(digits)
    return asked


def _numbers(state: State, asked: Asked) -> list[int]:
    """The numbers of the letters that may be meant, the longest dead first."""
    function = state.functions.get(asked.function)
    if asked.group is not None:
        state.cost += len(asked.group.letters) // 4
        return list(asked.group.letters)
    if function is None:
        numbers = list(state.dead.all)
    else:
        roll = state.dead.of_function.get(function)
        numbers = [] if roll is None else [int(each.job.number) for each in roll.items if each is not None]
    state.cost += len(numbers) // 4
    return numbers


def _letter_lines(state: State, asked: Asked) -> Iterator[bytes]:
    """``handle, function, unique, died, reason, attempts, size, text``, the longest dead first."""
    left = asked.count
    for number in _numbers(state, asked):
        letter = state.dead.all.get(number)
        state.cost += 1
        if letter is None or not asked.means(letter):
            continue
        if left == 0:
            return
        left -= 1
        job = letter.job
        text = letter.text
        if len(text) > _SHOWN_TEXT:  # of a traceback the end says most
            text = b"..." + text[-_SHOWN_TEXT:].lstrip(_CONTINUED)
        yield b"%b\t%b\t%b\t%.3f\t%b\t%d\t%d\t%b\n" % (
            state.handles.make(job.number),
            show_value(job.function.name),
            show_value(job.unique),
            letter.died,
            reason_name(letter.reason).encode(),
            int(job.attempts),
            len(job.workload),
            show_value(text),
        )


def _letter(state: State, peer: Peer, handle: bytes) -> DeadLetter | None:
    number = state.handles.number(handle)
    letter = state.dead.all.get(int(number))
    if letter is None or letter.job.flags & MOVING:
        ask_elsewhere(state, peer, handle, error(b"UNKNOWN_JOB", f"No dead letter {as_text(handle)} is kept"))
        return None
    return letter


def _workload(state: State, peer: Peer, handle: bytes) -> None:
    letter = _letter(state, peer, handle)
    if letter is None:
        return
    if letter.job.stored == SPILLED:
        refuse(
            peer, b"IN_STORE", "The workload is large and in the store alone; it is read when the job is tried again"
        )
        return
    workload = letter.job.workload
    peer.send(b"OK %d\n" % len(workload))
    if workload:
        peer.send(workload)


def _one_letter(state: State, peer: Peer, again: bool, handles: list[bytes]) -> None:
    numbers: dict[int, None] = {}  # each once
    for handle in handles:
        letter = _letter(state, peer, handle)
        if letter is None:
            return
        numbers[int(letter.job.number)] = None
    begin(state, LetterWork(state, peer, again, list(numbers)[::-1], Asked()))


def _treat(state: State, peer: Peer, letter: DeadLetter, again: bool) -> None:
    job = letter.job
    fields: dict[str, object] = {"handle": state.shown_handle(job), "function": as_text(job.function.shown)}
    if again:
        revive(state, job)
        state.event("job_retried", peer, fields)
    else:
        purge(state, job)
        state.event("job_purged", peer, fields)


def _all_letters(state: State, peer: Peer, again: bool, asked: Asked) -> None:
    if asked.interval == 0:
        begin(state, LetterWork(state, peer, again, _numbers(state, asked)[::-1], asked))
    elif len(state.dead.paced) >= MAX_PACED:
        refuse(peer, b"NO_ROOM", f"{MAX_PACED} such commands are under way already")
    else:
        numbers = [number for number in _numbers(state, asked) if asked.means(state.dead.all[number])]
        state.cost += 2 * len(state.dead.all)
        state.dead.paced.append(Paced(numbers, asked.interval, state.now))
        peer.send(b"OK %d\n" % len(numbers))


@final
class LetterWork(Chore):
    """Tries again or purges many dead letters, some at a time."""

    def __init__(self, state: State, peer: Peer, again: bool, numbers: list[int], asked: Asked) -> None:
        super().__init__(peer)
        self.state: State = state
        self.peer: Peer = peer
        self.again: bool = again
        self.numbers: list[int] = numbers  # the last one first
        self.asked: Asked = asked
        self.count: int = 0

    def step(self) -> bool:
        state = self.state
        left = _AT_ONCE
        while self.numbers and left > 0:
            letter = state.dead.all.get(self.numbers.pop())
            if letter is not None and letter.job.flags & MOVING == 0 and self.asked.means(letter):
                _treat(state, self.peer, letter, self.again)
                self.count += 1
            state.cost += 80
            left -= 1
        if self.numbers:
            return False
        if not (self.peer.gone or self.peer.closing):
            acknowledge(state, self.peer, b"OK %d\n" % self.count)
        return True


COMMANDS: Final[dict[bytes, tuple[Callable[[State, Peer, list[bytes]], None], int, int]]] = {
    b"why": (_why, READ, 1),
    b"retry": (_retry, OPERATE, 1),
    b"priority": (_priority, OPERATE, 2),
    b"dead": (_dead, READ | OPERATE, 1),
}
"""As the table in ``admin``: the rule of each, the right it needs, and how many arguments make it known."""
