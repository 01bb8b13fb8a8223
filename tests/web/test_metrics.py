"""``/metrics``, ``/healthz`` and ``/readyz`` of a real job server."""

from __future__ import annotations

import hashlib
import signal
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from http_client import Answer, Http

pytest.importorskip("httptools")

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain
from test_monitoring import promtool

from daemon_peer import DaemonPeer
from geartrain.web.families import FAMILIES, OF_FLEETS
from geartrain.web.metrics import MAX_ANSWERS
from geartrain.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    GRAB_JOB,
    JOB_ASSIGN,
    PRE_SLEEP,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW_BG,
    WORK_COMPLETE,
    WORK_FAIL,
    pack_request,
)
from servers import RunningServer, running_geartrain, wait_until
from services import Redis, running

HTTP = "--http=127.0.0.1:0"
OPENMETRICS = {"Accept": "application/openmetrics-text"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(families: Iterable[Any]) -> Samples:
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def read(answer: Answer, parser: Any) -> Iterator[Any]:
    """The metrics of an answer."""
    families: Iterator[Any] = parser(answer.body.decode())
    return families


def scrape(http: Http) -> Samples:
    answer = http.ask("GET", "/metrics", headers=OPENMETRICS)
    assert answer.status == 200
    return samples(read(answer, read_openmetrics))


def of(told: Samples, name: str, **labels: str) -> float | None:
    return told.get((name, frozenset(labels.items())))


def submit(server: RunningServer, function: bytes, count: int = 1, type: int = SUBMIT_JOB_BG) -> None:
    with DaemonPeer(server.port) as peer:
        peer.send(pack_request(type, function, b"", b"12345") * count)
        for _ in range(count):
            peer.receive()


def work(worker: DaemonPeer, function: bytes, *outcomes: int) -> None:
    """A worker that gives these outcomes to as many jobs, and sleeps."""
    worker.send(pack_request(CAN_DO, function))
    for outcome in outcomes:
        worker.send(pack_request(GRAB_JOB))
        assignment = worker.receive()
        assert assignment.type == JOB_ASSIGN
        worker.send(pack_request(outcome, assignment.arguments[0], *([b"abc"] if outcome == WORK_COMPLETE else [])))
    worker.send(pack_request(PRE_SLEEP) + pack_request(ECHO_REQ, b"asleep"))
    worker.receive()


def test_what_has_happened_is_told_by_function_and_priority() -> None:
    with running_geartrain(HTTP) as server, DaemonPeer(server.port) as worker:
        submit(server, b"f", 3)
        submit(server, b"f", 2, SUBMIT_JOB_HIGH_BG)
        submit(server, b"waits", 4, SUBMIT_JOB_LOW_BG)
        work(worker, b"f", WORK_COMPLETE, WORK_COMPLETE, WORK_COMPLETE, WORK_FAIL)
        worker.send(pack_request(GRAB_JOB))  # and one that runs
        worker.receive()
        told = scrape(Http(server.http_port))
    normal, high = {"function": "f", "priority": "normal"}, {"function": "f", "priority": "high"}
    assert of(told, "geartrain_jobs_submitted_total", **normal) == 3
    assert of(told, "geartrain_jobs_submitted_total", **high) == 2
    assert of(told, "geartrain_jobs_submitted_total", function="f", priority="low") is None
    assert of(told, "geartrain_jobs_completed_total", **high) == 2
    assert of(told, "geartrain_jobs_completed_total", **normal) == 1
    assert of(told, "geartrain_jobs_failed_total", **normal) == 1
    assert of(told, "geartrain_jobs_started_total", **normal) == 3
    assert of(told, "geartrain_workload_bytes_total", **high) == 10
    assert of(told, "geartrain_output_bytes_total", **high) == 6
    assert of(told, "geartrain_job_waiting_seconds_count", **normal) == 3
    assert of(told, "geartrain_job_running_seconds_count", **high) == 2
    assert of(told, "geartrain_job_total_seconds_bucket", **high, le="+Inf") == 2
    assert of(told, "geartrain_job_total_seconds_bucket", **high, le="1800.0") == 2
    assert of(told, "geartrain_jobs_waiting", **normal) == 0
    assert of(told, "geartrain_jobs_waiting", function="waits", priority="low") == 4
    assert (of(told, "geartrain_oldest_waiting_seconds", function="waits") or 0) > 0
    assert of(told, "geartrain_oldest_waiting_seconds", function="f") == 0
    for name, count in (("running", 1), ("delayed", 0), ("blocked", 0)):
        assert of(told, f"geartrain_jobs_{name}", function="f") == count
    for name, count in (("workers", 1), ("workers_busy", 1), ("workers_idle", 0), ("paused", 0), ("dead_letters", 0)):
        assert of(told, f"geartrain_{name}", function="f") == count
    assert of(told, "geartrain_jobs", state="queued") == 4
    assert of(told, "geartrain_jobs", state="running") == 1
    assert of(told, "geartrain_connected_workers", state="busy") == 1
    assert of(told, "geartrain_functions") == 2
    assert of(told, "geartrain_draining") == 0
    assert of(told, "geartrain_store_up") is None


def test_every_metric_is_told_and_promtool_is_content(tmp_path: Path) -> None:
    with running_geartrain(HTTP, store=f"sqlite:///{tmp_path}/queue.sqlite") as server:
        http = Http(server.http_port)
        submit(server, b"f", 3)
        wait_until(lambda: (of(scrape(http), "geartrain_store_commits_total") or 0) > 0, "a commit is told")
        plain = http.ask("GET", "/metrics")
        openmetrics = http.ask("GET", "/metrics", headers=OPENMETRICS)
    assert plain.headers["vary"] == "Accept"
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {family.name: family for family in read(openmetrics, read_openmetrics)}
    expected = [family for family in FAMILIES if family not in OF_FLEETS]
    assert set(families) == {family.name for family in expected}
    for family in expected:
        told = families[family.name]
        assert (told.type, told.documentation) == (family.kind, family.help)
        assert {tuple(sorted(each.labels.keys() - {"le"})) for each in told.samples} == {tuple(sorted(family.labels))}
    assert set(samples(read(plain, read_plain))) == set(samples(families.values()))
    assert not promtool("check", "metrics", input=plain.body.decode())


def test_names_of_any_bytes_stay_apart() -> None:
    names = {b"a\xff": "a\\xff", b"a\\xff": "a\\\\xff", b'"\\': '"\\\\', "é\u2028".encode(): "é\u2028", b"a\tb": "a\tb"}
    with running_geartrain(HTTP) as server:
        for name in names:
            submit(server, name)
        told = scrape(Http(server.http_port))
    for text in names.values():
        assert of(told, "geartrain_jobs_submitted_total", function=text, priority="normal") == 1


def test_functions_beyond_the_limit_are_told_together() -> None:
    with running_geartrain(HTTP, "--metrics-functions=2") as server:
        http = Http(server.http_port)
        for place in range(5):
            submit(server, b"f%d" % place, place + 1)
        submit(server, b"(other)", 100)
        wait_until(
            lambda: of(scrape(http), "geartrain_jobs_submitted_total", function="(other)", priority="normal") == 106,
            "a text with all of it",
        )
        told = scrape(http)
    functions = {dict(labels)["function"] for _, labels in told if "function" in dict(labels)}
    assert functions == {"f3", "f4", "(other)"}
    assert of(told, "geartrain_jobs_waiting", function="(other)", priority="normal") == 106
    assert sum(value for (name, _), value in told.items() if name == "geartrain_jobs_submitted_total") == 115


def test_slow_readers_are_bounded_and_harm_nobody() -> None:
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running_geartrain(HTTP) as server:
        with DaemonPeer(server.port) as peer:
            peer.send(b"".join(b"create function %b\n" % (b"x" * 400 + b"%d" % place) for place in range(1000)))
            peer.send(pack_request(ECHO_REQ, b"all are there"))
            while b"all are there" not in peer.socket.recv(65536):
                pass
        readers = []
        for _ in range(MAX_ANSWERS):
            reader = socket.socket()
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.settimeout(20)
            reader.connect(("127.0.0.1", server.http_port))
            reader.sendall(request)
            assert reader.recv(15) == b"HTTP/1.1 200 OK"
            readers.append(reader)
        http = Http(server.http_port)
        answer = http.ask("GET", "/metrics")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"
        for reader in readers:
            reader.close()
        wait_until(lambda: http.ask("HEAD", "/metrics").status == 200, "the others have gone")


def test_a_token_that_may_read_is_needed_where_there_are_tokens(tmp_path: Path) -> None:
    config = tmp_path / "geartrain.toml"
    config.write_text(
        "".join(
            f'[tokens.{role}]\ndigest = "sha256:{hashlib.sha256(role.encode()).hexdigest()}"\nroles = ["{role}"]\n'
            for role in ("read", "submit")
        )
    )
    with running_geartrain(HTTP, f"--config={config}") as server:
        http = Http(server.http_port)
        assert http.ask("GET", "/metrics").status == 401
        assert http.ask("GET", "/metrics", headers={"Authorization": "Bearer submit"}).status == 403
        assert http.ask("GET", "/metrics", headers={"Authorization": "Bearer read"}).status == 200
        assert http.ask("GET", "/healthz").status == http.ask("GET", "/readyz").status == 200
        assert http.ask("POST", "/metrics", headers={"Authorization": "Bearer read"}).status == 405


# ── health ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_alive_and_ready() -> None:
    with running_geartrain(HTTP) as server:
        http = Http(server.http_port)
        for path, status in (("/healthz", "alive"), ("/readyz", "ready")):
            answer = http.ask("GET", path)
            assert (answer.status, answer.json) == (200, {"status": status})
            assert answer.headers["cache-control"] == "no-store"
            assert http.ask("HEAD", path).status == 200


def test_while_it_drains_it_is_alive_and_not_ready() -> None:
    with running_geartrain(HTTP) as server, DaemonPeer(server.port) as worker:
        http = Http(server.http_port)
        submit(server, b"f")
        worker.send(pack_request(CAN_DO, b"f") + pack_request(GRAB_JOB))
        handle = worker.receive().arguments[0]
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: http.ask("GET", "/readyz").status == 503, "it drains")
        assert http.ask("GET", "/readyz").json == {
            "status": "not ready", "why": ["draining: the job server is about to stop"]
        }  # fmt: skip
        assert http.ask("GET", "/healthz").status == 200
        assert of(scrape(http), "geartrain_draining") == 1
        worker.send(pack_request(WORK_COMPLETE, handle, b""))
        server.process.wait(10)


def test_without_its_store_it_is_not_ready() -> None:
    with running(Redis) as redis, running_geartrain(HTTP, "--store-timeout=1", store=redis.url()) as server:
        http = Http(server.http_port)
        submit(server, b"f")
        assert http.ask("GET", "/readyz").status == 200
        redis.kill()
        with DaemonPeer(server.port) as peer:
            peer.send(pack_request(SUBMIT_JOB_BG, b"f", b"", b"x"))
            peer.receive()  # it is refused
            answer = http.ask("GET", "/readyz")
            assert (answer.status, answer.json) == (
                503, {"status": "not ready", "why": ["store: it takes nothing at the moment; the log says why"]}
            )  # fmt: skip
            assert http.ask("GET", "/healthz").status == 200
            assert of(scrape(http), "geartrain_store_up") == 0
        redis.start()
        wait_until(lambda: http.ask("GET", "/readyz").status == 200, "the store is back", 20)
