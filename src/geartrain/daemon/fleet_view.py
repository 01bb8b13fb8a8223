"""What the other layers may know of the fleet, as ``Host.fleet``; the fleet's extension makes and changes it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Protocol

STATES: Final = ("joining", "live", "lapsed", "forsaking", "left")  # of our own member


@dataclass(frozen=True)
class MemberView:
    """A job server of the fleet as the database knows it; times are Unix times, ``lease`` seconds (negative: over)."""

    id: int
    address: str
    state: str  # live, left, dead or gone
    is_me: bool
    draining: bool
    lease: float
    joined: float
    ended: float  # 0: it has not
    version: str
    jobs_adopted: int  # by others, after its end


@dataclass(frozen=True)
class AdoptionView:
    """What one member has taken over of another; Unix times."""

    estate: int
    heir: int
    jobs: int
    first: float
    last: float


class FleetView(Protocol):
    """The fleet as this member sees it."""

    name: str
    me: int  # our id, the epoch of what we write; 0 while we have none
    state: str  # one of STATES
    lease_ends: float  # monotonic
    members: tuple[MemberView, ...]  # those that have not gone, as the last pulse has found them
    adopted_jobs: int  # by us, since we started
    moved_away: int
    fenced: int  # how often we were taken for dead
    pulses: int
    pulse_seconds: float  # how long the last one took

    @property
    def leader(self) -> bool:
        """Whether it is for us to run the schedules."""

    def on_shared_change(self, call: Callable[[], None]) -> None:
        """Have this called when others have changed what all members share."""

    def drain(self, id: int, on: bool) -> Awaitable[str]:
        """Have a member give away what it has and take nothing new, or end that; empty, or why that can't be."""

    def forget(self, id: int) -> Awaitable[str]:
        """Know no more of a member that has ended, or take one for dead whose lease is over; empty, or why not."""

    def history(self) -> Awaitable[tuple[list[MemberView], list[AdoptionView]]]:
        """The newest members, also those that have gone, and who has taken over what."""

    def ask_all(self, line: bytes) -> Awaitable[dict[int, bytes | str]]:
        """What each live member answers to a listing's text command, by its id; a str says why there is no answer."""


def leader_of(members: Iterable[MemberView]) -> int:
    """Who makes the runs of schedules: of those that live the one that came first, also if it is drained; 0: none."""
    return min((each.id for each in members if each.state == "live"), default=0)


def shown_members(fleet: FleetView) -> list[MemberView]:
    """The members that have not gone; of our own we know more than the database: its state, and when its lease ends."""
    left = fleet.lease_ends - time.monotonic()
    return [replace(each, state=fleet.state, lease=left) if each.is_me else each for each in fleet.members]
