"""What all tests of the dashboard share: one browser for a module, and a job server that nobody has used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from servers import RunningServer, running_geartrain

if TYPE_CHECKING:
    from browser import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from browser import running_browser  # which needs what the server has for HTTP

    with running_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def empty() -> Iterator[RunningServer]:
    with running_geartrain("--http=127.0.0.1:0") as server:
        yield server
