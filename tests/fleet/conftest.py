"""The databases that fleets share, each started when the first test asks for it and kept for the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from crews import Crew, new_crew
from services import MariaDB, PostgreSQL, SqlService, running


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with running(PostgreSQL) as service:
        service.set_fsync(False)  # tests kill processes, not machines
        yield service


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    with running(MariaDB, "--innodb-flush-log-at-trx-commit=2", "--innodb-log-file-size=24M") as service:
        yield service


@pytest.fixture(params=["postgresql", "mariadb"])
def database(request: pytest.FixtureRequest) -> SqlService:
    service: SqlService = request.getfixturevalue(request.param)
    return service


@pytest.fixture
def crew(database: SqlService) -> Iterator[Crew]:
    """A fleet without members."""
    with new_crew(database) as made:
        yield made


@pytest.fixture
def new_crew_with(database: SqlService) -> Iterator[Callable[..., Crew]]:
    """Makes a fleet whose members have these options."""
    with ExitStack() as stack:

        def make(*options: Any) -> Crew:
            return stack.enter_context(new_crew(database, *options))

        yield make
