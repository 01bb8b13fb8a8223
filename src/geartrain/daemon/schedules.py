"""The extension that makes jobs by schedules: of the configuration file, and set by the command ``schedule``.

When which run is to be made the planner says; here are its timer, the jobs, and what is kept:

    schedule         under its name, each one that a command has set, as its words
    schedule_pause   under its name, each one that is paused
    schedule_run     under its name, NUL and a time in milliseconds: all runs up to then are done with

**One job for each run.** The job of a run and the record of that run reach the store in one commit, and no worker gets
the job before, since what it had done would be made again after a crash. The record of the run before is removed after
that, and the record of a run that was not taken at once: the latest one counts.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from geartrain.daemon.extension import Extension, Host
from geartrain.daemon.in_process import InProcessPeer
from geartrain.daemon.planner import Planned, Planner, Run
from geartrain.daemon.schedule import KEYS, Schedule, in_zone, merge, read_keys, read_schedule, read_words, run_name
from geartrain.jobserver.model import DEAD, ENDED
from geartrain.jobserver.outbox import MAX_FRESH
from geartrain.jobserver.records import Record
from geartrain.jobserver.rights import OPERATE, READ
from geartrain.jobserver.rules.answers import OK, list_lines, refuse
from geartrain.jobserver.shown import show_name
from geartrain.wire.packets import JOB_CREATED, SUBMIT_JOB_BG, SUBMIT_JOB_HIGH_BG, SUBMIT_JOB_LOW_BG, pack_request
from geartrain.wire.text import as_text

if TYPE_CHECKING:
    from geartrain.jobserver import Peer
    from geartrain.jobserver.outbox import DeferredReply
    from geartrain.wire.parser import Packet

log = logging.getLogger("geartrain.daemon")

SCHEDULE_KIND: Final = "schedule"
PAUSE_KIND: Final = "schedule_pause"
RUN_KIND: Final = "schedule_run"
SHOWN_RUNS: Final = 5
AT_ONCE: Final = 50  # runs in one iteration
MOST_UNANSWERED: Final = 1000  # jobs of ours that the store has not confirmed
LONGEST_WAIT: Final = 60.0  # seconds between looks at the time of day, which may be set
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
        self._commanded: set[bytes] = set()
        self._noted: dict[bytes, float] = {}  # the time in the record that counts, by name
        self._made: dict[bytes, float] = {}  # the time of the last run that was made, by its times or by command
        self._submitted: deque[Submitted] = deque()
        self._peer: Submitter | None = None
        self._timer: asyncio.TimerHandle | None = None

    # ── life ────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, host: Host) -> None:
        self._host = host
        self._server = server = host.server
        for written, keys in self._given.items():
            self._of_file[written.encode()] = read_schedule(written.encode(), read_keys(keys), server.settings.zone)
        schedules = dict(self._of_file)
        for record in server.kept_of(SCHEDULE_KIND):
            try:
                words = (record.value or b"").split()
                schedules[record.key] = read_schedule(record.key, read_words(words), server.settings.zone)
            except ValueError as error:
                log.error("schedule_unreadable", extra={"fields": {"name": as_text(record.key), "reason": str(error)}})
            else:
                self._commanded.add(record.key)
        runs = self._known_runs(schedules)
        for name, schedule in schedules.items():
            self._take_up(schedule, runs.get(name))
        for record in server.kept_of(PAUSE_KIND):
            if record.key not in schedules:
                server.keep(Record(PAUSE_KIND, record.key, None))
        server.add_command(b"schedule", self._command, READ | OPERATE)
        self._set_timer()

    def _known_runs(self, schedules: Mapping[bytes, Schedule]) -> dict[bytes, tuple[float, bytes]]:
        """The last run of each schedule with what is known of it; records of others are removed."""
        runs: dict[bytes, tuple[float, bytes]] = {}
        for record in self._server.kept_of(RUN_KIND):
            name, _, written = record.key.rpartition(b"\0")
            time = int(written) / 1000 if written.isdigit() else -1.0
            if time >= 0 and name in schedules and (name not in runs or time > runs[name][0]):
                if name in runs:
                    self._server.keep(Record(RUN_KIND, _key(name, runs[name][0]), None))
                runs[name] = (time, record.value or b"")
            else:
                self._server.keep(Record(RUN_KIND, record.key, None))
        return runs

    def _take_up(self, schedule: Schedule, run: tuple[float, bytes] | None) -> None:
        """Plan a schedule that was there before, if its run is known."""
        server = self._server
        name = schedule.name
        now = server.wall
        last, job = 0.0, 0
        if run is not None:
            last = self._noted[name] = run[0]
            try:
                known = json.loads(run[1])
                job = int(known["job"])
                self._made[name] = float(known["made"])
                has_same_times = known["times"] == schedule.times
            except (ValueError, KeyError, TypeError):
                has_same_times = False
            if last > now + LONGEST_WAIT:
                fields = {"name": as_text(name), "last": run_name(last)}
                log.warning("schedule_ahead", extra={"fields": fields})
            if not has_same_times:
                run = None
        server.let_go(job)  # it was held when the job server ended
        is_paused = server.kept(PAUSE_KIND, name) is not None
        planned = self._planner.put(
            schedule, last if run is not None else max(last, now), now, job, is_paused=is_paused
        )
        if run is None:
            self._note(planned, planned.last)

    def leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._planner.next_at()
        if at and len(self._submitted) < MOST_UNANSWERED and not self._server.draining:
            # A look before the time is a look in vain.
            wait = min(max(at - self._server.wall, 0.0) + 0.001, LONGEST_WAIT)
            self._timer = self._host.loop.call_later(wait, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._host.open_iteration()
        server = self._server
        count = 0
        while count < AT_ONCE and len(self._submitted) < MOST_UNANSWERED and server.output.fresh < MAX_FRESH:
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
            self._note(planned, run.time)
            self._planner.done(run)
        elif schedule.overlap == "skip" and self._is_live(planned.job):
            log.info("schedule_skipped", extra={"fields": fields})
            self._note(planned, run.time)
            self._planner.done(run)
        else:
            self._submit(run)

    def _is_live(self, number: int) -> bool:
        job = self._server.jobs.get(number) if number > 0 else None
        return job is not None and job.state not in (ENDED, DEAD)

    def _submit(self, run: Run, peer: Peer | None = None) -> None:
        """Submit a run's job, and have its record go with it; a peer that asked for the run gets the handle."""
        server = self._server
        schedule = run.planned.schedule
        if not server.has_room(len(schedule.workload) + ROOM):
            self._refuse(run, "the job server's memory is full", peer)
            return
        try:
            if self._peer is None or self._peer.closed:
                self._peer = Submitter(self, self._host)
        except ConnectionRefusedError as error:
            self._refuse(run, str(error), peer)
            return
        number = server.next_number
        unique = schedule.unique(run.time, server.settings.max_unique)
        self._peer.send(pack_request(_TYPES[schedule.priority], schedule.function, unique, schedule.workload))
        if server.next_number == number:
            number = 0
        elif peer is None:
            made = max(run.time, self._made.get(schedule.name, 0.0))
            server.keep_with(number, self._record(run.planned, run.time, number, made))
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

    def answered(self, packet: Packet) -> None:
        """The answer to the job that was submitted first of those that wait for one."""
        submitted = self._submitted.popleft()
        run = submitted.run
        name = run.planned.schedule.name
        is_made = packet.type == JOB_CREATED
        if submitted.reply is not None:
            self._host.loop.call_soon(self._tell, submitted, packet)
            if is_made and self._planner.schedules.get(name) is run.planned:
                run.planned.job = self._server.handles.number(packet.arguments[0])
                self._made_at(name, run.time)
                self._note(run.planned, run.planned.last)
        elif not is_made:
            if submitted.number:
                self._server.keep(Record(RUN_KIND, _key(name, run.time), None))
            self._refuse(run, as_text(packet.arguments[-1]))
        else:
            number = self._server.handles.number(packet.arguments[0])
            if self._planner.schedules.get(name) is not run.planned:  # it was unset or changed meanwhile
                if run.time != self._noted.get(name):
                    self._server.keep(Record(RUN_KIND, _key(name, run.time), None))
            else:
                self._made_at(name, run.time)
                if submitted.number:
                    self._noted_now(name, run.time)
                else:
                    run.planned.job = number
                    self._note(run.planned, run.time)
            if submitted.number:
                self._host.loop.call_soon(self._let_go, number)  # not now, since outboxes are being written
            self._planner.done(run, number)
        self._set_timer()

    def _made_at(self, name: bytes, time: float) -> None:
        """A run was made; one that was missed, and made up for, may be of before the last one."""
        self._made[name] = max(time, self._made.get(name, 0.0))

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

    # ── what is kept ────────────────────────────────────────────────────────────────────────────────────────────

    def _record(self, planned: Planned, time: float, job: int, made: float) -> Record:
        known = {"job": job, "made": made, "times": planned.schedule.times}
        return Record(RUN_KIND, _key(planned.schedule.name, time), json.dumps(known).encode())

    def _note(self, planned: Planned, time: float) -> bool:
        """Keep that all runs up to this time are done with; False if it can't be kept."""
        name = planned.schedule.name
        is_kept = self._server.keep(self._record(planned, time, planned.job, self._made.get(name, 0.0)))
        if is_kept:
            self._noted_now(name, time)
        return is_kept

    def _noted_now(self, name: bytes, time: float) -> None:
        """The record of this time counts, and the one before it is of no use any more."""
        before = self._noted.get(name)
        if before is not None and _key(name, before) != _key(name, time):
            self._server.keep(Record(RUN_KIND, _key(name, before), None))
        self._noted[name] = time

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
        self._commanded.add(name)
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
        self._note(new, new.last)

    def _unset(self, peer: Peer, planned: Planned) -> None:
        name = planned.schedule.name
        if name not in self._commanded:
            refuse(peer, b"UNKNOWN_SCHEDULE", f"{as_text(name)} is in the configuration file: take it out there")
            return
        self._commanded.discard(name)
        self._server.keep(Record(SCHEDULE_KIND, name, None))
        log.info("schedule_unset", extra={"fields": {"name": as_text(name)}})
        if name in self._of_file:
            self._replace(self._of_file[name], planned)
        else:
            self._planner.remove(name)
            self._server.keep(Record(PAUSE_KIND, name, None))
            self._server.keep(Record(RUN_KIND, _key(name, self._noted.pop(name, 0.0)), None))
            self._made.pop(name, None)
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
            self._note(planned, planned.last)
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
            made = self._made.get(name, 0.0)
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
        if self._made.get(name):
            yield b"last\t%.3f\n" % self._made[name]
        if planned.job > 0:
            yield b"job\t%b\n" % self._server.handles.make(planned.job)
        for run in self._planner.coming(planned, SHOWN_RUNS):
            self._server.cost += 20
            yield b"next\t%.3f\t%b\n" % (run, in_zone(run, schedule.zone).encode())


class Submitter(InProcessPeer):
    """Submits jobs, and hands each answer over before the changes of the same iteration go to the store."""

    def __init__(self, schedules: Schedules, host: Host) -> None:
        super().__init__(host)
        self._schedules = schedules

    def write(self) -> None:
        super().write()
        while (packet := self.take_packet()) is not None:
            self._schedules.answered(packet)


def _key(name: bytes, time: float) -> bytes:
    return b"%b\0%d" % (name, round(time * 1000))


def _cut(moment: float) -> float:
    """The time to the millisecond, as records have it."""
    return int(moment * 1000) / 1000
