"""Members of a fleet on a desk, and between them the place that they share: a store that does what its contract says.

Nothing happens by itself: the place commits, judges and lets claim when a test says so.
"""

from __future__ import annotations

from typing import cast

from desk import Desk

from geartrain.jobserver.elsewhere import Question
from geartrain.jobserver.records import (
    DEAD_KIND,
    SHARED_KINDS,
    Batch,
    Record,
    StoredJob,
    number_of,
    restore_order,
)

BLOCK = 1 << 12
FOREVER = 1e12


class FencedError(Exception):
    """The others have taken this member for dead."""


class Row:
    """A job as the place keeps it."""

    def __init__(self, job: StoredJob, owner: int) -> None:
        self.job = job
        self.owner = owner
        self.twin: bytes | None = twin_of(job)


def twin_of(job: StoredJob) -> bytes | None:
    """What two jobs have in common that are to be one."""
    if job.unique == b"-":
        return job.function + b"\0-\0" + (job.workload or b"") if job.workload else None
    return job.function + b"\0" + job.unique if job.unique else None


def copy_of(job: StoredJob) -> StoredJob:
    """Another one with the same fields; compiled objects can't be copied by themselves."""
    return StoredJob(
        job.number, job.position, job.function, job.unique, job.workload, job.size, job.priority, job.due, job.reducer,
        job.attempts, job.created, job.begun,
    )  # fmt: skip


def record_like(record: Record) -> Record:
    """Another one with the same fields."""
    return Record(record.kind, record.key, record.value, record.expires)


class Place:
    """The rows of a fleet."""

    def __init__(self) -> None:
        self.live: set[int] = set()
        self.members: dict[int, Member] = {}  # by their last ids
        self.rows: dict[int, Row] = {}
        self.records: dict[tuple[str, bytes], tuple[Record, int]] = {}
        self.shared = 0
        self.last_member = 0
        self.next_block = 1

    def join(self) -> int:
        self.last_member += 1
        self.live.add(self.last_member)
        return self.last_member

    def numbers(self) -> int:
        first = self.next_block
        self.next_block += BLOCK
        return first

    def judge(self, member: int) -> None:
        self.live.discard(member)

    def commit(self, me: int, batch: Batch) -> None:
        """As ``FleetStore.commit``: all of it, if the member lives."""
        if me not in self.live:
            raise FencedError
        dead = {number_of(each.key) for each in batch.records if each.kind == DEAD_KIND and each.value is not None}
        for number in batch.removed:
            if self._is(me, number):
                del self.rows[number]
        for number in dead:
            if self._is(me, number):
                self.rows[number].twin = None
        self._add(me, batch, dead)
        for change in batch.changed:
            if self._is(me, change.number):
                job = self.rows[change.number].job
                job.position, job.due, job.priority, job.attempts = (
                    change.position, change.due, change.priority, change.attempts,
                )  # fmt: skip
        for number, begun in batch.begun.items():
            if self._is(me, number):
                self.rows[number].job.begun = begun
        for record in batch.records:
            self._keep(me, record)
        for number, target in batch.moved[:]:
            if target not in self.live:
                if self._is(me, number):
                    batch.moved.remove((number, target))
            elif self._is(me, number):
                self.rows[number].owner = -target
                for name, (record, owner) in self.records.items():
                    if owner == me and number_of(record.key) == number:
                        self.records[name] = record, -target

    def _is(self, me: int, number: int) -> bool:
        return number in self.rows and self.rows[number].owner == me

    def _add(self, me: int, batch: Batch, dead: set[int]) -> None:
        by_twin = {row.twin: number for number, row in self.rows.items() if row.twin is not None}
        for job in batch.added:
            if job.number in batch.removed or job.number in self.rows:
                continue
            row = Row(copy_of(job), me)
            if job.number in dead:
                row.twin = None
            if row.twin is not None and row.twin in by_twin:
                batch.twins[job.number] = by_twin[row.twin]
                continue
            self.rows[job.number] = row
            if row.twin is not None:
                by_twin[row.twin] = job.number

    def _keep(self, me: int, record: Record) -> None:
        is_shared = record.kind in SHARED_KINDS
        name = record.kind, record.key
        if is_shared:
            self.shared += 1
        if record.value is None:
            if name in self.records and (is_shared or self.records[name][1] == me):
                del self.records[name]
        else:
            self.records[name] = record_like(record), 0 if is_shared else me

    def claim(self, me: int, estate: int, count: int = 1000) -> tuple[list[StoredJob], list[Record]]:
        """As ``FleetStore.claim``, of what is left of a member or on its way to one."""
        assert me in self.live
        assert estate == -me or abs(estate) not in self.live
        theirs = [row for row in self.rows.values() if row.owner == estate]
        theirs.sort(key=lambda row: (row.job.priority, row.job.position))
        jobs = []
        for row in theirs[:count]:
            row.owner = me
            if estate > 0:
                row.job.attempts = max(row.job.attempts, row.job.begun)
            jobs.append(copy_of(row.job))
        numbers = {job.number for job in jobs}
        taken = [name for name, (record, owner) in self.records.items()
                 if owner == estate and number_of(record.key) in numbers]  # fmt: skip
        return jobs, self._take(me, taken)

    def claim_records(self, me: int, estate: int) -> list[Record]:
        """Records of an estate that no job of it is there for."""
        return self._take(
            me,
            [
                name
                for name, (record, owner) in self.records.items()
                if owner == estate and not self._is(estate, number_of(record.key))
            ],
        )

    def _take(self, me: int, names: list[tuple[str, bytes]]) -> list[Record]:
        taken = []
        for name in names:
            record, _ = self.records[name]
            self.records[name] = record, me
            taken.append(record_like(record))
        return taken

    def shared_records(self) -> list[Record]:
        return [record_like(record) for record, _ in self.records.values() if record.kind in SHARED_KINDS]

    def owner(self, number: int) -> int | None:
        row = self.rows.get(number)
        return None if row is None else row.owner


