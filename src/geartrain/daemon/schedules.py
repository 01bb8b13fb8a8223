"""The extension that makes jobs by schedules: of the configuration file, and set by the command ``schedule``.

When which run is to be made the planner says; here are its timer, the jobs, and what is kept:

    schedule         under its name, each one that a command has set, as its words
    schedule_pause   under its name, each one that is paused
    schedule_run     under its name, NUL and a time in milliseconds: all runs up to then are done with

**One job for each run.** The job of a run and the record of that run reach the store in one commit, and no worker gets
the job before, since what it had done would be made again after a crash. The record of the run before is removed after
that: the latest one counts.

**In a fleet** all of these records are every member's. Each plans by them, and so shows the same; the one that leads
makes the runs, and keeps the records in order. Who leads is looked up before a run is made, and now and then. Whoever
begins to lead plans anew by what the records say has been made, so that the runs that nobody has made meanwhile are
late, or missed. The last job may be at another member, which is asked whether it is live (``overlap``).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from geartrain.daemon.extension import Extension, Host
from geartrain.daemon.in_process import InProcessPeer
from geartrain.daemon.planner import Planned, Planner, Run
from geartrain.daemon.run_records import KnownRun, RunRecords, run_record
from geartrain.daemon.schedule import KEYS, Schedule, in_zone, merge, read_keys, read_schedule, read_words, run_name
from geartrain.jobserver.model import DEAD, ENDED
from geartrain.jobserver.outbox import MAX_FRESH
from geartrain.jobserver.records import Record
from geartrain.jobserver.rights import OPERATE, READ
from geartrain.jobserver.rules.answers import OK, list_lines, refuse
from geartrain.jobserver.shown import show_name
from geartrain.wire.packets import (
    GET_STATUS,
    JOB_CREATED,
    STATUS_RES,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW_BG,
    pack_request,
)
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver import Peer
    from geartrain.jobserver.outbox import DeferredReply
    from geartrain.wire.parser import Packet

log = logging.getLogger("geartrain.daemon")

SCHEDULE_KIND: Final = "schedule"
PAUSE_KIND: Final = "schedule_pause"
SHOWN_RUNS: Final = 5
AT_ONCE: Final = 50  # runs in one iteration
MOST_UNANSWERED: Final = 1000  # jobs of ours that the store has not confirmed
LONGEST_WAIT: Final = 60.0  # seconds between looks at the time of day, which may be set
LOOKED_AFTER: Final = 0.5  # seconds between looks at whether we lead
ROOM: Final = 4096  # bytes of memory that a job and its record take beside the workload, and more
_TYPES: Final = {"high": SUBMIT_JOB_HIGH_BG, "normal": SUBMIT_JOB_BG, "low": SUBMIT_JOB_LOW_BG}
_USAGE: Final = "Write schedule set NAME key=value ..., schedule unset|pause|resume|run|show NAME or schedule list"


class Submitted:
    """A job that was submitted for a run, and is not confirmed yet; by command if there is a ``reply``."""

    def __init__(self, run: Run, number: int, reply: DeferredReply | None) -> None:
        self.run = run
        self.number = number  # of a new job; 0: it was joined to a live one, or refused
        self.reply = reply


class Schedules(Extension):
    """All schedules of one job server. ``given`` are those of the configuration file; there may be ``most`` in all."""

    def __init__(self, given: Mapping[str, Mapping[str, object]], most: int) -> None:
        self._given = given
        self._most = most
        self._planner = Planner()
        self._of_file: dict[bytes, Schedule] = {}
        self._commanded: dict[bytes, Schedule] = {}
        self._read: dict[bytes, bytes] = {}  # of each record of a schedule, what has been read of it
        self._submitted: deque[Submitted] = deque()
        self._submitter: Caller | None = None
        self._asked: deque[Run] = deque()  # whose last job others are asked about
        self._asker: Caller | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_leading = False

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, host: Host) -> None:
        self._host = host
        self._server = server = host.server
        self._started = server.wall
        self._runs = RunRecords(server)
        for written, keys in self._given.items():
            self._of_file[written.encode()] = read_schedule(written.encode(), read_keys(keys), server.settings.zone)
        self._see_who_leads()
        if not self._is_leading:
            self._plan()
        if host.fleet is not None:
            host.fleet.on_shared_change(self._on_shared_change)
        server.add_command(b"schedule", self._command, READ | OPERATE)
        self._set_timer()

    def _see_who_leads(self) -> None:
        """Whether it is for us to make runs now; if it was not before, plan anew."""
        fleet = self._host.fleet
        leads = fleet is None or (fleet.leader and not self._server.lapsed)
        if leads and not self._is_leading:
            self._is_leading = True
            self._plan(is_anew=True)
        self._is_leading = leads

    def _on_shared_change(self) -> None:
        """Other members have changed records."""
        self._see_who_leads()
        self._plan()
        self._set_timer()

    # ── what the records say ────────────────────────────────────────────────────────────────────────────────────

    def _plan(self, is_anew: bool = False) -> None:
        """Have the plan follow the records; if ``is_anew``, whatever it was, but for runs that are under way."""
        server = self._server
        planner = self._planner
        self._read_schedules()
        schedules = {**self._of_file, **self._commanded}
        for name in [name for name in planner.schedules if name not in schedules]:
            self._drop(name)
        runs = self._runs.latest(schedules, self._is_under_way)
        for name, schedule in schedules.items():
            planned = planner.schedules.get(name)
            run = runs.get(name)
            is_known = planned is not None and (
                planned.schedule is schedule or planned.schedule.times == schedule.times
            )
            if planned is None or not is_known or (is_anew and _is_off(planned, run)):
                self._take_up(schedule, run)
            else:
                self._follow(planned, schedule, run)
        if self._is_leading:
            self._runs.tidy()
            for record in server.kept_of(PAUSE_KIND):
                if record.key not in schedules:
                    server.keep(Record(PAUSE_KIND, record.key, None))

    def _read_schedules(self) -> None:
        """Read those that commands have set, as far as they have changed."""
        read: dict[bytes, bytes] = {}
        for record in self._server.kept_of(SCHEDULE_KIND):
            name = record.key
            value = read[name] = record.value or b""
            if self._read.get(name) == value:
                continue
            self._commanded.pop(name, None)
            try:
                schedule = read_schedule(name, read_words(value.split()), self._server.settings.zone)
            except ValueError as error:
                log.error("schedule_unreadable", extra={"fields": {"name": as_text(name), "reason": str(error)}})
            else:
                self._commanded[name] = schedule
        for name in [name for name in self._commanded if name not in read]:
            del self._commanded[name]
        self._read = read

    def _is_under_way(self, name: bytes) -> bool:
        planned = self._planner.schedules.get(name)
        return planned is not None and planned.is_under_way

    def _take_up(self, schedule: Schedule, run: KnownRun | None) -> None:
        """Plan a schedule that was there before, if its run is known."""
        server = self._server
        name = schedule.name
        now = server.wall
        last, job, has_same_times = 0.0, 0, False
        if run is not None:
            last, job, has_same_times = self._runs.read(schedule, run)
            if last > now + LONGEST_WAIT:
                fields = {"name": as_text(name), "last": run_name(last)}
                log.warning("schedule_ahead", extra={"fields": fields})
        server.let_go(job)  # it was held when the job server ended
        planned = self._planner.put(
            schedule,
            last if has_same_times else max(last, _cut(now)),
            self._started,
            job,
            is_paused=server.kept(PAUSE_KIND, name) is not None,
        )
        if not has_same_times and self._is_leading:
            self._runs.note(planned, planned.last)

    def _follow(self, planned: Planned, schedule: Schedule, run: KnownRun | None) -> None:
        """Take over what has changed of a schedule that is planned."""
        planner = self._planner
        name = schedule.name
        if planned.schedule is not schedule:
            planner.change(planned, schedule)
        is_paused = self._server.kept(PAUSE_KIND, name) is not None
        if is_paused and not planned.is_paused:
            planner.pause(planned)
        resumed_at = self._server.wall
        # What is older than what we have made ourselves is from before that.
        counts = run is not None and not planned.is_under_way and (run[0] >= planned.last or not self._is_leading)
        if run is not None and counts and self._runs.is_news(name, run):
            time, planned.job, has_same_times = self._runs.read(schedule, run)
            if has_same_times and time != planned.last:
                planner.go_on(planned, time)
                resumed_at = time
        if planned.is_paused and not is_paused:
            planner.resume(planned, _cut(resumed_at))

    def _drop(self, name: bytes) -> None:
        """There is no such schedule any more."""
        self._planner.remove(name)
        self._runs.drop(name)

    def leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._server.draining:
            return
        if not self._is_leading:
            self._timer = self._host.loop.call_later(LOOKED_AFTER, self._wake)
            return
        at = self._planner.next_at()
        if at and self._has_room:
            # A look before the time is a look in vain.
            wait = min(max(at - self._server.wall, 0.0) + 0.001, LONGEST_WAIT)
            self._timer = self._host.loop.call_later(wait, self._wake)

    @property
    def _has_room(self) -> bool:
        return len(self._submitted) + len(self._asked) < MOST_UNANSWERED

    def _wake(self) -> None:
        self._timer = None
        self._host.open_iteration()
        self._see_who_leads()
        server = self._server
        count = 0
        while self._is_leading and count < AT_ONCE and self._has_room and server.output.fresh < MAX_FRESH:
            run = self._planner.due(server.wall)
            if run is None:
                break
            self._carry_out(run)
            count += 1
        self._set_timer()

    def _carry_out(self, run: Run) -> None:
        planned = run.planned
        schedule = planned.schedule
        fields = {"name": as_text(schedule.name), "run": run_name(run.time)}
        if run.skipped is not None:
            first, last = run.skipped
            what = {
                "name": fields["name"],
                "since": run_name(first),
                "until": run_name(last),
                "missed": schedule.missed,
            }
            log.warning("schedule_missed", extra={"fields": what})
        if not run.is_made:
            self._pass_over(run)
            return
        number = planned.job if schedule.overlap == "skip" else 0
        job = self._server.jobs.get(number) if number > 0 else None
        if job is not None and job.state not in (ENDED, DEAD):
            self._skip(run)
        elif job is None and number > 0 and self._host.fleet is not None:
            self._ask(run)
        else:
            self._submit(run)

    def _skip(self, run: Run) -> None:
        """The job of the run before is still live."""
        fields = {"name": as_text(run.planned.schedule.name), "run": run_name(run.time)}
        log.info("schedule_skipped", extra={"fields": fields})
        self._pass_over(run)

    def _pass_over(self, run: Run) -> None:
        self._runs.note(run.planned, run.time)
        self._planner.done(run)

    def _ask(self, run: Run) -> None:
        """Ask the other members whether the job of the run before is live."""
        try:
            if self._asker is None or self._asker.closed:
                self._asker = Caller(self._told, self._host)
        except ConnectionRefusedError as error:
            self._refuse(run, str(error))
            return
        self._asked.append(run)
        self._asker.send(pack_request(GET_STATUS, self._server.handles.make(run.planned.job)))

    def _told(self, packet: Packet) -> None:
        """The answer about the run that was asked about first of those that wait for one."""
        is_live = packet.type == STATUS_RES and packet.arguments[1] == b"1"
        self._host.loop.call_soon(self._decide, self._asked.popleft(), is_live)  # not now: outboxes are being written

    def _decide(self, run: Run, is_live: bool) -> None:
        """Make a run, or skip it, unless that is for another member now."""
        self._host.open_iteration()
        self._see_who_leads()
        if self._planner.schedules.get(run.planned.schedule.name) is run.planned:
            if not self._is_leading:
                self._planner.refused(run, self._server.wall)
            elif is_live:
                self._skip(run)
            else:
                self._submit(run)
        self._set_timer()

    def _submit(self, run: Run, peer: Peer | None = None) -> None:
        """Submit a run's job, and have its record go with it; a peer that asked for the run gets the handle."""
        server = self._server
        schedule = run.planned.schedule
        if not server.has_room(len(schedule.workload) + ROOM):
            self._refuse(run, "the job server's memory is full", peer)
            return
        try:
            if self._submitter is None or self._submitter.closed:
                self._submitter = Caller(self._answered, self._host)
        except ConnectionRefusedError as error:
            self._refuse(run, str(error), peer)
            return
        number = server.coming_number
        unique = schedule.unique(run.time, server.settings.max_unique)
        self._submitter.send(pack_request(_TYPES[schedule.priority], schedule.function, unique, schedule.workload))
        if server.coming_number == number:
            number = 0
        elif peer is None:
            made = max(run.time, self._runs.made.get(schedule.name, 0.0))
            server.keep_with(number, run_record(run.planned, run.time, number, made))
            server.hold(number)
        reply = None
        if peer is not None:
            peer.send(b"OK %b\n" % server.handles.make(number))
            reply = peer.defer()
        self._submitted.append(Submitted(run, number, reply))

    def _refuse(self, run: Run, reason: str, peer: Peer | None = None) -> None:
        if peer is not None:
            refuse(peer, b"QUEUE_ERROR", reason)
            return
        again = self._planner.refused(run, self._server.wall)
        fields = {"name": as_text(run.planned.schedule.name), "run": run_name(run.time), "reason": reason}
        log.warning("schedule_refused", extra={"fields": {**fields, "again": run_name(again)}})

    def _answered(self, packet: Packet) -> None:
        """The answer to the job that was submitted first of those that wait for one."""
        submitted = self._submitted.popleft()
        run = submitted.run
        name = run.planned.schedule.name
        is_made = packet.type == JOB_CREATED
        if submitted.reply is not None:
            self._host.loop.call_soon(self._tell, submitted, packet)
            planned = self._planner.schedules.get(name)
            if is_made and planned is not None:
                planned.job = self._server.handles.number(packet.arguments[0])
                self._runs.made_at(name, run.time)
                if self._runs.noted.get(name) in (None, planned.last):  # so that other members know
                    self._runs.note(planned, planned.last)
        elif not is_made:
            self._refuse(run, as_text(packet.arguments[-1]))
        else:
            number = self._server.handles.number(packet.arguments[0])
            if self._planner.schedules.get(name) is not run.planned:  # it was unset or changed meanwhile
                if run.time != self._runs.noted.get(name):
                    self._runs.remove(name, run.time)
            else:
                self._runs.made_at(name, run.time)
                run.planned.job = number
                if number == submitted.number:
                    self._runs.noted_now(name, run.time)
                else:  # it was joined to another one
                    self._runs.note(run.planned, run.time)
            if submitted.number:
                self._host.loop.call_soon(self._let_go, number)  # not now, since outboxes are being written
            self._planner.done(run, number)
        self._set_timer()

    def _let_go(self, number: int) -> None:
        self._host.open_iteration()
        self._server.let_go(number)

    def _tell(self, submitted: Submitted, packet: Packet) -> None:
        """Answer a peer that has asked for a run."""
        self._host.open_iteration()
        reply = submitted.reply
        assert reply is not None
        if packet.type == JOB_CREATED:
            reply.outbox.replace(reply.index, b"OK %b\n" % packet.arguments[0])
        else:
            words = show_name(packet.arguments[-1]).replace(b" ", b"+")
            reply.outbox.replace(reply.index, b"ERR %b %b\r\n" % (packet.arguments[0], words))
        reply.open = True
        reply.outbox.touch()

    # ── commands ────────────────────────────────────────────────────────────────────────────────────────────────

    def _command(self, peer: Peer, words: list[bytes]) -> None:
        what = words[0].lower() if words else b""
        if what == b"list" and len(words) == 1:
            list_lines(self._server, peer, self._rows(sorted(self._planner.schedules)))
            return
        if what in (b"set", b"unset", b"pause", b"resume", b"run") and peer.rights & OPERATE == 0:
            peer.send(b"ERR NOT_ALLOWED This+connection+has+no+right+to+schedule+%b\r\n" % what)
            return
        if what == b"set" and len(words) >= 3:
            self._set(peer, words[1], words[2:])
            return
        rule = {b"unset": self._unset, b"pause": self._pause, b"resume": self._resume, b"run": self._run_now,
                b"show": self._show}.get(what)  # fmt: skip
        if rule is None or len(words) != 2:
            refuse(peer, b"INVALID_ARGUMENTS", _USAGE)
            return
        planned = self._planner.schedules.get(words[1])
        if planned is None:
            refuse(peer, b"UNKNOWN_SCHEDULE", f"There is no schedule {as_text(words[1])}")
            return
        rule(peer, planned)
        self._set_timer()

    def _set(self, peer: Peer, name: bytes, words: list[bytes]) -> None:
        """Merge keys into the schedule of this name, or make one."""
        server = self._server
        planned = self._planner.schedules.get(name)
        try:
            given = merge(read_words(words), {} if planned is None else planned.schedule.given)
            schedule = read_schedule(name, given, server.settings.zone)
            if len(schedule.function) > server.settings.max_function:
                raise ValueError(f"function: its name has {server.settings.max_function} bytes at most")
            if planned is None and len(self._planner.schedules) >= self._most:
                raise ValueError(f"there are {self._most} schedules, and there may be no more")
            if not server.keep(Record(SCHEDULE_KIND, name, schedule.words.encode())):
                raise ValueError("it can't be kept: the memory is full, or the store takes nothing at the moment")
        except ValueError as error:
            refuse(peer, b"INVALID_SCHEDULE", str(error))
            return
        self._commanded[name] = schedule
        self._read[name] = schedule.words.encode()
        self._replace(schedule, planned)
        log.info("schedule_set", extra={"fields": {"name": as_text(name), "schedule": schedule.words}})
        self._server.acknowledge(peer, OK)
        self._set_timer()

    def _replace(self, schedule: Schedule, planned: Planned | None) -> None:
        """Plan a schedule in place of another; if its times are others, from now on."""
        if planned is not None and planned.schedule.times == schedule.times:
            self._planner.change(planned, schedule)
            return
        now = _cut(self._server.wall)
        if planned is None:
            new = self._planner.put(schedule, now, now)
        else:
            last = max(planned.last, now)
            new = self._planner.put(schedule, last, now, planned.job, is_paused=planned.is_paused)
        self._runs.note(new, new.last)

    def _unset(self, peer: Peer, planned: Planned) -> None:
        name = planned.schedule.name
        if name not in self._commanded:
            refuse(peer, b"UNKNOWN_SCHEDULE", f"{as_text(name)} is in the configuration file: take it out there")
            return
        del self._commanded[name], self._read[name]
        self._server.keep(Record(SCHEDULE_KIND, name, None))
        log.info("schedule_unset", extra={"fields": {"name": as_text(name)}})
        if name in self._of_file:
            self._replace(self._of_file[name], planned)
        else:
            self._server.keep(Record(PAUSE_KIND, name, None))
            self._runs.remove(name, self._runs.noted.get(name, 0.0))
            self._drop(name)
        self._server.acknowledge(peer, OK)

    def _pause(self, peer: Peer, planned: Planned) -> None:
        name = planned.schedule.name
        if not self._server.keep(Record(PAUSE_KIND, name, b"")):
            refuse(peer, b"NO_ROOM", "It can't be kept: the memory is full, or the store takes nothing at the moment")
            return
        self._planner.pause(planned)
        log.info("schedule_paused", extra={"fields": {"name": as_text(name)}})
        self._server.acknowledge(peer, OK)

    def _resume(self, peer: Peer, planned: Planned) -> None:
        if planned.is_paused:
            self._server.keep(Record(PAUSE_KIND, planned.schedule.name, None))
            self._planner.resume(planned, _cut(self._server.wall))
            self._runs.note(planned, planned.last)
            log.info("schedule_resumed", extra={"fields": {"name": as_text(planned.schedule.name)}})
        self._server.acknowledge(peer, OK)

    def _run_now(self, peer: Peer, planned: Planned) -> None:
        self._submit(Run(planned, _cut(self._server.wall), None), peer)

    def _rows(self, names: list[bytes]) -> Iterator[bytes]:
        for name in names:
            planned = self._planner.schedules.get(name)
            if planned is None:
                continue
            schedule = planned.schedule
            self._server.cost += 20
            words = " ".join(schedule.word(key) for key in KEYS if key in schedule.given and key != "workload").encode()
            made = self._runs.made.get(name, 0.0)
            yield b"%b\t%d\t%.3f\t%.3f\t%b\t%b\n" % (
                show_name(name), planned.is_paused, planned.next, made, show_name(schedule.function), show_name(words),
            )  # fmt: skip

    def _show(self, peer: Peer, planned: Planned) -> None:
        list_lines(self._server, peer, self._details(planned))

    def _details(self, planned: Planned) -> Iterator[bytes]:
        schedule = planned.schedule
        name = schedule.name
        yield b"name\t%b\n" % show_name(name)
        yield b"source\t%b\n" % (b"command" if name in self._commanded else b"file")
        yield b"paused\t%d\n" % planned.is_paused
        for key in KEYS:
            if key in schedule.given:
                yield b"%b\t%b\n" % (key.encode(), show_name(schedule.word(key).partition("=")[2].encode()))
        if "zone" not in schedule.given and schedule.cron is not None:
            yield b"zone\t%b\n" % show_name(schedule.zone_name.encode())
        if self._runs.made.get(name):
            yield b"last\t%.3f\n" % self._runs.made[name]
        if planned.job > 0:
            yield b"job\t%b\n" % self._server.handles.make(planned.job)
        for run in self._planner.coming(planned, SHOWN_RUNS):
            self._server.cost += 20
            yield b"next\t%.3f\t%b\n" % (run, in_zone(run, schedule.zone).encode())


class Caller(InProcessPeer):
    """Hands each answer over before the changes of the same iteration go to the store."""

    def __init__(self, told: Callable[[Packet], None], host: Host) -> None:
        super().__init__(host)
        self._told = told

    def write(self) -> None:
        super().write()
        while (packet := self.take_packet()) is not None:
            self._told(packet)


def _is_off(planned: Planned, run: KnownRun | None) -> bool:
    """Whether a plan is not what follows from the record of the last run alone."""
    return not planned.is_under_way and (planned.refusals > 0 or run is None or run[0] != planned.last)


def _cut(moment: float) -> float:
    """The time to the millisecond, as records have it."""
    return int(moment * 1000) / 1000
