"""``geartrain policy``, ``pause`` and ``resume``."""

from __future__ import annotations

import json

from cli.conftest import Command
from geartrain.jobserver.policy import KEYS
from servers import RunningServer, running_geartrain


def test_a_policy_is_set_shown_and_unset(geartrain: Command, server: RunningServer) -> None:
    done = geartrain("policy", "set", "shown", "attempts=5", "delay=90s")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert geartrain("policy", "set", "shown.*", "rate=10/s").returncode == 0
    lines = geartrain("policy", "show").stdout.decode().splitlines()
    assert [line.split() for line in lines] == [
        ["name", "source", "policy"],
        ["shown", "command", "attempts=5", "delay=90s"],
        ["shown.*", "command", "rate=10/s"],
    ]
    assert json.loads(geartrain("policy", "show", "shown.too", "--json").stdout) == [
        {"server": server.address, "name": "shown.*", "source": "command", "policy": {"rate": "10/s"}}
    ]
    assert geartrain("policy", "set", "shown", "delay=", "concurrency=1").returncode == 0
    assert json.loads(geartrain("policy", "show", "shown", "--json").stdout)[0]["policy"] == {
        "attempts": "5",
        "concurrency": "1",
    }
    assert geartrain("policy", "unset", "shown").returncode == 0
    again = geartrain("policy", "unset", "shown")
    assert again.returncode == 1
    assert b"no command has set a policy of the name shown: `geartrain policy show` lists all" in again.stderr
    assert geartrain("policy", "unset", "shown.*").returncode == 0


def test_policies_of_several_servers_are_told_apart(geartrain: Command, server: RunningServer) -> None:
    with running_geartrain() as other:
        both = f"{server.address},{other.address}"
        assert geartrain("policy", "set", "both", "attempts=2", "-s", both).returncode == 0
        lines = geartrain("policy", "show", "both", "-s", both).stdout.decode().splitlines()
        assert [line.split() for line in lines] == [
            ["server", "name", "source", "policy"],
            [server.address, "both", "command", "attempts=2"],
            [other.address, "both", "command", "attempts=2"],
        ]
        assert geartrain("policy", "unset", "both", "-s", both).returncode == 0


def test_what_is_wrong_in_a_policy_is_told_and_changes_nothing(geartrain: Command) -> None:
    for words, code, told in (
        (["attempts=0"], 5, "INVALID_POLICY: attempts=0: write a whole number, 1 to 1000"),
        (["delay=2s", "backoff=slow"], 5, "backoff=slow: write constant or linear or exponential"),
        (["server=a"], 5, "server=a: there is no key server; the keys are attempts, retry_on,"),
        (["attempts"], 2, "'attempts' is no KEY=VALUE, such as attempts=5"),
        (["=5"], 2, "'=5' is no KEY=VALUE"),
        (["rate=1 /s"], 1, "rate=1 /s: a policy's keys and values hold no white space"),
        ([], 2, "Missing argument 'KEY=VALUE...'"),
    ):
        done = geartrain("policy", "set", "wrong", *words)
        assert done.returncode == code, done.stderr
        assert told in done.stderr.decode()
    assert json.loads(geartrain("policy", "show", "wrong", "--json").stdout) == []


def test_the_help_explains_each_key(geartrain: Command) -> None:
    told = geartrain("policy", "set", "--help").stdout.decode()
    words = " ".join(told.split())
    for key, (_, meaning) in KEYS.items():
        assert f"\n  {key} " in told
        assert meaning.replace(" ", "") in words.replace(" ", "")
    assert max(map(len, told.splitlines())) <= 100


def test_a_function_is_paused_and_resumed(geartrain: Command, server: RunningServer) -> None:
    assert geartrain("pause", "halted", "the", "disk", "is  full").returncode == 0
    handle = geartrain("submit", "-b", "halted", "x").stdout.decode().strip()
    told = geartrain("why", handle).stdout.decode()
    assert "halted is paused since" in told
    assert "@" in told.partition(" by ")[2].partition(" ")[0]
    assert told.endswith(" 127.0.0.1: the disk is full\n")
    assert geartrain("resume", "halted").returncode == 0
    again = geartrain("resume", "halted", "another")
    assert again.returncode == 1
    assert again.stderr == b"geartrain: halted was not paused\ngeartrain: another was not paused\n"
    assert geartrain("admin", "cancel", handle).returncode == 0
