"""The pytest plugin: a job server in the test's process, or none at all.

It is there wherever geartrain is installed, and costs a test nothing that does not ask for a fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # a test run that needs nothing of this need not load it
    from geartrain.contrib.eager import EagerClient
    from geartrain.contrib.local_server import LocalServer
    from geartrain.worker.base import BaseWorker


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "geartrain_server(**options): options of `geartrain serve` for the fixture of that name"
    )


@pytest.fixture
def geartrain_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """A job server of this test's own, in memory, on a free port; see ``geartrain.contrib.local_server.LocalServer``.

    Clients and workers that are made without servers find it by GEARMAN_SERVERS. Its clock stands still until
    ``.clock.advance(seconds)``, and the delays that clients in this process ask for count from that clock too.
    ``@pytest.mark.geartrain_server(job_retries=2)`` gives it options.
    """
    from geartrain.client import submission
    from geartrain.contrib.local_server import LocalServer

    marker = request.node.get_closest_marker("geartrain_server")
    with LocalServer(**(marker.kwargs if marker else {})) as server:
        monkeypatch.setenv("GEARMAN_SERVERS", server.address)
        monkeypatch.setattr(submission, "time", server.clock)  # what a timedelta is counted from
        yield server


@pytest.fixture
def geartrain_eager(monkeypatch: pytest.MonkeyPatch) -> Callable[..., EagerClient]:
    """``geartrain_eager(worker, ...)``: a client that runs jobs at once by these workers' functions, without a server.

    For this test the workers' own ``client`` and ``async_client`` are eager as well, so that
    ``add.submit(2, 3).result()`` needs nothing else. See ``geartrain.contrib.eager.EagerClient``.
    """
    from geartrain.contrib.eager import EagerAsyncClient, EagerClient

    def eager(*workers: BaseWorker) -> EagerClient:
        client = EagerClient(*workers)
        for worker in workers:
            monkeypatch.setattr(worker, "client", client)
            monkeypatch.setattr(worker, "async_client", EagerAsyncClient(*workers))
        return client

    return eager
