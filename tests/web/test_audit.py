"""Who has done what: the newest actions over the API, and all of them in the file of --http-audit."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools")

from api_place import Api, Place, place, tokens_file

from geartrain.jobserver import JobServer, Origin
from geartrain.jobserver.events import EVENTS
from geartrain.jobserver.rights import READ
from geartrain.web.audit import GEARMAN, KEPT, LONGEST, OF_EVENTS, REFUSED, Audit
from servers import wait_until

ROLES = {"reader": ["read"], "chief": ["read", "submit", "operate"]}


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Place]:
    config = tmp_path / "geartrain.toml"
    config.write_text(tokens_file(ROLES))
    with place(f"--config={config}", f"--http-audit={tmp_path / 'audit.jsonl'}") as it:
        yield it


def entries(api: Api, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(f"/audit{query}")["entries"]
    return found


def told(entry: dict[str, Any]) -> tuple[str, str, str, str, str]:
    assert entry["host"] == "127.0.0.1"
    return entry["who"], entry["via"], entry["action"], entry["target"], entry["outcome"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_was_done_and_what_was_refused(at: Place, tmp_path: Path) -> None:
    chief = at.with_token("token-of-chief")
    chief.do("PATCH", "/functions/audited", {"paused": True})
    chief.refusal(404, "DELETE", "/jobs/H:x:1")
    at.with_token("token-of-reader").refusal(403, "DELETE", "/jobs/H:x:2")
    at.with_token("a-guess").refusal(401, "DELETE", "/jobs/H:x:3")
    at.with_token("token-of-reader").refusal(403, "GET", "/audit")
    expected = [
        ("reader", "http", "GET /api/v1/audit", "", "not-allowed"),
        ("nobody", "http", "DELETE /api/v1/jobs/H:x:3", "", "wrong-token"),
        ("reader", "http", "DELETE /api/v1/jobs/H:x:2", "", "not-allowed"),
        ("chief", "http", "cancel job", "H:x:1", "unknown-job"),
        ("chief", "http", "pause function", "audited", "done"),
    ]
    assert [told(entry) for entry in entries(chief)] == expected
    assert [told(entry) for entry in entries(chief, "?who=reader&action=DELETE")] == [expected[2]]
    seen = []
    after = ""
    while True:
        page = chief.get(f"/audit?limit=2{after}")
        seen += page["entries"]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == entries(chief)
    file = tmp_path / "audit.jsonl"
    wait_until(lambda: len(lines(file)) == len(expected), "all are in the file")
    assert [told(line) for line in lines(file)] == expected[::-1]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "a-guess" not in file.read_text()
    assert "token-of" not in file.read_text()


def test_text_commands_over_the_gearman_port_are_told_too(at: Place) -> None:
    at.server.ask("maxqueue f 3")
    at.server.ask("policy set f attempts=3")
    at.server.ask("pause f")
    at.server.ask("resume f")
    chief = at.with_token("token-of-chief")
    chief.do("PATCH", "/functions/f", {"paused": True})  # by us: once
    assert [told(entry) for entry in entries(chief)] == [
        ("chief", "http", "pause function", "f", "done"),
        ("-", "gearman", "resume function", "f", "done"),
        ("-", "gearman", "pause function", "f", "done"),
        ("-", "gearman", "set policy", "f", "done"),
        ("-", "gearman", "limit function", "f", "done"),
    ]


def test_the_file_is_appended_to_and_opened_again(tmp_path: Path) -> None:
    file, moved = tmp_path / "audit.jsonl", tmp_path / "audit.1"
    for name in ("first", "second"):
        with place(f"--http-audit={file}") as at:
            at.api.do("PATCH", f"/functions/{name}", {"paused": True})
    assert [line["target"] for line in lines(file)] == ["first", "second"]
    with place(f"--http-audit={file}") as at:
        file.rename(moved)
        at.api.do("PATCH", "/functions/third", {"paused": True})
        at.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "audit_reopened" in at.server.log.read_text(), "it is opened again")
        at.api.do("PATCH", "/functions/fourth", {"paused": True})
    assert [line["target"] for line in lines(moved)] == ["first", "second", "third"]
    assert [line["target"] for line in lines(file)] == ["fourth"]


def test_a_full_disk_stops_nothing_and_is_said_once(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    file.symlink_to("/dev/full")
    with place(f"--http-audit={file}") as at:
        for n in range(30):
            at.api.do("PATCH", f"/functions/full{n}", {"paused": True})
        wait_until(lambda: "audit_not_written" in at.server.log.read_text(), "it is said")
        assert len(entries(at.api)) == 30
        file.unlink()
        at.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "audit_reopened" in at.server.log.read_text(), "it is opened again")
        at.api.do("PATCH", "/functions/written", {"paused": True})
        wait_until(lambda: len(lines(file)) == 2, "it is written again")
        assert at.server.log.read_text().count("audit_not_written") == 1
        (written, dropped) = lines(file)
        assert written["target"] == "written"
        assert (dropped["event"], dropped["lines"]) == ("log_lines_dropped", 30)


def test_whoever_is_turned_away_can_not_push_out_what_was_done() -> None:
    audit = Audit(None)
    audit.note("chief", "127.0.0.1", "drop function", "f")
    for n in range(KEPT + 10):
        audit.turn_away("nobody", "127.0.0.1", f"GET /{n}" + "x" * 10_000, "wrong-token", is_known=False)
    kept = list(audit.newest())
    assert len(kept) == KEPT + 1
    assert kept[-1].action == "drop function"
    assert kept[0].number == KEPT + 11
    assert len(kept[0].action) == LONGEST


def test_many_requests_of_nobody_are_summed_up_in_the_file(at: Place, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    for n in range(30):
        at.api.refusal(401, "DELETE", f"/jobs/H:x:{n}")
    for n in range(30):
        at.with_token("token-of-reader").refusal(403, "DELETE", f"/jobs/H:y:{n}")

    def counted(word: str) -> int:
        return sum(word in line.get("action", "") for line in lines(file))

    def all_are_told() -> bool:
        return bool(counted("H:x") + sum(line.get("more_of_these", 0) for line in lines(file)) == 30)

    wait_until(all_are_told, "each is written or counted")
    assert counted("H:x") < 30
    wait_until(lambda: counted("H:y") == 30, "those of somebody are all written")


def test_a_refusal_over_the_gearman_port() -> None:
    server = JobServer()
    peer = server.connect(Origin("10.0.0.1", 7, READ))
    server.receive(peer, b"drop function f\n")
    audit = Audit(None)
    for event in server.take_events():
        audit.hear(*event)
    (entry,) = audit.newest()
    assert (entry.host, entry.via, entry.action, entry.outcome) == ("10.0.0.1", GEARMAN, "drop", "not-allowed")


def test_each_event_of_a_text_command_is_known() -> None:
    assert {*OF_EVENTS, REFUSED} <= EVENTS.keys()
