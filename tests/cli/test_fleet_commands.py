"""``geartrain fleet``, and the administrator's client, against a fleet of two."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cli.conftest import Command, environment_of
from crews import Crew, new_crew
from geartrain.client import AdminClient
from geartrain.errors import ServerError
from servers import RunningServer, wait_until
from services import PostgreSQL, running
from wire_caller import Caller


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with running(PostgreSQL) as database, new_crew(database) as crew:
        crew.start("a")
        crew.start("b")
        crew.meet()
        yield crew


@pytest.fixture
def client(crew: Crew) -> AdminClient:
    return AdminClient(crew.servers["a"].address)


def geartrain(crew: Crew, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "geartrain", *arguments]
    return subprocess.run(command, capture_output=True, timeout=30, env=environment_of(crew.servers["a"]))


def test_status_shows_the_members_and_who_leads(crew: Crew) -> None:
    first, second = crew.servers["a"], crew.servers["b"]
    done = geartrain(crew, "fleet", "status", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    told = json.loads(done.stdout)
    assert [row["address"] for row in told["members"]] == [first.address, second.address]
    assert [row["is_leader"] for row in told["members"]] == [True, False]
    assert [row["was_asked"] for row in told["members"]] == [True, False]
    assert all(row["state"] == "live" and 0 < row["lease"] <= 4 and row["ended"] is None for row in told["members"])
    head, *rows = geartrain(crew, "fleet", "status").stdout.decode().splitlines()
    assert head.split() == ["member", "address", "state", "leader", "draining", "lease", "since", "version"]
    assert rows[0].split()[:4] == [str(crew.me("a")), first.address, "live", "yes"]
    assert rows[1].split()[:3] == [str(crew.me("b")), second.address, "live"]


def test_functions_are_the_sum(crew: Crew) -> None:
    with Caller(crew.servers["a"]) as here, Caller(crew.servers["b"]) as there:
        for each in (here, there):
            each.can_do(b"sum")
            each.fence()
        [row] = json.loads(geartrain(crew, "fleet", "functions", "--json").stdout)
    assert row == {"function": "sum", "queued": 0, "running": 0, "total": 0, "workers": 2}


def test_a_drained_member_gives_its_jobs_away(crew: Crew, client: AdminClient) -> None:
    first, second = crew.servers["a"], crew.servers["b"]
    id = crew.me("b")
    with Caller(second) as caller:
        caller.submit(b"moving", b"x")
    assert geartrain(crew, "fleet", "drain", str(id)).returncode == 0
    wait_until(lambda: first.jobs_of("moving") == (1, 0), "the job has moved")
    assert [each.is_draining for each in client.fleet_status()] == [False, True]
    assert geartrain(crew, "fleet", "drain", str(id), "--off").returncode == 0
    wait_until(lambda: not any(each.is_draining for each in client.fleet_status()), "it is drained no more")


def test_a_live_member_is_not_forgotten(crew: Crew) -> None:
    done = geartrain(crew, "fleet", "forget", str(crew.me("a")))
    assert done.returncode == 5
    assert b"it is live" in done.stderr


def test_what_is_adopted_is_told(crew: Crew, client: AdminClient) -> None:
    third = crew.start("c")
    crew.meet()
    id = crew.me("c")
    with Caller(third) as caller:
        caller.submit(b"adopted", b"x")
    crew.kill("c")
    wait_until(lambda: bool(client.fleet_history().adoptions), "somebody has it, and that is in the database")
    [adoption] = client.fleet_history().adoptions
    assert (adoption.estate, adoption.jobs) == (id, 1)
    assert adoption.heir in [each.id for each in client.fleet_status()]
    lines = geartrain(crew, "fleet", "status").stdout.decode().splitlines()
    at = lines.index("")
    assert lines[at + 1].split() == ["from", "adopted", "by", "jobs", "begun", "last"]
    assert lines[at + 2].split()[:3] == [str(id), str(adoption.heir), "1"]


def test_a_server_without_a_fleet_says_so(server: RunningServer, geartrain: Command) -> None:
    done = geartrain("fleet", "status")
    assert done.returncode == 5
    assert b"a geartrain with --fleet" in done.stderr
    with pytest.raises(ServerError):
        AdminClient(server.address).fleet_history()
