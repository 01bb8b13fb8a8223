"""The job servers that the client is tested against: gearmand and ours, each one for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers import RunningServer, running_gearmand, running_geartrain

STARTERS = {"gearmand": running_gearmand, "geartrain": running_geartrain}


@pytest.fixture(scope="module", params=STARTERS)
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with STARTERS[request.param]() as server:
        yield server
