"""The job server within a test: its clock, and its word that nothing is left to do."""

from __future__ import annotations

import datetime
import threading
import time

import pytest

from geartrain import AssignedJob, AsyncWorker, Client, Worker
from geartrain.contrib.local_server import LocalServer
from geartrain.errors import ConfigError, GeartrainError, JobFailedError, TimedOutError


class Notebook(Worker):
    """A worker that notes each workload it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[bytes] = []
        self.function("note")(self.note)

    def note(self, job: AssignedJob) -> bytes:
        self.notes.append(job.workload)
        return job.workload


def test_clients_and_workers_find_it_by_themselves(geartrain_server: LocalServer) -> None:
    with Notebook() as worker, Client() as client:
        assert client.run("note", b"here", timeout=10) == b"here"
    assert worker.notes == [b"here"]


def test_a_delayed_job_waits_for_the_clock_and_not_for_us(geartrain_server: LocalServer) -> None:
    worker, client = Notebook(), geartrain_server.client()
    with geartrain_server.run_worker(worker):
        client.submit_background("note", b"later", when=datetime.timedelta(hours=1))
        geartrain_server.clock.advance(3599)
        geartrain_server.wait_idle()
        assert worker.notes == []
        geartrain_server.clock.advance(1)
        geartrain_server.wait_idle()
        assert worker.notes == [b"later"]


def test_a_delay_counts_from_the_advanced_clock(geartrain_server: LocalServer) -> None:
    worker, client, clock = Notebook(), geartrain_server.client(), geartrain_server.clock
    with geartrain_server.run_worker(worker):
        clock.advance(datetime.timedelta(days=2))
        client.submit_background("note", b"a minute later", when=datetime.timedelta(minutes=1))
        client.submit_background("note", b"at a time", when=clock.now() + datetime.timedelta(minutes=2))
        geartrain_server.wait_idle()
        assert worker.notes == []
        clock.advance(60)
        geartrain_server.wait_idle()
        assert worker.notes == [b"a minute later"]
        clock.advance(60)
        geartrain_server.wait_idle()
        assert worker.notes == [b"a minute later", b"at a time"]


def test_a_time_limit_passes_with_the_clock(geartrain_server: LocalServer) -> None:
    worker, runs, may_end = Worker(), threading.Event(), threading.Event()

    @worker.function(timeout=600)
    def stuck(job: AssignedJob) -> None:
        runs.set()
        may_end.wait(10)

    with geartrain_server.run_worker(worker):
        job = stuck.submit(b"")
        assert runs.wait(10)
        geartrain_server.clock.advance(599)
        assert not job.done
        geartrain_server.clock.advance(2)
        with pytest.raises(JobFailedError):
            job.result(timeout=10)
        may_end.set()


def test_what_was_just_sent_is_not_overlooked(geartrain_server: LocalServer) -> None:
    """Foreground jobs are only on their way when submit returns."""
    worker = Notebook()
    with geartrain_server.run_worker(worker):
        for number in range(50):
            client = geartrain_server.client()  # whose connection the job server has yet to accept
            client.submit("note", b"%d" % number)
            geartrain_server.wait_idle()
            assert len(worker.notes) == number + 1


def test_a_job_that_submits_another_does_not_end_the_work(geartrain_server: LocalServer) -> None:
    worker = Notebook()

    @worker.function()
    def count_down(n: int) -> None:
        if n:
            count_down.submit_background(n - 1)
        else:
            worker.notes.append(b"zero")

    with geartrain_server.run_worker(worker):
        count_down.submit_background(20)
        geartrain_server.wait_idle()
        assert worker.notes == [b"zero"]


def test_it_says_what_keeps_it_from_being_idle(geartrain_server: LocalServer) -> None:
    geartrain_server.client().submit_background("nobody", b"")
    with pytest.raises(TimedOutError, match="nobody has 1 jobs waiting and 0 running, with 0 workers"):
        geartrain_server.wait_idle(timeout=0.1)


def test_an_asyncio_worker_runs_there_too(geartrain_server: LocalServer) -> None:
    worker = AsyncWorker()

    @worker.function()
    async def double(n: int) -> int:
        return 2 * n

    with geartrain_server.run_worker(worker, concurrency=10):
        assert [job.result(10) for job in [double.submit(n) for n in range(30)]] == [2 * n for n in range(30)]
    assert worker.client is None


@pytest.mark.parametrize("kind", [Worker, AsyncWorker])
def test_a_worker_that_can_do_nothing_is_refused(
    geartrain_server: LocalServer, kind: type[Worker | AsyncWorker]
) -> None:
    worker = kind("elsewhere")
    with pytest.raises(GeartrainError, match="no function"), geartrain_server.run_worker(worker):
        pass
    assert [str(address) for address in worker.addresses] == ["elsewhere:4730"]


@pytest.mark.geartrain_server(max_packet="1KiB", job_handle_prefix="H:test")
def test_it_takes_the_options_of_serve(geartrain_server: LocalServer) -> None:
    assert geartrain_server.client().submit_background("any", b"").startswith(b"H:test:")


def test_an_option_that_can_not_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="--job-retries is 'many'"), LocalServer(job_retries="many"):
        pass


def test_it_knows_that_it_does_not_run() -> None:
    server = LocalServer()
    with pytest.raises(GeartrainError, match="not running"):
        server.wait_idle()


def test_a_clock_goes_forward_only(geartrain_server: LocalServer) -> None:
    with pytest.raises(ValueError, match="forward"):
        geartrain_server.clock.advance(-1)


def test_it_stands_still_by_itself(geartrain_server: LocalServer) -> None:
    before = geartrain_server.clock.time(), geartrain_server.clock.monotonic()
    deadline = time.monotonic() + 0.002
    while time.monotonic() < deadline:
        pass
    assert (geartrain_server.clock.time(), geartrain_server.clock.monotonic()) == before
