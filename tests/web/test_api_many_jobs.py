"""/api/v1/jobs/cancel, /priority and /retry: one order to many jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httptools")

from api_place import Place, place, tokens_file

from geartrain.web.api import many_jobs
from geartrain.wire.packets import SUBMIT_JOB_BG, WORK_EXCEPTION, pack_request
from servers import wait_until


@pytest.fixture(scope="module")
def at() -> Iterator[Place]:
    with place() as it:
        yield it


def many(at: Place, path: str, **selection: Any) -> int:
    done = at.api.do("POST", f"/jobs/{path}", selection)
    assert done["next"] is None
    return int(done["count"])


def handles(at: Place, query: str) -> list[str]:
    return [job["handle"] for job in at.api.get(f"/jobs?{query}")["jobs"]]


@pytest.mark.parametrize("store", ["memory:", "sqlite:///{}/jobs.sqlite"])
def test_jobs_are_cancelled_as_they_are_chosen(store: str, tmp_path: Any) -> None:
    with place(store=store.format(tmp_path)) as at:
        kept = [at.api.submit("other"), at.api.submit("f", priority="high"), at.api.submit("f", unique="kept")]
        runs = at.worker.await_job().arguments[0].decode()
        assert runs == kept[1]
        mine = [at.api.submit("f", delay=delay) for delay in (0, 1000, 0)]
        selection = {"function": "f", "priority": "normal", "older_than": 0}
        assert many(at, "cancel", **selection, dry_run=True) == 4
        assert handles(at, "function=f") == [runs, kept[2], *mine]
        assert many(at, "cancel", **selection, unique="") == 3
        assert handles(at, "") == kept
        assert at.api.get(f"/jobs/{mine[0]}")["outcome"] == "cancelled"
        assert many(at, "cancel", state="running") == 1
        assert handles(at, "") == [kept[0], kept[2]]
        assert many(at, "cancel", all=True) == 2
        assert handles(at, "") == []
        assert many(at, "cancel", all=True) == 0


def test_jobs_wait_with_another_priority(at: Place) -> None:
    low = [at.api.submit("p", priority="low"), at.api.submit("p", priority="low")]
    at.api.submit("p", delay=1000)
    at.api.submit("p", priority="high")
    assert many(at, "priority", function="p", priority="low", new_priority="high", dry_run=True) == 2
    assert many(at, "priority", function="p", priority="low", new_priority="high") == 2
    assert set(handles(at, "function=p&priority=high")) > set(low)
    assert at.api.get("/functions/p")["queued"] == {"high": 3, "normal": 0, "low": 0}
    assert many(at, "priority", function="p", new_priority="high") == 1
    assert many(at, "priority", function="p", new_priority="high") == 0
    assert many(at, "cancel", function="p") == 4


def test_dead_and_delayed_jobs_are_tried_again(at: Place) -> None:
    at.api.do("PUT", "/functions/f/policy", {"keys": {"attempts": 1}})
    dead = at.api.submit("f")
    at.worker.send(pack_request(WORK_EXCEPTION, at.worker.await_job().arguments[0], b"oops"))
    at.worker.fence()
    at.api.do("DELETE", "/functions/f/policy")
    later = at.api.submit("f", delay=1000)
    assert many(at, "cancel", state="dead", all=False) == 0
    assert many(at, "retry", function="f", attempt=1, dry_run=True) == 1
    assert many(at, "retry", function="f") == 2
    assert handles(at, "function=f&state=queued") == [dead, later]
    assert many(at, "retry", function="f") == 0
    assert many(at, "cancel", function="f") == 2


def test_what_is_not_said_is_not_meant(at: Place) -> None:
    for path, more in (("cancel", {}), ("retry", {}), ("priority", {"new_priority": "low"})):
        for given in ({}, {"dry_run": True}, {"all": True, "function": "f"}, {"functoin": "f"}, {"state": "lost"}):
            kind, _ = at.api.refusal(422, "POST", f"/jobs/{path}", {**given, **more})
            assert kind == "invalid"
    assert at.api.refusal(422, "POST", "/jobs/priority", {"all": True})[0] == "invalid"


def test_very_many_are_cancelled_in_parts_while_others_are_served() -> None:
    with place() as at:
        count = many_jobs.MOST_LOOKED_AT + 1000
        at.worker.send(pack_request(SUBMIT_JOB_BG, b"many", b"", b"") * count)
        for _ in range(count):
            at.worker.receive()
        done = at.api.do("POST", "/jobs/cancel", {"function": "many", "dry_run": True})
        assert many_jobs.MOST_LOOKED_AT <= done["count"] == done["next"] < count
        other = at.with_token("")
        other.begin("POST", "/jobs/cancel", {"function": "many"})
        wait_until(lambda: 0 < at.api.get("/functions/many")["total"] < count, "some are cancelled")
        first = other.end().json
        second = at.api.do("POST", "/jobs/cancel", {"function": "many", "after": first["next"]})
        assert first["count"] + second["count"] == count
        assert second["next"] is None
        assert at.api.get("/functions/many")["total"] == 0


def test_only_operators_order_and_the_audit_log_is_told(tmp_path: Any) -> None:
    config = tmp_path / "config.toml"
    config.write_text(tokens_file({"chief": ["read", "operate"], "reader": ["read"]}))
    with place(f"--config={config}") as at:
        chief = at.with_token("token-of-chief")
        for path in ("cancel", "retry", "priority"):
            refusal = at.with_token("token-of-reader").refusal(403, "POST", f"/jobs/{path}", {"all": True})
            assert refusal[0] == "not-allowed"
        chief.do("POST", "/jobs/cancel", {"function": "a b", "dry_run": True})
        chief.do("POST", "/jobs/cancel", {"function": "a b", "state": "queued"})
        chief.do("POST", "/jobs/priority", {"all": True, "new_priority": "low"})
        last = 'action="change priority to low" target="all: 0 jobs" outcome=done'
        wait_until(lambda: last in at.server.log.read_text(), "the log is written")
        log = at.server.log.read_text()
        assert log.count('action="cancel jobs"') == 1
        assert 'action="cancel jobs" target="state=queued function=a b: 0 jobs" outcome=done' in log
