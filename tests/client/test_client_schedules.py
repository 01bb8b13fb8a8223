"""What an administrator does about schedules, against real job servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hands import Hands

from geartrain.client import AdminClient, KnownSchedule, ScheduleDetails
from geartrain.client.schedule import ScheduleValue
from geartrain.errors import ConnectionLostError, LocalProtocolError, ServerError
from geartrain.link import Address
from servers import RunningServer, running_gearmand, running_geartrain, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain("--job-handle-prefix=H:t", "--time-zone=UTC") as server:
        yield server


@pytest.fixture
def admin(server: RunningServer) -> AdminClient:
    return AdminClient(server.address)


def shown(admin: AdminClient, name: str) -> ScheduleDetails:
    [schedule] = admin.show_schedule(name)
    return schedule


def cancel_all(admin: AdminClient) -> None:
    assert all(admin.cancel_job(row.handle) for row in admin.show_jobs())


def test_a_schedule_is_set_merged_and_unset(server: RunningServer, admin: AdminClient) -> None:
    address = Address.parse(server.address)
    workload = bytes(range(256))
    admin.schedule_set("yearly", cron="30 2 1 1 *", function="grün und\trot", workload=workload, jitter="5m")
    schedule = shown(admin, "yearly")
    assert (schedule.server, schedule.name, schedule.source) == (address, "yearly", "command")
    assert (schedule.is_paused, schedule.last_run, schedule.job) == (False, None, None)
    keys = {"cron": "30 2 1 1 *", "function": "grün und\trot", "jitter": "5m"}
    assert (schedule.keys, schedule.workload) == ({**keys, "zone": "UTC"}, workload)
    admin.schedule_set("yearly", {"priority": "low", "jitter": None})
    del keys["jitter"]
    assert shown(admin, "yearly").keys == {**keys, "zone": "UTC", "priority": "low"}
    [row] = admin.schedules()
    assert row == KnownSchedule(
        address, "yearly", False, row.next_run, None, "grün und\\trot", {**keys, "priority": "low"}
    )
    assert admin.schedule_unset("yearly")
    assert not admin.schedule_unset("yearly")
    assert admin.schedules() == []


def test_the_next_five_runs_are_told_in_the_zone_of_the_schedule(admin: AdminClient) -> None:
    admin.schedule_set("runs", cron="30 2 1 1 *", zone="Asia/Tokyo", function="f")
    runs = shown(admin, "runs").next_runs
    assert [f"{run:%m-%d %H:%M%z}" for run in runs] == ["01-01 02:30+0900"] * 5
    assert [run.year - runs[0].year for run in runs] == [0, 1, 2, 3, 4]
    assert admin.schedules()[0].next_run == runs[0].timestamp()
    admin.schedule_set("runs", every=0.5)
    runs = shown(admin, "runs").next_runs
    assert [run.timestamp() - runs[0].timestamp() for run in runs] == [0, 0.5, 1, 1.5, 2]
    assert admin.schedule_unset("runs")


def test_a_schedule_is_paused_and_resumed(admin: AdminClient) -> None:
    admin.schedule_set("paused", every="100ms", function="never")
    assert admin.schedule_pause("paused")
    made = shown(admin, "paused").last_run
    assert (shown(admin, "paused").is_paused, admin.schedules()[0].is_paused) == (True, True)
    assert admin.schedule_resume("paused")
    assert not shown(admin, "paused").is_paused
    wait_until(lambda: shown(admin, "paused").last_run != made, "runs are made again")
    assert admin.schedule_unset("paused")
    cancel_all(admin)


def test_runs_are_made_and_told(admin: AdminClient) -> None:
    admin.schedule_set("often", every="100ms", function="ticks")
    wait_until(lambda: admin.schedules()[0].last_run is not None, "a run was made")
    assert admin.schedule_pause("often")
    schedule = shown(admin, "often")
    assert schedule.last_run is not None
    assert abs(time.time() - schedule.last_run) < 60
    assert schedule.job is not None
    job = admin.show_job(schedule.job)
    assert job.unique.startswith("schedule:often:")
    assert admin.schedule_unset("often")
    cancel_all(admin)


def test_a_run_is_made_now(server: RunningServer, admin: AdminClient) -> None:
    admin.schedule_set("now", every="30d", function="now.f", workload=b"\0\xff")
    assert admin.schedule_pause("now")
    [handle] = admin.schedule_run("now")
    assert handle.address == Address.parse(server.address)
    assert shown(admin, "now").job == bytes(handle).decode()
    with Hands(server, "now.f") as hands:
        job = hands.take()
        assert (job.handle, job.workload) == (bytes(handle), b"\0\xff")
        assert job.unique.startswith(b"schedule:now:")
        hands.complete(job, b"")
    assert admin.schedule_unset("now")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"every": "soon"}, "every=soon: write a time such as"),
        ({"every": 0}, "every=0: it is 100ms to "),
        ({"cron": "0 0 30 2 *"}, "cron: '0 0 30 2 .': there is no such date"),
        ({"zone": "Mars/Base"}, "zone=Mars/Base: no such time zone is known here: write a name such as"),
        ({"priority": "urgent"}, "priority=urgent: it is one of high, normal, low"),
        ({"missed": b"\xff"}, "missed=b'.xff': it is no text in UTF-8"),
        ({"function": None}, "function= is missing"),
        ({"color": "red"}, "'color=red': write key=value, with a key of cron, every,"),
    ],
)
def test_a_bad_schedule_is_told_and_changes_nothing(
    admin: AdminClient, keys: dict[str, ScheduleValue], told: str
) -> None:
    admin.schedule_set("sound", every="30d", function="f")
    with pytest.raises(ServerError, match=told) as caught:
        admin.schedule_set("sound", keys)
    assert caught.value.code == "INVALID_SCHEDULE"
    assert shown(admin, "sound").keys == {"every": "30d", "function": "f"}
    assert admin.schedule_unset("sound")


def test_what_is_no_word_is_not_sent(admin: AdminClient) -> None:
    for name, keys in (("two words", {"every": 60}), ("", {"every": 60}), ("one", {"a b": 1}), ("one", {"": 1})):
        with pytest.raises(LocalProtocolError, match="white space"):
            admin.schedule_set(name, keys)


def test_a_schedule_that_is_not_known_is_told(admin: AdminClient) -> None:
    for ask in (admin.show_schedule, admin.schedule_run):
        with pytest.raises(ServerError, match="There is no schedule nobody") as caught:
            ask("nobody")
        assert caught.value.code == "UNKNOWN_SCHEDULE"
    for order in (admin.schedule_unset, admin.schedule_pause, admin.schedule_resume):
        assert not order("nobody")


def test_a_schedule_of_the_file_counts_again(tmp_path: Path) -> None:
    config = tmp_path / "geartrain.toml"
    config.write_text('[schedules.yearly]\nevery = "30d"\nfunction = "of.file"\n')
    with running_geartrain(f"--config={config}") as server:
        admin = AdminClient(server.address)
        assert (shown(admin, "yearly").source, shown(admin, "yearly").keys["function"]) == ("file", "of.file")
        assert not admin.schedule_unset("yearly")
        admin.schedule_set("yearly", function="of.command")
        assert shown(admin, "yearly").source == "command"
        assert admin.schedule_unset("yearly")
        assert (shown(admin, "yearly").source, shown(admin, "yearly").keys["function"]) == ("file", "of.file")


def test_of_several_servers_those_are_asked_that_have_it(server: RunningServer, admin: AdminClient) -> None:
    with running_geartrain("--job-handle-prefix=H:u") as second:
        both = AdminClient([server.address, second.address])
        here, there = both.addresses
        both.schedule_set("there", every="30d", function="f", server=there)
        both.schedule_set("both", every="30d", function="f")
        assert [(row.server, row.name) for row in both.schedules()] == [
            (here, "both"), (there, "both"), (there, "there"),
        ]  # fmt: skip
        assert [row.server for row in both.show_schedule("both")] == [here, there]
        assert [row.server for row in both.show_schedule("there")] == [there]
        assert both.schedule_pause("there")
        assert not both.schedule_pause("there", here)
        [handle] = both.schedule_run("there")
        assert handle.address == there
        assert len(both.schedule_run("both", here)) == 1
        assert both.schedule_unset("both")
        with pytest.raises(ServerError, match="There is no schedule both"):
            both.show_schedule("both")
    cancel_all(admin)


def test_another_job_server_is_told_to_have_no_schedules() -> None:
    with running_gearmand() as gearmand:
        admin = AdminClient(gearmand.address)
        for ask in (admin.schedules, lambda: admin.show_schedule("a"), lambda: admin.schedule_unset("a")):
            with pytest.raises((ServerError, ConnectionLostError), match="has to be a geartrain that has policies"):
                ask()
        with pytest.raises(ConnectionLostError, match="has to be a geartrain that has policies and schedules"):
            admin.schedule_set("a", every="1h", function="f", workload="a b", priority="low")
