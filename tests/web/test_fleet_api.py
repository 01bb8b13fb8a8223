"""The JSON API, metrics and webhooks of a fleet of two: what one member has can be asked for at the other."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from api_place import Api, place
from browser import LOOKS, Browser
from event_source import EventSource
from receiver import Receiver

from crews import Crew, new_crew
from geartrain.web.families import OF_FLEETS
from geartrain.wire.packets import GRAB_JOB_ALL, NO_JOB
from servers import RunningServer, needs, running_geartrain, wait_until
from services import PostgreSQL, running
from wire_caller import Caller


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    options = ("--http=127.0.0.1:0", "--webhook-private")
    with running(PostgreSQL) as database, new_crew(database, *options) as crew:
        crew.start("a")
        crew.start("b")
        crew.meet()
        yield crew


@pytest.fixture
def a(crew: Crew) -> Api:
    return Api(crew.servers["a"].http_port)


@pytest.fixture
def b(crew: Crew) -> Api:
    return Api(crew.servers["b"].http_port)


def drained(crew: Crew, api: Api, name: str, on: bool) -> None:
    """Have a member give its jobs away, or keep them again."""
    api.do("POST", f"/fleet/members/{crew.me(name)}/drain", {"on": on})
    wait_until(lambda: crew.members(name)[crew.me(name)][3] == str(int(on)), f"{name} knows it")


def test_the_fleet_is_shown(crew: Crew, a: Api, b: Api) -> None:
    told = a.get("/fleet")
    assert (told["name"], told["state"], told["me"]) == ("mill", "live", crew.me("a"))
    assert [member["id"] for member in told["members"]] == sorted([crew.me("a"), crew.me("b")])
    assert told["leader"] == b.get("/fleet")["leader"] == min(crew.me("a"), crew.me("b"))
    assert all(0 < member["lease"] <= 4 and member["ended"] is None for member in told["members"])
    history = a.get("/fleet/history")
    assert {member["id"] for member in told["members"]} <= {member["id"] for member in history["members"]}


def test_what_can_not_be_is_refused_and_noted(crew: Crew, a: Api) -> None:
    assert a.refusal(409, "POST", "/fleet/members/999/drain", {})[0] == "fleet"
    slug, detail = a.refusal(409, "POST", f"/fleet/members/{crew.me('b')}/forget")
    assert slug == "fleet"
    assert "it is live" in detail
    assert {"forget member", "drain member"} <= {entry["action"] for entry in a.get("/audit")["entries"]}


def test_a_server_without_a_fleet_has_none() -> None:
    with place() as alone:
        assert alone.api.refusal(404, "GET", "/fleet")[0] == "no-fleet"
        assert alone.api.refusal(404, "GET", "/fleet/functions")[0] == "no-fleet"


def test_functions_are_the_sum(a: Api, b: Api) -> None:
    a.submit("summed")
    b.submit("summed")
    [row] = [row for row in a.get("/fleet/functions")["functions"] if row["name"] == "summed"]
    assert row == {"name": "summed", "queued": 2, "running": 0, "total": 2, "workers": 0}


def test_any_member_tells_and_changes_a_job(a: Api, b: Api) -> None:
    a.do("PUT", "/functions/known/policy", {"keys": {"results": "1h"}})
    handle = a.submit("known", unique="u", workload="w")
    told = b.get(f"/jobs/{handle}")
    assert (told["state"], told["function"], told["unique"]) == ("queued", "known", "u")
    assert "no worker" in b.get(f"/jobs/{handle}/why")["why"].lower()
    b.do("POST", f"/jobs/{handle}/priority", {"priority": "high"})
    assert a.get(f"/jobs/{handle}")["priority"] == "high"
    assert b.refusal(409, "GET", f"/jobs/{handle}/result")[0] == "not-ready"
    assert b.refusal(409, "GET", f"/jobs/{handle}/workload")[0] == "at-another-member"
    assert b.refusal(409, "GET", f"/jobs/{handle}/events")[0] == "at-another-member"
    assert b.refusal(409, "POST", f"/jobs/{handle}/retry")[0] == "not-waiting"
    b.do("DELETE", f"/jobs/{handle}")
    assert a.refusal(404, "GET", f"/jobs/{handle}/why")[0] == "unknown-job"


def test_a_result_is_waited_for_at_another_member(crew: Crew, a: Api, b: Api) -> None:
    a.do("PUT", "/functions/awaited/policy", {"keys": {"results": "1h"}})
    handle = a.submit("awaited")
    b.begin("GET", f"/jobs/{handle}/result?wait=30")
    with Caller(crew.servers["a"]) as worker:
        worker.can_do(b"awaited")
        worker.complete(worker.await_job(), b"made")
        worker.fence()
    assert b.end().json["result"] == {"text": "made"}


def test_a_unique_of_another_member_is_answered_with_its_handle(a: Api, b: Api) -> None:
    first = a.submit("twin", unique="same")
    assert b.submit("twin", unique="same") == first
    assert b.get(f"/jobs/{first}")["state"] == "queued"
    answer = b.http.ask("POST", "/twin", b"", {"X-Gearman-Background": "true", "X-Gearman-Unique": "same"})
    assert answer.headers["x-gearman-job-handle"] == first


def test_a_webhook_of_a_unique_is_called_by_the_member_that_has_the_job(crew: Crew, a: Api, b: Api) -> None:
    with Receiver() as receiver:
        first = a.submit("told", unique="same")
        created = b.do(
            "POST", "/jobs", {"function": "told", "unique": "same", "background": True, "webhook": receiver.url}
        )
        assert (created["handle"], created["webhook"]) == (first, True)
        with Caller(crew.servers["a"]) as worker:
            worker.can_do(b"told")
            worker.complete(worker.await_job(), b"made")
            worker.fence()
        [call] = receiver.wait_for(1)
        assert (call.told["handle"], call.told["outcome"], call.told["result"]) == (first, "completed", "made")


def test_webhooks_and_events_of_a_job_that_moves(crew: Crew, a: Api, b: Api) -> None:
    with Receiver() as receiver:
        handle = a.submit("moving", webhook=receiver.url)
        events = EventSource(crew.servers["a"].http_port, handle.encode())
        assert events.open() == 200
        drained(crew, a, "a", on=True)
        events.wait_for("moved")
        assert events.receive() == b""
        events.close()
        wait_until(lambda: b.ask("GET", f"/jobs/{handle}/workload").status == 200, "the other one has it")
        assert a.get(f"/jobs/{handle}")["state"] == "queued"
        drained(crew, a, "a", on=False)
        with Caller(crew.servers["b"]) as worker:
            worker.can_do(b"moving")
            worker.complete(worker.await_job(), b"made")
            worker.fence()
        [call] = receiver.wait_for(1)
        assert (call.told["handle"], call.told["outcome"]) == (handle, "completed")
        assert len(receiver.calls) == 1


def test_a_job_submitted_over_http_goes_where_a_worker_is(crew: Crew, a: Api) -> None:
    with Caller(crew.servers["b"]) as worker:
        worker.can_do(b"elsewhere")
        a.submit("elsewhere", workload="w")
        assert worker.await_job().arguments[-1] == b"w"


def test_metrics_tell_the_fleet(crew: Crew) -> None:
    text = metrics(crew.servers["a"])
    assert f"geartrain_fleet_epoch {crew.me('a')}" in text
    assert 'geartrain_fleet_state{state="live"} 1' in text
    assert 'geartrain_fleet_members{state="live"} 2' in text
    assert "geartrain_fleet_lease_seconds " in text
    told = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    assert {family.sample for family in OF_FLEETS} <= told
    done = subprocess.run([needs("promtool", "prometheus"), "check", "metrics"], input=text, text=True, timeout=60)
    assert done.returncode == 0
    with running_geartrain("--http=127.0.0.1:0") as alone:
        assert "geartrain_fleet" not in metrics(alone)


def metrics(server: RunningServer) -> str:
    answer = Api(server.http_port).http.ask("GET", "/metrics")
    assert answer.status == 200
    return answer.body.decode()


def test_the_estate_of_a_killed_member_has_its_webhooks(crew: Crew, b: Api) -> None:
    with Receiver() as receiver:
        crew.start("c")
        crew.meet()
        handle = Api(crew.servers["c"].http_port).submit("left", webhook=receiver.url)
        crew.kill("c")
        workers = [Caller(server) for server in crew.servers.values()]
        try:
            for worker in workers:
                worker.can_do(b"left")
            done = taken(workers)
            done[0].complete(done[1], b"made")
            done[0].fence()
        finally:
            for worker in workers:
                worker.socket.close()
        [call] = receiver.wait_for(1)
        assert (call.told["handle"], call.told["outcome"]) == (handle, "completed")
    wait_until(lambda: any(each["jobs"] for each in b.get("/fleet/history")["adoptions"]), "that is remembered")


def taken(workers: list[Caller]) -> tuple[Caller, Any]:
    """The first job that one of them gets."""
    deadline = time.monotonic() + 20
    while True:
        for worker in workers:
            job = worker.call(GRAB_JOB_ALL)
            if job.type != NO_JOB:
                return worker, job
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_dashboard_shows_the_members(crew: Crew, browser: Browser) -> None:
    a, b = crew.servers["a"], crew.servers["b"]
    for theme, size in LOOKS:
        with browser.tab(a.http_port, theme, size) as tab:
            tab.open("/settings", "Settings")
            tab.sees("Fleet mill")
            tab.sees(b.address)
            tab.keep("fleet")
            assert tab.complaints() == []
            assert tab.errors == []
    with browser.tab(a.http_port) as tab:
        tab.open("/settings", "Settings")
        row = tab.page.get_by_role("row").filter(has_text=b.address)
        row.get_by_role("button", name="Give away").click()
        tab.page.get_by_role("dialog").get_by_role("button", name="Give away").click()
        tab.sees("gives its jobs away")
        wait_until(lambda: crew.members("b")[crew.me("b")][3] == "1", "it is drained")
        row.get_by_role("button", name="Let it keep them").click()
        tab.page.get_by_role("dialog").get_by_role("button", name="Keep").click()
        wait_until(lambda: crew.members("b")[crew.me("b")][3] == "0", "it is drained no more")
