"""A fleet of real job servers on a real database: what one has is the others' when it ends; what one knows all do."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from crews import Crew
from geartrain import Client, Worker
from geartrain.client import AdminClient
from geartrain.errors import GeartrainError, ServerError
from geartrain.wire.packets import CAN_DO, GRAB_JOB_UNIQ, JOB_ASSIGN_UNIQ, NO_JOB, PRE_SLEEP, pack_request
from servers import RunningServer, wait_until

SOON = 20.0


@contextmanager
def working(*addresses: str, function: str = "mill", seconds: float = 0.0) -> Iterator[Counter[bytes]]:
    """A worker at these servers; what it has done, by workload."""
    done: Counter[bytes] = Counter()
    worker = Worker(list(addresses))

    @worker.function(function)
    def mill(job) -> bytes:  # type: ignore[no-untyped-def]
        time.sleep(seconds)
        done[job.workload] += 1
        return bytes(job.workload[::-1])

    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        worker.stop()
        thread.join(10)


def submit(server: RunningServer, count: int, function: str = "mill", first: int = 0) -> list[str]:
    with Client(server.address) as client:
        return [bare(client.submit_background(function, b"%d" % n)) for n in range(first, first + count)]


def bare(handle: object) -> str:
    """A handle as the job server gave it."""
    return str(handle).partition("//")[2]


def queued(server: RunningServer, function: str = "mill") -> int:
    return server.jobs_of(function)[0]


def test_the_jobs_of_a_killed_member_are_done_by_the_others(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    c = crew.start("c")
    crew.meet()
    submit(a, 500)
    crew.kill("a")
    wait_until(lambda: queued(b) + queued(c) == 500, "both have taken over all", SOON)
    with working(b.address, c.address) as done:
        wait_until(lambda: len(done) == 500, "all jobs are done", SOON)
    assert set(done.values()) == {1}


def test_a_planned_stop_hands_everything_over_at_once(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    submit(a, 100)
    crew.stop("a")
    wait_until(lambda: queued(b) == 100, "the other one has taken over all", SOON)


def test_a_member_that_comes_back_alone_finds_what_it_had(crew: Crew) -> None:
    a = crew.start("a")
    submit(a, 50)
    crew.kill("a")
    again = crew.start("a", port=a.port)
    wait_until(lambda: queued(again) == 50, "it has taken over what it had as another member", SOON)


def test_a_lone_job_server_becomes_the_first_of_a_fleet(crew: Crew) -> None:
    from servers import running_geartrain

    with running_geartrain(store=crew.url) as alone:
        submit(alone, 30)
    a = crew.start("a")
    wait_until(lambda: queued(a) == 30, "the first member has what was there", SOON)


def test_a_frozen_member_is_fenced_and_comes_back_as_another_one(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    former = crew.me("a")
    submit(a, 40)
    with socket.create_connection(("127.0.0.1", a.port), timeout=30) as worker:
        crew.freeze("a")
        wait_until(lambda: queued(b) == 40, "the other one has taken over all", SOON)
        # What it asks for now is read when the frozen one goes on, before that knows that it was taken for dead.
        worker.sendall(pack_request(CAN_DO, b"mill") + pack_request(GRAB_JOB_UNIQ))
        crew.thaw("a")
        assert read_type(worker) == NO_JOB
    wait_until(lambda: crew.me("a") != former, "it is another member", SOON)
    assert queued(a) == 0
    with working(b.address) as done:
        wait_until(lambda: len(done) == 40, "all jobs are done", SOON)
    submit(a, 10, first=100)
    with working(a.address) as done:
        wait_until(lambda: len(done) == 10, "it works as before", SOON)


def test_running_jobs_come_back_with_their_attempt_counted(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    (handle,) = submit(a, 1)
    with socket.create_connection(("127.0.0.1", a.port), timeout=10) as worker:
        worker.sendall(pack_request(CAN_DO, b"mill") + pack_request(GRAB_JOB_UNIQ))
        assert read_type(worker) == JOB_ASSIGN_UNIQ
        wait_until(lambda: crew.service.sql(f"SELECT begun FROM {crew.namespace}_jobs")[0][0] == 1, "it is told", SOON)
        crew.kill("a")
        wait_until(lambda: queued(b) == 1, "the other one has it", SOON)
    assert "attempts\t1" in b.ask(f"show job {handle}")


def test_a_handle_is_valid_on_every_server(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    handles = submit(a, 3)
    with Client(b.address) as client:
        assert client.status(handles[0]).known
    assert b.ask(f"why {handles[0]}")[0].startswith("OK waiting")
    assert f"handle\t{handles[1]}" in b.ask(f"show job {handles[1]}")
    assert b.ask(f"cancel job {handles[1]}") == ["OK"]
    wait_until(lambda: queued(a) == 2, "it is cancelled where it was")
    assert b.ask(f"cancel job {handles[1]}") == ["ERR UNKNOWN_JOB"]
    crew.kill("a")
    assert f"handle\t{handles[2]}" in b.ask(f"show job {handles[2]}")
    with Client(b.address) as client:
        assert client.status(handles[0]).known
        assert not client.status(handles[1]).known


def test_a_result_is_told_by_every_server(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    assert a.ask("policy set mill results=1h") == ["OK"]
    (handle,) = submit(a, 1)
    with working(a.address):
        wait_until(lambda: queued(a) == 0, "it is done")
    admin = AdminClient(b.address)
    assert admin.result(handle) == b"0"
    crew.stop("a")
    wait_until(lambda: _has_result(admin, handle), "the result has come along", SOON)


def _has_result(admin: AdminClient, handle: str) -> bool:
    try:
        return admin.result(handle) == b"0"
    except ServerError:
        return False


def test_a_unique_coalesces_over_the_whole_fleet(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    with Client(a.address) as one, Client(b.address) as other:
        first = bare(one.submit_background("mill", b"1", unique="u"))
        assert bare(other.submit_background("mill", b"2", unique="u")) == first
        assert bare(other.submit_background("saw", b"2", unique="u")) != first
    assert queued(a) + queued(b) == 1
    with working(a.address):
        wait_until(lambda: queued(a) == 0, "it is done")
    with Client(b.address) as other:
        assert bare(other.submit_background("mill", b"3", unique="u")) != first


def test_jobs_move_to_where_a_worker_is(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    with working(b.address) as done:
        submit(a, 200)
        wait_until(lambda: len(done) == 200, "all have moved and are done", SOON)
    assert set(done.values()) == {1}
    assert queued(a) == queued(b) == 0


def test_jobs_do_not_wait_for_busy_workers_while_others_sleep(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    with working(a.address, seconds=60) as busy, working(b.address) as done:
        submit(a, 20)
        wait_until(lambda: len(done) == 19, "the idle one has done the others", SOON)
        assert not busy


def test_policies_and_pauses_hold_everywhere(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    assert a.ask("policy set mill attempts=3") == ["OK"]
    assert a.ask("create function saw") == ["OK"]
    assert a.ask("pause saw") == ["OK"]
    wait_until(lambda: "attempts=3" in " ".join(b.ask("policy show mill")), "the other one has the policy")
    submit(b, 1, "saw")
    with working(b.address, function="saw") as done:
        wait_until(lambda: "paused" in b.ask(f"why {_handle_of(b)}")[0], "the other one has the pause")
        assert a.ask("resume saw") == ["OK"]
        wait_until(lambda: len(done) == 1, "and its end", SOON)
    assert a.ask("policy unset mill") == ["OK"]
    wait_until(lambda: "attempts=3" not in " ".join(b.ask("policy show mill")), "and that it is no more")


def _handle_of(server: RunningServer) -> str:
    return server.ask("show jobs")[0].split("\t")[0]


def test_dead_letters_and_delayed_jobs_come_along(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    assert a.ask("policy set mill attempts=1 dead=1d retry_on=fail") == ["OK"]
    submit(a, 1)
    worker = Worker(a.address)

    @worker.function("mill")
    def mill(job) -> bytes:  # type: ignore[no-untyped-def]
        raise RuntimeError("broken")

    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    wait_until(lambda: len(a.ask("dead list")) == 1, "it is a dead letter")
    worker.stop()
    thread.join(10)
    with Client(a.address) as client:
        client.submit_background("saw", b"later", when=time.time() + 3600)
    crew.kill("a")
    wait_until(lambda: len(b.ask("dead list")) == 1 and queued(b, "saw") == 1, "both are here", SOON)
    (letter,) = b.ask("dead list")
    assert "broken" in letter
    assert b.ask(f"dead retry {letter.split(chr(9))[0]}") == ["OK 1"]
    assert queued(b) == 1


def test_a_drained_member_gives_all_away_and_is_sent_nothing(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    submit(a, 300)
    id = crew.me("a")
    assert b.ask(f"fleet drain {id}") == ["OK"]
    wait_until(lambda: queued(b) == 300 and queued(a) == 0, "all have gone", SOON)
    with working(a.address) as done:
        time.sleep(2.5)  # longer than it takes to move
        assert not done
        assert b.ask(f"fleet drain {id} off") == ["OK"]
        wait_until(lambda: len(done) == 300, "and come back to where the worker is", SOON)


def test_a_restart_of_the_database_judges_nobody(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    ids = crew.me("a"), crew.me("b")
    submit(a, 10)
    crew.service.kill()
    time.sleep(5)  # longer than a lease
    with Client(a.address) as client, pytest.raises(GeartrainError):
        client.submit_background("mill", b"refused")
    crew.service.start()
    with working(a.address) as done:
        wait_until(lambda: len(done) == 10, "all goes on", SOON)
    assert (crew.me("a"), crew.me("b")) == ids
    assert crew.live("b") == {a.address, b.address}


def test_the_sum_of_all_is_told(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    submit(a, 3)
    submit(b, 4)
    assert b.ask("fleet functions") == ["mill\t7\t0\t0"]


def test_a_dead_one_is_forgotten_once_its_jobs_are_adopted(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    id = crew.me("a")
    assert b.ask(f"fleet forget {id}")[0].startswith("ERR")
    submit(a, 5)
    crew.kill("a")
    wait_until(lambda: id not in crew.members("b"), "it has gone", SOON)
    assert queued(b) == 5
    assert b.ask(f"fleet forget {id}") == ["OK"]


def read_type(connection: socket.socket) -> int:
    """The type of the next packet, whose body is read too."""
    head = b""
    while len(head) < 12:
        data = connection.recv(12 - len(head))
        assert data, "the connection was closed"
        head += data
    left = int.from_bytes(head[8:12], "big")
    while left:
        left -= len(connection.recv(left))
    return int.from_bytes(head[4:8], "big")


def test_workers_asleep_are_woken_for_jobs_that_come_from_others(crew: Crew) -> None:
    a = crew.start("a")
    b = crew.start("b")
    crew.meet()
    submit(a, 1)
    with socket.create_connection(("127.0.0.1", b.port), timeout=SOON) as worker:
        worker.sendall(pack_request(CAN_DO, b"mill") + pack_request(GRAB_JOB_UNIQ))
        assert read_type(worker) == NO_JOB
        worker.sendall(pack_request(PRE_SLEEP))
        assert read_type(worker) == 6  # NOOP
