"""/api/v1: functions, policies, connections, schedules, dead letters, the server, sessions, and who may do what."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools")

from api_place import Place, place, tokens_file

from geartrain.jobserver.policy import KEYS, Policy, read_policy
from geartrain.web.api import describe, prepare
from geartrain.web.commands import STATUS
from geartrain.web.problem_kinds import KINDS
from geartrain.wire.packets import SET_CLIENT_ID, WORK_COMPLETE, WORK_EXCEPTION, pack_request
from servers import wait_until

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def at() -> Iterator[Place]:
    with place() as it:
        yield it


def _has_told(at: Place, line: str) -> bool:
    return re.search(line, at.server.log.read_text()) is not None


# ── functions ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_functions_are_listed_in_any_order() -> None:
    with place() as at:
        api = at.api
        for name, count in (("b", 3), ("a", 1), ("c/\\xff", 2)):
            for _ in range(count):
                api.submit(name)
        names = ["f", "b", "a", "c/\\xff"]
        assert [row["name"] for row in api.get("/functions")["functions"]] == names
        for sort, order in (
            ("known", names),
            ("name", sorted(names)),
            ("total", ["b", "c/\\xff", "a", "f"]),
            ("workers", ["f", "a", "b", "c/\\xff"]),
        ):
            seen = []
            after = ""
            while after is not None:
                page = api.get(f"/functions?sort={sort}&limit=1&after={after.replace('/', '%2F')}")
                seen += [row["name"] for row in page["functions"]]
                after = page["next"]
            assert seen == order, sort
        assert [row["name"] for row in api.get("/functions?prefix=c")["functions"]] == ["c/\\xff"]
        assert api.refusal(422, "GET", "/functions?after=x")[0] == "invalid"
        assert api.refusal(422, "GET", "/functions?sort=name&after=x")[0] == "invalid"
        assert api.refusal(422, "GET", "/functions?sort=x")[0] == "invalid"


@pytest.mark.parametrize(
    ("path", "name"),
    [("a%2Fb", "a/b"), ("%FF", "\\xff"), ("%5Cxff", "\\xff"), ("%C3%9F", "ß"), ("a%20b", "a b"), ("policy", "policy"),
     ("a%5C%5Cb", "a\\\\b")],
)  # fmt: skip
def test_a_function_of_any_name_is_found_by_its_path(at: Place, path: str, name: str) -> None:
    at.api.submit(name)
    row = at.api.get(f"/functions/{path}")
    assert (row["name"], row["queued"]) == (name, {"high": 0, "normal": row["total"], "low": 0})


def test_functions_are_paused_limited_and_dropped(at: Place) -> None:
    api = at.api
    api.do("PATCH", "/functions/p", {"paused": True, "reason": "no disk", "max_queue": {"high": 3, "low": 1}})
    row = api.get("/functions/p")
    assert (row["paused"], row["max_queue"]) == (True, {"high": 3, "normal": 0, "low": 1})
    handle = api.submit("p")
    assert "no disk" in api.get(f"/jobs/{handle}/why")["why"]
    api.do("PATCH", "/functions/p", {"paused": False})
    api.do("PATCH", "/functions/p", {"paused": False})
    assert api.get("/functions/p")["max_queue"]["high"] == 3
    api.do("DELETE", "/functions/p")
    assert api.refusal(404, "GET", "/functions/p")[0] == "unknown-function"
    assert api.refusal(404, "DELETE", "/functions/p")[0] == "unknown-function"
    kind, detail = api.refusal(409, "DELETE", "/functions/f")
    assert kind == "in-use"
    assert "workers" in detail
    for change in ({"paused": 7}, {"max_queue": {"high": -1}}, {"wrong": 1}):
        assert api.refusal(422, "PATCH", "/functions/p", change)[0] == "invalid"
    assert api.refusal(422, "PATCH", "/functions/a%20b", {"paused": True})[0] == "invalid"


def test_policies_are_set_replaced_and_taken_away(at: Place) -> None:
    api = at.api
    api.do("PUT", "/functions/mail.*/policy", {"keys": {"attempts": 3, "timeout": "10s"}})
    assert api.get("/functions/mail.send/policy")["name"] == "mail.*"
    api.do("PUT", "/functions/mail.*/policy", {"keys": {"attempts": 2}})
    assert api.get("/policies") == {"policies": [{"name": "mail.*", "source": "command", "keys": {"attempts": "2"}}]}
    for path in ("%FF", "a%5C%5Cb", "%C3%9F"):
        for keys in ({"attempts": 2, "timeout": "1s"}, {"attempts": 3}):
            api.do("PUT", f"/functions/{path}/policy", {"keys": keys})
        assert api.get(f"/functions/{path}/policy")["keys"] == {"attempts": "3"}
    kind, detail = api.refusal(400, "PUT", "/functions/x/policy", {"keys": {"attempts": "many"}})
    assert kind == "invalid-policy"
    assert "attempts=many" in detail
    assert api.refusal(422, "PUT", "/functions/x/policy", {"keys": {"timeout": "1 s"}})[0] == "invalid"
    assert api.refusal(422, "PUT", "/functions/x/policy", {"keys": {}})[0] == "invalid"
    api.do("DELETE", "/functions/mail.*/policy")
    assert api.refusal(404, "GET", "/functions/mail.send/policy")[0] == "unknown-policy"
    assert api.refusal(404, "DELETE", "/functions/mail.*/policy")[0] == "unknown-policy"


def test_the_keys_of_policies_are_explained(at: Place) -> None:
    keys = {each["key"]: each for each in at.api.get("/policy-keys")["keys"]}
    assert list(keys) == list(KEYS)
    assert keys["timeout"] == {
        "key": "timeout",
        "form": "time",
        "example": "30s",
        "default": "",
        "meaning": "how long an attempt may run where the worker has set no limit of its own",
        "page": "timeout",
    }
    defaults = {"dead": "7d", "backoff": "exponential", "jitter": "0.1", "retry_on": "fail,exception,timeout,lost"}
    assert {key: keys[key]["default"] for key in defaults} == defaults
    for page in {each["page"] for each in keys.values()}:
        assert (DOCS / "policies" / f"{page}.md").exists()
    policy = read_policy(f"{key}={each['example']}" for key, each in keys.items())
    usual = read_policy(f"{key}={each['default'] or each['example']}" for key, each in keys.items())
    plain = Policy({"attempts": "1"})
    assert policy is not None
    assert usual is not None
    for key, each in keys.items():
        if each["default"]:
            assert usual.given[key] != policy.given[key], f"the example of {key} is its default"
            name = {"when_full": "drops_oldest"}.get(key, key)
            assert getattr(usual, name) == getattr(plain, name)
            assert "default" not in each["meaning"]


# ── connections, schedules, dead letters, the server ────────────────────────────────────────────────────────────────


def test_workers_and_connections_are_paged() -> None:
    with place() as at:
        at.worker.send(pack_request(SET_CLIENT_ID, b"w1"))
        at.worker.can_do(*[b"g%d" % n for n in range(30)])
        at.worker.fence()
        (worker,) = at.api.get("/workers")["connections"]
        assert (worker["id"], worker["host"], worker["function_count"]) == ("w1", "127.0.0.1", 31)
        assert worker["functions"][:2] == ["g29", "g28"]
        assert len(worker["functions"]) == 20
        assert at.api.get("/workers?function=g1")["connections"][0]["id"] == "w1"
        assert at.api.get("/workers?function=nobody")["connections"] == []
        assert abs(worker["since"] - time.time()) < 60
        assert 0 <= worker["silent"] < 60
        assert worker["jobs_done"] == 0
        at.api.submit("f")
        at.worker.complete(at.worker.await_job())
        at.worker.fence()
        assert at.api.get("/workers")["connections"][0]["jobs_done"] == 1
        place_of = at.api.get("/connections?limit=1")["next"]
        assert at.api.get(f"/connections/{place_of}")["id"] == "w1"
        kind, detail = at.api.refusal(404, "GET", f"/connections/{place_of + 1000}")
        assert kind == "unknown-connection"
        assert str(place_of + 1000) in detail
        at.api.submit("f")  # leaves a connection of the HTTP face
        page = at.api.get("/connections?limit=1")
        assert page["connections"][0]["id"] == "w1"
        assert at.api.get(f"/connections?after={page['next']}")["connections"][0]["host"] == "http"


def test_a_worker_is_disconnected_and_its_job_waits_again() -> None:
    with place() as at:
        api = at.api
        at.worker.send(pack_request(SET_CLIENT_ID, b"bad one"))
        handle = api.submit("f")
        at.worker.await_job()
        at.worker.fence()
        (worker,) = api.get("/workers")["connections"]
        api.do("DELETE", f"/connections/{worker['number']}")
        assert at.worker.socket.recv(1) == b""
        assert api.wait_for(handle, "queued")["attempts"] == 1
        assert api.get("/workers")["connections"] == []
        assert api.refusal(404, "DELETE", f"/connections/{worker['number']}")[0] == "unknown-connection"
        (ours,) = [each for each in api.get("/connections")["connections"] if each["host"] == "http"]
        assert api.refusal(409, "DELETE", f"/connections/{ours['number']}")[0] == "own-connection"
        assert api.refusal(422, "DELETE", "/connections/0")[0] == "invalid"
        told = [(entry["action"], entry["outcome"]) for entry in api.get("/audit")["entries"]]
        assert told == [("disconnect", "unknown-connection"), ("disconnect", "done")]


def test_a_drain_lets_the_running_job_end() -> None:
    with place() as at:
        handle = at.api.submit("f")
        job = at.worker.await_job()
        at.api.do("POST", "/server/drain")
        assert at.api.refusal(503, "POST", "/server/drain")[0] == "stopping"
        assert at.api.refusal(503, "POST", "/jobs", {"function": "f", "background": True})[0]
        at.worker.send(pack_request(WORK_COMPLETE, job.arguments[0], b""))
        assert job.arguments[0] == handle.encode()
        assert at.server.process.wait(10) == 0
        assert _has_told(at, 'audit who=anyone host=127.0.0.1 action="drain server" outcome=done')


def test_schedules(at: Place) -> None:
    api = at.api
    assert api.get("/schedules") == {"schedules": [], "next": None}
    api.do("PUT", "/schedules/often", {"function": "a b", "every": "10m", "workload": "x y", "priority": "high"})
    schedule = api.get("/schedules/often")
    assert (schedule["workload"], schedule["source"], len(schedule["next_runs"])) == ({"text": "x y"}, "command", 5)
    api.do("PUT", "/schedules/often", {"function": "s", "cron": "30 2 * * *", "workload_base64": "/w=="})
    schedule = api.get("/schedules/often")
    (row,) = api.get("/schedules")["schedules"]
    assert row["next_runs"] == schedule["next_runs"]
    assert [run[10:16] for run in row["next_runs"]] == 5 * ["T02:30"]
    assert datetime.fromisoformat(row["next_runs"][0]).timestamp() == row["next_run"]
    assert len(set(row["next_runs"])) == 5
    assert (schedule["keys"]["cron"], schedule["workload"]) == ("30 2 * * *", {"base64": "/w=="})
    assert "every" not in schedule["keys"]
    assert "priority" not in schedule["keys"]
    api.do("POST", "/schedules/often/pause")
    (row,) = api.get("/schedules")["schedules"]
    assert (row["name"], row["paused"], row["function"]) == ("often", True, "s")
    assert row["next_runs"] == api.get("/schedules/often")["next_runs"] == []
    api.do("POST", "/schedules/often/resume")
    handle = api.do("POST", "/schedules/often/run")["handle"]
    assert api.get(f"/jobs/{handle}")["function"] == "s"
    for keys in ({"every": "90m"}, {"cron": "0 0 29 2 *", "zone": "Asia/Tokyo"}):
        api.do("PUT", "/schedules/often", {"function": "s", **keys})
        for _ in range(2):  # the second answer comes from what was found for the first
            (row,) = api.get("/schedules")["schedules"]
            assert row["next_runs"] == api.get("/schedules/often")["next_runs"]
    api.do("DELETE", "/schedules/often")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/run")):
        assert api.refusal(404, method, f"/schedules/often{path}")[0] == "unknown-schedule"
    kind, detail = api.refusal(400, "PUT", "/schedules/often", {"function": "f", "cron": "nie"})
    assert kind == "invalid-schedule"
    assert "nie" in detail
    assert api.refusal(422, "PUT", "/schedules/often", {"every": "10m"})[0] == "invalid"


def test_schedules_come_in_pages() -> None:
    with place() as at:
        api = at.api
        for name, every, does in (
            ("a:b", "3h", "mail"),
            ("Bees", "1h", "report"),
            ("c", "2h", "Mail"),
            ("d", "4h", "x"),
        ):
            api.do("PUT", f"/schedules/{name}", {"function": does, "every": every})
        api.do("POST", "/schedules/Bees/pause")

        def pages(query: str, limit: int = 1) -> list[str]:
            seen: list[str] = []
            after = ""
            while after is not None:
                page = api.get(f"/schedules?limit={limit}&after={after}{query}")
                assert len(page["schedules"]) <= limit
                seen += [row["name"] for row in page["schedules"]]
                after = page["next"]
            return seen

        for limit in (1, 2, 4, 5):
            assert pages("", limit) == ["Bees", "a:b", "c", "d"]
            runs = {row["name"]: row["next_run"] for row in api.get("/schedules")["schedules"]}
            running = sorted(("a:b", "c", "d"), key=lambda name: (runs[name], name))
            assert pages("&sort=next_run", limit) == [*running, "Bees"], "the paused one at last"
        assert pages("&find=MAIL") == ["a:b", "c"]
        assert pages("&find=bee") == ["Bees"]
        assert pages("&find=none") == []
        assert pages("&name=c") == ["c"]
        assert pages("&name=C") == []
        assert api.refusal(422, "GET", "/schedules?after=c")[0] == "invalid"
        assert api.refusal(422, "GET", "/schedules?sort=last_run")[0] == "invalid"


def test_dead_letters() -> None:
    with place() as at:
        api = at.api
        api.do("PUT", "/functions/*/policy", {"keys": {"attempts": 1}})

        def bury(function: str, **more: str) -> str:
            at.worker.can_do(function.encode())
            handle = api.submit(function, **more)
            at.worker.send(pack_request(WORK_EXCEPTION, at.worker.await_job().arguments[0], b"boom"))
            at.worker.fence()
            return handle

        first, second, third = bury("f", workload="x", unique="u"), bury("g"), bury("f")
        letters = api.get("/dead")["letters"]
        assert [letter["handle"] for letter in letters] == [first, second, third]
        assert (letters[0]["function"], letters[0]["unique"], letters[0]["reason"], letters[0]["text"]) == (
            "f", "u", "exception", "boom",
        )  # fmt: skip
        assert [letter["handle"] for letter in api.get("/dead?function=f&limit=1")["letters"]] == [first]
        assert api.get("/dead?reason=timeout") == {"letters": [], "next": None}
        for query, expected in (("", [first, second, third]), ("&function=f", [first, third]), ("&reason=timeout", [])):
            seen = []
            after = 0
            while after is not None:
                page = api.get(f"/dead?limit=1&after={after}{query}")
                seen += [letter["handle"] for letter in page["letters"]]
                after = page["next"]
            assert seen == expected, query
        assert api.refusal(422, "GET", "/dead?after=x")[0] == "invalid"
        assert [job["handle"] for job in api.get("/jobs?state=dead&function=f")["jobs"]] == [first, third]
        assert api.get(f"/dead/{first}/workload") == {"text": "x"}
        assert api.refusal(409, "DELETE", "/functions/f")[0] == "in-use"
        groups = api.get("/dead/groups")
        assert [(each["function"], each["error"], each["count"], each["handle"]) for each in groups["groups"]] == [
            ("f", "boom", 2, third), ("g", "boom", 1, second),
        ]  # fmt: skip
        assert (groups["group_count"], groups["letter_count"], groups["next"]) == (2, 3, None)
        group = groups["groups"][1]
        assert group["oldest"] == group["newest"] == api.get(f"/dead?group={group['group']}")["letters"][0]["died"]
        assert api.get(f"/dead?function=f&group={group['group']}")["letters"] == []
        assert len(api.get(f"/dead?group={groups['groups'][0]['group']}")["letters"]) == 2
        page = api.get("/dead/groups?limit=1")
        assert (page["groups"], page["group_count"], page["letter_count"]) == (groups["groups"][:1], 2, 3)
        page = api.get(f"/dead/groups?limit=1&after={page['next']}")
        assert (page["groups"], page["group_count"], page["letter_count"], page["next"]) == ([group], 2, 3, None)
        assert api.refusal(422, "GET", "/dead/groups?after=1")[0] == "invalid"
        one = {"groups": [group], "group_count": 1, "letter_count": 1, "next": None}
        none = {"groups": [], "group_count": 0, "letter_count": 0, "next": None}
        assert api.get("/dead/groups?function=g") == one
        assert api.get("/dead/groups?reason=lost") == none
        assert api.get(f"/dead/groups?group={group['group']}") == one
        assert api.get(f"/dead/groups?group={group['group']}&function=f") == none
        assert api.refusal(422, "POST", "/dead/purge", {"group": group["group"], "function": "g"})[0] == "invalid"
        assert api.do("POST", "/dead/retry", {"handles": [first]}) == {"count": 1}
        assert api.get(f"/jobs/{first}")["state"] == "queued"
        assert [letter["handle"] for letter in api.get("/dead?after=1")["letters"]] == [second, third], "also then"
        assert api.do("POST", "/dead/retry", {"function": "g", "rate": 10}) == {"count": 1}
        rest = api.get("/dead/groups?function=f")["groups"][0]
        assert rest["count"] == 1
        assert api.do("POST", "/dead/purge", {"group": rest["group"]}) == {"count": 1}
        assert api.refusal(404, "POST", "/dead/retry", {"group": rest["group"]})[0] == "unknown-group"
        assert api.refusal(404, "GET", f"/dead?group={rest['group']}")[0] == "unknown-group"
        assert api.get(f"/dead/groups?group={rest['group']}") == none
        assert api.do("POST", "/dead/purge", {"all": True})["count"] >= 0
        assert api.refusal(404, "POST", "/dead/purge", {"handles": [third]})[0] == "unknown-job"
        wrong: list[dict[str, Any]] = [
            {},
            {"all": True, "function": "f"},
            {"handles": []},
            {"reason": "age"},
            {"all": True, "rate": 0},
        ]
        for selection in wrong:
            assert api.refusal(422, "POST", "/dead/retry", selection)[0] == "invalid", selection


def test_the_server(at: Place) -> None:
    server = at.api.get("/server")
    assert server["pid"] == at.server.process.pid
    assert server["addresses"] == [at.server.address]
    assert server["store"] == {"durable": False, "trouble": ""}
    assert server["counts"]["functions"] >= 1
    assert server["uptime"] >= 0


# ── who may do what ─────────────────────────────────────────────────────────────────────────────────────────────────


ROLES = {
    "reader": ["read"],
    "sender": ["submit:img.*"],
    "anysender": ["submit"],
    "chief": ["read", "submit", "operate"],
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    file = tmp_path_factory.mktemp("config") / "geartrain.toml"
    file.write_text(tokens_file(ROLES))
    with place(f"--config={file}") as it:
        yield it


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for path, operations in document["paths"].items():
        for method in operations:
            yield (
                method.upper(),
                path.removeprefix("/api/v1")
                .replace("{handle}", "H:x:1")
                .replace("{name}", "x")
                .replace("{number}", "9"),
            )


def test_nobody_may_do_anything_without_a_token(guarded: Place) -> None:
    document = guarded.with_token("token-of-chief").get("/openapi.json")
    operations = [each for each in _operations(document) if each != ("POST", "/session")]
    assert len(operations) > 25
    for method, path in operations:
        answer = guarded.api.ask(method, path)
        assert (answer.status, answer.json["type"]) == (401, "/problems#token-needed"), (method, path)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert guarded.api.refusal(401, "GET", "/openapi.json")[0] == "token-needed"
    assert guarded.with_token("wrong").refusal(401, "GET", "/jobs")[0] == "wrong-token"


def test_a_role_is_needed_for_each_operation(guarded: Place) -> None:
    document = guarded.with_token("token-of-chief").get("/openapi.json")
    reader = guarded.with_token("token-of-reader")
    sender = guarded.with_token("token-of-sender")
    for method, path in _operations(document):
        if path.startswith("/session"):
            continue
        if path == "/audit":
            assert reader.refusal(403, method, path)[0] == "not-allowed"
        elif method == "GET":
            assert sender.ask(method, path).status == 403, path
            if path == "/live":  # whose answer does not end
                continue
            assert reader.ask(method, path).status in (200, 204, 404), path
        elif path != "/jobs":
            for api in (reader, sender):
                assert api.refusal(403, method, path)[0] == "not-allowed"
    assert reader.refusal(403, "POST", "/jobs", {"function": "img.x"})[0] == "not-allowed"
    assert sender.refusal(403, "POST", "/jobs", {"function": "mail"})[0] == "not-allowed"
    handle = sender.submit("img.x")
    assert sender.refusal(403, "GET", f"/jobs/{handle}/result")[0] == "not-allowed"
    assert guarded.with_token("token-of-anysender").refusal(409, "GET", f"/jobs/{handle}/result")[0] == "not-ready"


def test_each_change_is_told_to_the_audit_log(tmp_path: Path) -> None:
    file = tmp_path / "geartrain.toml"
    file.write_text(tokens_file(ROLES))
    with place(f"--config={file}") as at:
        chief = at.with_token("token-of-chief")
        chief.do("PATCH", "/functions/audited", {"paused": True})
        chief.refusal(400, "PUT", "/functions/audited/policy", {"keys": {"nix": 1}})
        chief.refusal(404, "DELETE", "/jobs/H:audited:1")
        at.with_token("token-of-reader").refusal(403, "DELETE", "/jobs/H:audited:2")
        for line in (
            r'audit who=chief host=127.0.0.1 action="pause function" target=audited outcome=done',
            r'audit who=chief host=127.0.0.1 action="set policy" target=audited outcome=invalid-policy',
            r'audit who=chief host=127.0.0.1 action="cancel job" target=H:audited:1 outcome=unknown-job',
            r'audit who=reader host=127.0.0.1 action="DELETE /api/v1/jobs/H:audited:2"',
        ):
            wait_until(partial(_has_told, at, line), line)
        assert _has_told(at, "function_paused host=127.0.0.1 fd=-1 id=chief function=audited")


def test_no_change_is_left_out_of_the_audit_log_however_many_there_are(at: Place) -> None:
    for n in range(50):
        at.api.do("PATCH", f"/functions/each{n}", {"max_queue": {"high": 1}})
    for n in range(50):
        line = f'audit who=anyone host=127.0.0.1 action="limit function" target=each{n} outcome=done'
        wait_until(partial(_has_told, at, line), line)


def test_a_session_stands_for_its_token(guarded: Place) -> None:
    api = guarded.api
    assert api.refusal(401, "POST", "/session", {"token": "wrong"})[0] == "wrong-token"
    answer = api.ask("POST", "/session", {"token": "token-of-chief"})
    who = answer.json
    assert (who["name"], who["roles"]) == ("chief", ["operate", "read", "submit"])
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(attributes)
    assert "Secure" not in attributes
    with_cookie = {"Cookie": cookie}
    assert api.ask("GET", "/session", **with_cookie).json == who
    assert api.ask("PATCH", "/functions/x", {"paused": True}, **with_cookie).json["type"] == "/problems#csrf"
    with_both = {**with_cookie, "X-CSRF-Token": who["csrf"]}
    assert api.ask("PATCH", "/functions/x", {"paused": True}, **with_both).status == 200
    assert api.ask("DELETE", "/session", **with_both).status == 200
    assert api.ask("GET", "/jobs", **with_cookie).status == 401
    assert guarded.with_token("token-of-reader").get("/session") == {"name": "reader", "roles": ["read"], "csrf": ""}
    assert guarded.with_token("token-of-reader").refusal(404, "DELETE", "/session")[0] == "no-session"


# ── the document ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_document_is_complete(at: Place) -> None:
    document = at.api.get("/openapi.json")
    seen = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["operationId"] not in seen
            assert re.fullmatch("[a-z_]+", operation["operationId"])
            seen.add(operation["operationId"])
            assert operation["summary"], path
            assert operation["description"], path
            assert operation["tags"], path
            responses = operation["responses"]
            assert {"401", "403", "422", "default"} <= set(responses), (method, path)
            for status, response in responses.items():
                if status == "default" or status >= "400":
                    assert list(response["content"]) == ["application/problem+json"]
            if "{handle}" in path and not path.endswith("/status"):  # which tells of any job, also of none
                assert "404" in responses, (method, path)
    assert {tag["name"] for tag in document["tags"]} >= {"jobs", "functions"}
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_every_kind_of_problem_is_explained() -> None:
    root = Path(__file__).parent.parent.parent
    listed = {name for kinds in KINDS.values() for name in kinds}
    used = set()
    for path in (root / "src" / "geartrain" / "web").rglob("*.py"):
        used |= set(re.findall(r'(?:Problem|_break_off)\(\s*\d{3},\s*"([a-z0-9-]+)"', path.read_text()))
    rules = "".join(path.read_text() for path in (root / "src" / "geartrain" / "jobserver" / "rules").glob("*.py"))
    codes = {*STATUS, *re.findall(r'refuse\(\s*peer,\s*b"([A-Z_]+)"', rules)}
    used |= {code.lower().replace("_", "-") for code in codes}
    assert used - listed == set(), "web/problem_kinds.py says what to do about each"
    assert len(listed) == sum(map(len, KINDS.values()))


def test_the_type_of_a_problem_leads_to_a_page(guarded: Place) -> None:
    problem = guarded.api.ask("GET", "/jobs").json
    http = guarded.api.http
    answer = http.ask("GET", problem["type"].partition("#")[0])
    page = answer.body.decode()
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"].startswith("default-src 'none';")
    assert f'<dt id="{problem["type"].partition("#")[2]}">' in page
    for kinds in KINDS.values():
        for name, (status, _) in kinds.items():
            assert f'<dt id="{name}"><b>{name}</b> ({status})' in page
            one = http.ask("GET", f"/problems/{name}").body.decode()
            assert f"<h1>{name}</h1>" in one
            assert "](" not in one
            assert "`" not in one
    assert "<script" not in page
    answer = http.ask("GET", "/problems/%3Cscript%3E")
    assert (answer.status, answer.json["type"]) == (404, "/problems#no-such-path")
    assert http.ask("POST", "/problems").status == 405


def test_nothing_is_left_to_be_made_at_the_first_request_to_a_path() -> None:
    api = describe()
    prepare(api)

    def calls() -> int:
        """How many calls it takes to find who answers."""
        count = 0

        def note(*_: Any) -> None:
            nonlocal count
            count += 1

        scope = {"type": "http", "method": "GET", "path": "/api/v1/jobs", "root_path": "", "headers": []}
        sys.setprofile(note)
        try:
            for route in api.router.routes:
                route.matches(scope)
        finally:
            sys.setprofile(None)
        return count

    first = calls()
    assert first < 2 * calls()
