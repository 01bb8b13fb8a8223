"""What all tests share: the job server under test, ours unless another one is asked for.

``pytest --job-server=gearmand`` (or GEARTRAIN_TEST_SERVER=gearmand) runs the same tests against Debian's gearmand
as referee. Where it is known to differ, the test says so by ``known_difference`` and is expected to fail there;
GEARTRAIN_TEST_PATIENCE=2 then spares some minutes of waiting for answers that do not come.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from servers import KnownDifference, RunningServer, running_gearmand, running_geartrain

# How long an example takes says how busy the machine is.
settings.register_profile("without a clock", parent=settings(), deadline=None)
settings.load_profile("without a clock")

SERVERS = {"geartrain": running_geartrain, "gearmand": running_gearmand}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--job-server",
        choices=SERVERS,
        default=os.environ.get("GEARTRAIN_TEST_SERVER", "geartrain"),
        help="the job server that the tests of foreign peers run against (geartrain)",
    )


@pytest.fixture(scope="module")
def job_server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """The job server under test, one for all tests of a file."""
    with SERVERS[request.config.getoption("--job-server")]() as server:
        yield server


@pytest.fixture
def known_difference(request: pytest.FixtureRequest, job_server: RunningServer) -> KnownDifference:
    """``known_difference("gearmand", why)``: against that server this test must fail from here on."""

    def known_difference(kind: str, why: str) -> None:
        if job_server.kind == kind:
            request.applymarker(pytest.mark.xfail(reason=why, strict=True))

    return known_difference
