"""The blocking client against real job servers."""

from __future__ import annotations

import datetime
import os
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest
from hands import Assigned, Hands, working

from geartrain.client import (
    Client,
    DataEvent,
    JobHandle,
    JobStatus,
    StatusEvent,
    WarningEvent,
)
from geartrain.errors import (
    ConnectError,
    ConnectionLostError,
    GeartrainError,
    JobFailedError,
    JobRaisedError,
    LocalProtocolError,
    TimedOutError,
)
from geartrain.wire.packets import WORK_DATA, WORK_EXCEPTION, WORK_FAIL, WORK_STATUS, WORK_WARNING
from servers import RunningServer, free_port, wait_until


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def test_a_job_is_run(server: RunningServer, client: Client) -> None:
    with working(server, "reverse") as taken:
        assert client.run("reverse", b"hello") == b"olleh"
        assert client.run(b"reverse", b"\0\1\2", unique="u", priority="high", timeout=20) == b"\2\1\0"
    assert [job.workload for job in taken] == [b"hello", b"\0\1\2"]
    assert taken[1].unique == b"u"


def test_large_workloads_and_results(server: RunningServer, client: Client) -> None:
    workload = os.urandom(3 * 1024 * 1024)
    with working(server, "reverse"):
        assert client.run("reverse", workload) == workload[::-1]


def test_a_failed_job_and_one_that_raised(server: RunningServer, client: Client) -> None:
    def work(hands: Hands, job: Assigned) -> None:
        if job.workload:
            hands.send(WORK_EXCEPTION, job.handle, job.workload)
        else:
            hands.send(WORK_FAIL, job.handle)

    with working(server, "fail", work) as taken:
        with pytest.raises(JobFailedError) as failed:
            client.run("fail")
        with pytest.raises(JobRaisedError, match="out of paper") as raised:
            client.run("fail", b"out of paper")
    assert [failed.value.handle, raised.value.handle] == [job.handle for job in taken]
    with Client(server.address, exceptions=False) as deaf, working(server, "fail", work), pytest.raises(JobFailedError):
        deaf.run("fail", b"out of paper", timeout=20)


def test_events_arrive_as_the_worker_sends_them(server: RunningServer, client: Client) -> None:
    with Hands(server, "parts") as hands:
        job = client.submit("parts")
        assigned = hands.take()
        events = job.events(timeout=20)
        hands.send(WORK_DATA, assigned.handle, b"one")
        assert next(events) == DataEvent(b"one")
        hands.send(WORK_STATUS, assigned.handle, b"1", b"3")
        assert next(events) == StatusEvent(1, 3)
        assert job.progress == (1, 3)
        hands.send(WORK_WARNING, assigned.handle, b"slow")
        assert next(events) == WarningEvent(b"slow")
        assert (job.done, job.exception, job.handle) == (False, None, assigned.handle)
        hands.send(WORK_DATA, assigned.handle, b"two ")
        hands.complete(assigned, b"three")
        assert job.result(20) == b"two three"
        assert list(events) == []
        assert job.done


def test_events_of_a_job_that_fails_end_and_the_error_is_kept(server: RunningServer, client: Client) -> None:
    with Hands(server, "parts") as hands:
        job = client.submit("parts")
        assigned = hands.take()
        hands.send(WORK_DATA, assigned.handle, b"one")
        hands.send(WORK_FAIL, assigned.handle)
        assert list(job.events(timeout=20)) == [DataEvent(b"one")]
        assert isinstance(job.exception, JobFailedError)
        with pytest.raises(JobFailedError):
            job.result()


def test_done_looks_without_waiting(server: RunningServer, client: Client) -> None:
    with Hands(server, "look") as hands:
        job = client.submit("look")
        assert not job.done
        hands.complete(hands.take(), b"")
        wait_until(lambda: job.done, "the job's end is seen")
        assert job.exception is None


def test_a_time_out_frees_the_job_and_what_comes_later_is_passed_over(server: RunningServer, client: Client) -> None:
    with Hands(server, "slow") as hands:
        job = client.submit("slow", b"x" * 1000)
        assigned = hands.take()
        hands.send(WORK_DATA, assigned.handle, b"part")
        assert not job.wait(0.01)
        with pytest.raises(TimedOutError, match=r"no result of 'slow' within 0\.05 s"):
            job.result(timeout=0.05)
        assert job.done
        assert isinstance(job.exception, TimedOutError)
        assert job._submission.packet == b""
        assert not job._submission.events
        hands.send(WORK_DATA, assigned.handle, b"late")
        hands.complete(assigned, b"late")
        assert client.echo(b"still in step", timeout=20) == b"still in step"
        with pytest.raises(TimedOutError):
            job.result()


