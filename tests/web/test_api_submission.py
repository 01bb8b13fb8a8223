"""POST /api/v1/jobs: in JSON and as mere bytes, waited for and in the background."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("httptools")

from api_place import Place, place
from receiver import Receiver

from geartrain.wire.packets import WORK_DATA, WORK_EXCEPTION, WORK_FAIL, WORK_WARNING, pack_request
from servers import wait_until

BYTES = "application/octet-stream"


@pytest.fixture(scope="module")
def at() -> Iterator[Place]:
    with place() as it:
        yield it


@pytest.mark.parametrize(
    ("given", "workload"),
    [
        ({}, b""),
        ({"workload": "größe"}, "größe".encode()),
        ({"workload_base64": "/wA="}, b"\xff\x00"),
        ({"json": {"a": [1, None]}}, b'{"a": [1, null]}'),
        ({"json": None}, b"null"),
    ],
)
def test_the_workload_is_text_or_bytes_or_json(at: Place, given: dict[str, Any], workload: bytes) -> None:
    at.api.begin("POST", "/jobs", {"function": "f", **given})
    job = at.worker.await_job()
    assert job.arguments[3] == workload
    at.worker.complete(job, b"done")
    answer = at.api.end()
    assert answer.status == 200
    assert answer.json == {
        "handle": job.arguments[0].decode(),
        "state": "completed",
        "result": {"text": "done"},
        "warnings": [],
    }


def test_a_body_of_any_bytes_has_its_parameters_in_the_query(at: Place) -> None:
    at.api.begin("POST", "/jobs?function=f&unique=u1&priority=high", b"\xff\0")
    job = at.worker.await_job()
    assert job.arguments[1:] == (b"f", b"u1", b"\xff\0")
    at.worker.complete(job, b"\xfe")
    assert at.api.end().json["result"] == {"base64": base64.b64encode(b"\xfe").decode()}


def test_the_mere_result_is_to_be_had(at: Place) -> None:
    at.api.begin("POST", "/jobs", {"function": "f"}, Accept=BYTES)
    job = at.worker.await_job()
    at.worker.send(pack_request(WORK_DATA, job.arguments[0], b"\xff1 "))
    at.worker.send(pack_request(WORK_WARNING, job.arguments[0], b"hm"))
    at.worker.complete(job, b"2")
    answer = at.api.end()
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"\xff1 2", BYTES)
    assert answer.headers["x-gearman-job-handle"] == job.arguments[0].decode()
    assert answer.headers["x-gearman-warnings"] == "1"


@pytest.mark.parametrize("size", [0, 192 * 1024, 192 * 1024 + 1, 3_000_001])
@pytest.mark.parametrize("letter", [b"x", "ß".encode(), b'"\\\n', b"\xff"])
def test_a_result_of_any_size_is_told_whole(at: Place, letter: bytes, size: int) -> None:
    data = b"x" + letter * (size // len(letter))
    at.api.begin("POST", "/jobs", {"function": "f"})
    at.worker.complete(at.worker.await_job(), data)
    result = at.api.end().json["result"]
    if "text" in result:
        assert result["text"].encode() == data
    else:
        assert base64.b64decode(result["base64"]) == data


@pytest.mark.parametrize(
    ("type", "detail"),
    [(WORK_FAIL, "The job has failed; its worker said nothing about it"), (WORK_EXCEPTION, "division by zero")],
)
def test_a_failed_job_is_a_problem(at: Place, type: int, detail: str) -> None:
    at.api.begin("POST", "/jobs", {"function": "f"})
    job = at.worker.await_job()
    at.worker.send(pack_request(WORK_WARNING, job.arguments[0], b"hm"))
    at.worker.send(pack_request(type, job.arguments[0], *([b"division by zero"] if type == WORK_EXCEPTION else [])))
    answer = at.api.end()
    assert (answer.status, answer.json["type"], answer.json["detail"]) == (500, "/problems#job-failed", detail)
    assert answer.json["handle"] == job.arguments[0].decode()
    assert answer.json["warnings"] == [{"text": "hm"}]


def test_a_background_job_is_told_where_to_find(at: Place) -> None:
    answer = at.api.ask("POST", "/jobs", {"function": "g", "background": True})
    assert answer.status == 202
    assert answer.headers["location"] == answer.json["location"] == f"/api/v1/jobs/{answer.json['handle']}"
    assert at.api.get(f"/jobs/{answer.json['handle']}")["state"] == "queued"


def test_a_job_for_later(at: Place) -> None:
    before = time.time()
    for given in ({"delay": 100}, {"at": before + 100}):
        job = at.api.get(f"/jobs/{at.api.submit('later', **given)}")
        assert job["state"] == "delayed"
        assert before + 99 < job["due"] < before + 130


def test_the_same_unique_is_the_same_job(at: Place) -> None:
    handles = {at.api.submit("g", unique="one", workload=str(n)) for n in range(3)}
    assert len(handles) == 1
    handle = handles.pop()
    assert at.api.get(f"/jobs/{handle}")["size"] == 1


def test_a_result_that_is_kept_answers_the_same_unique(at: Place) -> None:
    at.api.do("PUT", "/functions/f/policy", {"keys": {"results": "1h"}})
    handle = at.api.submit("f", unique="kept")
    at.worker.complete(at.worker.await_job(), b"as it was")
    at.worker.fence()
    assert at.api.submit("f", unique="kept") == handle
    assert at.api.do("POST", "/jobs", {"function": "f", "unique": "kept"})["result"] == {"text": "as it was"}
    at.api.do("DELETE", "/functions/f/policy")


def test_a_job_is_waited_for_only_so_long(at: Place) -> None:
    answer = at.api.ask("POST", "/jobs", {"function": "nobody", "timeout": 0.1})
    assert (answer.status, answer.json["type"]) == (504, "/problems#not-in-time")
    assert "0.1 s" in answer.json["detail"]
    wait_until(lambda: at.server.jobs_of("nobody") == (0, 0), "the job that nobody waits for is gone")


def test_a_client_that_goes_takes_its_job_with_it(at: Place) -> None:
    at.api.begin("POST", "/jobs", {"function": "nobody"})
    wait_until(lambda: at.server.jobs_of("nobody") == (1, 0), "the job waits")
    at.api.http.close()
    wait_until(lambda: at.server.jobs_of("nobody") == (0, 0), "it is gone")


def test_names_may_be_any_bytes(at: Place) -> None:
    at.worker.can_do(b"a b/\xff\\")
    at.worker.fence()
    at.api.begin("POST", "/jobs", {"function": "a b/\\xff\\\\", "unique": "\\x01 ß"})
    job = at.worker.await_job()
    assert job.arguments[1:3] == (b"a b/\xff\\", b"\x01 " + "ß".encode())
    at.worker.complete(job)
    assert at.api.end().status == 200


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["function", "Field required"]),
        ({"function": ""}, ["function", "at least 1 character"]),
        ({"function": "f", "priority": "urgent"}, ["priority", "'urgent'", "'high', 'normal' or 'low'"]),
        ({"function": "f", "delay": -1}, ["delay", "-1", "greater than or equal to 0"]),
        ({"function": "f", "delay": 1, "at": 2}, ["either delay or at"]),
        ({"function": "f", "delay": 1, "background": False}, ["background"]),
        ({"function": "f", "delay": 1, "priority": "low"}, ["'low'", "normal priority"]),
        ({"function": "f", "workload": "x", "json": 1}, ["one of workload, workload_base64 and json"]),
        ({"function": "f", "workload_base64": "?"}, ["workload_base64"]),
        ({"function": "f\\x00"}, ["function", "NUL"]),
        ({"function": "f", "webhook": "http://example.com"}, ["webhook", "background"]),
        ({"function": "f", "wrong": 1}, ["wrong", "not permitted"]),
        ({"function": "f", "workload": "\ud800"}, ["workload"]),
        ([], ["JSON object"]),
    ],
)
def test_a_refusal_names_the_field_its_value_and_what_is_allowed(at: Place, given: Any, words: list[str]) -> None:
    kind, detail = at.api.refusal(422, "POST", "/jobs", given)
    assert kind == "invalid"
    assert all(word in detail for word in words), detail


@pytest.mark.parametrize("body", [b"nothing", b"", b"\xff", b"[" * 10_000, b"1" * 5000])
def test_what_is_no_json(at: Place, body: bytes) -> None:
    answer = at.api.ask("POST", "/jobs", body, Content_Type="application/json")
    assert answer.status == 400
    assert answer.json["type"] == "/problems#not-json"


def test_json_of_any_depth_has_a_defined_answer(at: Place) -> None:
    statuses = set()
    for depth in range(900, 1000):
        body = b'{"function": "g", "background": true, "json": ' + b"[" * depth + b"]" * depth + b"}"
        statuses.add(at.api.ask("POST", "/jobs", body, Content_Type="application/json").status)
    assert statuses <= {202, 400, 422}


@pytest.mark.parametrize(
    "workload", ["a,b;" * 100_000, '{"a": [1, 2]},' * 10_000, "\\," * 100_000, '","' * 10_000, "\n,{[" * 50_000]
)
def test_a_text_may_hold_whatever_json_is_made_of(at: Place, workload: str) -> None:
    at.api.begin("POST", "/jobs", {"function": "f", "workload": workload})
    job = at.worker.await_job()
    assert job.arguments[3] == workload.encode()
    at.worker.complete(job)
    assert at.api.end().status == 200


@pytest.mark.parametrize(
    ("method", "path", "given"),
    [
        ("POST", "/jobs", {"function": "f", "json": [[]] * 30_000}),
        ("POST", "/jobs", {"function": "f", "json": {str(n): n for n in range(30_000)}}),
        ("POST", "/jobs", {str(n): n for n in range(30_000)}),
        ("PUT", "/functions/f/policy", {"keys": {str(n): n for n in range(2000)}}),
        ("POST", "/dead/retry", {"handles": [""] * 2000}),
    ],
)
def test_json_of_too_many_values_is_not_read(at: Place, method: str, path: str, given: Any) -> None:
    kind, detail = at.api.refusal(413, method, path, given)
    assert kind == "too-large"
    assert "values at most" in detail


def test_of_many_unknown_members_some_are_told(at: Place) -> None:
    answer = at.api.ask("POST", "/jobs", {"function": "f", **{f"k{n}": 0 for n in range(5000)}})
    assert answer.status == 422
    assert len(answer.json["errors"]) == 20


def test_a_large_workload_is_sent_as_bytes(at: Place) -> None:
    size = 2 * 1024 * 1024
    answer = at.api.ask("POST", "/jobs", {"function": "f", "workload": "x" * size})
    assert (answer.status, answer.json["type"]) == (413, "/problems#too-large")
    assert BYTES in answer.json["detail"]
    at.api.begin("POST", "/jobs?function=f", b"x" * size)
    job = at.worker.await_job()
    assert len(job.arguments[3]) == size
    at.worker.complete(job)
    assert at.api.end().status == 200


def test_a_full_queue(at: Place) -> None:
    at.api.do("PATCH", "/functions/full", {"max_queue": {"high": 1, "normal": 1, "low": 1}})
    at.api.submit("full")
    answer = at.api.ask("POST", "/jobs", {"function": "full", "background": True})
    assert (answer.status, answer.json["type"]) == (503, "/problems#queue-error")
    assert answer.headers["retry-after"]


def test_names_that_are_too_long(at: Place) -> None:
    for given, words in (
        ({"function": "x" * 10_000}, "above the limit of"),
        ({"function": "g", "unique": "x" * 10_000}, "Unique value too large"),
    ):
        kind, detail = at.api.refusal(400, "POST", "/jobs", {"background": True, **given})
        assert kind == "argument-too-large"
        assert words in detail


def test_json_of_the_query_and_the_body_go_together(at: Place) -> None:
    answer = at.api.ask("POST", "/jobs?background=true&function=g", json.dumps({"workload": "x"}).encode(),
                        Content_Type="application/json; charset=utf-8")  # fmt: skip
    assert answer.status == 202


def test_a_webhook_is_told_of_the_end() -> None:
    with place("--webhook-private") as at, Receiver() as receiver:
        first = at.api.do(
            "POST", "/jobs",
            {"function": "f", "unique": "u", "background": True, "webhook": {"url": receiver.url, "secret": "s"}},
        )  # fmt: skip
        assert first["webhook"] is True
        again = at.api.do("POST", "/jobs", {"function": "f", "unique": "u", "background": True,
                                            "webhook": f"{receiver.url}?again"})  # fmt: skip
        assert (again["handle"], again["webhook"]) == (first["handle"], True)
        answer = at.api.ask("POST", f"/jobs?function=f&background=true&webhook={quote(receiver.url)}", b"")
        assert answer.json["webhook"] is True
        for _ in range(2):
            at.worker.complete(at.worker.await_job(), b"done")
        calls = receiver.wait_for(3)
        assert sorted(call.told["handle"] for call in calls) == sorted([first["handle"]] * 2 + [answer.json["handle"]])
        (signed,) = [call for call in calls if "X-Geartrain-Signature" in call.headers]
        assert signed.told["handle"] == first["handle"]


def test_a_webhook_that_would_not_be_called_is_refused(at: Place) -> None:
    for url in ("http://127.0.0.1/x", "ftp://example.org", "nothing"):
        kind, detail = at.api.refusal(422, "POST", "/jobs", {"function": "f", "background": True, "webhook": url})
        assert kind == "invalid"
        assert url in detail
    for hook in (7, {"secret": "s"}, {"url": "https://example.org", "wrong": 1}):
        kind, _ = at.api.refusal(422, "POST", "/jobs", {"function": "f", "background": True, "webhook": hook})
        assert kind == "invalid"
