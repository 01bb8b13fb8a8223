"""What a store must do beyond ``Store`` so that several job servers, a *fleet*, share one place.

Each job server is a *member*. Its id is given by the database and never used again: who comes back, comes back as
another member, so the id is the epoch of all that is written under it. Every row has an *owner*, a member's id. What
else an owner may be: 0, nobody yet (the jobs of a job server that had the place for itself before), and minus an id, on
the way to that member.

    live   its lease is renewed, by the database's clock; it alone writes its rows
    left   it has stopped as planned: what it had is an estate, which others claim
    dead   the others have judged it: its lease was over, or the session that holds its lock had ended
    gone   nothing of it is left to claim

**The fence.** Each commit and each claim makes sure, within its transaction and until that is over, that the member is
live. If it isn't, ``FencedError`` is raised, now and ever after, and nothing is written: all that it had is others'. A
lock says quickly that a process has ended, and a lease that a host stands still; neither can be trusted alone, and only
the fence keeps two members from writing the same row.

**Threads.** ``commit`` is called from the writer's, ``read`` and ``owners`` from the reader's, ``claim``,
``claim_records``, ``shared_records`` and ``own_records`` from the adopter's, all else from the one that renews the
lease; a connection for each, and one that only holds the lock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

from geartrain.jobserver.records import Record, StoredJob
from geartrain.redaction import learn, shown_url
from geartrain.store.base import Store, StoreError, Unreadable

LEASE: Final = 4.0  # seconds
BLOCK: Final = 1 << 22  # numbers that a member is given at once
SHOWN: Final = 100  # members and adoptions, the newest ones

LIVE: Final = "live"
LEFT: Final = "left"
DEAD: Final = "dead"
GONE: Final = "gone"

# Records of one job server that are about none of its jobs; its next incarnation at the same address has them.
LOCAL_KINDS: Final = frozenset({"history"})

# scheme: why no fleet can share such a place
REFUSALS: Final = {
    "sqlite": "a file has no clock and no locks that several machines could trust",
    "redis": "it acknowledges before its replicas have it, so after a fail-over two members may own one job",
    "rediss": "it acknowledges before its replicas have it, so after a fail-over two members may own one job",
    "valkey": "it acknowledges before its replicas have it, so after a fail-over two members may own one job",
    "memcached": "it has no transactions, so no write can depend on who owns the job",
    "memory": "nobody else can reach it",
}


@dataclass(frozen=True)
class Member:
    """One incarnation of one job server.

    ``lease``: seconds that are left of it by the database's clock, negative once it is over. ``locked``: whether the
    session that holds its lock is there. ``joined`` and ``ended`` are Unix times of the database, ``ended`` 0 while it
    is live. ``jobs_adopted``: how many of its jobs others have claimed.
    """

    id: int
    address: str
    state: str
    lease: float
    locked: bool
    draining: bool
    joined: float
    ended: float
    version: str
    jobs_adopted: int


@dataclass(frozen=True)
class Adoption:
    """What one member, the ``heir``, has claimed of another, between two Unix times of the database."""

    estate: int
    heir: int
    jobs: int
    first: float
    last: float


@dataclass(frozen=True)
class View:
    """The fleet as one member sees it when it renews its lease.

    ``at`` is the database's Unix time. ``uptime``: for how many seconds at least the database has been there for all;
    as long as that is short, nobody may be judged, since nobody could renew anything. ``members`` are all but those
    that are gone. ``shared`` grows with each change of the records that all members have, ``arrivals`` whenever others
    have sent jobs to this one.
    """

    me: int
    at: float
    uptime: float
    members: tuple[Member, ...]
    shared: int
    arrivals: int


@dataclass(frozen=True)
class Claim:
    """Jobs that have become ours, best first, and the records about them."""

    jobs: list[StoredJob | Unreadable]
    records: list[Record]

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to claim, but for what others are claiming at this moment."""
        return not self.jobs


class FencedError(StoreError):
    """The others have judged this member: what it had in the store is theirs now, and it writes nothing more there."""