def test_events_that_do_not_come_time_out(server: RunningServer, client: Client) -> None:
    job = client.submit("nobody")
    with pytest.raises(TimedOutError):
        next(job.events(timeout=0.02))
    with pytest.raises(TimedOutError):
        client.run("nobody", timeout=0.02)


def test_a_background_job_and_its_status(server: RunningServer, client: Client) -> None:
    handle = client.submit_background("background", b"x", unique="key 1", priority="low")
    assert handle.address == client.addresses[0]
    assert client.status(handle) == JobStatus(known=True, running=False)
    assert client.status(unique="key 1").clients == 0
    with Hands(server, "background") as hands:
        assigned = hands.take()
        assert assigned == Assigned(handle, b"background", b"key 1", b"x")
        hands.send(WORK_STATUS, handle, b"1", b"4")
        wait_until(lambda: client.status(str(handle)).fraction == 0.25, "the status is known")
        assert client.status(bytes(handle)).running
        hands.complete(assigned, b"")
        wait_until(lambda: not client.status(handle).known, "the job's end is known")


def test_a_background_job_for_later(server: RunningServer, client: Client) -> None:
    for when in (
        datetime.timedelta(seconds=1),
        time.time() + 1,
        datetime.datetime.now() + datetime.timedelta(seconds=1),
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1),
    ):
        client.submit_background("later", when=when)
    with Hands(server, "later") as hands:
        assert hands.look() is None
        for _ in range(4):
            wait_until(lambda: hands.look() is not None, "the time of a job has come")
        assert hands.look() is None


def test_map_gives_results_in_order(server: RunningServer, client: Client) -> None:
    workloads = [b"%d" % number for number in range(300)]
    with working(server, "reverse"), working(server, "reverse"):
        assert list(client.map("reverse", workloads, window=16)) == [workload[::-1] for workload in workloads]
        assert list(client.map("reverse", iter(workloads[:3]), window=1)) == [b"0", b"1", b"2"]
        assert list(client.map("reverse", [])) == []
        unordered = list(client.map("reverse", workloads, window=16, ordered=False))
        assert sorted(unordered) == sorted(workload[::-1] for workload in workloads)


def test_unordered_results_come_as_they_are_done(server: RunningServer, client: Client) -> None:
    with Hands(server, "pair") as one, Hands(server, "pair") as other:
        results = client.map("pair", [b"first", b"second"], ordered=False)
        got: list[bytes] = []
        taker = threading.Thread(target=lambda: got.extend(results))
        taker.start()
        jobs = {job.workload: (hands, job) for hands in (one, other) for job in [hands.take()]}
        for workload in (b"second", b"first"):
            hands, job = jobs[workload]
            hands.complete(job, workload)
            wait_until(partial(got.__contains__, workload), "the result has come")
        taker.join(20)
        assert got == [b"second", b"first"]


def test_map_takes_no_more_workloads_than_its_window(server: RunningServer, client: Client) -> None:
    asked = 0

    def workloads() -> Iterator[bytes]:
        nonlocal asked
        for number in range(100):
            asked += 1
            yield b"%d" % number

    with working(server, "reverse"):
        results = client.map("reverse", workloads(), window=10)
        assert next(results) == b"0"
        assert 10 <= asked <= 20
        results.close()  # type: ignore[attr-defined]
    assert asked <= 20
    assert client.echo() == b"geartrain"


def test_results_do_not_wait_until_slow_workloads_fill_the_window(server: RunningServer, client: Client) -> None:
    asked = 0

    def workloads() -> Iterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            time.sleep(0.02)
            yield b"ab"

    with working(server, "reverse"):
        results = client.map("reverse", workloads(), window=10_000)
        assert next(results) == b"ba"
        assert asked < 1000
        results.close()  # type: ignore[attr-defined]


def test_map_raises_for_the_first_failure_and_map_jobs_for_none(server: RunningServer, client: Client) -> None:
    def work(hands: Hands, job: Assigned) -> None:
        hands.send(*((WORK_FAIL, job.handle) if job.workload == b"bad" else (WORK_DATA, job.handle, job.workload)))
        hands.complete(job, b"!") if job.workload != b"bad" else None

    with working(server, "picky", work):
        results = client.map("picky", [b"a", b"bad", b"c"])
        assert next(results) == b"a!"
        with pytest.raises(JobFailedError):
            next(results)
        jobs = list(client.map_jobs("picky", [b"a", b"bad", b"c"]))
        assert [type(job.exception) for job in jobs] == [type(None), JobFailedError, type(None)]
        assert jobs[2].result() == b"c!"


