"""The job server: the core of the protocol, as one plain object without I/O.

Bytes, connections and the time go in; replies, events and the next deadline come out:

    peer = server.connect(origin)
    server.tick(now, wall)            the time, at the start of each iteration of the driver's loop
    server.receive(peer, data)        what the network delivered; also to go on with a stalled peer (data=b"")
    for peer in server.touched: ...   the peers that have something to write, or are to be closed
        peer.take(), peer.closing, peer.stalled
    server.next_deadline()            when to tick again at the latest
    server.lost(peer)                 the connection is gone

and towards a store, whose driver carries batches to it and its answers back:

    server.restore(stored)            a job that the store kept from before
    server.restore_record(record)     a record that it kept
    server.restored()                 there are no more
    server.take_batch()               what is to be committed next
    server.stored_jobs()              what the store should have, to rebuild one that was taken away
    server.written(batch), refused(batch, reason, down), refuse_one(batch, number, reason), back()
    server.give_up(reason)            the batch under way is waited for no longer
    server.take_reads()               workloads to fetch, answered by
    server.deliver(read, workload), undelivered(read, lost_for_good)

and for whoever has small things to keep over a restart:

    server.keep(record)               put one, or remove it; kept(kind, key), kept_of(kind) give them
    server.keep_with(number, record)  the same, in one commit with a new job
    server.hold(number), let_go(number)  give a new job to no worker before the store has it
    server.cancel(number)             and change_priority(number, priority), retry(number): what the text commands do
    server.watch(number, watcher)     be told what happens to a job; unwatch(number, watcher)
    server.watch_ends(watcher)        be told of the end of each job whose policy names a webhook
    server.want_ends()                have jobs that end noted, to be found in server.ended; call it each second
    server.add_command(name, ...)     a text command that an extension answers
    server.acknowledge(peer, answer)  its answer, once the store has what it has changed

It never opens a socket, reads a clock, logs or waits, and never raises for anything that a peer sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from geartrain.jobserver.agenda import Source
from geartrain.jobserver.changes import Read
from geartrain.jobserver.chores import ITERATION_COST, REQUEST_COST
from geartrain.jobserver.dispatch import dispatch
from geartrain.jobserver.half_sent import watch_half_sent
from geartrain.jobserver.model import DEAD, MOVING, RUNNING, Job, Peer
from geartrain.jobserver.origin import Origin
from geartrain.jobserver.outbox import MAX_FRESH, MAX_UNREAD_OUTPUT, SMALL_ANSWER
from geartrain.jobserver.records import Batch, Record, StoredJob
from geartrain.jobserver.rights import EVERYTHING
from geartrain.jobserver.rules import (
    ends,
    holding,
    job_commands,
    keeping,
    lease,
    moving,
    outcome,
    shared,
    storage,
    watching,
)
from geartrain.jobserver.rules.admin import answer
from geartrain.jobserver.rules.answers import acknowledge
from geartrain.jobserver.rules.assignment import grab
from geartrain.jobserver.rules.attempts import ExpiringJobs, TimeLimits
from geartrain.jobserver.rules.dead_letters import OldLetters, PacedRetries
from geartrain.jobserver.rules.departure import hang_up, retire
from geartrain.jobserver.rules.forgetting import IdleFunctions
from geartrain.jobserver.rules.gating import GateTimers
from geartrain.jobserver.rules.long_work import LongWork, resume
from geartrain.jobserver.rules.policing import restore as restore_record
from geartrain.jobserver.rules.queueing import DelayedJobs
from geartrain.jobserver.rules.reports import report, report_too_large
from geartrain.jobserver.rules.slow_packets import SlowPackets
from geartrain.jobserver.rules.submission import submit
from geartrain.jobserver.rules.waking import WokenWorkers, fall_asleep
from geartrain.jobserver.rules.watchdog import Watchdog
from geartrain.jobserver.settings import Settings
from geartrain.jobserver.state import State
from geartrain.native import i64
from geartrain.wire.foreign import HTTP, LEAST, PROXY, PROXY_2, foreign_line, foreign_start
from geartrain.wire.packets import (
    GRAB_JOB,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    PRE_SLEEP,
    REQUEST_MAGIC,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
)
from geartrain.wire.parser import LARGEST_BODY, LINE, MORE, TOO_LARGE, Parser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from geartrain.jobserver.elsewhere import Question
    from geartrain.jobserver.watching import Watcher

# What ``receive`` tells its driver.
STALLED: Final = 1  # whole messages wait
UNANSWERED: Final = 2
COLLECTING: Final = 3

_WORDS: Final = b"This is a Gearman job server. It does not speak HTTP.\n"
_NO_WEB_SERVER: Final = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b"
    % (len(_WORDS), _WORDS)
)


@final
class JobServer(State):
    """All functions, jobs and peers of one job server, and the border to the world (sections 2 to 4)."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings())
        sources: list[Source] = [
            WokenWorkers(self),
            TimeLimits(self),
            DelayedJobs(self),
            ExpiringJobs(self),
            GateTimers(self),
            OldLetters(self),
            PacedRetries(self),
            SlowPackets(self),
            IdleFunctions(self),
            storage.LateAnswers(self),
            keeping.ExpiredRecords(self),
            LongWork(self),
        ]
        if self.is_member:
            sources.insert(0, lease.LeaseEnd(self))
        for source in sources:
            self.agenda.add(source)
        self.watchdog: Watchdog = Watchdog(self)

    # ── peers and time ──────────────────────────────────────────────────────────────────────────────────────────

    def connect(self, origin: Origin) -> Peer:
        """A new connection."""
        settings = self.settings
        parser = Parser(min(settings.max_body, LARGEST_BODY), settings.max_line)
        peer = Peer(self.output, origin, parser, settings.exceptions)
        peer.since = self.now
        peer.heard_at = self.now
        self.peers[peer] = None
        peer.place = self.peer_roll.enter(peer)
        return peer

    def receive(self, peer: Peer, data: bytes) -> i64:
        """Apply what a peer sent, as far as its output and fairness to others allow.

        STALLED: the rest follows when called again with no data, once the output has been taken. UNANSWERED: nothing
        that is to be written would acknowledge what came, and the peer may be waiting for that. COLLECTING: the same,
        and the rest of a large packet may be read into place (see the parser).
        """
        if peer.closing or peer.gone:
            return 0
        parser = peer.parser
        if data:
            peer.heard_at = self.now
            if not peer.greeted and parser.size == 0:
                peer.greeted = data[0] == 0
            parser.feed(data)
        if peer.busy:
            resume(self, peer)
        peer.stalled = False
        begun_at: i64 = self.cost
        output = self.output
        if output.fresh < MAX_FRESH:
            peer.produced = 0
        fresh_before: i64 = output.fresh - peer.produced
        restricted = peer.rights != EVERYTHING
        whole = False  # whether a message came whole
        while True:
            if peer.busy:  # its chore touches it when it is done
                peer.stalled = True
                if peer.unsent >= MAX_UNREAD_OUTPUT:
                    peer.touch()
                break
            cost: i64 = self.cost - begun_at
            if (
                peer.unsent >= MAX_UNREAD_OUTPUT
                or cost >= REQUEST_COST
                or (cost > 0 and self.cost >= ITERATION_COST)
                or (output.fresh >= MAX_FRESH and output.fresh - fresh_before > SMALL_ANSWER)
            ):
                peer.stalled = True
                peer.touch()
                parser.release()
                break
            type: i64 = parser.advance()
            if type < 0:
                if type == MORE:
                    if not peer.greeted and parser.waiting:
                        foreign = foreign_start(parser.data[parser.at])
                        if foreign:
                            self._refuse_foreign(peer, foreign)
                            return 0
                    break
                if type == LINE:
                    line = parser.data[parser.body : parser.end]
                    if not peer.greeted:
                        foreign = foreign_line(line)
                        if foreign:
                            self._refuse_foreign(peer, foreign)
                            return 0
                        peer.greeted = bool(line.strip()) or (parser.waiting and parser.data[parser.at] == 0)
                    answer(self, peer, line)
                elif type != TOO_LARGE or not report_too_large(self, peer):
                    self._break_off(peer)
                if peer.closing:
                    return 0
            elif parser.magic != REQUEST_MAGIC:
                peer.send_error(b"INVALID_MAGIC", b"Request magic expected")
            elif restricted:
                dispatch(self, peer, type)
            elif type == WORK_COMPLETE:
                report(self, peer, type)
            elif type in (GRAB_JOB_UNIQ, GRAB_JOB_ALL, GRAB_JOB):
                grab(self, peer, type)
            elif type in (SUBMIT_JOB, SUBMIT_JOB_BG):
                submit(self, peer, type)
            elif type == PRE_SLEEP:
                fall_asleep(self, peer)
            elif type in (WORK_DATA, WORK_STATUS, WORK_FAIL, WORK_WARNING):
                report(self, peer, type)
            elif type in (SUBMIT_JOB_HIGH, SUBMIT_JOB_LOW, SUBMIT_JOB_HIGH_BG, SUBMIT_JOB_LOW_BG):
                submit(self, peer, type)
            else:
                dispatch(self, peer, type)
            self.cost += 4
            whole = True
        peer.produced = output.fresh - fresh_before
        if (parser.waiting or peer.half_sent_since > 0) and not watch_half_sent(self, peer, whole):
            hang_up(self, peer)
        if peer.stalled:
            return STALLED
        if parser.wanted > 0:
            return COLLECTING
        # A worker that sleeps says no more until it is woken.
        return 0 if peer.pieces or peer.sleeping else UNANSWERED

    def tick(self, now: float, wall: float) -> None:
        """Tell the time (monotonic seconds, Unix time), begin a new iteration, and do what is due.

        Of very much that is due at once some is left for the next call, for which ``next_deadline`` asks soon.
        """
        self.now = now
        self.wall = now + self.time_base if self.time_base > 0 else wall
        self.cost = 0
        self.iterations += 1
        if not self.touched:
            self.output.fresh = 0
        self.agenda.run()

    def next_deadline(self) -> float:
        """When tick() has something to do at the latest, in monotonic seconds; 0 if nothing is planned."""
        return self.agenda.next_at()

    def has_news(self, timer_at: float) -> bool:
        """Whether there is more to see to than output: events, a drain, or a deadline before ``timer_at``."""
        if self.events or self.draining:
            return True
        at = self.agenda.next_at()
        return 0 < at < timer_at

    def lost(self, peer: Peer) -> None:
        """A connection is gone: its jobs go back to their queues, jobs that only it waited for are dropped."""
        if peer.gone:
            return
        peer.forget()
        if not peer.closing:
            retire(self, peer)

    # ── what the driver may ask ─────────────────────────────────────────────────────────────────────────────────

    def drain(self) -> None:
        """Refuse submissions from now on; what runs may finish."""
        self.draining = True

    def look_for_stuck_jobs(self) -> None:
        """See whether a job waits beside an idle worker, which must never be: to be called every few seconds.

        What is found by two calls in a row is an event and is counted, and the worker is woken.
        """
        self.watchdog.look()

    def take_events(self) -> list[tuple[str, Peer | None, dict[str, object]]]:
        """What happened that an operator may want to know: (event, peer, fields), oldest first."""
        events = self.events
        if events:
            self.events = []
        return events

    # ── single jobs ─────────────────────────────────────────────────────────────────────────────────────────────

    def cancel(self, number: int) -> bool:
        """Cancel a job that waits or runs, as the text command does; whether there is one of this number."""
        job = self._job_here(number)
        if job is None or job.state == DEAD:
            return False
        outcome.cancel(self, job)
        return True

    def change_priority(self, number: int, priority: int) -> bool:
        """Have a job that waits do so with another priority, ``model.HIGH`` or so; whether there is one."""
        job = self._job_here(number)
        if job is None or job.state in (RUNNING, DEAD) or job.priority == priority:
            return False
        job_commands.change_priority(self, job, priority)
        return True

    def retry(self, number: int) -> bool:
        """Have a dead letter tried again, or a job that is delayed be due; whether there is one."""
        job = self._job_here(number)
        return job is not None and job_commands.retry_now(self, job)

    def _job_here(self, number: int) -> Job | None:
        """The job of this number, unless it may be another member's by now."""
        job = self.jobs.get(number)
        return None if job is None or job.flags & MOVING else job

    # ── watching jobs ───────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, number: int, watcher: Watcher) -> bool:
        """Have ``watcher.tell`` called for what happens to the job of this number from now on, up to its last event.

        False: there is no such job, or it is dead; or there are too many watches. Watching it twice is as once. A
        watcher is no client: a foreground job is not kept alive by it.
        """
        return watching.watch(self, number, watcher)

    def unwatch(self, number: int, watcher: Watcher) -> None:
        """Tell the watcher no more of this job."""
        watching.unwatch(self, number, watcher)

    def watch_ends(self, watcher: Watcher) -> None:
        """Have ``watcher.tell`` called for the last event of each job whose policy names a webhook, none but that."""
        self.end_watcher = watcher

    def want_ends(self) -> None:
        """Have some of the jobs of each function that end from now on noted in ``ended``; to be called each second."""
        ends.want_ends(self)

    # ── small things to keep ────────────────────────────────────────────────────────────────────────────────────

    def keep(self, record: Record) -> bool:
        """Keep a record over a restart, in place of the one of its kind and key; without a value that is removed.

        It counts at once, and is in the store when ``is_stored`` says so. False: there is no room for it, or the store
        takes nothing at the moment, and all is as before; a removal always counts. Raises ValueError for a ``kind``
        that can't be one.
        """
        return keeping.keep(self, record)

    def keep_with(self, number: int, record: Record) -> bool:
        """As ``keep``, in one commit with the background job of this number, if that has still to be stored.

        So either both survive or neither does: if the store refuses the job, whose submitter hears of it, the record
        goes as well, unless it was kept anew. Of a job that ends before it is stored the record stays.
        """
        return keeping.keep(self, record, number)

    def hold(self, number: int) -> None:
        """Give the new background job of this number to no worker until ``let_go``, as when its submitter is told.

        So it is done by nobody while the store may still refuse or lose it. It is given out after ``store_timeout``
        and a second in any case.
        """
        if self.durable:
            holding.hold(self, number, self.wall + self.settings.store_timeout + 1)

    def let_go(self, number: int) -> None:
        """Give the job of this number to a worker, if it was held."""
        if self.durable:
            holding.let_go(self, number)

    def kept(self, kind: str, key: bytes) -> Record | None:
        """The record of this kind and key."""
        record = self.records.get(kind, key)
        return None if record is None or 0 < record.expires <= self.wall else record

    def kept_of(self, kind: str) -> list[Record]:
        """All records of this kind."""
        return [record for record in self.records.kinds.get(kind, {}).values() if not 0 < record.expires <= self.wall]

    def inherit(self, kind: str, heir: Callable[[Record], object]) -> None:
        """Have ``heir`` called for each record of this kind that comes from another member of the fleet from now on.

        Its job, if it is about one, is here by then.
        """
        self.heirs[kind] = heir

    def add_command(self, name: bytes, rule: Callable[[Peer, list[bytes]], None], right: int) -> None:
        """Have the text command ``name`` answered by ``rule(peer, words)``, which gets the words behind it.

        The rule sends one answer with ``peer.send`` before it returns. ``right``: see ``rights``.
        """
        self.commands[name] = (rule, right)

    def acknowledge(self, peer: Peer, answer: bytes) -> None:
        """Answer a text command once the store has what the command has had kept; with an error if that can't be."""
        acknowledge(self, peer, answer)

    # ── the store's door ────────────────────────────────────────────────────────────────────────────────────────

    def restore(self, stored: StoredJob) -> None:
        """Take over a job that the store kept from before; in order of their places."""
        storage.restore(self, stored)

    def restore_record(self, record: Record) -> None:
        """Take over a record that the store kept from before.

        Policies and pauses come before all jobs, others after them, in their ``restore_order``.
        """
        restore_record(self, record)

    def restored(self) -> None:
        """All that the store has kept has been restored."""
        self.displaced = {}
        self.commits.begin(self.next_number)

    def take_batch(self) -> Batch | None:
        """What the store is to commit next; None while a batch is under way or nothing has changed."""
        return storage.take_batch(self)

    def written(self, batch: Batch) -> None:
        """The store has committed the batch: its jobs are acknowledged."""
        storage.written(self, batch)

    def refused(self, batch: Batch, reason: str, down: bool) -> None:
        """The store has not taken the batch; ``down``: it takes no other until ``back``."""
        storage.refused(self, batch, reason, down)

    def refuse_one(self, batch: Batch, number: int, reason: str) -> None:
        """One job of the batch can't be stored; the others still may be."""
        storage.refuse_one(self, batch, number, reason)

    def give_up(self, reason: str) -> None:
        """The batch under way is waited for no longer, as happens by itself when the store is late."""
        storage.give_up(self, reason)

    @property
    def is_stored(self) -> bool:
        """Whether the store has all that it is to have, as far as it takes anything."""
        return self.store.under_way is None and (not self.changes.waiting or bool(self.store.trouble))

    # ── a fleet ─────────────────────────────────────────────────────────────────────────────────────────────────

    def give_numbers(self, first: int, count: int) -> None:
        """So many numbers, from ``first`` on, are this job server's to give out, when those before are used up."""
        self.block_size = count
        self.next_block = first
        if self.next_number >= self.numbers_end or self.numbers_end == 1 << 62:
            self.begin_block()

    @property
    def coming_number(self) -> int:
        """The number that the next new job gets; 0: none can be given out at the moment."""
        return int(self.next_number if self.next_number < self.numbers_end else self.next_block)

    @property
    def numbers_left(self) -> int:
        """How many numbers may still be given out."""
        return int(max(self.numbers_end - self.next_number, 0)) + (int(self.block_size) if self.next_block > 0 else 0)

    def renew_lease(self, until: float) -> None:
        """What is stored is this job server's until then (monotonic seconds), or until it is renewed again."""
        lease.renew(self, until)

    def keep_time(self, earliest: float, latest: float) -> None:
        """Have the time of day be that of the fleet: the monotonic clock, and something between these two more.

        So a delayed job is due at the same moment whoever adopts it, and when a machine's own time is put right.
        """
        self.time_base = min(max(self.time_base, earliest), latest)

    def end_lease(self) -> None:
        """What is stored may be another's from now on, until the lease is renewed."""
        if not self.lapsed:
            lease.lapse(self)

    def forsake(self) -> None:
        """Others have taken over all that is stored: forget it. ``forsaking`` says whether that goes on."""
        lease.forsake(self)

    def adopt(self, stored: StoredJob) -> None:
        """Take over a job of another member of the fleet; its records come after it."""
        storage.adopt(self, stored)

    def give_away(self, function: bytes, member: int, most: int) -> int:
        """Let up to ``most`` of the jobs that wait in a function go to another member; how many do."""
        known = self.functions.get(function)
        return 0 if known is None else moving.give_away(self, known, member, most)

    def give_away_all(self, behind: int, member: int) -> int:
        """Let some of the jobs behind a number that wait, are delayed or dead go to another member.

        The number up to which it has come; -1: these were the last.
        """
        return moving.give_away_page(self, behind, member)

    def tell_begun(self) -> None:
        """Have the store told of the jobs that run, if it has not been."""
        self.changes.tells_begun = True

    def answer_question(self, question: Question, answer: bytes | None) -> None:
        """What another member has said to one of the questions of ``elsewhere``; None: nobody knows the job."""
        job = question.job
        if job is not None:
            storage.settle_doubt(self, job, question.number, answer is not None and answer.startswith(b"OK 1"))
        elif self.elsewhere is not None:
            self.elsewhere.answer(question, answer)

    def apply_shared(self, records: list[Record]) -> None:
        """These are the records that all members share, as they are now."""
        shared.apply(self, records)

    def back(self) -> None:
        """The store takes batches again."""
        storage.back(self)

    def stored_jobs(self) -> Iterator[StoredJob]:
        """What the store should have; where a workload is there alone it is None."""
        return storage.stored_jobs(self)

    def stored_records(self) -> list[Record]:
        """The records that the store should have."""
        return [record for of_kind in self.records.kinds.values() for record in of_kind.values()]

    def take_reads(self) -> list[Read]:
        """Workloads that the driver is to fetch from the store now."""
        return self.store.begin_reads(self.now)

    def deliver(self, read: Read, workload: bytes) -> None:
        """A workload has been read."""
        storage.deliver(self, read, workload)

    def undelivered(self, read: Read, lost_for_good: bool) -> None:
        """A workload could not be read now, or is ``lost_for_good``."""
        storage.undelivered(self, read, lost_for_good)

    # ── input that can't be followed ────────────────────────────────────────────────────────────────────────────

    def _refuse_foreign(self, peer: Peer, protocol: str) -> None:
        """A connection of another protocol: nothing of it is executed."""
        if protocol == HTTP:
            peer.send(_NO_WEB_SERVER)
        self.foreign += 1
        self.event("foreign_protocol", peer, {"protocol": protocol, "so_far": int(self.foreign)})
        hang_up(self, peer)

    def _break_off(self, peer: Peer) -> None:
        """The stream is broken: say why, and close."""
        parser = peer.parser
        foreign = ""
        if parser.data.startswith(PROXY_2, parser.at):
            foreign = PROXY
        elif parser.trouble_code == "LINE_TOO_LONG" and not peer.greeted:
            foreign = foreign_line(parser.data[parser.at : parser.at + min(LEAST, parser.max_line)])
        if foreign:
            self._refuse_foreign(peer, foreign)
            return
        if parser.trouble_code == "LINE_TOO_LONG":
            peer.send(b"ERR LINE_TOO_LONG %b\r\n" % parser.trouble.replace(" ", "+").encode())
        else:
            peer.send_error(parser.trouble_code.encode(), parser.trouble.encode())
        self.event("stream_broken", peer, {"trouble": parser.trouble})
        hang_up(self, peer)
