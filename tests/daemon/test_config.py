"""The daemon's options: where they come from, which source is the strongest, and how a bad one is told."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from geartrain.daemon.config import MAX_PREFIX, Config, flag_of
from geartrain.daemon.machine import memory_bytes, time_zone
from geartrain.errors import ConfigError


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEARMAND_PORT", "TZ"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "geartrain.toml"


def problem_of(flags: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.load(flags)
    return str(caught.value)


def test_without_a_word_it_listens_on_the_loopback_and_takes_half_of_the_memory() -> None:
    config = Config.load({})
    assert (config.listen, config.port) == (["loopback"], 4730)
    assert config.max_memory == memory_bytes() // 2


def test_a_flag_beats_the_environment_and_that_beats_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('port = 1001\nbacklog = 1002\njob-retries = 1003\nlisten = ["a", "b:5"]\n')
    monkeypatch.setenv("GEARTRAIN_PORT", "2001")
    monkeypatch.setenv("GEARTRAIN_BACKLOG", "2002")
    config = Config.load({"config": str(file), "port": "3001"})
    assert (config.port, config.backlog, config.job_retries) == (3001, 2002, 1003)
    assert config.listen == ["a", "b:5"]


def test_the_environment_names_the_file_and_lists_listeners(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('max_packet = "2MiB"\npacket_timeout = "2m"\n')
    monkeypatch.setenv("GEARTRAIN_CONFIG", str(file))
    monkeypatch.setenv("GEARTRAIN_LISTEN", "127.0.0.1, unix:/run/x")
    monkeypatch.setenv("GEARTRAIN_MAX_LINE", "")
    config = Config.load({})
    assert (config.max_packet, config.packet_timeout, config.max_line) == (2 * 1024**2, 120.0, 8192)
    assert config.listen == ["127.0.0.1", "unix:/run/x"]


def test_every_bound_reaches_the_rules() -> None:
    flags = {
        "job_handle_prefix": "H:t",
        "job_retries": "3",
        "worker_wakeup": "0",
        "wake_timeout": "500ms",
        "function_order": "listed",
        "exceptions": True,
        "time_zone": "Asia/Tokyo",
        "max_packet": "1MiB",
        "max_line": "100",
        "max_function": "101",
        "max_unique": "102",
        "max_functions": "103",
        "max_abilities": "104",
        "forget_after": "105",
        "exact_timeouts": True,
        "max_half_sent": "2MiB",
        "spill_above": "3KiB",
        "max_memory": "1GiB",
        "packet_timeout": "5",
        "verbose": "debug",
    }
    rules = Config.load(flags).rules()
    assert (rules.handle_prefix, rules.job_retries, rules.worker_wakeup) == (b"H:t", 3, 0)
    assert (rules.wake_timeout, rules.listed_order, rules.exceptions) == (0.5, True, True)
    assert (rules.max_body, rules.max_line, rules.max_function, rules.max_unique) == (1024**2, 100, 101, 102)
    assert (rules.max_functions, rules.max_memory, rules.packet_timeout) == (103, 1024**3, 5.0)
    assert (rules.max_abilities, rules.forget_after, rules.exact_timeouts) == (104, 105.0, True)
    assert (rules.max_half_sent, rules.spill_above) == (2 * 1024**2, 3 * 1024)
    assert rules.verbosity == b"DEBUG"
    assert datetime(2026, 1, 1, tzinfo=UTC).astimezone(rules.zone).hour == 9


def test_a_port_may_be_the_name_of_a_service() -> None:
    assert Config.load({"port": "http"}).port == 80
    assert problem_of({"port": "no-service"}).startswith("--port is 'no-service': it should be a valid integer")


def test_gearmand_means_the_default_by_minus_one() -> None:
    config = Config.load({"job_retries": "-1", "keepalive_idle": "-1", "keepalive_interval": "-1"})
    assert (config.job_retries, config.keepalive_idle, config.keepalive_interval) == (-1, 20, 10)


def test_gearmands_variable_says_the_port_if_nothing_else_does(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEARMAND_PORT", "7003")
    assert Config.load({}).port == 7003
    assert Config.load({"port": "7004"}).port == 7004
    file.write_text("port = 7005")
    assert Config.load({"config": str(file)}).port == 7005
    monkeypatch.setenv("GEARMAND_PORT", "many")
    assert problem_of({}).startswith("GEARMAND_PORT is 'many': ")


@pytest.mark.parametrize("name", ["GEARMAND_PORT", "GEARTRAIN_PORT"])
def test_what_kubernetes_sets_is_ignored_and_said_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "tcp://10.0.0.1:4730")
    config = Config.load({})
    assert config.port == 4730
    [(event, fields)] = config.remarks
    assert (event, fields["name"], fields["value"]) == ("variable_ignored", name, "tcp://10.0.0.1:4730")


def test_a_misspelt_variable_is_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEARTRAIN_WORKER_WAKUP", "1")
    assert Config.load({}).remarks == [
        ("variable_unknown", {"name": "GEARTRAIN_WORKER_WAKUP", "meant": "GEARTRAIN_WORKER_WAKEUP"})
    ]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"port": "99999"}, "--port is '99999': it should be less than or equal to 65535"),
        ({"max_packet": "huge"}, "--max-packet is 'huge': write a size such as 4096, 64KiB or 4GiB"),
        ({"stop_timeout": "3x"}, "--stop-timeout is '3x': write a time such as 2.5, 30s, 5m or 500ms"),
        ({"stop_timeout": "nan"}, "--stop-timeout is 'nan': write a time such as 2.5, 30s, 5m or 500ms"),
        ({"verbose": "loud"}, "--verbose is 'LOUD': it should be 'FATAL', "),
        ({"backlog": "0"}, "--backlog is '0': it should be greater than or equal to 1"),
        ({"max_packet": "1000"}, "--max-packet is '1000': it should be greater than or equal to 1024"),
        ({"keepalive_idle": "40000"}, "--keepalive-idle is '40000': it should be less than or equal to 32767"),
        ({"max_line": "63"}, "--max-line is '63': it should be greater than or equal to 64"),
        ({"wake_timeout": "0"}, "--wake-timeout is '0': it should be greater than or equal to 0.01"),
        ({"worker_wakeup": "-1"}, "--worker-wakeup is '-1': it should be greater than or equal to 0"),
        ({"job_handle_prefix": "a\0b"}, r"--job-handle-prefix is 'a\x00b': must have no control"),
        ({"socket_mode": "rw"}, "--socket-mode is 'rw': write three octal digits, such as 660"),
        ({"socket_mode": "1000"}, "--socket-mode is '1000': write three octal digits, such as 660"),
        ({"job_handle_prefix": "H:"}, "--job-handle-prefix is 'H:': must not end in a colon"),
        ({"job_handle_prefix": "x" * 49}, f"--job-handle-prefix is '{'x' * 49}': may have 48 bytes at most"),
    ],
)
def test_a_bad_value_is_told_with_its_place_and_a_remedy(flags: dict[str, object], told: str) -> None:
    assert problem_of(flags).startswith(told)


def test_each_bad_value_has_its_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("backlog = 0\nmax_conections = 5\n[tables]\nx = 1\n")
    monkeypatch.setenv("GEARTRAIN_MAX_LINE", "x")
    lines = problem_of({"config": str(file), "port": "p"}).splitlines()
    assert {line.partition(": ")[0] for line in lines} == {
        "--port is 'p'",
        "GEARTRAIN_MAX_LINE is 'x'",
        f"backlog in {file} is 0",
        f"max_conections in {file} is no option",
        f"tables in {file} is no option; `geartrain serve --help` lists all",
    }
    assert f"max_conections in {file} is no option: max_connections is" in lines


def test_a_file_that_is_not_there_or_not_toml_is_told(file: Path) -> None:
    assert problem_of({"config": str(file)}) == f"can't read the configuration file {file}: No such file or directory"
    file.write_text("port 5")
    assert problem_of({"config": str(file)}).startswith(f"{file} is not a TOML file: ")


def test_the_default_prefix_leaves_room_for_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "h" * 64)
    assert Config.load({}).rules().handle_prefix == b"H:" + b"h" * (MAX_PREFIX - 2)


def test_every_option_is_documented() -> None:
    for name, field in Config.model_fields.items():
        assert field.description, name
        assert flag_of(name).theme, name


def test_the_time_zone_is_the_machines_unless_tz_says_another(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = time_zone()
    monkeypatch.setenv("TZ", ":America/New_York")
    assert str(time_zone()) == "America/New_York"
    monkeypatch.setenv("TZ", "Nowhere/Town")
    assert str(time_zone()) == str(machines)
    with pytest.raises(ConfigError, match="--time-zone is 'Nowhere/Town', which is no time zone known here"):
        time_zone("Nowhere/Town")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[policies.f]\nattempts = true", "f: attempts = true: write a text or a number"),
        ('[policies.""]\nattempts = 3', "'' can't be a name"),
        ('[policies."a\\u0000b"]\nattempts = 3', "can't be a name"),
        ('[policies.f]\nkey_rate = "1/s"\nkey_separator = " "', "write 1 to 8 characters that are no blanks"),
        ('[schedules.""]\nevery = "1h"', "'' can't be a name"),
        ("[schedules.f]\nevery = true", "f: every = true: write a text or a number"),
    ],
)
def test_a_table_that_can_not_be_meant_so(file: Path, table: str, said: str) -> None:
    file.write_text(table)
    assert said in problem_of({"config": str(file)})
