"""The services that stores are tested on, each started when the first test asks for it and kept for the session."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from services import MariaDB, PostgreSQL, running

pytest.register_assert_rewrite("contract", "place", "sql")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with running(PostgreSQL) as service:
        yield service


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    with running(MariaDB) as service:
        yield service


_numbers = itertools.count(1)


@pytest.fixture
def new_namespace() -> Callable[[], str]:
    """Makes a namespace that no other test has."""
    return lambda: f"test_{next(_numbers)}"
