"""Dead letters and the history of attempts: what is kept of jobs that did not succeed, as records and in memory.

A dead letter is its job, in the state DEAD, and a record that says why. So its workload stays wherever it is, and a
restart finds both. The attempts of a job are one record, to which each attempt adds a line.
"""

from __future__ import annotations

from collections import OrderedDict
from struct import Struct
from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.deadlines import Deadlines
from geartrain.jobserver.letter_groups import LetterGroup, LetterGroups
from geartrain.jobserver.roll import Roll
from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.model import Function, Job

LONGEST_TEXT: Final = 64 * 1024  # bytes that are kept of the text with which a job ended
LONGEST_LINE: Final = 1024  # and of that of an attempt
MAX_LINES: Final = 100  # the last attempts of a job
DEAD_COST: Final = 400

_LATEST: Final = 1e12  # a Unix time beyond all that is meant

_LETTER: Final = Struct(">Bd")  # reason, time of death
_ATTEMPT: Final = Struct(">IBddHH")  # number, reason, start, end, lengths of worker and text


@final
class Attempt:
    """One try of a job that did not succeed; Unix times, the reason as ``policy`` numbers them."""

    def __init__(self, number: int, reason: int, started: float, ended: float, worker: bytes, text: bytes) -> None:
        self.number = number
        self.reason = reason
        self.started = started
        self.ended = ended
        self.worker = worker
        self.text = text


def pack_attempt(attempt: Attempt) -> bytes:
    """An attempt as a line of its job's record."""
    worker, text = attempt.worker[:256], attempt.text[:LONGEST_LINE]
    head = _ATTEMPT.pack(attempt.number, attempt.reason, attempt.started, attempt.ended, len(worker), len(text))
    return head + worker + text


def unpack_attempts(value: bytes) -> list[Attempt]:
    """The attempts of a record, the first one first; what makes no sense ends it."""
    attempts: list[Attempt] = []
    at = 0
    while at + _ATTEMPT.size <= len(value):
        number, reason, started, ended, worker, text = _ATTEMPT.unpack_from(value, at)
        at += _ATTEMPT.size
        if at + worker + text > len(value):
            break
        attempts.append(
            Attempt(number, reason, started, ended, value[at : at + worker], value[at + worker : at + worker + text])
        )
        at += worker + text
    return attempts


def pack_letter(reason: int, died: float, text: bytes) -> bytes:
    """What the record of a dead letter holds."""
    return _LETTER.pack(reason, died) + text[:LONGEST_TEXT]


@final
class DeadLetter:
    """A job that is dead: when, why, and with which text."""

    def __init__(self, job: Job, value: bytes) -> None:
        self.job: Job = job
        reason, died = _LETTER.unpack_from(value) if len(value) >= _LETTER.size else (0, 0.0)
        self.reason: int = reason
        self.died: float = died if 0 < died < _LATEST else 0.0  # 0: the record does not say
        self.text: bytes = value[_LETTER.size :]
        self.until: float = 0.0  # Unix time; 0: its time is over
        self.place: i64 = 0  # on the roll of all
        self.place_of_function: i64 = 0  # and on that of its function
        self.group: LetterGroup | None = None


@final
class Paced:
    """Dead letters that are tried again one by one, ``interval`` seconds apart; the next one at ``at`` (monotonic)."""

    def __init__(self, numbers: list[int], interval: float, at: float) -> None:
        self.numbers: list[int] = numbers
        self.next: int = 0  # place in the list
        self.interval: float = interval
        self.at: float = at


@final
class DeadLetters:
    """All dead letters by number, the longest dead first; also those of each function."""

    def __init__(self) -> None:
        self.all: OrderedDict[int, DeadLetter] = OrderedDict()
        self.roll: Roll[DeadLetter] = Roll()  # the same, for those who go through them
        self.of_function: dict[Function, Roll[DeadLetter]] = {}
        self.deadlines: Deadlines = Deadlines(self._is_live)  # in Unix time
        self.paced: list[Paced] = []
        self.groups: LetterGroups = LetterGroups()

    def put(self, letter: DeadLetter, until: float, wall: float) -> i64:
        """A job is dead, from one Unix time, ``wall``, to another; what that takes of the memory limit."""
        job = letter.job
        number = int(job.number)
        letter.until = until
        self.all[number] = letter
        letter.place = self.roll.enter(letter)
        roll = self.of_function.get(job.function)
        if roll is None:
            roll = Roll()
            self.of_function[job.function] = roll
        letter.place_of_function = roll.enter(letter)
        self.deadlines.add(until, number, job.assignments)
        before = self.groups.size
        letter.group = self.groups.add(number, job.function.name, letter.reason, letter.text, letter.died, wall)
        return DEAD_COST + len(letter.text) + self.groups.size - before

    def drop(self, job: Job) -> i64:
        """A job is dead no longer, or is forgotten; what that frees of the memory limit."""
        number = int(job.number)
        letter = self.all.pop(number, None)
        if letter is None:
            return 0
        self.roll.leave(letter.place)
        roll = self.of_function[job.function]
        roll.leave(letter.place_of_function)
        if roll.count == 0:
            del self.of_function[job.function]
        if letter.until > 0:
            self.deadlines.drop()
        before = self.groups.size
        if letter.group is not None:
            self.groups.drop(number, letter.group)
        return DEAD_COST + len(letter.text) + before - self.groups.size

    def count(self, function: Function) -> i64:
        """How many there are of a function."""
        roll = self.of_function.get(function)
        return 0 if roll is None else roll.count

    def oldest(self, function: Function) -> DeadLetter | None:
        """The longest dead of a function."""
        roll = self.of_function.get(function)
        return None if roll is None else roll.first()

    def _is_live(self, number: int, assignment: int) -> bool:
        letter = self.all.get(number)
        return letter is not None and letter.job.assignments == assignment  # else it is of an earlier death
