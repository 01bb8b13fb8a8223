"""A job server for the commands, and the commands as a shell runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from servers import RunningServer, running_geartrain, wait_until

Command = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain("--job-handle-prefix=H:t") as server:
        yield server


def environment_of(server: RunningServer) -> dict[str, str]:
    return {**os.environ, "GEARMAN_SERVERS": server.address, "COLUMNS": "100"}


@pytest.fixture
def geartrain(server: RunningServer) -> Command:
    """Run ``geartrain`` with these arguments against the server, and give what it printed and its exit code."""

    def geartrain(*arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "geartrain", *arguments],
            input=input,
            capture_output=True,
            timeout=30,
            env=environment_of(server),
        )

    return geartrain


@contextmanager
def working(server: RunningServer, function: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """``geartrain work FUNCTION`` with these arguments, registered and running."""
    process = subprocess.Popen(
        [sys.executable, "-m", "geartrain", "work", function, *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment_of(server),
    )
    try:
        wait_until(lambda: any(f"{function}\t" in row and row[-1] != "0" for row in server.ask("status")), "a worker")
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()
