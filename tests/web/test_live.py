"""The live overview, read over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from api_place import Place, place, tokens_file
from memory_site import MemorySite

pytest.importorskip("fastapi")

from geartrain.daemon.config import Config
from geartrain.daemon.extension import Host
from geartrain.web import live as module
from geartrain.web.live import MAX_STREAMS, Live
from geartrain.web.overview import overview_of
from servers import wait_until


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


def test_all_are_told_the_same(at: Place) -> None:
    listeners = [Listener(at.server.http_port) for _ in range(20)]
    told: list[dict[float, str]] = []
    for listener in listeners:
        overviews = [listener.next() for _ in range(4)]
        told.append({overview["time"]: json.dumps(overview) for overview in overviews})
    assert any(told[0].keys() & other.keys() for other in told[1:])
    for other in told[1:]:
        assert all(other[moment] == told[0][moment] for moment in other.keys() & told[0].keys())
    for listener in listeners:
        listener.close()


def test_while_nothing_happens_the_revision_is_the_same(at: Place) -> None:
    listener = Listener(at.server.http_port)
    listener.until(lambda overview: not overview["rates"]["submitted"])
    first, second = listener.next(), listener.next()
    assert first["revision"] == second["revision"]
    at.worker.can_do(b"another")
    assert listener.until(lambda overview: overview["revision"] > second["revision"])
    listener.close()


def test_what_is_wrong_is_told_with_its_remedy() -> None:
    with place() as at:
        at.api.do("PATCH", "/functions/p%2Fq", {"paused": True, "reason": "no disk"})
        at.api.submit("p/q")
        listener = Listener(at.server.http_port)
        (wrong,) = listener.next()["wrong"]  # the first one knows already
        assert (wrong["kind"], wrong["function"], wrong["count"]) == ("paused_with_jobs", "p/q", 1)
        assert "no disk" in wrong["text"]
        assert wrong["remedy"] == {"text": "Resume it", "path": "/dashboard/functions/p%2Fq"}
        at.api.do("PATCH", "/functions/p%2Fq", {"paused": False})
        listener.until(lambda overview: [wrong["kind"] for wrong in overview["wrong"]] == ["no_worker"])
        listener.close()


def test_it_is_told_that_the_job_server_is_about_to_stop() -> None:
    with place("--drain-timeout=20") as at:
        at.worker.submit(b"f", b"")
        at.worker.await_job()
        listener = Listener(at.server.http_port)
        assert listener.next()["ready"]
        at.server.process.send_signal(signal.SIGUSR1)
        overview = listener.until(lambda overview: overview["draining"])
        assert (overview["ready"], overview["running"]) == (False, 1)
        assert overview["reason"].startswith("draining")
        listener.until(lambda overview: [wrong["kind"] for wrong in overview["wrong"]] == ["draining"])
        at.server.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            while listener.next() is not None:
                pass
        at.server.process.wait(10)


def _streams(at: Place) -> int:
    text = at.api.http.ask("GET", "/metrics").body.decode()
    found = re.search(r"^geartrain_live_streams (\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_who_goes_is_forgotten_however_soon(at: Place) -> None:
    for count in range(100):
        with socket.create_connection(("127.0.0.1", at.server.http_port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(b"GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            if count % 3:
                connection.recv(count)
    wait_until(lambda: _streams(at) == 0, "all streams have ended")


def test_streams_are_bounded() -> None:
    with place() as at:
        listeners = [Listener(at.server.http_port) for _ in range(MAX_STREAMS)]
        assert _streams(at) == MAX_STREAMS
        answer = at.api.ask("GET", "/live")
        assert (answer.status, answer.json["type"]) == (503, "/problems#too-many-streams")
        assert answer.headers["retry-after"] == "5"
        assert listeners[-1].next()["ready"]
        listeners.pop().close()
        wait_until(lambda: _streams(at) < MAX_STREAMS, "one has gone")
        again = Listener(at.server.http_port)
        assert again.next()["ready"]
        for listener in [*listeners, again]:
            listener.close()


def test_who_may_listen(tmp_path: Path) -> None:
    file = tmp_path / "geartrain.toml"
    file.write_text(tokens_file({"reader": ["read"], "sender": ["submit"]}))
    with place(f"--config={file}") as at:
        assert at.api.ask("GET", "/live").status == 401
        assert at.with_token("token-of-sender").ask("GET", "/live").status == 403
        listener = Listener(at.server.http_port, {"Authorization": "Bearer token-of-reader"})
        assert listener.next()["ready"]
        listener.close()


def test_the_document_has_the_shape_of_an_overview(at: Place) -> None:
    document = at.api.get("/openapi.json")
    schema = document["paths"]["/api/v1/live"]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
    assert schema["contentSchema"] == {"$ref": "#/components/schemas/Overview"}
    properties = document["components"]["schemas"]["Overview"]["properties"]
    listener = Listener(at.server.http_port)
    overview = listener.next()
    listener.close()
    assert set(overview) == set(properties)
    for name, value in overview.items():
        if isinstance(value, dict):
            part = document["components"]["schemas"][properties[name]["$ref"].rpartition("/")[2]]
            assert set(value) == set(part["properties"])
    assert {"Wrong", "Remedy"} <= set(document["components"]["schemas"])


# ── one who does not read, and time ─────────────────────────────────────────────────────────────────────────────


class Client:
    """One end of a connection, whose other end reads or does not."""

    def __init__(self) -> None:
        self.is_stuck = False
        self.is_aborted = False
        self.told: list[bytes] = []

    def push(self, data: bytes) -> None:
        self.told.append(data)

    def abort(self) -> None:
        self.is_aborted = True


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - whatever comes true
            await asyncio.sleep(0.01)


def _listening(act: Any) -> None:
    """Do something with the streams of a job server in memory."""

    async def run() -> None:
        site = MemorySite()
        site.loop = asyncio.get_running_loop()
        live = Live(cast(Host, site), Config.load({"store": "memory:"}), site.history)
        try:
            await act(site, live)
        finally:
            live.stop()

    asyncio.run(run())


def test_one_that_does_not_read_is_passed_over_and_then_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.02)
    monkeypatch.setattr(module, "STUCK_SECONDS", 0.5)

    async def act(site: MemorySite, live: Live) -> None:
        slow, quick = Client(), Client()
        for client in (slow, quick):
            live.enter(client).has_begun = True
        await _until(lambda: len(slow.told) == 3)
        slow.is_stuck = True
        await _until(lambda: len(quick.told) == 6)
        assert len(slow.told) == 3
        assert not slow.is_aborted
        slow.is_stuck = False
        await _until(lambda: len(slow.told) == 5)
        slow.is_stuck = True
        await _until(lambda: slow.is_aborted)
        assert not quick.is_aborted
        assert quick.told[-1] is not quick.told[-2]

    _listening(act)


def test_the_same_bytes_are_for_all_and_none_are_made_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.02)
    monkeypatch.setattr(module, "PARTING", 0.1)

    async def act(site: MemorySite, live: Live) -> None:
        assert asyncio.all_tasks() == {asyncio.current_task()}
        clients = [Client() for _ in range(10)]
        streams = [live.enter(client) for client in clients]
        await asyncio.sleep(0)
        for stream in streams[:9]:
            stream.has_begun = True
        await _until(lambda: clients[0].told)
        assert clients[9].told == []  # whose answer has not begun
        assert all(client.told[0] is clients[0].told[0] for client in clients[:9])
        assert live.beginning.endswith(clients[0].told[-1])
        for stream in streams:
            live.leave(stream)
            live.leave(stream)
        await _until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        assert live.beginning == b"retry: 1000\n\n"
        again = Client()
        live.enter(again).has_begun = True
        await _until(lambda: again.told)

    _listening(act)


def test_a_stream_ends_when_it_has_lasted_as_long_as_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.02)
    monkeypatch.setattr(module, "LONGEST", 0.2)

    async def act(site: MemorySite, live: Live) -> None:
        stream = live.enter(Client())
        await asyncio.wait_for(stream.ended, 10)

    _listening(act)


def test_a_fault_is_logged_and_the_next_second_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "EVERY", 0.02)

    async def act(site: MemorySite, live: Live) -> None:
        client = Client()
        live.enter(client).has_begun = True
        await _until(lambda: client.told)
        monkeypatch.setattr(module, "overview_of", None)
        await _until(lambda: "extension_failed" in caplog.text)
        monkeypatch.setattr(module, "overview_of", overview_of)
        count = len(client.told)
        await _until(lambda: len(client.told) > count)

    _listening(act)
