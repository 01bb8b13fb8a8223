"""Of a fleet: questions about jobs that are not here, which another member may know.

A question waits as a deferred reply; whoever drives the job server asks the member that has the job, and answers. If
nobody has it, the answer is the one that a job server without a fleet gives, with which the reply begins.

The job server asks by itself whether a *twin* still lives, a job of the same function and unique that the store has of
another member: what has ended there a moment ago is in the store until the next commit, and nobody may join it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.native import i64

if TYPE_CHECKING:
    from geartrain.jobserver.model import Job
    from geartrain.jobserver.outbox import DeferredReply, Outbox

MOST: Final = 10_000  # questions at once; beyond them the answer is that the job is not known


@final
class Question:
    """What is asked about the job of a ``number``: a text ``line``, or with none GET_STATUS.

    Either a ``reply`` waits for it, or a new ``job`` whose twin that one may be.
    """

    def __init__(
        self, number: int, handle: bytes, line: bytes, reply: DeferredReply | None = None, job: Job | None = None
    ) -> None:
        self.number: int = number
        self.handle: bytes = handle
        self.line: bytes = line
        self.reply: DeferredReply | None = reply
        self.job: Job | None = job


@final
class Elsewhere:
    """The questions that have no answer yet."""

    def __init__(self) -> None:
        self.asked: list[Question] = []  # that the driver has not taken
        self.open: i64 = 0
        self.doubts: dict[int, Job] = {}  # new jobs that may have a twin, by their numbers
        self.line: bytes = b""  # the text command that is being carried out
        self.is_local: bool = False  # that is to be answered with what is known here

    def ask(self, outbox: Outbox, number: i64, handle: bytes, line: bytes, otherwise: bytes) -> None:
        """Ask about a job that is not here; ``otherwise``: the answer if nobody knows it."""
        outbox.send(otherwise)
        if (line and self.is_local) or number <= 0 or self.open >= MOST:
            return
        self.open += 1
        self.asked.append(Question(int(number), handle, line, outbox.defer()))

    def doubt(self, job: Job, twin: int, handle: bytes) -> None:
        """Ask whether the twin of a new job still lives."""
        self.doubts[int(job.number)] = job
        self.asked.append(Question(twin, handle, b"show status " + handle, None, job))

    def take(self) -> list[Question]:
        """The questions that have come since."""
        asked = self.asked
        if asked:
            self.asked = []
        return asked

    def answer(self, question: Question, answer: bytes | None) -> None:
        """Another member has said this to whom waits for it; None: nobody knows the job."""
        reply = question.reply
        if reply is None:
            return
        self.open -= 1
        if answer is not None:
            reply.outbox.replace(reply.index, answer)
        reply.open = True
        reply.outbox.touch()
