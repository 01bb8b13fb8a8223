"""The stores that daemons are tested on: a file, and real services, each started when first asked for."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lives import FilePlace, Place, ServicePlace

from services import MariaDB, Memcached, PostgreSQL, Redis, running

NewNamespace = Callable[[], str]
STORES = ("sqlite", "postgresql", "mariadb", "redis", "memcached")

_numbers = itertools.count(1)


@pytest.fixture
def new_namespace() -> NewNamespace:
    """Makes a namespace that no other test has."""
    return lambda: f"test_{next(_numbers)}"


@pytest.fixture(scope="session")
def postgresql_service() -> Iterator[PostgreSQL]:
    with running(PostgreSQL) as service:
        service.set_fsync(False)  # processes are killed here, not machines
        yield service


@pytest.fixture(scope="session")
def mariadb_service() -> Iterator[MariaDB]:
    with running(MariaDB, "--innodb-flush-log-at-trx-commit=2", "--innodb-log-file-size=24M") as service:
        yield service


@pytest.fixture(scope="session")
def redis_service() -> Iterator[Redis]:
    with running(Redis) as service:
        yield service


@pytest.fixture(scope="session")
def memcached_services() -> Iterator[list[Memcached]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(running(Memcached, "-M", "-m", "512")) for _ in range(2)]


@pytest.fixture
def sqlite(tmp_path: Path) -> FilePlace:
    return FilePlace(tmp_path / "jobs.sqlite")


@pytest.fixture
def postgresql(postgresql_service: PostgreSQL, new_namespace: NewNamespace) -> ServicePlace:
    return ServicePlace.of(postgresql_service, new_namespace())


@pytest.fixture
def mariadb(mariadb_service: MariaDB, new_namespace: NewNamespace) -> ServicePlace:
    return ServicePlace.of(mariadb_service, new_namespace())


@pytest.fixture
def redis(redis_service: Redis, new_namespace: NewNamespace) -> ServicePlace:
    return ServicePlace.of(redis_service, new_namespace())


@pytest.fixture
def memcached(memcached_services: list[Memcached], new_namespace: NewNamespace) -> ServicePlace:
    nodes = ",".join(f"127.0.0.1:{service.port}" for service in memcached_services)
    return ServicePlace(list(memcached_services), f"memcached://{nodes}?namespace={new_namespace()}")


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest) -> Place:
    """A test's own place in a store: in each in turn, unless the test says ``on`` which."""
    found: Place = request.getfixturevalue(request.param)
    return found