class FleetStore(Store, ABC):
    """One member's view of the place that a fleet shares; for each incarnation another one."""

    @abstractmethod
    def join(self, name: str, address: str) -> int:
        """Become a member of the fleet ``name``, and return our id; after ``open``, before all else.

        The place is made the fleet's if it is nobody's. Raises StoreInUseError if a lone job server uses it, StoreError
        if it is another fleet's, or written by a newer geartrain.
        """

    @abstractmethod
    def pulse(self) -> View:
        """Renew the lease, and look. Raises FencedError if we aren't live any more, StoreDownError within seconds."""

    @abstractmethod
    def judge(self, id: int) -> bool:
        """Declare a member dead if its lease is over or its lock is free; whether it is not live any more.

        Its sessions are ended, for a frozen one may hold rows.
        """

    @abstractmethod
    def claim(self, estate: int, count: int, leave_above: int) -> Claim:
        """Make up to ``count`` jobs ours that ``estate`` owns: a member that isn't live, nobody (0), on the way (-id).

        Those of the best priority come first, then the oldest; workloads are left in the store as in ``load``. Of a
        dead member's jobs the attempts that had begun are counted. What can't be read is quarantined.
        """

    @abstractmethod
    def claim_records(self, estate: int, count: int) -> list[Record]:
        """Make up to ``count`` records ours that the estate owns and that are about none of its jobs."""

    @abstractmethod
    def bury(self, id: int) -> bool:
        """Note that a member that isn't live is gone, if nothing of it is left; whether it is gone."""

    @abstractmethod
    def adoptions(self) -> list[Adoption]:
        """The latest adoptions, the newest first."""

    @abstractmethod
    def members(self) -> list[Member]:
        """The latest members, also those that are gone, the newest first."""

    @abstractmethod
    def numbers(self) -> int:
        """The first of ``BLOCK`` numbers that are ours from now on, a multiple of ``BLOCK``."""

    @abstractmethod
    def owners(self, numbers: Sequence[int]) -> dict[int, int]:
        """Who owns those of these jobs that are kept."""

    @abstractmethod
    def born_at(self) -> dict[int, int]:
        """The first number of each block, and the member that it was given to."""

    @abstractmethod
    def shared_records(self) -> tuple[int, list[Record]]:
        """The records that all members have, and their revision, as they were at one moment."""

    @abstractmethod
    def own_records(self) -> Iterator[Record]:
        """Make those records ours, and give them, that the job server at our address had kept for itself."""

    @abstractmethod
    def drain(self, id: int, on: bool) -> bool:
        """Ask a member to give away its jobs, or no longer; False if there is no such live member."""

    @abstractmethod
    def forget(self, id: int) -> bool:
        """Forget a member that is gone, or judge one; whether that could be done."""

    @abstractmethod
    def leave(self) -> None:
        """End our membership as planned; what we still have is an estate."""


def fleet_engine(url: str) -> FleetStore:
    """The store that ``url`` names, not opened yet, for a member of a fleet.

    Raises StoreError where no fleet can share it, with the reason, and where the engine's library is not installed.
    """
    learn(url, is_secret=True)
    begin, colon, rest = url.partition(":")
    url = begin.lower() + colon + rest
    scheme = begin.lower().partition("+")[0]
    package = {"postgresql": "geartrain[postgresql]", "mysql": "geartrain[mysql]", "mariadb": "geartrain[mysql]"}
    if scheme not in package:
        reason = REFUSALS.get(scheme, "only PostgreSQL, MariaDB and MySQL can be")
        raise StoreError(f"the store {shown_url(url)!r} can't be a fleet's: {reason}; use postgresql:// or mariadb://")
    try:
        kind: type[FleetStore] = import_module("geartrain.store.sql.fleet_store").SqlFleetStore
        return kind(url)
    except ImportError as error:
        raise StoreError(f"the store {shown_url(url)!r} needs {error.name}: pip install '{package[scheme]}'") from error
