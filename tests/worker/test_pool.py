"""Worker processes and their supervisor: programs of their own, killed, retired and started again."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from caller import Caller, until

from geartrain.wire.packets import SUBMIT_JOB_BG, SUBMIT_JOB_HIGH_BG
from servers import RunningServer, free_port, running_gearmand, running_geartrain

HEAD = """
import asyncio, ctypes, logging, os, sys, threading, time
from geartrain.worker import AsyncWorker, Worker
logging.basicConfig(level=logging.INFO)
worker = {kind}(sys.argv[1], answer_within=2.0)

@worker.function()
{async_}def pid(job):
    return b"%d" % os.getpid()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain() as server:
        yield server


@pytest.fixture
def caller(server: RunningServer) -> Iterator[Caller]:
    with Caller(server) as caller:
        yield caller


@pytest.fixture(params=["Worker", "AsyncWorker"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Program:
    """A worker program that runs as a process of its own; ``file`` holds its text."""

    def __init__(self, file: Path, address: str, **environment: str) -> None:
        self.log = file.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(file), address],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def tell(self, number: int) -> None:
        self.process.send_signal(number)

    def text(self) -> str:
        return self.log.read_text()

    def children(self) -> set[int]:
        """The worker processes that live now."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(OSError):
            return {int(pid) for pid in task.read_text().split()}
        return set()


Run = Callable[..., contextlib.AbstractContextManager[Program]]


@pytest.fixture
def run(tmp_path: Path, server: RunningServer) -> Run:
    @contextlib.contextmanager
    def run(kind: str, functions: str, options: str, address: str = "", **environment: str) -> Iterator[Program]:
        file = tmp_path / "program.py"
        head = HEAD.format(kind=kind, async_="async " if kind == "AsyncWorker" else "")
        file.write_text(head + textwrap.dedent(functions) + f"\nworker.run({options})\n")
        program = Program(file, address or server.address, **environment)
        try:
            yield program
            if program.process.poll() is None:
                program.tell(signal.SIGTERM)
                assert program.process.wait(15) == 0, program.text()
        except BaseException:
            print(program.text())
            raise
        finally:
            if program.process.poll() is None:
                for pid in (*program.children(), program.process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                program.process.wait()

    return run


def test_several_processes_share_the_work(run: Run, kind: str, server: RunningServer) -> None:
    together = f"""
        {"async " if kind == "AsyncWorker" else ""}def meet(job):
            open(job.workload + b"/%d" % os.getpid(), "w").close()
            while len(os.listdir(job.workload)) < 3:
                {"await asyncio" if kind == "AsyncWorker" else "time"}.sleep(0.01)
            return b"%d" % os.getpid()
        worker.function("meet")(meet)
    """
    room = "concurrency=1" if kind == "AsyncWorker" else "threads=1"
    with run(kind, together, f"processes=3, {room}") as program, contextlib.ExitStack() as stack:
        callers = [stack.enter_context(Caller(server)) for _ in range(3)]
        folder = program.log.parent / "met"
        folder.mkdir()
        for caller in callers:
            caller.submit("meet", str(folder).encode())
        pids = {int(caller.follow()[-1].arguments[1]) for caller in callers}
        assert pids == program.children()
        assert program.process.pid not in pids


def test_threads_and_processes_together(run: Run, server: RunningServer) -> None:
    meet = """
        barrier = threading.Barrier(2, timeout=10)
        @worker.function()
        def meet(job):
            barrier.wait()
            return b"%d" % os.getpid()
    """
    with run("Worker", meet, "processes=1, threads=2"), Caller(server) as caller, Caller(server) as other:
        caller.submit("meet")
        other.submit("meet")
        assert caller.follow()[-1].arguments == (caller.handle, other.follow()[-1].arguments[1])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_process_is_replaced_and_its_job_run_again(
    run: Run, kind: str, caller: Caller, number: signal.Signals
) -> None:
    once = f"""
        @worker.function()
        {"async " if kind == "AsyncWorker" else ""}def once(job):
            try:
                open(job.workload, "x").close()
            except FileExistsError:
                return b"%d" % os.getpid()
            os.kill(os.getpid(), {int(number)})
            time.sleep(10)
    """
    with run(kind, once, "processes=1") as program:
        before = int(caller.run("pid"))
        after = int(caller.run("once", str(program.log.parent / "once").encode()))
        assert before != after
        assert program.children() == {after}
        assert f"process {before} was killed by {number.name}" in program.text()


def test_a_process_that_crashes_at_once_is_started_with_pauses(run: Run) -> None:
    crash = """
        def crash(**_):
            with open(sys.argv[0] + ".starts", "a") as file:
                file.write(f"{time.monotonic()}\\n")
            raise RuntimeError("can't begin")
        worker.start = crash
    """
    with run("Worker", crash, "processes=1") as program:
        starts = Path(str(program.log.with_suffix(".py")) + ".starts")
        until(lambda: starts.exists() and starts.read_text().count("\n") >= 3)
        first, second, third = map(float, starts.read_text().split()[:3])
        assert second - first >= 0.25
        assert third - second >= 0.5
        assert "can't begin" in program.text()


@pytest.mark.parametrize("submission", [SUBMIT_JOB_BG, SUBMIT_JOB_HIGH_BG])
@pytest.mark.parametrize("broker", ["geartrain", "gearmand"])
def test_a_job_that_kills_each_process_keeps_nobody_waiting(run: Run, broker: str, kind: str, submission: int) -> None:
    """Also behind a job server that gives it to one process after the other without a pause."""
    poison = f"""
        @worker.function()
        {"async " if kind == "AsyncWorker" else ""}def poison(job):
            ctypes.string_at(0)
    """
    running = {"geartrain": running_geartrain, "gearmand": running_gearmand}[broker]
    with running() as server, run(kind, poison, "processes=2", server.address) as program, Caller(server) as caller:
        caller.run("pid")
        handle = caller.submit("poison", type=submission).decode()
        until(lambda: program.text().count("was killed by SIGSEGV") >= 3)
        if broker == "geartrain":
            for _ in range(30):
                before = program.text().count("was killed by SIGSEGV")
                caller.run("pid")
                killed = program.text().count("was killed by SIGSEGV") - before
                assert killed <= 2, "while it waited for the answer, each process died once at most"
        text = program.text()
        killed = text.count("was killed by SIGSEGV")
        assert text.count(f"was killed by SIGSEGV while it did poison {handle}") == killed


def test_a_function_that_forks_leaves_no_second_worker(run: Run, kind: str, caller: Caller) -> None:
    forks = f"""
        @worker.function()
        {"async " if kind == "AsyncWorker" else ""}def forks(job):
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
            return b"%d" % pid
    """
    with run(kind, forks, "processes=1") as program:
        process = int(caller.run("pid"))
        for _ in range(3):
            assert int(caller.run("forks")) != 0
        assert program.children() == {process}
        assert program.text().count("came back from the function") == 3


@pytest.mark.parametrize("way", ["plain", "coroutine"])
def test_a_hard_limit_kills_what_nothing_else_can_stop(run: Run, kind: str, caller: Caller, way: str) -> None:
    """A call that holds the interpreter, or the event loop, so that no exception can be raised in it."""
    stuck = f"""
        @worker.function(soft_limit=0.1, hard_limit=0.5)
        {"async " if way == "coroutine" else ""}def stuck(job):
            try:
                open(job.workload, "x").close()
            except FileExistsError:
                return b"better"
            while True:
                try:
                    time.sleep(60)
                except Exception:
                    pass
    """
    with run(kind, stuck, "processes=2") as program:
        assert caller.run("stuck", str(program.log.parent / "once").encode()) == b"better"
        assert "is over a hard time limit with stuck H:" in program.text()
        assert caller.run("pid")


def test_a_hard_limit_alone_brings_a_supervisor_and_spares_who_is_in_time(run: Run, caller: Caller) -> None:
    with run("Worker", '@worker.function(hard_limit=60)\ndef quick(job): return b"%d" % os.getpid()', "") as program:
        assert int(caller.run("quick")) in program.children()


def test_a_process_leaves_after_so_many_jobs(run: Run, kind: str, caller: Caller) -> None:
    room = "concurrency=1" if kind == "AsyncWorker" else "threads=1"
    with run(kind, "", f"processes=1, max_jobs=3, {room}"):
        pids = [int(caller.run("pid")) for _ in range(9)]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 3]


def test_a_process_leaves_at_a_certain_age(run: Run, caller: Caller) -> None:
    with run("Worker", "", "processes=1, max_minutes=0.5 / 60"):
        first = caller.run("pid")
        until(lambda: caller.run("pid") != first)


def test_a_process_leaves_at_a_certain_size(run: Run, kind: str, caller: Caller) -> None:
    grow = f"""
        kept = []
        @worker.function()
        {"async " if kind == "AsyncWorker" else ""}def grow(job):
            kept.append(b"x" * 300_000_000)
            return b"%d" % os.getpid()
    """
    with run(kind, grow, "processes=1, max_megabytes=250") as program:
        first = caller.run("grow")
        until(lambda: caller.run("pid") != first)
        assert "has grown to" in program.text()


def test_a_limit_on_concurrency_holds_over_all_processes(run: Run, kind: str, server: RunningServer) -> None:
    narrow = f"""
        @worker.function(concurrency=2)
        {"async " if kind == "AsyncWorker" else ""}def narrow(job):
            path = job.workload + b"/%s" % job.handle.rpartition(b":")[2]
            open(path, "w").close()
            here = len(os.listdir(job.workload))
            {"await asyncio" if kind == "AsyncWorker" else "time"}.sleep(0.1)
            os.unlink(path)
            return b"%d" % here
    """
    with run(kind, narrow, "processes=3") as program, Caller(server) as caller:
        folder = program.log.parent / "narrow"
        folder.mkdir()
        for _ in range(10):
            caller.submit("narrow", str(folder).encode())
        counts = [int(caller.follow()[-1].arguments[1]) for _ in range(10)]
        assert max(counts) == 2


SLOW = """
@worker.function()
def slow(job):
    open(job.workload, "x").close()
    while os.path.exists(job.workload):
        time.sleep(0.01)
    return b"finished"
"""


def start_slow(caller: Caller, program: Program) -> Path:
    started = program.log.parent / "started"
    caller.submit("slow", str(started).encode())
    until(started.exists)
    return started


def test_sigterm_finishes_the_jobs_at_hand(run: Run, kind: str, caller: Caller) -> None:
    with run(kind, SLOW, "processes=2") as program:
        started = start_slow(caller, program)
        program.tell(signal.SIGTERM)
        until(lambda: len(program.children()) == 1)  # who has nothing to do leaves
        started.unlink()
        assert caller.follow()[-1].arguments[1] == b"finished"
        assert program.process.wait(10) == 0


@pytest.mark.parametrize("how", ["a second signal", "the end of the time limit"])
def test_what_does_not_finish_is_given_up(run: Run, kind: str, caller: Caller, how: str) -> None:
    with run(kind, SLOW, f"processes=2, grace={60 if how == 'a second signal' else 0.5}") as program:
        started = start_slow(caller, program)
        program.tell(signal.SIGTERM)
        until(lambda: len(program.children()) == 1)
        if how == "a second signal":
            program.tell(signal.SIGTERM)
        assert program.process.wait(10) == 1
        started.unlink()
    with run(kind, SLOW, "processes=1") as program:
        until(started.exists)
        started.unlink()
        assert caller.follow()[-1].arguments[1] == b"finished"


def test_an_interrupt_from_the_terminal_is_one_word_not_two(run: Run, kind: str, caller: Caller) -> None:
    """Ctrl-C reaches every process of the group; the processes wait for what the supervisor says."""
    with run(kind, SLOW, "processes=2") as program:
        started = start_slow(caller, program)
        os.killpg(program.process.pid, signal.SIGINT)
        until(lambda: len(program.children()) == 1)
        started.unlink()
        assert caller.follow()[-1].arguments[1] == b"finished"
        assert program.process.wait(10) == 0


def test_processes_do_not_outlive_their_supervisor(run: Run, kind: str, caller: Caller) -> None:
    with run(kind, "", "processes=2") as program:
        caller.run("pid")
        children = until(lambda: len(program.children()) == 2 and program.children())
        program.process.kill()
        program.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def answer(port: int) -> int | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_readiness_is_true_only_while_registered(run: Run, kind: str, tmp_path: Path) -> None:
    server_port, port, file = free_port(), free_port(), tmp_path / "ready"
    options = f"processes=2, ready_file={str(file)!r}, ready_port={port}"
    with run(kind, "", options, address=f"127.0.0.1:{server_port}") as program:
        assert until(lambda: answer(port)) == 503
        with socket.create_connection(("127.0.0.1", port)):  # one who asks nothing disturbs nobody
            for _ in range(2):
                with running_geartrain(port=server_port):
                    until(lambda: answer(port) == 200)
                    assert file.exists()
                until(lambda: answer(port) == 503)
                assert not file.exists()
        with running_geartrain(port=server_port):
            until(file.exists)
            program.tell(signal.SIGTERM)
            assert program.process.wait(10) == 0
            assert not file.exists()


def test_a_process_that_hangs_is_not_ready(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "ready"
    with run("Worker", "", f"processes=1, ready_file={str(file)!r}") as program:
        until(file.exists)
        (pid,) = program.children()
        os.kill(pid, signal.SIGSTOP)
        until(lambda: not file.exists())
        os.kill(pid, signal.SIGCONT)
        until(file.exists)


def test_systemd_is_told(run: Run, kind: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(15)
        said: list[str] = []

        def hear(what: str) -> None:
            said.append("")
            while what not in said[-1]:
                said.append(manager.recv(4096).decode())

        with run(kind, "", "", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000") as program:
            hear("READY=1")
            hear("WATCHDOG=1")
            hear("WATCHDOG=1")
            (pid,) = program.children()
            os.kill(pid, signal.SIGSTOP)  # no sign of life for a process that shows none
            manager.settimeout(2)
            with contextlib.suppress(TimeoutError):
                hear("never")
            os.kill(pid, signal.SIGCONT)
            manager.settimeout(15)
            hear("WATCHDOG=1")
            program.tell(signal.SIGTERM)
            hear("STOPPING=1")
            assert program.process.wait(10) == 0


def version_of(number: int, kind: str) -> str:
    return f"""
        @worker.function()
        {"async " if kind == "AsyncWorker" else ""}def version(job):
            return b"{number}"
    """


def test_reload_starts_again_when_a_file_has_changed(run: Run, kind: str, caller: Caller) -> None:
    functions = "import part\n" + textwrap.dedent(version_of(1, kind)).replace('b"1"', "part.VERSION")
    with contextlib.ExitStack() as stack:
        stack.callback(sys.path_importer_cache.clear)
        with run(kind, "import sys; sys.dont_write_bytecode = True\n" + functions, "reload=True") as program:
            part = program.log.parent / "part.py"
            # The program was started before its part was there: it has failed, and is started again by hand.
            program.process.wait(15)
            part.write_text('VERSION = b"1"\n')
            again = Program(program.log.with_suffix(".py"), caller.address)
            try:
                assert caller.run("version") == b"1"
                write_later(part, 'VERSION = b"2\n')
                until(lambda: "can't be read yet" in again.text())
                assert caller.run("version") == b"1"
                write_later(part, 'VERSION = b"2"\n')
                until(lambda: caller.run("version") == b"2")
            finally:
                again.tell(signal.SIGTERM)
                assert again.process.wait(15) == 0, again.text()


def write_later(file: Path, text: str) -> None:
    """Write with a time that differs from the last, however coarse the file system's clock is."""
    later = file.stat().st_mtime + 10
    file.write_text(text)
    os.utime(file, (later, later))


def test_sighup_finishes_the_jobs_and_starts_again(run: Run, caller: Caller) -> None:
    with run("Worker", SLOW + version_of(1, "Worker").replace("\n        ", "\n"), "processes=1") as program:
        assert caller.run("version") == b"1"
        file = program.log.with_suffix(".py")
        file.write_text(file.read_text().replace('b"1"', 'b"2"'))
        started = start_slow(caller, program)
        pid = program.process.pid
        program.tell(signal.SIGHUP)
        until(lambda: "SIGHUP" in program.text())
        started.unlink()
        assert caller.follow()[-1].arguments[1] == b"finished"
        assert caller.run("version") == b"2"
        assert program.process.pid == pid
        assert program.process.poll() is None


def test_the_number_of_processes_is_checked(run: Run) -> None:
    with run("Worker", "", "processes=0") as program:
        assert program.process.wait(10) == 1
        assert re.search("ValueError: a worker needs at least one process, not 0", program.text())


# Batches.

GATHER = """
@worker.batch("gather", size=4, wait=60.0{options})
{async_}def gather(jobs):
    folder = jobs[0].workload.decode()
    open(folder + "/%d" % os.getpid(), "w").close()
    while os.path.exists(folder + "/%d" % os.getpid()):
        {stuck}time.sleep(0.01)
    return [b"%d" % len(jobs) for _ in jobs]
"""


def gather(kind: str, options: str = "", stuck: str = "") -> str:
    return GATHER.format(options=options, stuck=stuck, async_="async " if kind == "AsyncWorker" else "")


def ends(caller: Caller, count: int) -> list[bytes]:
    """The results of so many jobs, in the order in which they came."""
    return [caller.follow()[-1].arguments[1] for _ in range(count)]


@pytest.mark.parametrize("how", ["the process", "the worker"])
def test_a_killed_process_gives_its_whole_batch_back(
    run: Run, kind: str, server: RunningServer, caller: Caller, tmp_path: Path, how: str
) -> None:
    folder = tmp_path / "gathered"
    folder.mkdir()
    options = "processes=1" if how == "the process" else ""
    with run(kind, gather(kind), options) as program:
        for _ in range(4):
            caller.submit("gather", str(folder).encode())
        (started,) = until(lambda: list(folder.iterdir()))
        assert server.jobs_of("gather") == (4, 4)
        os.kill(int(started.name), signal.SIGKILL)
        if how == "the process":
            handle = caller.handle.decode()
            until(lambda: f"process {started.name} was killed by SIGKILL while it did gather" in program.text())
            assert handle in program.text()
        else:
            program.process.wait()
        started.unlink()
        with run(kind, gather(kind), "") if how == "the worker" else contextlib.nullcontext():
            (started,) = until(lambda: list(folder.iterdir()))
            started.unlink()
            assert ends(caller, 4) == [b"4"] * 4


@pytest.mark.parametrize("count", [4, 3])
def test_sigterm_finishes_a_batch(
    run: Run, kind: str, server: RunningServer, caller: Caller, tmp_path: Path, count: int
) -> None:
    """Also one that is not full."""
    folder = tmp_path / "gathered"
    folder.mkdir()
    with run(kind, gather(kind, ", concurrency=1"), "processes=2") as program:
        for _ in range(count):
            caller.submit("gather", str(folder).encode())
        until(lambda: server.jobs_of("gather") == (count, count))
        if count == 4:
            until(lambda: list(folder.iterdir()))
        program.tell(signal.SIGTERM)
        (started,) = until(lambda: list(folder.iterdir()))
        until(lambda: program.children() == {int(started.name)})  # who has nothing to do leaves
        started.unlink()
        assert ends(caller, count) == [b"%d" % count] * count
        assert program.process.wait(10) == 0


def test_a_hard_limit_kills_a_batch_that_hangs(run: Run, kind: str, caller: Caller, tmp_path: Path) -> None:
    folder = tmp_path / "gathered"
    folder.mkdir()
    stuck = "while not os.path.exists(folder + '/go'): "
    with run(kind, gather(kind, ", hard_limit=0.5", stuck), "processes=1") as program:
        for _ in range(4):
            caller.submit("gather", str(folder).encode())
        until(lambda: "is over a hard time limit with gather H:" in program.text())
        (folder / "go").touch()
        until(lambda: program.text().count("was killed by SIGKILL") == 1)
        for path in folder.iterdir():
            if path.name != "go":
                path.unlink()
        other = until(lambda: [path for path in folder.iterdir() if path.name != "go"])
        other[0].unlink()
        assert ends(caller, 4) == [b"4"] * 4


def test_every_job_of_a_batch_counts(run: Run, kind: str, server: RunningServer) -> None:
    pids = f"""
        @worker.batch("pids", size=2, wait=60.0)
        {"async " if kind == "AsyncWorker" else ""}def pids(jobs):
            return [b"%d" % os.getpid() for _ in jobs]
    """
    with run(kind, pids, "processes=1, max_jobs=4"), Caller(server) as caller:
        for _ in range(12):
            caller.submit("pids")
        assert len(set(ends(caller, 12))) == 3
