"""The services that stores are tested on, each started when the first test asks for it and kept for the session."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from services import MariaDB, PostgreSQL, running

pytest.register_assert_rewrite("contract", "place", "sql_contract", "fleet_place")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with running(PostgreSQL) as service:
        # Tests kill processes, not machines: what the kernel has is safe, and waiting for the disk takes long.
        service.set_fsync(False)
        yield service


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    with running(MariaDB, "--innodb-flush-log-at-trx-commit=2", "--innodb-log-file-size=24M") as service:
        yield service


_numbers = itertools.count(1)


@pytest.fixture
def new_namespace() -> Callable[[], str]:
    """Makes a namespace that no other test has."""
    return lambda: f"test_{next(_numbers)}"