class Member(Desk):
    """One job server of a fleet."""

    def __init__(self, place: Place, **settings: object) -> None:
        super().__init__(durable=True, fleet=True, **settings)
        self.place = place
        self.doubts: list[Question] = []  # whether twins still live, as far as nobody can tell yet
        self.join()

    def join(self) -> None:
        """Come as a new incarnation, as ``geartrain.fleet`` does."""
        self.me = self.place.join()
        self.place.members[self.me] = self
        self.server.apply_shared(self.place.shared_records())
        self.server.give_numbers(self.place.numbers(), BLOCK)
        self.server.begin_block()
        self.server.renew_lease(FOREVER)
        self.settle()

    def lapse(self) -> None:
        self.server.end_lease()
        self.settle()

    def renew(self) -> None:
        self.server.renew_lease(FOREVER)
        self.settle()

    def forsake(self) -> None:
        """The others have judged us, and we hear of it."""
        self.place.judge(self.me)
        self.server.forsake()
        self.settle()
        while self.server.forsaking:
            self.wait(0.001)

    def commit(self) -> None:
        self.settle_doubts()
        while (batch := self.server.take_batch()) is not None:
            self.carry_out(batch)

    def carry_out(self, batch: Batch) -> None:
        """The place has the batch, and says so."""
        self.place.commit(self.me, batch)
        self.server.written(batch)
        self.settle_doubts()

    def settle_doubts(self) -> None:
        """Whoever has the twin of a new job is asked whether it lives there; who can't tell is asked again later."""
        self._note_doubts()
        for question in self.doubts[:]:
            owner = self.place.owner(question.number)
            told = None
            if owner is not None:
                other = self.place.members.get(owner)
                if other is None or owner not in self.place.live or other is self:
                    continue
                told = other.text_now("asking", f"local {question.line.decode()}").encode()
                if not told.startswith(b"OK 1"):
                    continue  # it has ended or died there, which the place has still to hear
            self.doubts.remove(question)
            self.server.answer_question(question, told)
        self.settle()

    def _note_doubts(self) -> None:
        elsewhere = self.server.elsewhere
        assert elsewhere is not None
        asked = elsewhere.take()
        elsewhere.asked = [question for question in asked if question.job is None]
        self.doubts += [question for question in asked if question.job is not None]

    def batch(self) -> Batch:
        batch = self.server.take_batch()
        assert batch is not None
        return batch

    def claim(self, estate: int, count: int = 1000) -> list[int]:
        """Take over some of an estate, or of what others have sent; the numbers."""
        jobs, records = self.place.claim(self.me, estate, count)
        for job in jobs:
            self.server.adopt(job)
        if not jobs:
            records += self.place.claim_records(self.me, estate)
        for record in sorted(records, key=restore_order):
            self.server.restore_record(record)
        self.settle()
        return [job.number for job in jobs]

    def receive(self) -> list[int]:
        """Take over what others have sent."""
        return self.claim(-self.me)

    def questions(self) -> list[Question]:
        """What is asked about jobs that are not here, but for doubts about twins."""
        self._note_doubts()
        elsewhere = self.server.elsewhere
        assert elsewhere is not None
        return elsewhere.take()

    def answer(self, question: Question, answer: bytes | None) -> None:
        self.server.answer_question(question, answer)
        self.settle()

    def text_now(self, name: str, line: str) -> str:
        """The answer to a text command, as far as there is one without a commit."""
        self.write(name, line.encode() + b"\n")
        peer = self.peer(name)
        answer, self.got[peer] = self.got[peer], b""
        return answer.decode()

    def state(self, handle: bytes) -> str:
        """Where a job stands; empty if it is not here."""
        for line in self.text_now("asking", f"local show job {handle.decode()}").splitlines():
            if line.startswith("state\t"):
                return line.partition("\t")[2]
        return ""

    def number(self, handle: bytes) -> int:
        return cast(int, self.server.handles.number(handle))
