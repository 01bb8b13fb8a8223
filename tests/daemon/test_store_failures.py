"""Each failure of a store has its answer: what can't be kept is refused, all else goes on, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from good_pair import GoodPair
from lives import FilePlace, Place, ServicePlace, administrator, kill, life, on, refused_start, tells, told_by

from geartrain.wire import Packet, pack_request
from geartrain.wire import packets as p
from servers import RunningServer, missing, wait_until
from services import PASSWORD, Memcached, PostgreSQL, Redis, running
from wire_caller import Caller

PATIENCE = "--store-timeout=200ms"
LONGEST_WAIT = 6.0  # seconds until a submission is refused: twice the patience and one more, and a busy machine
TROUBLES = [
    *((store, "held_back") for store in ("sqlite", "postgresql", "mariadb", "redis", "memcached")),
    *((store, "down") for store in ("postgresql", "mariadb", "redis")),
    *((store, "read_only") for store in ("postgresql", "mariadb")),
]


@pytest.mark.parametrize(("place", "trouble"), TROUBLES, indirect=["place"])
def test_all_else_goes_on_and_nothing_is_lost(place: Place, trouble: str) -> None:
    with life(place, PATIENCE) as server, Caller(server) as client, Caller(server) as worker:
        running, queued = client.submit(b"f", b"running"), client.submit(b"f", b"queued")
        worker.can_do(b"f")
        job = worker.call(p.GRAB_JOB)
        assert job.arguments[0] == running
        with getattr(place, trouble)():
            began = time.monotonic()
            assert "could not be stored" in client.refusal(b"f")
            assert time.monotonic() - began < LONGEST_WAIT
            assert time.monotonic() - began >= 0.2 or trouble == "read_only"  # which no patience would help
            wait_until(lambda: bool(_causes(server)), "the log tells why")
            # Jobs end, and others begin.
            worker.complete(job)
            foreground = client.submit(b"f", b"hello", type=p.SUBMIT_JOB_HIGH)
            worker.complete(worker.await_job(), b"olleh")
            assert client.receive() == Packet(p.WORK_COMPLETE, (foreground, b"olleh"))
            job = worker.await_job()
            assert job.arguments[0] == queued
            worker.complete(job)
            worker.fence()
            assert "could not be stored" in client.refusal(b"f")
            _is_idle(server)
        again = client.insist(b"f", b"again")
        kill(server)
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"f")
        assert [job.arguments[0] for job in worker.take_all()] == [again]


def _causes(server: RunningServer) -> list[str]:
    return [line for line in told_by(server).splitlines() if " ERROR store_" in line and " reason=" in line]


def _is_idle(server: RunningServer) -> None:
    """Nobody is kept busy by trying again and again."""

    def cpu() -> float:
        fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, lines = cpu(), len(told_by(server).splitlines())
    time.sleep(0.3)
    assert cpu() - before < 0.1
    assert len(told_by(server).splitlines()) - lines < 10


# At the start


@on("postgresql", "mariadb", "redis", "memcached")
def test_a_service_that_is_not_there_is_named(place: ServicePlace) -> None:
    url = place.nowhere()
    told = refused_start(url)
    assert "127.0.0.1:" in told
    assert "again" not in told  # it does not wait
    assert "check that" in told or "start what is down" in told


@on("postgresql", "mariadb", "redis")
def test_a_wrong_password_is_told_and_not_shown(place: ServicePlace) -> None:
    url = place.url.replace(quote(PASSWORD, safe=""), "guessed")
    told = refused_start(url)
    assert "check the" in told
    assert "password" in told
    assert "guessed" not in told


@on("sqlite", "postgresql", "memcached")
def test_the_second_server_on_one_store_is_told_who_has_it(place: Place) -> None:
    with life(place) as server, Caller(server) as client:
        told = refused_start(place.url)
        assert "is in use by another job server" in told
        assert f"process {server.process.pid} on " in told
        assert "namespace" in told
        client.submit(b"f", b"the first one goes on")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_a_file_that_may_only_be_read_is_told() -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        place = FilePlace(folder / "jobs.sqlite")
        with life(place):
            pass
        folder.chmod(0o755)
        for mode in (0o600, 0o644):
            place.file.chmod(mode)
            told = refused_start(place.url, "--user=nobody")
            assert "Permission denied: it must be a writable file" in told


@on("sqlite", "redis")
def test_a_job_that_can_not_be_read_is_quarantined_and_the_others_come_back(place: Place) -> None:
    with life(place) as server, Caller(server) as client:
        handles = [client.submit(b"f", b"%d" % number) for number in range(5)]
        kill(server)
    place.spoil(int(handles[2].rpartition(b":")[2]))
    with life(place) as server, Caller(server) as worker:
        tells(server, "job_quarantined")
        (line,) = (line for line in told_by(server).splitlines() if "job_quarantined" in line)
        assert f" number={handles[2].decode().rpartition(':')[2]} reason=" in line
        tells(server, "jobs=4")
        worker.can_do(b"f")
        assert [job.arguments[0] for job in worker.take_all()] == [*handles[:2], *handles[3:]]


def test_a_number_that_was_never_given_out_is_quarantined(tmp_path: Path) -> None:
    """The next ones would follow it, and end somewhere."""
    place = FilePlace(tmp_path / "jobs.sqlite")
    with life(place) as server, Caller(server) as client:
        client.submit(b"f", b"one")
        client.submit(b"f", b"two")
        kill(server)
    with contextlib.closing(sqlite3.connect(place.file)) as database, database:
        database.execute("UPDATE geartrain_jobs SET number = ?, place = ? WHERE number = 2", (10**12, 10**12 << 20))
    with life(place) as server, Caller(server) as client:
        tells(server, "job_quarantined number=1000000000000 reason=")
        number = int(client.submit(b"f", b"three").rpartition(b":")[2])
        assert number < 10**6
        kill(server)
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"f")
        assert [job.arguments[-1] for job in worker.take_all()] == [b"one", b"three"]


@pytest.mark.parametrize("column", ["function", '"unique"', "reducer"])
def test_a_name_with_a_nul_byte_is_quarantined(tmp_path: Path, column: str) -> None:
    """A worker would take what is behind it for another argument."""
    place = FilePlace(tmp_path / "jobs.sqlite")
    with life(place) as server, Caller(server) as client:
        client.submit(b"f", b"one")
        client.submit(b"f", b"two")
        kill(server)
    with contextlib.closing(sqlite3.connect(place.file)) as database, database:
        database.execute(f"UPDATE geartrain_jobs SET {column} = ? WHERE number = 2", (b"f\0g",))
    with life(place) as server, Caller(server) as worker:
        tells(server, "job_quarantined number=2 reason=")
        tells(server, "has a NUL byte")
        worker.can_do(b"f")
        assert [job.arguments[-1] for job in worker.take_all()] == [b"one"]


@pytest.mark.parametrize("column", ["function", '"unique"', "reducer"])
def test_a_name_that_no_packet_may_have_is_quarantined(tmp_path: Path, column: str) -> None:
    """It would stand in every listing and every packet to a worker."""
    place = FilePlace(tmp_path / "jobs.sqlite")
    with life(place) as server, Caller(server) as client:
        for workload in (b"one", b"two", b"three"):
            client.submit(b"f", workload, workload)
        kill(server)
    with contextlib.closing(sqlite3.connect(place.file)) as database, database:
        database.execute(f"UPDATE geartrain_jobs SET {column} = ? WHERE number = 2", (b"f" * 4097,))
        database.execute('UPDATE geartrain_jobs SET "unique" = ? WHERE number = 3', (b"u" * 4096,))
    with life(place) as server, Caller(server) as worker:
        tells(server, "job_quarantined number=2 reason=")
        tells(server, "has 4097 bytes, more than any job server takes")
        worker.can_do(b"f")
        assert [job.arguments[-1] for job in worker.take_all()] == [b"one", b"three"]


# While it runs


@on("postgresql", "mariadb", "redis")
def test_a_connection_that_was_cut_is_made_again(place: ServicePlace) -> None:
    with life(place, "--spill-above=1KiB") as server, Caller(server) as client, Caller(server) as worker:
        worker.can_do(b"f")
        for number in range(3):
            place.cut()
            handle = client.submit(b"f", b"%d" % number * 5000)
            place.cut()
            assert worker.await_job(p.GRAB_JOB) == Packet(p.JOB_ASSIGN, (handle, b"f", b"%d" % number * 5000))
            worker.complete(Packet(p.JOB_ASSIGN, (handle,)))
        assert not _causes(server)


@on("postgresql", "redis")
def test_a_service_that_is_started_again_is_waited_for(place: ServicePlace) -> None:
    with life(place) as server, Caller(server) as client:
        with place.down():
            client.send(pack_request(p.SUBMIT_JOB_BG, b"f", b"", b"x"))
            wait_until(lambda: server.jobs_of("f") == (1, 0), "the job is queued")
        assert client.receive().type == p.JOB_CREATED
        wait_until(lambda: "store_back" in told_by(server), "the log tells it")
        kill(server)
    with life(place) as server:
        assert server.jobs_of("f") == (1, 0)


@on("postgresql")
def test_a_slow_store_slows_its_own_clients_alone(place: ServicePlace) -> None:
    (service,) = place.services
    assert isinstance(service, PostgreSQL)
    with life(place) as server, contextlib.ExitStack() as stack:
        service.sql(
            "CREATE OR REPLACE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END'",
            f"CREATE TRIGGER slow BEFORE INSERT ON {place.namespace}_jobs EXECUTE FUNCTION be_slow()",
        )
        clients = [stack.enter_context(Caller(server)) for _ in range(20)]
        began = time.monotonic()
        for client in clients:
            client.send(pack_request(p.SUBMIT_JOB_BG, b"f", b"", b"x") * 50)
        with GoodPair(server) as pair:
            for client in clients:
                assert {client.receive().type for _ in range(50)} == {p.JOB_CREATED}
            seconds = time.monotonic() - began
        assert 0.4 < seconds < 4.0  # a few commits for a thousand jobs
        assert max(pair.seconds) < 0.4
        assert server.jobs_of("f") == (1000, 0)


@on("mariadb")
def test_a_workload_that_is_too_large_is_refused_alone(place: Place) -> None:
    with life(place) as server, Caller(server) as client:
        workloads = [b"before", b"x" * (3 << 20), b"behind", b"y" * (3 << 20), b"last"]
        client.send(b"".join(pack_request(p.SUBMIT_JOB_BG, b"f", b"", workload) for workload in workloads))
        answers = [client.receive() for _ in workloads]
        assert [answer.type for answer in answers] == [p.JOB_CREATED, p.ERROR, p.JOB_CREATED, p.ERROR, p.JOB_CREATED]
        assert answers[1].arguments[0] == b"QUEUE_ERROR"
        assert b"takes workloads of up to 2064384 bytes, and this one has 3145728" in answers[1].arguments[1]
        wait_until(lambda: told_by(server).count("job_too_large") == 2, "the log tells both")
        client.submit(b"f", b"z" * (3 << 20), type=p.SUBMIT_JOB)  # somebody waits for it, so it is not to be kept
        kill(server)
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"f")
        assert [job.arguments[3] for job in worker.take_all()] == [b"before", b"behind", b"last"]


@on("memcached")
def test_a_workload_larger_than_an_item_is_kept_in_pieces(place: Place) -> None:
    large = random.Random(1).randbytes(5 << 20)
    with life(place) as server, Caller(server) as client:
        handle = client.submit(b"f", large)
        kill(server)
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"f")
        assert worker.take_all() == [Packet(p.JOB_ASSIGN_UNIQ, (handle, b"f", b"", large))]


# Full


@on("postgresql")
def test_a_full_store_forgets_though_jobs_keep_coming(place: ServicePlace) -> None:
    (service,) = place.services
    assert isinstance(service, PostgreSQL)
    with life(place) as server, Caller(server) as client, Caller(server) as worker:
        for _ in range(3):
            client.submit(b"f", b"x")
        worker.can_do(b"f")
        jobs = [worker.call(p.GRAB_JOB) for _ in range(3)]
        service.sql(
            "CREATE OR REPLACE FUNCTION be_full() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN PERFORM pg_sleep(0.1); RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END$$",
            f"CREATE TRIGGER full_disk BEFORE INSERT ON {place.namespace}_jobs EXECUTE FUNCTION be_full()",
        )
        # From here on there is always a job on its way to the store, and another one waits behind it.
        client.send(pack_request(p.SUBMIT_JOB_BG, b"f", b"", b"y"))
        for job in jobs:
            worker.complete(job)
        worker.fence()
        for _ in range(5):
            client.send(pack_request(p.SUBMIT_JOB_BG, b"f", b"", b"y"))
            error = client.receive()
            assert error.arguments[0] == b"QUEUE_ERROR"
            assert b"no space left" in error.arguments[1]
        kill(server)
    with life(place) as server:
        assert server.jobs_of("f") == (0, 0)


MakeRoom = Callable[[], None]


@contextlib.contextmanager
def _small_disk() -> Iterator[tuple[Place, MakeRoom]]:
    if os.geteuid() != 0:
        missing("needs to be root, to mount a small disk")
    with tempfile.TemporaryDirectory() as folder:

        def mount(option: str) -> None:
            subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", folder], check=True)

        mount("size=8m")
        try:
            yield FilePlace(Path(folder, "jobs.sqlite")), lambda: mount("remount,size=100m")
        finally:
            subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def _small_redis() -> Iterator[tuple[Place, MakeRoom]]:
    with running(Redis) as service, administrator(service) as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + (8 << 20))
        yield ServicePlace.of(service, "small"), lambda: None


@contextlib.contextmanager
def _small_memcached() -> Iterator[tuple[Place, MakeRoom]]:
    with running(Memcached, "-M", "-m", "12") as one, running(Memcached, "-M", "-m", "12") as two:
        yield ServicePlace([one, two], f"memcached://127.0.0.1:{one.port},127.0.0.1:{two.port}"), lambda: None


@pytest.mark.parametrize("small", [_small_disk, _small_redis, _small_memcached])
def test_a_full_store_refuses_until_there_is_room(
    small: Callable[[], contextlib.AbstractContextManager[tuple[Place, MakeRoom]]],
) -> None:
    chance = random.Random(2)
    with small() as (place, make_room):
        with life(place, PATIENCE) as server, Caller(server) as client, Caller(server) as worker:
            kept = []
            while (answer := client.call(p.SUBMIT_JOB_BG, b"f", b"", chance.randbytes(65536))).type == p.JOB_CREATED:
                kept.append(answer.arguments[0])
            assert answer.arguments[0] == b"QUEUE_ERROR"
            wait_until(lambda: "store_full" in told_by(server), "the log tells it")
            assert 20 < len(kept) < 500
            foreground = client.submit(b"g", b"hello", type=p.SUBMIT_JOB)
            worker.can_do(b"f", b"g")
            done = [worker.await_job().arguments[0] for _ in range(len(kept) // 2 + 1)]
            assert foreground in done
            for handle in done:
                worker.send(pack_request(p.WORK_COMPLETE, handle, b""))
                client.send(pack_request(p.SUBMIT_JOB_BG, b"f", b"", chance.randbytes(65536)))
            worker.fence()
            assert client.receive() == Packet(p.WORK_COMPLETE, (foreground, b""))
            answers = [client.receive() for _ in done]
            make_room()
            again = client.insist(b"f", b"again")
            kill(server)
        taken = [answer.arguments[0] for answer in answers if answer.type == p.JOB_CREATED]
        with life(place) as server, Caller(server) as worker:
            worker.can_do(b"f")
            left = [handle for handle in kept if handle not in done]
            assert [job.arguments[0] for job in worker.take_all()] == [*left, *taken, again]


@on("redis", "postgresql", "mariadb")
def test_what_was_emptied_is_written_again_when_told_so(place: ServicePlace) -> None:
    with life(place, PATIENCE) as server, Caller(server) as client, Caller(server) as worker:
        kept = [client.submit(b"f", b"%d" % number) for number in range(3)]
        place.empty()
        assert "send SIGHUP" in client.refusal(b"f")
        assert "send SIGHUP" in client.refusal(b"f")
        worker.can_do(b"g")
        assert worker.take_all() == []
        server.process.send_signal(signal.SIGHUP)
        new = client.insist(b"f", b"new")
        kill(server)
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"f")
        assert [job.arguments[0] for job in worker.take_all()] == [*kept, new]


def test_a_file_that_was_removed_is_made_again_when_told_so(tmp_path: Path) -> None:
    place = FilePlace(tmp_path / "jobs.sqlite")
    with life(place, PATIENCE, "--spill-above=1KiB") as server, Caller(server) as client, Caller(server) as worker:
        large = b"large" * 1000
        kept = [client.submit(b"f", b"small"), client.submit(b"f", large)]
        ended = client.submit(b"g", b"x")
        worker.can_do(b"g")
        job = worker.await_job()
        for suffix in ("", "-wal", "-shm"):
            (tmp_path / f"jobs.sqlite{suffix}").unlink()
        assert "removed, replaced or mounted over" in client.refusal(b"f")
        wait_until(lambda: bool(_causes(server)), "the log tells why")
        worker.complete(job)
        assert job.arguments[0] == ended
        server.process.send_signal(signal.SIGHUP)
        new = client.insist(b"f", b"new")
        tells(server, "store_rebuilt")
        kill(server)
    with life(place) as server, Caller(server) as worker:
        worker.can_do(b"f")
        jobs = worker.take_all()
        assert [job.arguments[0] for job in jobs] == [*kept, new]
        assert [job.arguments[-1] for job in jobs] == [b"small", large, b"new"]
