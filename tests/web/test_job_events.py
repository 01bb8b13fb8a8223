"""Server-Sent Events of a job, read over real sockets that break where they please."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from event_source import EventSource
from http_client import Http

from wire_caller import Caller

pytest.importorskip("fastapi")

from geartrain.jobserver import JobServer, Origin, Settings
from geartrain.web.api import events as module
from geartrain.web.api.events import EventStream
from geartrain.web.events import MAX_READERS, MAX_SIZE, Events
from geartrain.wire.packets import (
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    pack_request,
)
from servers import RunningServer, free_port, running_geartrain, wait_until


class Place:
    """A job server with HTTP, a client of that, and a worker."""

    def __init__(self, server: RunningServer, worker: Caller) -> None:
        self.server = server
        self.http = Http(server.http_port)
        self.worker = worker
        worker.can_do(b"f")
        worker.fence()

    def submit(self, workload: bytes = b"w") -> bytes:
        """A background job, submitted over HTTP."""
        answer = self.http.ask("POST", "/f", workload, {"X-Gearman-Background": "true", "X-Gearman-Unique": ""})
        assert answer.status == 200, answer
        return answer.headers["x-gearman-job-handle"].encode()

    def source(self, handle: bytes) -> EventSource:
        return EventSource(self.server.http_port, handle)

    def say(self, type: int, handle: bytes, *arguments: bytes) -> None:
        self.worker.send(pack_request(type, handle, *arguments))


@contextlib.contextmanager
def place(*options: str, **more: Any) -> Iterator[Place]:
    with running_geartrain("--http=127.0.0.1:0", *options, **more) as server, Caller(server) as worker:
        yield Place(server, worker)


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    with place() as it:
        yield it


@pytest.fixture
def at(shared: Place) -> Iterator[Place]:
    """A place without jobs, and with a fresh worker."""
    with Caller(shared.server) as worker:
        yield Place(shared.server, worker)


def test_a_worker_s_words_come_while_it_runs(at: Place) -> None:
    handle = at.submit()
    source = at.source(handle)
    assert source.open() == 200
    assert source.response is not None
    headers = {name.lower(): value for name, value in source.response.getheaders()}
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    job = at.worker.await_job()
    assert job.arguments[0] == handle
    assert source.wait_for("assigned").data == {"attempt": 1}
    at.say(WORK_DATA, handle, "zwölf\n\nZeilen\r\u2028".encode())
    assert source.wait_for("data").data == {"text": "zwölf\n\nZeilen\r\u2028"}
    at.say(WORK_WARNING, handle, b"\xff\x00")
    assert source.wait_for("warning").data == {"base64": "/wA="}
    at.say(WORK_STATUS, handle, b"1", b"2")
    assert source.wait_for("status").data == {"numerator": 1, "denominator": 2}
    at.worker.complete(job, b"done")
    assert source.wait_for("completed").data == {"text": "done"}
    assert source.receive() == b""
    assert source.retry == 1000
    assert source.open() == 204
    source.path += f"?last_event_id={source.last}"
    source.last = ""
    assert source.open() == 204


def test_what_happened_before_the_reader_came_is_told_if_the_job_came_over_http(at: Place) -> None:
    handle = at.submit()
    job = at.worker.await_job()
    at.say(WORK_DATA, handle, b"first")
    at.worker.complete(job, b"r")
    at.worker.fence()
    source = at.source(handle)
    assert source.read()
    assert [(event.name, event.data) for event in source.events] == [
        ("assigned", {"attempt": 1}),
        ("data", {"text": "first"}),
        ("completed", {"text": "r"}),
    ]


@pytest.mark.parametrize(
    ("type", "text", "name"),
    [(WORK_FAIL, None, "failed"), (WORK_EXCEPTION, b"oops", "failed"), (WORK_EXCEPTION, b"oops", "dead")],
)
def test_how_a_job_fails(at: Place, type: int, text: bytes | None, name: str) -> None:
    at.server.ask("policy set f attempts=2 delay=0 dead=1h" if name == "dead" else "policy unset f")
    handle = at.submit()
    for _ in range(2 if name == "dead" else 1):
        assert at.worker.await_job().arguments[0] == handle
        at.say(type, handle, *([] if text is None else [text]))
        at.worker.fence()
    source = at.source(handle)
    assert source.read()
    assert source.events[-1].name == name
    assert source.events[-1].data == {"text": (text or b"").decode()}
    if name == "dead":
        assert [event.data for event in source.events if event.name == "retry"] == [{"reason": "exception"}]


def test_a_connection_that_breaks_anywhere_loses_nothing_and_doubles_nothing(at: Place) -> None:
    chance = random.Random(5)
    for run in range(8):
        handle = at.submit()
        at.worker.await_job()
        pieces = [b"%d " % n + b"x" * chance.choice((0, 10, 200)) for n in range(900)]
        sources = [at.source(handle) for _ in range(3)]

        def work(handle: bytes = handle, pieces: list[bytes] = pieces, busy: bool = run % 2 == 0) -> None:
            for n, piece in enumerate(pieces):
                at.say(WORK_DATA, handle, piece)
                if n % 50 == 0 and not busy:
                    at.worker.fence()
            at.say(WORK_COMPLETE, handle, b"r")

        worker = threading.Thread(target=work)
        worker.start()
        cuts = 0
        for source in sources:
            while not source.read(chance.choice((1, 20, 300, 3000, 30000))):
                cuts += 1
        worker.join()
        for source in sources:
            assert source.open() == 204
            assert [event.name for event in source.events] == ["assigned", *["data"] * 900, "completed"]
            assert [event.data["text"].encode() for event in source.events[1:-1]] == pieces
            assert len({event.id for event in source.events}) == 902
        assert cuts >= 20


def test_a_reader_that_does_not_read_is_told_what_it_has_missed(at: Place) -> None:
    handle = at.submit()
    job = at.worker.await_job()
    slow = at.source(handle)
    assert slow.open() == 200
    slow.wait_for("assigned")
    count = 20_000
    for n in range(count):
        at.say(WORK_DATA, handle, b"%06d" % n + b"x" * 1000)
    at.worker.complete(job, b"r")
    at.worker.fence()  # nobody has waited for the reader
    while slow.receive():
        pass
    assert [event.name for event in slow.events][-1] == "completed"
    place = 0
    gaps = 0
    for event in slow.events[1:-1]:
        if event.name == "gap":
            place += event.data["missed"]
            gaps += 1
        else:
            assert event.data["text"].startswith(f"{place:06d}")
            place += 1
    assert gaps >= 1
    assert place == count


def test_many_readers_of_one_busy_job(at: Place) -> None:
    handle = at.submit()
    job = at.worker.await_job()
    sources = [at.source(handle) for _ in range(50)]
    assert {source.open() for source in sources} == {200}
    for n in range(900):
        at.say(WORK_DATA, handle, b"%d" % n)
    at.worker.complete(job, b"r")
    for source in sources:
        while source.receive():
            pass
        assert [event.data["text"] for event in source.events if event.name == "data"] == [str(n) for n in range(900)]


def test_data_too_large_to_be_kept_is_left_out(at: Place) -> None:
    handle = at.submit()
    job = at.worker.await_job()
    at.worker.complete(job, b"x" * MAX_SIZE)
    at.worker.fence()
    source = at.source(handle)
    assert source.read()
    assert source.events[-1].name == "completed"
    assert source.events[-1].data == {"left_out": MAX_SIZE}


def test_a_job_that_came_over_the_gearman_port_is_followed_from_the_first_reader_on(at: Place) -> None:
    with Caller(at.server) as client:
        handle = client.submit(b"f", b"w")
        job = at.worker.await_job()
        at.say(WORK_DATA, handle, b"before")
        at.say(WORK_STATUS, handle, b"1", b"3")
        at.worker.fence()
        source = at.source(handle)
        assert source.open() == 200
        source.wait_for("status")
        at.say(WORK_DATA, handle, b"after")
        at.worker.complete(job, b"r")
        source.wait_for("completed")
        assert [(event.name, event.data) for event in source.events] == [
            ("assigned", {"attempt": 1}),
            ("status", {"numerator": 1, "denominator": 3}),
            ("data", {"text": "after"}),
            ("completed", {"text": "r"}),
        ]


def test_a_reader_is_no_client(at: Place) -> None:
    with Caller(at.server) as client:
        handle = client.submit(b"nobody-does", b"w", type=SUBMIT_JOB)
        source = at.source(handle)
        assert source.open() == 200
    source.wait_for("abandoned")


def test_a_result_that_is_kept_is_told_alone(at: Place) -> None:
    at.server.ask("policy set f results=1h attempts=1")
    with Caller(at.server) as client:
        handle = client.submit(b"f", b"w")
        at.worker.complete(at.worker.await_job(), b"r")
        at.worker.fence()
    at.server.ask("policy unset f")
    source = at.source(handle)
    assert source.read()
    assert [(event.name, event.data) for event in source.events] == [("completed", {"text": "r"})]
    assert source.open() == 204


@pytest.mark.parametrize("handle", ["H:other:1", "nonsense", "%00", "{prefix}:999999", "{prefix}:0", "{prefix}:-1"])
def test_a_job_that_is_not_known_is_a_problem(at: Place, handle: str) -> None:
    prefix = at.submit().rpartition(b":")[0].decode()
    at.worker.complete(at.worker.await_job(), b"")
    path = f"/api/v1/jobs/{handle.replace('{prefix}', prefix)}/events"
    answer = at.http.ask("GET", path, headers={"Last-Event-ID": "12345678-1"})
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"] == "/problems#unknown-job"


def test_a_question_that_can_not_be_read_is_a_problem(at: Place) -> None:
    answer = at.http.ask("GET", f"/api/v1/jobs/H:x:1/events?last_event_id={'x' * 101}")
    assert answer.status == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_job_goes_on_in_the_next_life_of_the_server(tmp_path: Path) -> None:
    port = free_port()
    store = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    with place(port=port, store=store) as first:
        handle = first.submit()
        first.worker.await_job()
        for _ in range(5):
            first.say(WORK_DATA, handle, b"old")
        source = first.source(handle)
        assert source.open() == 200
        while len(source.events) < 6:
            source.receive()
        last = source.last
        first.server.process.send_signal(signal.SIGKILL)
        first.server.process.wait()
    with place(port=port, store=store) as second:
        source = second.source(handle)
        source.last = last
        assert source.open() == 200
        job = second.worker.await_job()
        second.say(WORK_DATA, handle, b"new")
        second.worker.complete(job, b"r")
        source.wait_for("completed")
    assert [(event.name, event.data) for event in source.events] == [
        ("gap", {"missed": None}),
        ("assigned", {"attempt": 1}),
        ("data", {"text": "new"}),
        ("completed", {"text": "r"}),
    ]


def test_open_streams_do_not_hold_up_the_end_of_the_server() -> None:
    with place() as at:
        sources = [at.source(at.submit(b"%d" % n)) for n in range(20)]
        assert {source.open() for source in sources} == {200}
        at.server.process.send_signal(signal.SIGTERM)
        assert at.server.process.wait(10) == 0
        assert "http_failed" not in at.server.log.read_text()


def test_streams_are_bounded_and_places_become_free() -> None:
    with place() as at:
        handle = at.submit()
        sources = [at.source(handle) for _ in range(MAX_READERS)]
        assert {source.open() for source in sources} == {200}
        answer = at.http.ask("GET", sources[0].path)
        assert (answer.status, answer.json["type"]) == (503, "/problems#too-many-streams")
        assert int(answer.headers["retry-after"]) > 0
        for source in sources[:10]:
            source.close()
        another = at.source(handle)
        wait_until(lambda: another.open() == 200, "a place is free")
        for source in sources:
            source.close()


def test_readers_need_the_role_read(tmp_path: Path) -> None:
    config = tmp_path / "geartrain.toml"
    config.write_text(
        "".join(
            f'[tokens.{role}]\ndigest = "sha256:{hashlib.sha256(role.encode()).hexdigest()}"\nroles = ["{role}"]\n'
            for role in ("read", "submit")
        )
    )
    with place(f"--config={config}") as at, Caller(at.server) as client:
        handle = client.submit(b"f", b"w")
        statuses = []
        for headers in ({}, {"Authorization": "Bearer submit"}, {"Authorization": "Bearer read"}):
            source = EventSource(at.server.http_port, handle, headers)
            statuses.append(source.open())
            source.close()
        assert statuses == [401, 403, 200]


def test_another_site_s_page_reads_nothing(at: Place) -> None:
    source = EventSource(at.server.http_port, at.submit(), {"Origin": "http://evil.example"})
    assert source.open() == 403
    at.worker.complete(at.worker.await_job(), b"")


def test_the_document_of_the_api_tells_of_it(at: Place) -> None:
    document = json.loads(at.http.ask("GET", "/api/v1/openapi.json").body)
    told = document["paths"]["/api/v1/jobs/{handle}/events"]["get"]
    assert "text/event-stream" in told["responses"]["200"]["content"]


class _Transport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


class _Protocol:
    def __init__(self) -> None:
        self.transport = _Transport()


def _stream(monkeypatch: pytest.MonkeyPatch) -> tuple[Events, EventStream, dict[str, Any]]:
    """A stream of a job that nobody does, of which nothing is heard."""
    monkeypatch.setattr(module, "QUIET", 0.02)
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.1)
    server = JobServer(Settings())
    server.receive(server.connect(Origin("127.0.0.1", 1)), pack_request(SUBMIT_JOB_BG, b"f", b"", b""))
    events = Events(server)
    reader = events.open(1)
    assert reader is not None
    return events, EventStream(reader), {"type": "http", "geartrain.protocol": _Protocol()}


def test_a_quiet_stream_says_that_it_still_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act() -> None:
        events, stream, scope = _stream(monkeypatch)
        sent: list[bytes] = []
        gone = asyncio.Event()

        async def send(message: Any) -> None:
            sent.append(message.get("body", b""))
            if len(sent) == 5:
                gone.set()

        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        await stream(scope, receive, send)
        assert sent[1] == b"retry: 1000\n\n"
        assert set(sent[2:5]) == {b": nothing new\n\n"}
        assert events.readers == 0

    asyncio.run(act())


def test_a_client_that_takes_nothing_for_long_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act() -> None:
        events, stream, scope = _stream(monkeypatch)

        async def never(*_: Any) -> Any:
            await asyncio.Event().wait()

        await stream(scope, never, never)
        assert scope["geartrain.protocol"].transport.aborted
        assert events.readers == 0

    asyncio.run(act())


def test_the_server_goes_on_whatever_is_sent_in_place_of_reading(at: Place) -> None:
    handle = at.submit()
    for words in (b"GET /more HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10, b"\0" * 1000, b"x"):
        with socket.create_connection(("127.0.0.1", at.server.http_port), timeout=10) as connection:
            connection.sendall(b"GET /api/v1/jobs/%b/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % handle)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            connection.sendall(words)
    source = at.source(handle)
    assert source.open() == 200
    job = at.worker.await_job()
    at.worker.complete(job, b"r")
    source.wait_for("completed")
