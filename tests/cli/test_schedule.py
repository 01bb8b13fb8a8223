"""``geartrain schedule``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime

import pytest

from cli.conftest import Command
from servers import RunningServer, running_gearmand, running_geartrain


def made(geartrain: Command, *words: str) -> dict[str, object]:
    """What ``schedule set`` or ``show`` with these words tells machines about the one schedule."""
    done = geartrain("schedule", *words, "--json")
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert isinstance(row, dict)
    return row


def names(geartrain: Command) -> list[object]:
    return [row["name"] for row in json.loads(geartrain("schedule", "list", "--json").stdout)]


def test_a_schedule_is_set_and_shown_with_its_next_five_runs(geartrain: Command, server: RunningServer) -> None:
    words = ("cron=30 2 1 1 *", "zone=Asia/Tokyo", "function=report", "workload=a b\n", "priority=low")
    done = geartrain("schedule", "set", "yearly", *words)
    assert (done.returncode, done.stderr) == (0, b"")
    head, *printed = done.stdout.decode().splitlines()
    assert head == "next runs:"
    runs = [datetime.fromisoformat(line.split(maxsplit=1)[1]) for line in printed]
    assert len(runs) == 5
    assert [f"  {run:%a} {run.isoformat(' ')}" for run in runs] == printed
    assert all(f"{run:%m-%d %H:%M:%S%z}" == "01-01 02:30:00+0900" for run in runs)
    assert [run.year - runs[0].year for run in runs] == [0, 1, 2, 3, 4]
    assert 0 < runs[0].timestamp() - time.time() <= 366 * 86400
    lines = geartrain("schedule", "show", "yearly").stdout.decode().splitlines()
    assert [" ".join(line.split()) for line in lines[:9]] == [
        "name: yearly",
        "set by: command",
        "cron: 30 2 1 1 *",
        "zone: Asia/Tokyo",
        "function: report",
        "priority: low",
        "workload: a b\\n",
        "last run: none",
        "last job:",
    ]
    assert lines[9:] == ["next runs:", *printed]
    assert made(geartrain, "show", "yearly") == {
        "server": server.address,
        "name": "yearly",
        "source": "command",
        "paused": False,
        "keys": {"cron": "30 2 1 1 *", "zone": "Asia/Tokyo", "function": "report", "priority": "low"},
        "workload": "a b\n",
        "last_run": None,
        "job": None,
        "next_runs": [run.isoformat() for run in runs],
    }
    assert geartrain("schedule", "unset", "yearly").returncode == 0


def test_keys_that_are_not_named_stay(geartrain: Command) -> None:
    assert made(geartrain, "set", "kept", "every=1h", "function=f", "jitter=5m")["keys"] == {
        "every": "1h",
        "function": "f",
        "jitter": "5m",
    }
    changed = made(geartrain, "set", "kept", "jitter=", "missed=all")
    assert changed["keys"] == {"every": "1h", "function": "f", "missed": "all"}
    assert made(geartrain, "set", "kept", "cron=@daily")["keys"] == {
        "cron": "@daily",
        "zone": made(geartrain, "show", "kept")["keys"]["zone"],  # type: ignore[index]
        "function": "f",
        "missed": "all",
    }
    assert geartrain("schedule", "unset", "kept").returncode == 0


def test_schedules_are_listed(geartrain: Command, server: RunningServer) -> None:
    for name, when in (("two", "cron=0 0 1 1 *"), ("one", "every=7d")):
        assert geartrain("schedule", "set", name, when, "function=f", "workload=x").returncode == 0
    head, first, second = geartrain("schedule", "list").stdout.decode().splitlines()
    assert head.split() == ["name", "when", "function", "next", "run", "last", "run"]
    assert first.split()[:4] == ["one", "every", "7d", "f"]
    assert first.split()[-1] == "none"
    assert second.split()[:7] == ["two", "0", "0", "1", "1", "*", "f"]
    one, two = json.loads(geartrain("schedule", "list", "--json").stdout)
    assert one == {
        "server": server.address,
        "name": "one",
        "paused": False,
        "next_run": one["next_run"],
        "last_run": None,
        "function": "f",
        "keys": {"every": "7d", "function": "f"},
    }
    assert one["next_run"] % (7 * 86400) == 0
    assert two["keys"] == {"cron": "0 0 1 1 *", "function": "f"}
    for name in ("one", "two"):
        assert geartrain("schedule", "unset", name).returncode == 0
    assert geartrain("schedule", "list", "--json").stdout == b"[]\n"


def test_a_schedule_is_paused_and_resumed(geartrain: Command) -> None:
    assert geartrain("schedule", "set", "halted", "every=30d", "function=f").returncode == 0
    done = geartrain("schedule", "pause", "halted")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert geartrain("schedule", "show", "halted").stdout.endswith(b"paused: no runs are made\n")
    assert b"  paused  " in geartrain("schedule", "list").stdout
    assert made(geartrain, "show", "halted")["paused"] is True
    assert geartrain("schedule", "resume", "halted", "--json").stdout == b'{"done": true}\n'
    assert made(geartrain, "show", "halted")["paused"] is False
    assert b"paused" not in geartrain("schedule", "list").stdout
    assert geartrain("schedule", "unset", "halted", "--json").stdout == b'{"done": true}\n'


def test_a_run_is_made_now(geartrain: Command, server: RunningServer) -> None:
    assert geartrain("schedule", "set", "now", "every=30d", "function=now.f", "workload=12345").returncode == 0
    handle = geartrain("schedule", "run", "now").stdout.decode().strip()
    job = json.loads(geartrain("show", handle, "--json").stdout)
    assert (job["function"], job["state"], job["size"]) == ("now.f", "queued", 5)
    assert job["unique"].startswith("schedule:now:")
    [told] = json.loads(geartrain("schedule", "run", "now", "--json").stdout)
    assert told["server"] == server.address
    assert made(geartrain, "show", "now")["job"] == told["handle"]
    assert geartrain("schedule", "unset", "now").returncode == 0
    assert geartrain("admin", "cancel", handle, told["handle"]).returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["every=soon", "function=f"], 5, "INVALID_SCHEDULE: every=soon: write a time such as 2.5, 30s, 5m or 500ms"),
        (["every=1ms", "function=f"], 5, "every=1ms: it is 100ms to "),
        (["every=1h"], 5, "function= is missing: name the function whose job is to be made"),
        (["function=f"], 5, "write either cron= or every=, such as every=10m"),
        (["every=1h", "cron=@daily", "function=f"], 5, "write either cron= or every="),
        (["cron=61 * * * *", "function=f"], 5, "cron: the minute '61'"),
        (["cron=* * * *", "function=f"], 5, "cron: '* * * *'"),
        (["cron=@daily", "zone=Mars/Base", "function=f"], 5, "zone=Mars/Base: no such time zone is known here: write"),
        (["every=1h", "function=f", "priority=urgent"], 5, "priority=urgent: it is one of high, normal, low"),
        (["every=1h", "function=f", "missed=some"], 5, "missed=some: it is one of none, one, all"),
        (["every=1h", "function=f", "overlap=join"], 5, "overlap=join: it is one of allow, skip"),
        (["every=1h", "function=f", "jitter=2h"], 5, "jitter=2h: it is at most as long as every=1h"),
        (["every=1h", "function=f", "color=red"], 5, "'color=red': write key=value, with a key of cron, every, zone,"),
        (["every"], 2, "'every' is no KEY=VALUE, such as every=10m"),
        (["=1h"], 2, "'=1h' is no KEY=VALUE"),
        ([], 2, "Missing argument 'KEY=VALUE...'"),
    ],
)
def test_what_is_wrong_is_told_and_makes_nothing(
    geartrain: Command, words: Sequence[str], code: int, told: str
) -> None:
    done = geartrain("schedule", "set", "wrong", *words)
    assert (done.returncode, done.stdout) == (code, b""), done.stderr
    assert told in done.stderr.decode()
    assert names(geartrain) == []


def test_what_is_wrong_changes_nothing(geartrain: Command) -> None:
    before = made(geartrain, "set", "sound", "every=30d", "function=f")
    done = geartrain("schedule", "set", "sound", "function=g", "priority=urgent", "--json")
    assert (done.returncode, done.stdout) == (5, b"")
    assert made(geartrain, "show", "sound") == before
    assert geartrain("schedule", "unset", "sound").returncode == 0


def test_a_schedule_that_is_not_known_is_told(geartrain: Command) -> None:
    for word in ("show", "run"):
        done = geartrain("schedule", word, "nobody")
        assert (done.returncode, done.stdout) == (5, b"")
        assert done.stderr == b"geartrain: UNKNOWN_SCHEDULE: There is no schedule nobody\n"
    for word in ("unset", "pause", "resume"):
        done = geartrain("schedule", word, "nobody")
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"no command has set a schedule nobody: `geartrain schedule list` lists all" in done.stderr
        assert geartrain("schedule", word, "nobody", "--json").stdout == b'{"done": false}\n'


def test_schedules_of_several_servers_are_told_apart(geartrain: Command, server: RunningServer) -> None:
    with running_geartrain() as other:
        both = ("-s", f"{server.address},{other.address}")
        assert geartrain("schedule", "set", "here", "every=30d", "function=f").returncode == 0
        done = geartrain("schedule", "set", "both", "every=30d", "function=f", *both).stdout.decode()
        assert [line for line in done.splitlines() if line.startswith("next")] == [
            f"next runs at {server.address}:",
            f"next runs at {other.address}:",
        ]
        lines = geartrain("schedule", "list", *both).stdout.decode().splitlines()
        assert [line.split()[:2] for line in lines] == [
            ["server", "name"],
            [server.address, "both"],
            [server.address, "here"],
            [other.address, "both"],
        ]
        shown = geartrain("schedule", "show", "both", *both).stdout.decode()
        assert [line for line in shown.splitlines() if line.startswith("at ")] == [
            f"at {server.address}",
            f"at {other.address}",
        ]
        assert geartrain("schedule", "show", "here", *both).stdout.startswith(b"name: ")
        for name in ("here", "both"):
            assert geartrain("schedule", "unset", name, *both).returncode == 0


@pytest.mark.parametrize(
    "words", [["list"], ["show", "a"], ["run", "a"], ["pause", "a"], ["set", "a", "every=1h", "function=f"]]
)
def test_a_server_without_schedules_is_told(geartrain: Command, words: Sequence[str]) -> None:
    with running_gearmand() as gearmand:
        done = geartrain("schedule", *words, "-s", gearmand.address)
    assert (done.returncode != 0, done.stdout) == (True, b"")
    assert b"has to be a geartrain that has policies and schedules" in done.stderr


def test_the_help_explains_each_key(geartrain: Command) -> None:
    from geartrain.daemon.schedule import KEYS

    told = geartrain("schedule", "set", "--help").stdout.decode()
    for key in KEYS:
        assert f"\n  {key} " in told
    assert max(map(len, told.splitlines())) <= 100
