"""The live overview, read over real sockets."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from api_place import Place, place

pytest.importorskip("fastapi")


class Listener:
    """Reads the live stream as a browser does."""

    def __init__(self, port: int, headers: dict[str, str] | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self._connection.request("GET", "/api/v1/live", headers=headers or {})
        self.response = self._connection.getresponse()
        self._rest = b""
        self._blocks: list[bytes] = []

    def next(self) -> Any:
        """The data of the next event; None: the stream has ended."""
        while True:
            while self._blocks:
                lines = self._blocks.pop(0).decode().split("\n")
                if "event: overview" in lines:
                    return json.loads(lines[-1].removeprefix("data: "))
            data = self.response.read1(65536)
            if not data:
                return None
            *self._blocks, self._rest = (self._rest + data).split(b"\n\n")

    def until(self, condition: Any) -> Any:
        """The first overview of which this holds."""
        for _ in range(20):
            overview = self.next()
            if condition(overview):
                return overview
        raise AssertionError(f"it does not come true: {overview}")

    def close(self) -> None:
        self._connection.close()
        self.response.close()


@pytest.fixture(scope="module")
def at() -> Iterator[Place]:
    with place() as it:
        yield it


def test_an_overview_comes_at_once_and_then_each_second(at: Place) -> None:
    listener = Listener(at.server.http_port)
    assert listener.response.getheader("content-type", "").startswith("text/event-stream")
    first, second, third = listener.next(), listener.next(), listener.next()
    assert first["time"] < second["time"] < third["time"]
    assert 0.5 < third["time"] - second["time"] < 1.5
    assert third["ready"]
    assert third["workers"] == {"able": 1, "busy": 0, "idle": 0}
    assert third["store"] == {"kind": "memory", "state": "up"}
    listener.close()


def test_jobs_are_told_of(at: Place) -> None:
    listener = Listener(at.server.http_port)
    before = listener.next()
    for _ in range(10):
        at.api.submit("f")
    after = listener.until(lambda overview: overview["waiting"] == 10 and overview["rates"]["submitted"])
    assert after["revision"] > before["revision"]
    assert after["rates"]["submitted"] == 2
    assert after["oldest_waiting"] > 0
    listener.close()
