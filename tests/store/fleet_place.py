"""Members of a fleet in one test's place, and what may happen to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from databases import TABLES, DatabasePlace, MariaDBPlace, NewNamespace, PostgreSQLPlace
from place import NO_LIMIT

from geartrain.jobserver.records import Record, StoredJob, number_key
from geartrain.store import StoreError
from geartrain.store.fleet import FencedError, FleetStore, Member, fleet_engine

FLEET = "trains"


class FleetPlace:
    """A place, and the members that a test has had join; they are closed when it ends."""

    def __init__(self, place: DatabasePlace) -> None:
        self.place = place
        self.sql = place.sql
        self.joined: list[FleetStore] = []

    def join(self, address: str = "", name: str = FLEET) -> FleetStore:
        """Another member."""
        store = fleet_engine(self.place.url)
        self.joined.append(store)
        store.open()
        store.join(name, address or f"host{len(self.joined)}:4730")
        return store

    def run_out(self, store: FleetStore) -> None:
        """Let the lease of a member be over, as if it had stood still."""
        self.sql(f"UPDATE {{leases}} SET lease_end = 1 WHERE id = {id_of(store)}")

    def state(self, store: FleetStore) -> str:
        ((state,),) = self.sql(f"SELECT state FROM {{members}} WHERE id = {id_of(store)}")
        return str(state)

    def owners(self) -> dict[int, int]:
        """Whose each job is."""
        return dict(self.sql("SELECT number, owner FROM {jobs}"))

    def record_owners(self) -> dict[str, int]:
        """Whose the records of each kind are."""
        return dict(self.sql("SELECT kind, owner FROM {records}"))

    @contextlib.contextmanager
    def locking(self, statement: str) -> Iterator[Any]:
        """Somebody's transaction that has done ``statement`` and stands still; the connection, to end it."""
        with contextlib.closing(self.place.service.connect()) as connection, connection.cursor() as cursor:
            names = {name: f"{self.place.namespace}_{name}" for name in TABLES}
            if isinstance(self.place, MariaDBPlace):
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")  # locks what it finds alone
            cursor.execute("BEGIN")
            cursor.execute(statement.format(**names))
            yield connection
            connection.rollback()  # it is over when we go on

    def is_waited_for(self) -> bool:
        """Whether a session of a member waits for a lock."""
        if isinstance(self.place, PostgreSQLPlace):
            ((waiting,),) = self.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        else:
            ((_, waiting),) = self.sql("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")
        return int(waiting) > 0

    def sharing(self) -> str:
        return "FOR SHARE" if isinstance(self.place, PostgreSQLPlace) else "LOCK IN SHARE MODE"


@contextlib.contextmanager
def fleet_in(place: DatabasePlace) -> Iterator[FleetPlace]:
    fleet = FleetPlace(place)
    try:
        yield fleet
    finally:
        for store in fleet.joined:
            store.close()


def database_place(request: pytest.FixtureRequest, new_namespace: NewNamespace) -> DatabasePlace:
    """A place in the database that is the fixture's parameter."""
    kind: Callable[..., DatabasePlace] = {"postgresql": PostgreSQLPlace, "mariadb": MariaDBPlace}[request.param]
    return kind(request.getfixturevalue(request.param), new_namespace)


def id_of(store: FleetStore) -> int:
    return store._membership.id  # type: ignore[attr-defined,no-any-return]


def vanish(store: FleetStore) -> None:
    """Its process ends, as by kill -9: its sessions do, and nothing else happens."""
    store.close()


def member(store: FleetStore, other: FleetStore) -> Member:
    """What one member sees of another."""
    (found,) = (each for each in store.pulse().members if each.id == id_of(other))
    return found


def is_fenced(act: Callable[[], object]) -> bool:
    try:
        act()
    except FencedError:
        return True
    except StoreError as error:
        raise AssertionError("it was refused for another reason") from error
    return False


def claimed(store: FleetStore, estate: int, count: int = 1000) -> list[int]:
    """The numbers of the jobs that are claimed at once, in their order."""
    found = []
    for each in store.claim(estate, count, NO_LIMIT).jobs:
        assert isinstance(each, StoredJob), each
        found.append(each.number)
    return found


def about(kind: str, number: int, value: bytes | None = b"v") -> Record:
    """A record about a job."""
    return Record(kind, number_key(number), value)
