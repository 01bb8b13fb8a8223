"""/api/v1/jobs: listings, single jobs, their results, and what can be done about them."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

pytest.importorskip("httptools")

from api_place import Place, place

from geartrain.wire.packets import (
    SET_CLIENT_ID,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_HIGH_BG,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    pack_request,
)
from servers import wait_until
from wire_caller import Caller


@pytest.fixture(scope="module")
def at() -> Iterator[Place]:
    with place() as it:
        yield it


def test_a_job_is_told_from_its_submission_to_its_end(at: Place) -> None:
    api = at.api
    api.do("PUT", "/functions/f/policy", {"keys": {"attempts": 2, "delay": "0", "results": "1h"}})
    handle = api.submit("f", unique="u", workload="abc", priority="high")
    assert api.get(f"/jobs/{handle}/status") == {
        "handle": handle, "known": True, "events": True, "state": "queued", "progress": None,
    }  # fmt: skip
    waiting = api.get(f"/jobs/{handle}")
    assert {name: waiting[name] for name in ("handle", "state", "function", "unique", "priority", "size")} == {
        "handle": handle, "state": "queued", "function": "f", "unique": "u", "priority": "high", "size": 3,
    }  # fmt: skip
    assert abs(waiting["created"] - time.time()) < 60
    job = at.worker.await_job()
    at.worker.send(pack_request(WORK_STATUS, job.arguments[0], b"1", b"4"))
    at.worker.fence()
    running = api.get(f"/jobs/{handle}")
    assert (running["state"], running["progress"]) == ("running", {"numerator": 1, "denominator": 4})
    assert running["worker"].endswith("127.0.0.1")
    status = api.get(f"/jobs/{handle}/status")
    assert (status["state"], status["progress"]) == ("running", {"numerator": 1, "denominator": 4})
    assert api.get("/workers")["connections"][0]["running"] == [handle]
    at.worker.send(pack_request(WORK_EXCEPTION, job.arguments[0], b"boom"))
    at.worker.fence()
    again = at.worker.await_job()
    (attempt,) = api.get(f"/jobs/{handle}")["history"]
    assert (attempt["number"], attempt["reason"], attempt["text"]) == (1, "exception", "boom")
    at.worker.complete(again, b"\xff")
    at.worker.fence()
    ended = api.get(f"/jobs/{handle}")
    assert (ended["state"], ended["outcome"], ended["result_size"]) == ("ended", "completed", 1)
    status = api.get(f"/jobs/{handle}/status")
    assert (status["known"], status["events"], status["state"]) == (True, True, "ended")
    assert api.get(f"/jobs/{handle}/result") == {
        "handle": handle, "state": "completed", "error": None, "result": {"base64": "/w=="},
    }  # fmt: skip
    raw = api.ask("GET", f"/jobs/{handle}/result", Accept="application/octet-stream")
    assert (raw.status, raw.body) == (200, b"\xff")
    api.do("DELETE", "/functions/f/policy")


@pytest.mark.parametrize("workload", ["", "größe", 'a"b\\ü' * 40_000])
def test_a_workload_is_read_while_its_job_is_there(at: Place, workload: str) -> None:
    api = at.api
    handle = api.submit("g", workload=workload)
    assert api.get(f"/jobs/{handle}/workload") == {"text": workload}
    api.do("DELETE", f"/jobs/{handle}")
    assert api.refusal(404, "GET", f"/jobs/{handle}/workload")[0] == "unknown-job"


def test_a_workload_that_is_no_text(at: Place) -> None:
    data = b"\xff\x00" * 200_000
    handle = at.api.submit("g", workload_base64=base64.b64encode(data).decode())
    assert at.api.get(f"/jobs/{handle}/workload") == {"base64": base64.b64encode(data).decode()}


def test_a_large_workload_of_a_dead_job(at: Place) -> None:
    api = at.api
    api.do("PUT", "/functions/f/policy", {"keys": {"attempts": 1}})
    handle = api.submit("f", workload="ü" * 100_000)
    at.worker.send(pack_request(WORK_FAIL, at.worker.await_job().arguments[0]))
    api.wait_for(handle, "dead")
    for path in (f"/jobs/{handle}/workload", f"/dead/{handle}/workload"):
        assert api.get(path) == {"text": "ü" * 100_000}
    api.do("DELETE", "/functions/f/policy")


def test_a_job_tells_when_it_was_stored_until_the_job_server_starts_anew(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'jobs'}"
    with place(store=store) as own:
        own.api.do("PUT", "/functions/f/policy", {"keys": {"attempts": 1}})
        began = time.time()
        waiting, dies = own.api.submit("g"), own.api.submit("f")
        before = own.api.get(f"/jobs/{waiting}")
        assert before["stored"]
        assert began - 1 < before["created"] <= before["stored_at"] < time.time() + 1
        when = own.api.get(f"/jobs/{dies}")["stored_at"]
        assert when >= before["stored_at"]
        own.worker.send(pack_request(WORK_FAIL, own.worker.await_job().arguments[0]))
        assert own.api.wait_for(dies, "dead")["stored_at"] == when
        own.api.do("POST", f"/jobs/{dies}/retry")
        assert own.api.get(f"/jobs/{dies}")["stored_at"] == when
    with place(store=store) as own:
        again = own.api.get(f"/jobs/{waiting}")
        assert (again["stored"], again["stored_at"], again["created"]) == (True, None, before["created"])


def test_a_job_that_is_in_no_store_has_not_been_stored(at: Place) -> None:
    job = at.api.get(f"/jobs/{at.api.submit('g')}")
    assert (job["stored"], job["stored_at"]) == (False, None)


def test_a_workload_in_the_store_alone_is_told_as_such(tmp_path: Path) -> None:
    with place("--spill-above=1KiB", store=f"sqlite:///{tmp_path / 'jobs'}") as own:
        small, large = own.api.submit("g", workload="x"), own.api.submit("g", workload="x" * 2000)
        assert own.api.get(f"/jobs/{small}")["stored"]
        wait_until(lambda: own.api.get(f"/jobs/{large}")["stored"], "the large one is stored")
        assert own.api.get(f"/jobs/{small}/workload") == {"text": "x"}
        assert own.api.refusal(409, "GET", f"/jobs/{large}/workload")[0] == "in-store"


def test_a_result_is_waited_for(at: Place) -> None:
    api = at.api
    api.do("PUT", "/functions/f/policy", {"keys": {"results": "1h"}})
    handle = api.submit("f")
    kind, detail = api.refusal(409, "GET", f"/jobs/{handle}/result")
    assert kind == "not-ready"
    assert "?wait=" in detail
    assert api.refusal(409, "GET", f"/jobs/{handle}/result?wait=0.05")[0] == "not-ready"
    api.begin("GET", f"/jobs/{handle}/result?wait=30")
    at.worker.send(pack_request(WORK_EXCEPTION, at.worker.await_job().arguments[0], b"boom"))
    assert api.end().json == {"handle": handle, "state": "failed", "result": None, "error": {"text": "boom"}}
    answer = api.ask("GET", f"/jobs/{handle}/result", Accept="application/octet-stream")
    assert (answer.status, answer.json["detail"]) == (500, "boom")
    api.do("DELETE", "/functions/f/policy")


def test_who_waits_for_a_result_and_goes_is_forgotten(at: Place) -> None:
    handle = at.api.submit("g")
    memory = at.api.get("/server")["memory"]
    other = at.with_token("")
    other.begin("GET", f"/jobs/{handle}/result?wait=60")
    other.http.close()
    wait_until(lambda: bool(at.api.get("/server")["memory"] <= memory), "nobody waits")


def test_cancel_retry_priority_and_why(at: Place) -> None:
    api = at.api
    handle = api.submit("nobody")
    assert "no worker is registered for nobody" in api.get(f"/jobs/{handle}/why")["why"]
    api.do("POST", f"/jobs/{handle}/priority", {"priority": "low"})
    assert api.get(f"/jobs/{handle}")["priority"] == "low"
    assert api.refusal(409, "POST", f"/jobs/{handle}/retry")[0] == "not-waiting"
    later = api.submit("nobody", delay=1000)
    api.do("POST", f"/jobs/{later}/retry")
    assert api.get(f"/jobs/{later}")["state"] == "queued"
    for each in (handle, later):
        api.do("DELETE", f"/jobs/{each}")
        assert api.get(f"/jobs/{each}")["outcome"] == "cancelled"
        status = api.get(f"/jobs/{each}/status")
        assert (status["known"], status["state"]) == (True, "ended")
        assert api.refusal(404, "GET", f"/jobs/{each}/why")[0] == "unknown-job"


@pytest.mark.parametrize("handle", ["H:nowhere:1", "x", "a b", "a%2Fb", "%FF", "%00", "%C3%9F"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs/{}"),
        ("GET", "/jobs/{}/why"),
        ("GET", "/jobs/{}/workload"),
        ("GET", "/jobs/{}/result"),
        ("DELETE", "/jobs/{}"),
        ("POST", "/jobs/{}/retry"),
        ("GET", "/dead/{}/workload"),
    ],
)
def test_an_unknown_job(at: Place, method: str, path: str, handle: str) -> None:
    kind, detail = at.api.refusal(404, method, path.format(quote(handle, safe="%")))
    assert kind == "unknown-job"
    assert detail


@pytest.mark.parametrize("handle", ["H:nowhere:1", "x", "a b", "a%2Fb", "%FF", "%00", "%C3%9F"])
def test_whether_a_job_is_known_may_be_asked_of_any_handle(at: Place, handle: str) -> None:
    status = at.api.get(f"/jobs/{handle.replace(' ', '%20')}/status")
    assert (status["known"], status["events"], status["state"], status["progress"]) == (False, False, None, None)


def test_unknown_paths_and_methods(at: Place) -> None:
    kind, detail = at.api.refusal(404, "GET", "/nothing")
    assert kind == "no-such-path"
    assert "/api/v1/openapi.json" in detail
    answer = at.api.ask("PUT", "/jobs")
    assert (answer.status, answer.json["type"]) == (405, "/problems#method-not-allowed")
    assert answer.headers["allow"]


def test_jobs_are_filtered() -> None:
    with place() as at:
        api = at.api
        first = api.submit("a", unique="one", priority="high")
        second = api.submit("b", delay=1000)
        third = api.submit("a\\xff", unique="\\xfe")
        for query, found in (
            ("", [first, second, third]),
            ("state=queued", [first, third]),
            ("state=delayed", [second]),
            ("state=running", []),
            ("function=a", [first]),
            ("function=a%5Cxff&unique=%5Cxfe", [third]),
            ("unique=one", [first]),
            ("priority=high", [first]),
            ("older_than=0", [first, second, third]),
            ("older_than=1000", []),
            (f"handle={quote(first[:-1])}", [first, second, third]),
            (f"handle={quote(second)}", [second]),
            ("handle=x", []),
            ("attempt=0", [first, second, third]),
            ("attempt=1", []),
            ("worker=127", []),
            ("client=127", []),
            ("order=newest", [third, second, first]),
            ("order=newest&state=queued", [third, first]),
        ):
            page = api.get(f"/jobs?{query}")
            assert [job["handle"] for job in page["jobs"]] == found, query
            assert page["next"] is None
        for query, words in (
            ("state=lost", ["state", "'lost'", "queued"]),
            ("limit=0", ["limit", "greater than or equal to 1"]),
            ("limit=10000", ["limit", "less than or equal to 1000"]),
            ("after=-1", ["after", "greater than or equal to 0"]),
            ("wrong=1", ["wrong"]),
            ("limit=1&" * 1000, ["100 parameters"]),
        ):
            kind, detail = api.refusal(422, "GET", f"/jobs?{query}")
            assert kind == "invalid"
            assert all(word in detail for word in words), detail


def test_jobs_are_filtered_by_their_attempts_worker_and_client() -> None:
    with place() as at, Caller(at.server) as client:
        api = at.api
        api.do("PUT", "/functions/f/policy", {"keys": {"attempts": 5, "delay": "0", "jitter": 0}})
        client.send(pack_request(SET_CLIENT_ID, b"shop/1"))
        handles = [client.submit(b"f", b"", type=SUBMIT_JOB).decode(), api.submit("f")]
        at.worker.send(pack_request(SET_CLIENT_ID, b"mill/2"))
        first = at.worker.await_job()
        at.worker.send(pack_request(WORK_EXCEPTION, first.arguments[0], b"no"))
        second = at.worker.await_job()
        assert [first.arguments[0].decode(), second.arguments[0].decode()] == handles
        for query, found in (
            ("attempt=1", handles[:1]),
            ("attempt=2", []),
            ("worker=mill", handles[1:]),
            ("worker=127.0.0.1", handles[1:]),
            ("worker=press", []),
            ("client=shop", handles[:1]),
            ("client=127.0.0.1", handles[:1]),
            ("client=mill", []),
        ):
            assert [job["handle"] for job in api.get(f"/jobs?{query}")["jobs"]] == found, query
        (running,) = api.get("/jobs?state=running")["jobs"]
        assert running["worker"] == "mill/2 127.0.0.1"
        assert api.get(f"/jobs/{handles[1]}")["connection"] == running["connection"] > 0
        assert api.get(f"/jobs/{handles[0]}")["connection"] is None


def test_many_jobs_are_paged_through() -> None:
    with place() as at:
        api = at.api
        count = 30_000
        at.worker.send(
            b"".join(
                pack_request(SUBMIT_JOB_BG if n % 1000 != 7 else SUBMIT_JOB_HIGH_BG, name, b"", b"")
                for n in range(count)
                for name in [b"many" if n % 1000 else b"few"]
            )
        )
        for _ in range(count):
            at.worker.receive()
        seen = []
        after = 0
        while after is not None:
            page = api.get(f"/jobs?limit=1000&after={after}")
            assert len(page["jobs"]) <= 1000
            seen += [int(job["handle"].rpartition(":")[2]) for job in page["jobs"]]
            after = page["next"]
        assert seen == list(range(1, count + 1))
        assert len(api.get("/jobs?function=few&limit=1000")["jobs"]) == count // 1000
        seen = []
        after = 0
        while after is not None:
            page = api.get(f"/jobs?order=newest&limit=1000&after={after}")
            seen += [int(job["handle"].rpartition(":")[2]) for job in page["jobs"]]
            after = page["next"]
        assert seen == list(range(count, 0, -1))
        of_many = range(8, count, 1000)  # among very many of the same function
        for order, handles in (("oldest", of_many), ("newest", reversed(of_many))):
            page = api.get(f"/jobs?function=many&priority=high&order={order}&limit=1000")
            assert [int(job["handle"].rpartition(":")[2]) for job in page["jobs"]] == list(handles)
            assert page["next"] is None
        few = api.get("/jobs?function=few&limit=7&order=newest")
        assert [int(job["handle"].rpartition(":")[2]) for job in few["jobs"]][-1] == few["next"] == count - 6999
        assert api.get(f"/jobs?function=few&limit=1&order=newest&after={few['next']}")["next"] == count - 7999
