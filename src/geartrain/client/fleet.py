"""A fleet's members and adoptions, as the text commands ``fleet status`` and ``fleet history`` tell them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from geartrain.wire.text import as_text


@dataclass(frozen=True, slots=True)
class FleetMember:
    """A job server of a fleet, from one start, or return, to its end.

    ``state`` is ``live``, ``left``, ``dead`` or ``gone``; of the member that was asked it may also be ``lapsed`` or
    ``forsaking``. ``lease`` is in seconds from now, negative once it is over. ``joined`` and ``ended`` are Unix times
    of the database, ``ended`` None while it is there. ``jobs_adopted``: how many of its jobs others have taken
    over. ``is_leader``: it makes the runs of schedules.
    """

    id: int
    address: str
    state: str
    lease: float
    is_draining: bool
    joined: float
    ended: float | None
    jobs_adopted: int
    version: str
    was_asked: bool
    is_leader: bool

    @classmethod
    def read(cls, line: bytes) -> FleetMember:
        """A line of ``fleet status``. Raises ValueError if it is none."""
        id, address, state, lease, draining, joined, ended, adopted, version, leader, me = line.split(b"\t")[:11]
        return cls(
            int(id), as_text(address), as_text(state), float(lease), draining == b"1", float(joined),
            float(ended) or None, int(adopted), as_text(version), me == b"1", leader == b"1",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FleetAdoption:
    """How many jobs of the member ``estate``, which has ended, another one has taken over, from when to when.

    0 for ``estate``: the jobs that were there before the fleet was.
    """

    estate: int
    heir: int
    jobs: int
    first: float
    last: float

    @classmethod
    def read(cls, line: bytes) -> FleetAdoption:
        """What stands behind ``adoption`` in ``fleet history``. Raises ValueError if that is none."""
        estate, heir, jobs, first, last = line.split(b"\t")[:5]
        return cls(int(estate), int(heir), int(jobs), float(first), float(last))


@dataclass(frozen=True, slots=True)
class FleetHistory:
    """The latest members, those that have gone as well, and the latest adoptions; the newest first."""

    members: tuple[FleetMember, ...]
    adoptions: tuple[FleetAdoption, ...]

    @classmethod
    def read(cls, lines: Iterable[bytes]) -> FleetHistory:
        """The lines of ``fleet history``. Raises ValueError if they are none."""
        rows = [line.partition(b"\t") for line in lines]
        return cls(
            tuple(FleetMember.read(row) for kind, _, row in rows if kind == b"member"),
            tuple(FleetAdoption.read(row) for kind, _, row in rows if kind == b"adoption"),
        )
