"""Schedules of a real job server: commands and file, what outlives it, and one job for each run whatever is killed."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lives import FilePlace, Place, kill, life, on, told_by

from wire_caller import Caller

pytest.importorskip("cronsim")

from geartrain.wire.packets import GRAB_JOB_ALL, NO_JOB, WORK_FAIL, pack_request
from servers import RunningServer, running_geartrain, wait_until

Row = list[str]


def rows(server: RunningServer) -> dict[str, Row]:
    """All schedules by name: paused, next, last, function, keys."""
    return {line.split("\t")[0]: line.split("\t")[1:] for line in server.ask("schedule list")}


def shown(server: RunningServer, name: str) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in server.ask(f"schedule show {name}"))


def order(server: RunningServer, command: str) -> None:
    assert server.ask(command) == ["OK"], command


class Collector:
    """A worker that does all jobs of ``tick``, and knows which jobs there were of each unique."""

    def __init__(self) -> None:
        self.jobs: dict[str, set[bytes]] = defaultdict(set)

    def collect(self, server: RunningServer, until: Callable[[], bool]) -> None:
        with Caller(server) as worker:
            worker.can_do(b"tick")
            while not until():
                self._take(worker)
                time.sleep(0.005)
            self._take(worker)

    def _take(self, worker: Caller) -> None:
        while (job := worker.call(GRAB_JOB_ALL)).type != NO_JOB:
            self.jobs[job.arguments[2].decode()].add(job.arguments[0])
            worker.complete(job)

    def for_seconds(self, seconds: float) -> Callable[[], bool]:
        deadline = time.monotonic() + seconds
        return lambda: time.monotonic() > deadline

    def check(self, name: str, every: float) -> int:
        """Every run from the first to the last was one job; how many there were."""
        times = []
        for unique, handles in self.jobs.items():
            assert unique.startswith(f"schedule:{name}:")
            assert len(handles) == 1, f"{unique} was made {len(handles)} times: {handles}"
            times.append(datetime.fromisoformat(unique.removeprefix(f"schedule:{name}:")).timestamp())
        steps = [round(time / every) for time in sorted(times)]
        assert steps == list(range(steps[0], steps[-1] + 1))
        return len(steps)


# ── commands and the file ───────────────────────────────────────────────────────────────────────────────────────


def test_a_schedule_is_set_shown_and_unset() -> None:
    with running_geartrain("--time-zone=Europe/Berlin") as server:
        order(server, "schedule set nightly cron=30%202%20*%20*%20* function=report workload=a%20b%00 jitter=0s")
        paused, next_run, last, function, keys = rows(server)["nightly"]
        assert (paused, last, function) == ("0", "0.000", "report")
        assert keys == "cron=30%202%20*%20*%20* function=report jitter=0s"
        lines = server.ask("schedule show nightly")
        assert lines[:7] == [
            "name\tnightly",
            "source\tcommand",
            "paused\t0",
            "cron\t30%202%20*%20*%20*",
            "function\treport",
            "workload\ta%20b%00",
            "jitter\t0s",
        ]
        assert lines[7] == "zone\tEurope/Berlin"
        runs = [line.split("\t")[1:] for line in lines[8:]]
        assert len(runs) == 5
        assert runs[0][0] == next_run
        for moment, text in runs:
            assert datetime.fromisoformat(text).timestamp() == float(moment)
            assert text.partition("T")[2].startswith(("02:30:00+", "03:00:00+"))
        order(server, "schedule set nightly priority=high jitter=")
        assert rows(server)["nightly"][4] == "cron=30%202%20*%20*%20* function=report priority=high"
        order(server, "schedule unset nightly")
        assert rows(server) == {}


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("schedule", "ERR INVALID_ARGUMENTS Write+schedule+set"),
        ("schedule set a", "ERR INVALID_ARGUMENTS Write+schedule+set"),
        ("schedule list a", "ERR INVALID_ARGUMENTS Write+schedule+set"),
        ("schedule show", "ERR INVALID_ARGUMENTS Write+schedule+set"),
        ("schedule explode a", "ERR INVALID_ARGUMENTS Write+schedule+set"),
        ("schedule show a", "ERR UNKNOWN_SCHEDULE There+is+no+schedule+a"),
        ("schedule run a", "ERR UNKNOWN_SCHEDULE"),
        ("schedule pause a", "ERR UNKNOWN_SCHEDULE"),
        ("schedule set a every=1m", "ERR INVALID_SCHEDULE function=+is+missing"),
        ("schedule set a every=1m function=f color=red", "ERR INVALID_SCHEDULE 'color=red':+write+key=value"),
        ("schedule set a cron=*/90%20*%20*%20*%20* function=f", "ERR INVALID_SCHEDULE cron:+the+minute+'*/90'"),
        ("schedule set a every=1m function=" + "f" * 513, "ERR INVALID_SCHEDULE function:+its+name+has+512+bytes"),
    ],
)
def test_bad_commands_are_refused(command: str, answer: str, quiet_server: RunningServer) -> None:
    (line,) = quiet_server.ask(command)
    assert line.startswith(answer)
    assert rows(quiet_server) == {}


@pytest.fixture(scope="module")
def quiet_server() -> object:
    with running_geartrain() as server:
        yield server


def test_there_is_a_limit() -> None:
    with running_geartrain("--max-schedules=2") as server:
        for name in "ab":
            order(server, f"schedule set {name} every=1h function=f")
        (line,) = server.ask("schedule set c every=1h function=f")
        assert line == "ERR INVALID_SCHEDULE there+are+2+schedules,+and+there+may+be+no+more"
        order(server, "schedule set b every=2h")
        order(server, "schedule unset a")
        order(server, "schedule set c every=1h function=f")


@on("sqlite")
def test_the_file_counts_until_a_command_wins(place: FilePlace, tmp_path: Path) -> None:
    file = tmp_path / "geartrain.toml"
    file.write_text('[schedules.nightly]\ncron = "30 2 * * *"\nzone = "Europe/Berlin"\nfunction = "report"\n')
    with life(place, f"--config={file}") as server:
        assert shown(server, "nightly")["source"] == "file"
        (line,) = server.ask("schedule unset nightly")
        assert line.startswith("ERR UNKNOWN_SCHEDULE nightly+is+in+the+configuration+file")
        order(server, "schedule set nightly every=1h")
        order(server, "schedule pause nightly")
        kill(server)
    with life(place, f"--config={file}") as server:
        assert shown(server, "nightly")["source"] == "command"
        assert rows(server)["nightly"][0] == "1"
        assert rows(server)["nightly"][4] == "every=1h zone=Europe/Berlin function=report"
        order(server, "schedule unset nightly")
        assert rows(server)["nightly"][4] == "cron=30%202%20*%20*%20* zone=Europe/Berlin function=report"
        order(server, "schedule resume nightly")
        kill(server)
    with life(place, f"--config={file}") as server:
        assert rows(server)["nightly"][0] == "0"
    with life(place) as server:
        assert rows(server) == {}
        assert server.ask("schedule show nightly")[0].startswith("ERR UNKNOWN_SCHEDULE")


def test_a_bad_schedule_in_the_file_is_told(tmp_path: Path) -> None:
    from geartrain.daemon.config import Config
    from geartrain.errors import ConfigError

    file = tmp_path / "geartrain.toml"
    for text, told in (
        ('cron = "5#2 * * * *"\nfunction = "f"', "the minute '5#2'"),
        ("every = 10", "function= is missing"),
        ('every = 10\nfunction = "f"\ncolour = "red"', "'colour' is no key"),
    ):
        file.write_text(f"[schedules.nightly]\n{text}\n")
        with pytest.raises(ConfigError) as refused:
            Config.load({"config": file})
        assert str(refused.value).startswith(f"[schedules] in {file}: nightly: ")
        assert told in str(refused.value)


# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_runs_become_jobs() -> None:
    with running_geartrain() as server:
        order(server, "schedule set tock every=100ms function=tick workload=a%00b priority=high")
        with Caller(server) as worker:
            worker.can_do(b"tick")
            jobs = [worker.await_job() for _ in range(3)]
        for job in jobs:
            assert job.arguments[1] == b"tick"
            assert job.arguments[2].startswith(b"schedule:tock:2")
            assert job.arguments[-1] == b"a\0b"
        assert len({job.arguments[2] for job in jobs}) == 3
        order(server, "schedule pause tock")
        before = shown(server, "tock")
        assert before["job"].startswith("H:")
        assert float(before["last"]) <= time.time() + 1


def test_overlap_is_skipped_while_the_last_job_is_live() -> None:
    with running_geartrain() as server, Caller(server) as worker:
        order(server, "schedule set tock every=100ms function=tick overlap=skip")
        worker.can_do(b"tick")
        job = worker.await_job()
        wait_until(lambda: "schedule_skipped" in server.log.read_text(), "a run is skipped")
        assert server.jobs_of("tick") == (1, 1)
        worker.send(pack_request(WORK_FAIL, job.arguments[0]))
        again = worker.await_job()
        assert again.arguments[2] != job.arguments[2]


def test_a_run_that_is_refused_comes_again() -> None:
    with running_geartrain() as server:
        order(server, "maxqueue tick 1")
        order(server, "schedule set tock every=100ms function=tick")
        wait_until(lambda: "schedule_refused" in server.log.read_text(), "a run is refused")
        order(server, "maxqueue tick")
        collector = Collector()
        collector.collect(server, lambda: len(collector.jobs) > 15)
        assert collector.check("tock", 0.1) > 15
        assert "Job queue is full" in server.log.read_text()


@on("sqlite")
def test_a_run_by_command_is_kept_before_it_is_told(place: FilePlace) -> None:
    with life(place) as server:
        order(server, "schedule set tock every=1d function=tick workload=x")
        (answer,) = server.ask("schedule run tock")
        kill(server)
    with life(place, "--store-timeout=0.3") as server, Caller(server) as worker:
        worker.can_do(b"tick")
        (job,) = worker.take_all()
        assert answer == f"OK {job.arguments[0].decode()}"
        with place.held_back():
            (answer,) = server.ask("schedule run tock")
            assert answer.startswith("ERR QUEUE_ERROR The+job+could+not+be+stored")


@on("sqlite")
def test_a_run_by_command_is_the_last_run(place: FilePlace) -> None:
    with life(place) as server:
        order(server, "schedule set tock every=1d function=tick")
        before = rows(server)["tock"]
        assert before[2] == "0.000"
        earliest = time.time()
        (answer,) = server.ask("schedule run tock")
        after = rows(server)["tock"]
        assert earliest - 1 < float(after[2]) <= time.time()
        assert after[1] == before[1], "the next run is when it was"
        details = shown(server, "tock")
        assert (details["last"], f"OK {details['job']}") == (after[2], answer)
    with life(place) as server:
        assert rows(server)["tock"] == after
        assert shown(server, "tock")["job"] == details["job"]


@on("sqlite")
@pytest.mark.parametrize(("missed", "made"), [("none", 0), ("one", 1), ("all", 5)])
def test_runs_missed_while_the_server_was_down(place: FilePlace, missed: str, made: int) -> None:
    with life(place) as server:
        order(server, f"schedule set tock every=1h function=tick missed={missed}")
    hour = 3600 * 1000
    last = int(time.time() * 1000) // hour * hour - 5 * hour
    record_in(place, b"tock", last)
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"tick")
        jobs = [worker.await_job() for _ in range(made)]
        for job in jobs:
            worker.complete(job)
        worker.fence()
        wait_until(lambda: float(rows(server)["tock"][1]) > time.time(), "all missed runs are dealt with")
        runs = [last / 1000 + 3600 * (number + 1) for number in range(5)][5 - made :]
        names = [f"{datetime.fromtimestamp(run, UTC):%Y-%m-%dT%H:%M:%SZ}" for run in runs]
        assert [job.arguments[2].decode() for job in jobs] == [f"schedule:tock:{name}" for name in names]
        server.process.terminate()
        server.process.wait(15)  # now the log is whole
        assert ("schedule_missed" in told_by(server)) == (missed != "all")
    with life(place) as server:
        assert server.jobs_of("tick") == (0, 0)


def record_in(place: FilePlace, name: bytes, run: int) -> None:
    """Have the store say that this run, in milliseconds, was the last one."""
    from geartrain.jobserver.records import Batch, Record
    from geartrain.store import engine

    store = engine(place.url)
    store.open()
    (old,) = [record for record in store.records("schedule_run") if record.key.startswith(name + b"\0")]
    batch = Batch(store.next_number())
    batch.records = [Record(old.kind, old.key, None), Record(old.kind, b"%b\0%d" % (name, run), old.value)]
    store.commit(batch)
    store.close()


@on("sqlite")
def test_a_schedule_with_other_times_has_missed_nothing(place: FilePlace, tmp_path: Path) -> None:
    file = tmp_path / "geartrain.toml"
    for every in ("1d", "1h"):
        file.write_text(f'[schedules.tock]\nevery = "{every}"\nfunction = "tick"\nmissed = "all"\n')
        with life(place, f"--config={file}") as server:
            assert float(rows(server)["tock"][1]) > time.time()
            assert server.jobs_of("tick") == (0, 0)
        record_in(place, b"tock", int(time.time() * 1000) - 86_400_000 * 3)


# ── one job for each run ────────────────────────────────────────────────────────────────────────────────────────


def test_each_run_is_one_job_whenever_the_server_is_killed(place: Place) -> None:
    chance = random.Random(4730)
    collector = Collector()
    for number in range(8):
        with life(place) as server:
            if number == 0:
                order(server, "schedule set tock every=100ms function=tick missed=all")
            collector.collect(server, collector.for_seconds(chance.uniform(0.05, 0.5)))
            kill(server)
    with life(place) as server:
        order(server, "schedule pause tock")
        collector.collect(server, lambda: server.jobs_of("tick") == (0, 0))
    assert collector.check("tock", 0.1) > 10


def await_refusal(server: RunningServer) -> None:
    before = server.log.read_text().count("schedule_refused")
    wait_until(lambda: server.log.read_text().count("schedule_refused") > before, "a run is refused")


@on("sqlite")
def test_each_run_is_one_job_when_the_store_refuses(place: FilePlace) -> None:
    collector = Collector()
    with life(place, "--store-timeout=0.3") as server:
        order(server, "schedule set tock every=100ms function=tick missed=all")
        for _ in range(3):
            with place.held_back():
                await_refusal(server)
            collector.collect(server, collector.for_seconds(0.5))
        with place.held_back():
            collector.collect(server, collector.for_seconds(0.5))
            kill(server)
    with life(place) as server:
        collector.collect(server, collector.for_seconds(1.0))
        order(server, "schedule pause tock")
        collector.collect(server, collector.for_seconds(0.2))
    assert collector.check("tock", 0.1) > 10


@on("sqlite")
def test_what_is_kept_of_runs_does_not_grow(place: FilePlace) -> None:
    from geartrain.store import engine

    with life(place) as server:
        order(server, "schedule set tock every=100ms function=tick")
        collector = Collector()
        collector.collect(server, lambda: len(collector.jobs) > 10)
        kill(server)
    with life(place) as server:
        wait_until(lambda: rows(server)["tock"][2] != "0.000", "the last run is known")
        order(server, "schedule pause tock")
    store = engine(place.url)
    store.open()
    assert len(list(store.records("schedule_run"))) == 1
    store.close()


def test_a_peer_that_may_only_read_changes_nothing() -> None:
    """By the rights of a connection, which no listener limits yet: asked within the process."""
    from daemon_within import within

    from geartrain.daemon.daemon import Daemon
    from geartrain.daemon.extension import Extension
    from geartrain.daemon.schedules import Schedules
    from geartrain.jobserver import Origin
    from geartrain.jobserver.rights import READ

    class Warden(Extension):
        def admit(self, origin: Origin) -> bool:
            origin.rights = READ
            return True

    async def act(daemon: Daemon, port: int) -> None:
        import asyncio

        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"schedule set a every=1m function=f\r\nschedule run a\r\nschedule list\r\n")
        assert await reader.readuntil(b".\n") == (
            b"ERR NOT_ALLOWED This+connection+has+no+right+to+schedule+set\r\n"
            b"ERR NOT_ALLOWED This+connection+has+no+right+to+schedule+run\r\n.\n"
        )
        writer.close()

    within(act, Warden(), Schedules({}, 10))
