"""What is kept of schedules' runs: of each schedule, that all runs up to a time are done with.

    schedule_run     under the schedule's name, NUL and the time in milliseconds: the last job, the time of the last run
                     that was made, and what the times follow from

The latest one of a schedule counts. The one before it is removed behind it; in a fleet, where several job servers keep
them, the one that runs the schedules tidies up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Final

from geartrain.jobserver.records import Record

if TYPE_CHECKING:
    from geartrain.daemon.planner import Planned
    from geartrain.daemon.schedule import Schedule
    from geartrain.jobserver import JobServer

RUN_KIND: Final = "schedule_run"

KnownRun = tuple[float, Record]
"""The time of the last run, and the record that says so."""


class RunRecords:
    """The records of one job server's runs, and what was read of them, by the schedules' names."""

    def __init__(self, server: JobServer) -> None:
        self.noted: dict[bytes, float] = {}  # the time in the record that counts
        self.made: dict[bytes, float] = {}  # the time of the last run that was made, by its times or by command
        self._server = server
        self._read: dict[bytes, Record] = {}
        self._useless: list[bytes] = []

    def latest(self, names: Container[bytes], is_under_way: Callable[[bytes], bool]) -> dict[bytes, KnownRun]:
        """The last run of each of these schedules.

        While one ``is_under_way``, the store may still refuse its record, and the one before it is of use.
        """
        runs: dict[bytes, KnownRun] = {}
        useless = self._useless = []
        for record in self._server.kept_of(RUN_KIND):
            name, _, written = record.key.rpartition(b"\0")
            time = int(written) / 1000 if written.isdigit() else -1.0
            if time < 0 or name not in names:
                useless.append(record.key)
                continue
            other = runs.get(name)
            if other is None or time > other[0]:
                runs[name] = time, record
            if other is not None and not is_under_way(name):
                useless.append(other[1].key if time > other[0] else record.key)
        return runs

    def tidy(self) -> None:
        """Remove the records that are of no use, as ``latest`` has found."""
        for key in self._useless:
            self._server.keep(Record(RUN_KIND, key, None))
        self._useless = []

    def is_news(self, name: bytes, run: KnownRun) -> bool:
        """Whether this has not been read yet."""
        return run[1] is not self._read.get(name)

    def read(self, schedule: Schedule, run: KnownRun) -> tuple[float, int, bool]:
        """What is known of a schedule's last run: its time, its job, and whether the times are still the same."""
        name = schedule.name
        time, record = run
        self.noted[name] = time
        self._read[name] = record
        try:
            known = json.loads(record.value or b"")
            job = int(known["job"])
            self.made[name] = float(known["made"])
            return time, job, known["times"] == schedule.times
        except (ValueError, KeyError, TypeError):
            return time, 0, False

    def note(self, planned: Planned, time: float) -> None:
        """Keep that all runs up to this time are done with, if there is room."""
        name = planned.schedule.name
        if self._server.keep(run_record(planned, time, planned.job, self.made.get(name, 0.0))):
            self.noted_now(name, time)

    def made_at(self, name: bytes, time: float) -> None:
        """A run was made; one that was missed, and made up for, may be of before the last one."""
        self.made[name] = max(time, self.made.get(name, 0.0))

    def noted_now(self, name: bytes, time: float) -> None:
        """The record of this time counts, and the one before it is of no use any more."""
        before = self.noted.get(name)
        if before is not None and _key(name, before) != _key(name, time):
            self.remove(name, before)
        self.noted[name] = time

    def remove(self, name: bytes, time: float) -> None:
        """Keep the record of this time no longer."""
        self._server.keep(Record(RUN_KIND, _key(name, time), None))

    def drop(self, name: bytes) -> None:
        """There is no such schedule any more."""
        for known in (self.noted, self.made, self._read):
            known.pop(name, None)


def run_record(planned: Planned, time: float, job: int, made: float) -> Record:
    """The record that all runs up to ``time`` are done with."""
    known = {"job": job, "made": made, "times": planned.schedule.times}
    return Record(RUN_KIND, _key(planned.schedule.name, time), json.dumps(known).encode())


def _key(name: bytes, time: float) -> bytes:
    return b"%b\0%d" % (name, round(time * 1000))
