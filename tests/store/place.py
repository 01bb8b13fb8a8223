"""One test's place in a store and how it is harmed there, and short ways to put jobs in and get them out.

A ``Place`` knows where one test's jobs are and how to do them harm: cut connections, kill the service, spoil a job,
run out of room. What can't happen to an engine (a file has no connection) its place leaves out, and those tests are
skipped.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from geartrain.jobserver.records import POSITION_BITS, Batch, Change, Record, StoredJob
from geartrain.store import Store, StoreDownError, StoreError, engine
from servers import wait_until

NO_LIMIT = 1 << 40
SECONDS_TO_RECOVER = 40

Fields = tuple[object, ...]


class Place:
    """Where one test keeps its jobs, and what may happen to it there."""

    def __init__(self, url: str, other_url: str, secrets: tuple[str, ...] = ()) -> None:
        self.url = url
        self.other_url = other_url  # another namespace of the same service
        self.secrets = secrets  # what no text may ever show

    def aliases(self) -> list[str]:
        """Other URLs of the same place, with which a second job server might come."""
        self._never("has a second name")

    def steal(self) -> None:
        """Have another job server take the place behind the back of the one that holds it."""
        self._never("can be stolen")

    def empty(self) -> None:
        """Take away all that is kept there, behind the job server's back."""
        self._never("can be emptied")

    def records_kept(self, store: Store) -> int:
        """How many records take room there, expired or not; ``store`` is open."""
        self._never("counts its records")

    def cut(self) -> None:
        """End every connection to the service, which goes on."""
        self._never("loses its connections")

    def crash(self) -> None:
        """Kill the service (of several, as many as the engine promises to survive)."""
        self._never("has a service that dies")

    def revive(self) -> None:
        """Start again what ``crash`` killed."""
        self._never("has a service that comes back")

    def spoil(self, number: int) -> None:
        """Damage what is kept of one job, so that it can't be made sense of."""
        self._never("keeps damaged jobs")

    def nowhere(self) -> str:
        """The URL of such a service where nothing answers."""
        self._never("can be unreachable")

    def wrong_password(self) -> str:
        """The URL with the password ``guessed``; all else is right."""
        self._never("asks for a password")

    def impatient(self) -> contextlib.AbstractContextManager[None]:
        """Where a second user waits whether the first one leaves, it does not wait long here."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def cramped(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """The URL of a place with room for less than 30 MB, and what makes more room there."""
        self._never("runs out of room")
        yield

    def _never(self, what: str) -> NoReturn:
        pytest.skip(f"no {type(self).__name__} {what}")


def job(
    number: int,
    workload: bytes = b"",
    *,
    position: int | None = None,
    function: bytes = b"resize",
    unique: bytes = b"",
    priority: int = 1,
    due: float = 0.0,
    reducer: bytes = b"",
    attempts: int = 0,
    created: float = 1.7e9,
) -> StoredJob:
    position = number << POSITION_BITS if position is None else position
    return StoredJob(
        number, position, function, unique, workload, len(workload), priority, due, reducer, attempts, created
    )


def batch(
    *added: StoredJob,
    moved: tuple[tuple[int, int, int], ...] = (),
    removed: tuple[int, ...] = (),
    changed: tuple[Change, ...] = (),
    records: tuple[Record, ...] = (),
    next_number: int = 1,
) -> Batch:
    made = Batch(next_number)
    made.added, made.removed = list(added), list(removed)
    made.changed = [Change(number, position, 0.0, 1, attempts) for number, position, attempts in moved]
    made.changed += changed
    made.records = list(records)
    return made


def fields(kept: StoredJob) -> Fields:
    return (
        kept.number, kept.position, kept.function, kept.unique, kept.workload, kept.size, kept.priority, kept.due,
        kept.reducer, kept.attempts, kept.created,
    )  # fmt: skip


def kept(store: Store, leave_above: int = NO_LIMIT) -> list[Fields]:
    """All fields of all jobs that ``store`` gives back, in its order."""
    found = []
    for each in store.load(leave_above):
        assert isinstance(each, StoredJob), each
        found.append(fields(each))
    return found


def records_of(store: Store, kind: str = "") -> dict[tuple[str, bytes], tuple[bytes | None, float]]:
    """All records of a kind that ``store`` gives back: what is kept under each name, and until when."""
    found = [(each.kind, each.key, each.value, each.expires) for each in store.records(kind)]
    made = {(kind, key): (value, expires) for kind, key, value, expires in found}
    assert len(made) == len(found), "a name came twice"
    return made


def numbers(store: Store) -> list[int]:
    return [each.number for each in store.load(NO_LIMIT)]


def insist(store: Store, what: Batch) -> None:
    """Commit, again and again while the store says it is down."""
    until_up(lambda: store.commit(what), "the batch is committed")


def insist_on_reading(store: Store, number: int) -> bytes:
    found: list[bytes] = []
    until_up(lambda: found.append(store.read(number)), "the workload is read")
    return found[0]


def is_refused(store: Store, what: Batch, reason: str) -> bool:
    """Whether the batch is refused for this reason, and not only since the store is down; it must not be kept."""
    try:
        store.commit(what)
    except StoreDownError:
        return False
    except StoreError as error:
        return reason in str(error)
    raise AssertionError("it was acknowledged")


def until_rebuilt(store: Store, jobs: list[StoredJob], next_number: int) -> int:
    counts: list[int] = []
    until_up(lambda: counts.append(store.rebuild(jobs, next_number)), "the store is rebuilt")
    return counts[0]


def until_up(act: Callable[[], None], what: str) -> None:
    def acted() -> bool:
        try:
            act()
        except StoreDownError:
            return False
        return True

    wait_until(acted, what, SECONDS_TO_RECOVER)


@contextlib.contextmanager
def opened(url: str) -> Iterator[Store]:
    store = engine(url)
    store.open()
    try:
        yield store
    finally:
        store.close()


def bytes_like(size: int) -> bytes:
    """Bytes of every value, that can't be made smaller."""
    return random.Random(size).randbytes(size)
