"""Which runs of which schedules are to be made now: a plain object that is told the time, and does nothing itself.

    planner.put(schedule, last, now)   a schedule, and its last run
    planner.due(now)                   the next run to be made, if its time has come; asked until it gives None
    planner.done(run, job)             it was made, by the job of this number, or is passed over
    planner.refused(run, now)          it was not taken: it comes again after a pause
    planner.next_at()                  when to ask again

A schedule's runs are made one after the other, and only forward: what is at or before its last run never is again,
whatever is done to the clock. It waits in one heap for its next run; a change leaves a dead entry there.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from geartrain.daemon.schedule import Schedule

LATE: Final = 60.0  # seconds after which a run counts as missed, though the server is up
MOST_MISSED: Final = 1000  # runs of a schedule that are made up for
PAUSE: Final = 1.0  # seconds until a refused run is tried again, doubled up to
LONGEST_PAUSE: Final = 60.0
_FIRST_WINDOW: Final = 3600.0  # seconds before now in which a missed run is looked for; doubled while there is none


class Planned:
    """A schedule in the plan, and how far its runs have come."""

    def __init__(self, schedule: Schedule, last: float, job: int) -> None:
        self.schedule = schedule
        self.last = last  # the run that was made, or passed over, last
        self.job = job  # the number of the last job, 0: none is known
        self.next = schedule.next_after(last)
        self.is_paused = False
        self.behind = 0.0  # what was to be made up to this time was missed
        self.catching_up_to = 0.0  # missed runs up to this time are made
        self.refusals = 0
        self.turn = -1  # its entry in the heap: those of other turns are dead; -1: it has none
        self.is_under_way = False  # a run of it was given by ``due``, and is neither done nor refused


class Run:
    """A run whose time has come; ``skipped`` tells from when to when runs are left out before it."""

    def __init__(self, planned: Planned, time: float, skipped: tuple[float, float] | None) -> None:
        self.planned = planned
        self.time = time
        self.skipped = skipped
        self.is_made = True  # False: nothing is to be made, but for a note that all before ``time`` is done


class Planner:
    """All schedules, by name."""

    def __init__(self) -> None:
        self.schedules: dict[bytes, Planned] = {}
        self._heap: list[tuple[float, int, Planned]] = []
        self._turns = 0

    def put(self, schedule: Schedule, last: float, now: float, job: int = 0, *, is_paused: bool = False) -> Planned:
        """Plan a schedule, in place of the one of its name; what was to be made between ``last`` and now is missed."""
        self.remove(schedule.name)
        planned = Planned(schedule, last, job)
        planned.behind = now
        planned.is_paused = is_paused
        self.schedules[schedule.name] = planned
        self._push(planned, planned.next + schedule.delay(planned.next))
        return planned

    def change(self, planned: Planned, schedule: Schedule) -> None:
        """Go on with another schedule that has the same times."""
        planned.schedule = schedule
        if planned.turn >= 0:
            self._push(planned, planned.next + schedule.delay(planned.next))

    def remove(self, name: bytes) -> Planned | None:
        """Plan a schedule no more."""
        planned = self.schedules.pop(name, None)
        if planned is not None:
            planned.turn = -1
        return planned

    def pause(self, planned: Planned) -> None:
        """Make none of its runs."""
        planned.is_paused = True
        planned.turn = -1

    def resume(self, planned: Planned, now: float) -> None:
        """Make its runs again, from now on: those of the pause are left out."""
        planned.is_paused = False
        planned.refusals = 0
        self.go_on(planned, max(planned.last, now))

    def next_at(self) -> float:
        """When a run is due, as a Unix time; 0: none ever is."""
        while self._heap and self._heap[0][1] != self._heap[0][2].turn:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else 0.0

    def due(self, now: float) -> Run | None:
        """One run that is to be made now; ``done`` or ``refused`` has the next one of its schedule planned."""
        at = self.next_at()
        if not 0 < at <= now:
            return None
        _, _, planned = heappop(self._heap)
        planned.turn = -1
        planned.is_under_way = True
        return self._judge(planned, now)

    def done(self, run: Run, job: int = 0) -> None:
        """The run was made by this job, or with 0 passed over."""
        planned = run.planned
        if job:
            planned.job = job
        planned.refusals = 0
        planned.is_under_way = False
        if self.schedules.get(planned.schedule.name) is planned:
            self.go_on(planned, max(planned.last, run.time))

    def refused(self, run: Run, now: float) -> float:
        """The run was not taken; when it will be tried again."""
        planned = run.planned
        planned.refusals += 1
        planned.is_under_way = False
        planned.next = run.time
        at = now + min(PAUSE * 2.0 ** min(planned.refusals - 1, 10), LONGEST_PAUSE)
        if self.schedules.get(planned.schedule.name) is planned and not planned.is_paused:
            self._push(planned, at)
        return at

    def coming(self, planned: Planned, count: int) -> list[float]:
        """The times of the next runs."""
        runs: list[float] = []
        run = planned.next
        while len(runs) < count and run != float("inf"):
            runs.append(run)
            run = planned.schedule.next_after(run)
        return runs

    def go_on(self, planned: Planned, last: float) -> None:
        """All runs up to ``last`` are done with."""
        planned.last = last
        planned.next = planned.schedule.next_after(last)
        self._push(planned, planned.next + planned.schedule.delay(planned.next))

    def _push(self, planned: Planned, at: float) -> None:
        if planned.is_paused or at == float("inf"):
            planned.turn = -1
            return
        self._turns += 1
        planned.turn = self._turns
        heappush(self._heap, (at, self._turns, planned))

    def _judge(self, planned: Planned, now: float) -> Run:
        """What is to be done for a run whose time has come: mostly to make it."""
        run = planned.next
        schedule = planned.schedule
        made_anyway = planned.refusals or run <= planned.catching_up_to
        at = run + schedule.delay(run)
        was_missed = at <= planned.behind or now - at > LATE
        if made_anyway or not was_missed:
            return Run(planned, run, None)
        planned.catching_up_to = now
        if schedule.missed == "none":
            found = Run(planned, now, (run, now))
            found.is_made = False
            return found
        first = self._last_before(schedule, run, now) if schedule.missed == "one" else self._latest(schedule, run, now)
        return Run(planned, first, (run, first) if first > run else None)

    def _last_before(self, schedule: Schedule, run: float, now: float) -> float:
        """The last run up to ``now``; ``run`` is one of them."""
        if schedule.every_ms:
            return schedule.next_after(now - schedule.every_ms / 1000)
        window = _FIRST_WINDOW
        start = run
        while now - window > run:
            start = now - window
            if schedule.next_after(start) <= now:
                break
            start = run
            window *= 2
        found = run if start == run else schedule.next_after(start)
        while (following := schedule.next_after(found)) <= now:
            found = following
        return found

    def _latest(self, schedule: Schedule, run: float, now: float) -> float:
        """The first of the last runs up to ``now``, which are not more than are made up for."""
        if schedule.every_ms:
            return max(run, schedule.next_after(now - MOST_MISSED * schedule.every_ms / 1000))
        first = run
        while True:
            found = first
            count = 1
            while count <= MOST_MISSED and (following := schedule.next_after(found)) <= now:
                found = following
                count += 1
            if count <= MOST_MISSED:
                return first
            # Were they spread evenly, there would be as many in the same time before now.
            first = schedule.next_after(max((first + now) / 2, now - (found - first)))