def test_map_times_each_job(client: Client) -> None:
    with pytest.raises(TimedOutError):
        list(client.map("nobody", [b"1", b"2"], timeout=0.05))
    jobs = list(client.map_jobs("nobody", [b"1", b"2", b"3"], timeout=0.05, ordered=False, window=2))
    assert [type(job.exception) for job in jobs] == [TimedOutError] * 3


def test_map_background_gives_the_handles_in_order(server: RunningServer, client: Client) -> None:
    handles = list(client.map_background("bulk", (b"%d" % number for number in range(2500)), window=400))
    numbers = [int(handle.rpartition(b":")[2]) for handle in handles]
    assert numbers == list(range(numbers[0], numbers[0] + 2500))
    with Hands(server, "bulk") as hands:
        assert [hands.take().workload for _ in range(3)] == [b"0", b"1", b"2"]


def test_thousands_of_jobs_underway_on_one_connection(server: RunningServer, client: Client) -> None:
    jobs = [client.submit("crowd", b"%d" % number) for number in range(3000)]
    with working(server, "crowd") as taken:
        for number in reversed(range(3000)):
            assert jobs[number].result(60) == (b"%d" % number)[::-1]
    assert len(taken) == 3000


def test_equal_uniques_on_one_client_are_one_job(server: RunningServer, client: Client) -> None:
    with Hands(server, "shared") as hands:
        jobs = [client.submit("shared", b"x", unique="u") for _ in range(3)]
        job = hands.take()
        wait_until(lambda: client.status(unique="u").clients == 3, "all three are attached")
        hands.send(WORK_DATA, job.handle, b"a")
        hands.send(WORK_DATA, job.handle, b"b")
        hands.complete(job, b"c")
        assert [job.result(20) for job in jobs] == [b"abc"] * 3
        assert len({job.handle for job in jobs}) == 1


def test_namespaces(server: RunningServer) -> None:
    with working(server, "ns_f") as libgearmans, working(server, "ns\tf") as perls:
        with Client(server.address, namespace="ns_") as client:
            assert client.run("f", b"12") == b"21"
        with Client(server.address, prefix="ns") as client:
            assert client.run("f", b"34") == b"43"
            assert client.submit("f").function == b"ns\tf"
    assert libgearmans[0].workload == b"12"
    assert perls[0].workload == b"34"
    with pytest.raises(ValueError, match="not both"):
        Client(server.address, namespace="a", prefix="b")


def test_status_wants_one_of_handle_and_unique(client: Client) -> None:
    for arguments in ({}, {"handle": "H:1", "unique": "u"}):
        with pytest.raises(TypeError, match="either"):
            client.status(**arguments)  # type: ignore[arg-type]
    with Client("a,b") as two, pytest.raises(ValueError, match="which of 2 job servers"):
        two.status(b"H:a:1")


def test_local_mistakes_do_not_harm_the_connection(client: Client) -> None:
    with pytest.raises(LocalProtocolError):
        client.run("f\0g")
    with pytest.raises(LocalProtocolError):
        client.run("")
    assert client.echo(b"x") == b"x"


def test_a_unique_too_long_for_gearmand_fails_one_job_alone(server: RunningServer, client: Client) -> None:
    with working(server, "reverse"):
        before, after = client.submit("reverse", b"ab"), client.submit("reverse", b"cd")
        assert (before.result(20), after.result(20)) == (b"ba", b"dc")


def test_no_server_is_an_error_at_once() -> None:
    client = Client([f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"])
    began = time.monotonic()
    with pytest.raises(ConnectError, match=r"connection refused.*connection refused"):
        client.run("f")
    job = client.submit("f")
    assert job.done
    with pytest.raises(ConnectError):
        job.result()
    assert time.monotonic() - began < 5
    client.close()


def test_closing_fails_what_is_open(server: RunningServer) -> None:
    client = Client(server.address)
    job = client.submit("nobody")
    client.close()
    client.close()
    with pytest.raises(ConnectionLostError, match="the client was closed"):
        job.result()
    with pytest.raises(GeartrainError, match="the client is closed"):
        client.echo()


def test_handles_are_shown_with_their_server(server: RunningServer, client: Client) -> None:
    handle = client.submit_background("shown")
    assert str(handle) == f"{server.address}//{handle.decode()}"
    assert JobHandle.parse(str(handle)).address == handle.address
    job = client.submit("shown", unique="u")
    client.echo()
    assert repr(job).startswith(f"<SubmittedJob shown {server.address}//H:")
    assert repr(client) == f"<Client of {server.address}>"
    assert job.unique == b"u"
