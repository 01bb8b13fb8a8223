"""Webhooks: real calls, from a job server in a process of its own to a web server in this one."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from receiver import Call, Receiver

from daemon_peer import DaemonPeer
from geartrain.wire.packets import (
    CAN_DO,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
    WORK_EXCEPTION,
    pack_request,
)
from servers import RunningServer, free_port, running_geartrain, wait_until

SERVER = Path(__file__).with_name("webhook_server.py")


class Hooked(RunningServer):
    """A job server with webhooks."""

    def submit(self, function: bytes = b"f", unique: bytes = b"", kind: int = SUBMIT_JOB_BG) -> str:
        """The handle of a new job; a foreground one is given up at once."""
        with DaemonPeer(self.port) as client:
            client.send(pack_request(kind, function, unique, b"w"))
            created = client.receive()
        assert created.type == JOB_CREATED
        return created.arguments[0].decode()

    def attach(self, handle: str, url: str, secret: str = "") -> None:
        assert self.ask(f"attach {handle} {url} {secret}") == ["OK"]

    def work(self, *reports: bytes, kind: int = WORK_COMPLETE, function: bytes = b"f") -> None:
        """Do a job for each report."""
        with DaemonPeer(self.port) as worker:
            worker.send(pack_request(CAN_DO, function))
            for report in reports:
                worker.send(pack_request(GRAB_JOB))
                job = worker.receive()
                assert job.type == JOB_ASSIGN
                worker.send(pack_request(kind, job.arguments[0], report))
            worker.send(b"version\n")
            worker.socket.recv(100)

    def counts(self) -> list[int]:
        """Attached, pending, delivered, failed, dropped."""
        return [int(word) for word in self.ask("webhooks")[0].split()[1:]]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def hooked(folder: Path, *options: str, private: bool = True, port: int = 0) -> Iterator[Hooked]:
    port = port or free_port()
    log = folder / "log"
    options = (f"log_file={log}", *(["webhook_private=1"] if private else []), *options)
    process = subprocess.Popen([sys.executable, str(SERVER), str(port), *options])
    server = Hooked("geartrain", port, process, log)
    try:
        wait_until(lambda: log.exists() and " listening " in log.read_text(), "it listens", 20)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) in (0, -signal.SIGKILL)


def stored(folder: Path) -> str:
    return f"store=sqlite:///{folder / 'jobs.sqlite'}"


def is_signed(call: Call, secret: str) -> bool:
    """As our page tells others to do it."""
    parts = dict(part.split("=", 1) for part in call.headers["X-Geartrain-Signature"].split(","))
    expected = hmac.new(secret.encode(), parts["t"].encode() + b"." + call.body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, parts["v1"]) and abs(time.time() - int(parts["t"])) < 300


# ── what is told ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_end_of_a_job_is_told(tmp_path: Path) -> None:
    with Receiver() as receiver, hooked(tmp_path) as server:
        handle = server.submit(unique=b"\xff\\ u")
        server.attach(handle, receiver.url, "of-this-job")
        server.work("größer".encode())
        (call,) = receiver.wait_for(1)
        wait_until(lambda: server.counts() == [0, 0, 1, 0, 0], "it has arrived")
    assert call.headers["Content-Type"] == "application/json"
    assert call.headers["User-Agent"].startswith("geartrain/")
    assert call.headers["X-Geartrain-Delivery"] == call.told["delivery"]
    assert is_signed(call, "of-this-job")
    assert not is_signed(call, "another")
    told = call.told
    times = [told.pop(name) for name in ("submitted", "started", "ended")]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(time.time(), abs=60)
    del told["delivery"]
    assert told == {
        "handle": handle, "function": "f", "unique": r"\xff\\ u", "outcome": "completed",
        "result": "größer", "error": None, "encoding": "text", "size": 8, "truncated": False, "attempts": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (b"", {"result": "", "encoding": "text", "size": 0, "truncated": False}),
        (b"\0\xff", {"result": "AP8=", "encoding": "base64", "size": 2, "truncated": False}),
        (b"x" * 65536, {"result": "x" * 65536, "encoding": "text", "size": 65536, "truncated": False}),
        (b"x" + "ä".encode() * 32768, {"result": "x" + "ä" * 32767, "size": 65537, "truncated": True}),
        (b"\xff" * 70000, {"result": base64.b64encode(b"\xff" * 65536).decode(), "truncated": True}),
    ],
)
def test_a_result_is_told_as_text_or_in_base64(tmp_path: Path, result: bytes, told: dict[str, object]) -> None:
    with Receiver() as receiver, hooked(tmp_path) as server:
        server.attach(server.submit(), receiver.url)
        server.work(result)
        (call,) = receiver.wait_for(1)
    assert {key: call.told[key] for key in told} == told
    assert "X-Geartrain-Signature" not in call.headers


def test_however_it_ends(tmp_path: Path) -> None:
    """Failed after two tries, cancelled, given up by its client, dead; by policy as well as by a hook of its own."""
    with Receiver() as receiver, hooked(tmp_path, "webhook_secret=of-the-server") as server:
        assert server.ask(f"policy set f webhook={receiver.url}/all attempts=2 delay=0 dead=0") == ["OK"]
        handle = server.submit()
        server.attach(handle, receiver.url + "/one")
        server.attach(handle, receiver.url + "/two", "its-own")
        server.attach(handle, receiver.url + "/one")
        server.work(b"oops", b"oops again", kind=WORK_EXCEPTION)
        calls = {call.path: call for call in receiver.wait_for(3)}
        assert sorted(calls) == ["/hook/all", "/hook/one", "/hook/two"]
        assert {call.told["handle"] for call in calls.values()} == {handle}
        assert len({call.told["delivery"] for call in calls.values()}) == 3
        for call in calls.values():
            assert [call.told[key] for key in ("outcome", "error", "result", "attempts")] == [
                "failed", "oops again", None, 2,
            ]  # fmt: skip
            assert is_signed(call, "its-own" if call.path == "/hook/two" else "of-the-server")
        receiver.calls.clear()
        handle = server.submit()
        server.attach(handle, receiver.url + "/one")
        assert server.ask(f"cancel job {handle}") == ["OK"]
        assert {call.told["outcome"] for call in receiver.wait_for(2)} == {"cancelled"}
        assert receiver.calls[0].told["started"] is None
        receiver.calls.clear()
        server.submit(kind=SUBMIT_JOB)
        (call,) = receiver.wait_for(1)
        assert call.told["outcome"] == "abandoned"
        receiver.calls.clear()
        assert server.ask("policy set f dead=1h attempts=1") == ["OK"]
        server.submit()
        server.work(b"oops", kind=WORK_EXCEPTION)
        (call,) = receiver.wait_for(1)
        assert (call.told["outcome"], call.told["attempts"]) == ("dead", 1)
        wait_until(lambda: server.counts()[:2] == [0, 0], "all have arrived")
        assert server.counts()[3:] == [0, 0]


def test_what_can_not_be_attached_is_told(tmp_path: Path) -> None:
    with hooked(tmp_path, private=False) as server:
        handle = server.submit()
        assert server.ask(f"attach {handle}999 https://example.org/") == ["ERR no"]
        assert server.ask(f"attach {handle} http://127.0.0.1/")[0].startswith("ERR 127.0.0.1 is no public address")
        for number in range(8):
            server.attach(handle, f"https://example.org/{number}")
        assert server.ask(f"attach {handle} https://example.org/more") == ["ERR no"]
        assert server.counts() == [1, 0, 0, 0, 0]


# ── receivers that do not take it ───────────────────────────────────────────────────────────────────────────────────


def test_one_that_fails_is_called_again_with_the_same(tmp_path: Path) -> None:
    statuses = iter([500, 302, 200])
    with Receiver(lambda call: next(statuses)) as receiver, hooked(tmp_path) as server:
        server.attach(server.submit(), receiver.url, "s3cret-of-the-job")
        server.work(b"r")
        first, second, third = receiver.wait_for(3, 40)
        wait_until(lambda: server.counts() == [0, 0, 1, 0, 0], "it has arrived")
        log = server.log.read_text()
    assert first.body == second.body == third.body
    assert {call.path for call in (first, second, third)} == {"/hook"}, "a redirect is not followed"
    assert all(is_signed(call, "s3cret-of-the-job") for call in (first, second, third))
    assert "webhook_delayed" in log
    assert 'reason="status 500"' in log
    assert "s3cret" not in log
    assert "/hook" not in log, "who knows what a URL holds"


def test_one_that_is_gone_is_called_no_more(tmp_path: Path) -> None:
    with Receiver(lambda call: 410) as receiver, hooked(tmp_path) as server:
        server.attach(server.submit(), receiver.url)
        server.work(b"r")
        wait_until(lambda: server.counts() == [0, 0, 0, 1, 0], "it is given up")
        assert len(receiver.calls) == 1
        wait_until(lambda: "webhook_failed" in server.log.read_text(), "the log says so")


def test_one_that_is_down_is_called_when_it_is_up(tmp_path: Path) -> None:
    port = free_port()
    with hooked(tmp_path) as server:
        server.attach(server.submit(), f"http://127.0.0.1:{port}/")
        server.work(b"r")
        wait_until(lambda: "webhook_delayed" in server.log.read_text(), "it was tried")
        with Receiver(port=port) as receiver:
            receiver.wait_for(1, 20)


def test_one_that_hangs_harms_no_other_and_is_bounded(tmp_path: Path) -> None:
    """Four calls wait for it at once and no more, while others are called; each is given up after a while."""
    release = threading.Event()
    with (
        Receiver(lambda call: 200 if release.wait(60) else 500) as hanging,
        Receiver() as good,
        hooked(tmp_path) as server,
    ):
        for name, receiver in ((b"f", hanging), (b"g", good)):
            assert server.ask(f"policy set {name.decode()} webhook={receiver.url}") == ["OK"]
        for _ in range(20):
            server.submit(b"f")
        server.work(*[b"r"] * 20, function=b"f")
        wait_until(lambda: hanging.under_way == 4, "four calls are under way")
        for _ in range(20):
            server.submit(b"g")
        server.work(*[b"r"] * 20, function=b"g")
        good.wait_for(20)
        assert hanging.most == 4
        wait_until(lambda: "no answer within 10 s" in server.log.read_text(), "it is given up for now", 20)
        release.set()
        hanging.wait_for(20, 40)
        wait_until(lambda: server.counts()[1:3] == [0, 40], "all have arrived", 20)
        assert good.most <= 4


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    """Half of it for one host, so that there is room for others."""
    port = free_port()
    with Receiver() as good, hooked(tmp_path, "max_webhooks=10") as server:
        assert server.ask(f"policy set f webhook=http://127.0.0.1:{port}/") == ["OK"]
        assert server.ask(f"policy set g webhook={good.url}") == ["OK"]
        for name in (b"f", b"g"):
            for _ in range(12 if name == b"f" else 3):
                server.submit(name)
            server.work(*[b"r"] * (12 if name == b"f" else 3), function=name)
        good.wait_for(3)
        wait_until(lambda: server.counts() == [0, 5, 3, 0, 7], "seven had no room")
        wait_until(lambda: "webhook_dropped" in server.log.read_text(), "the log says so")


def test_where_memory_is_full_the_result_is_left_out(tmp_path: Path) -> None:
    with Receiver() as receiver, hooked(tmp_path, "max_memory=40000") as server:
        server.attach(server.submit(), receiver.url)
        server.work(b"x" * 60000)
        (call,) = receiver.wait_for(1)
    assert [call.told[key] for key in ("outcome", "result", "size", "truncated")] == ["completed", None, 60000, True]


# ── restarts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_has_not_arrived_outlasts_a_kill(tmp_path: Path) -> None:
    port = free_port()
    with hooked(tmp_path, stored(tmp_path)) as server:
        server.attach(server.submit(), f"http://127.0.0.1:{port}/", "its-own")
        server.work(b"r")
        wait_until(lambda: "webhook_delayed" in server.log.read_text(), "it was tried")
        server.kill()
    server.log.unlink()
    with Receiver(port=port) as receiver, hooked(tmp_path, stored(tmp_path)) as server:
        (call,) = receiver.wait_for(1, 20)
        assert (call.told["result"], is_signed(call, "its-own")) == ("r", True)
        wait_until(lambda: server.counts() == [0, 0, 1, 0, 0], "it has arrived")
    server.log.unlink()  # it has ended in good order: after a kill now the call might be made again
    with hooked(tmp_path, stored(tmp_path)) as server:
        assert server.counts() == [0, 0, 0, 0, 0]


def test_hooks_outlast_a_kill_and_so_do_ends_that_nobody_saw(tmp_path: Path) -> None:
    with Receiver() as receiver:
        with hooked(tmp_path, stored(tmp_path)) as server:
            kept = server.submit()
            server.attach(kept, receiver.url + "/kept", "its-own")
            with DaemonPeer(server.port) as client:
                client.send(pack_request(SUBMIT_JOB, b"g", b"", b"w"))
                lost = client.receive().arguments[0].decode()
                server.attach(lost, receiver.url + "/lost")
                server.kill()
        server.log.unlink()
        with hooked(tmp_path, stored(tmp_path)) as server:
            assert server.counts()[0] == 1
            (call,) = receiver.wait_for(1)
            told = call.told
            assert (call.path, told["outcome"], told["handle"], told["function"]) == ("/hook/lost", "lost", lost, None)
            server.work(b"r")
            call = receiver.wait_for(2)[1]
            assert (call.path, call.told["handle"], is_signed(call, "its-own")) == ("/hook/kept", kept, True)


@pytest.mark.parametrize("moment", [0.0, 0.01, 0.1])
def test_an_end_is_told_whenever_the_server_is_killed(tmp_path: Path, moment: float) -> None:
    """Jobs are done and the server is killed in the middle; what is done by then, or later, is told at least once."""
    told: set[str] = set()

    def answer(call: Call) -> int:
        told.add(call.told["handle"])
        return 200

    with Receiver(answer) as receiver:
        handles = []
        with hooked(tmp_path, stored(tmp_path)) as server:
            assert server.ask(f"policy set f webhook={receiver.url}") == ["OK"]
            handles = [server.submit() for _ in range(30)]
            done = threading.Thread(target=_work_until_it_ends, args=(server, 30))
            done.start()
            wait_until(lambda: len(receiver.calls) >= 3, "some are told")
            time.sleep(moment)  # any moment is a good one
            server.kill()
            done.join()
        server.log.unlink()
        with hooked(tmp_path, stored(tmp_path)) as server:
            left = server.jobs_of("f")[0]
            server.work(*[b"r"] * left)
            wait_until(lambda: told == set(handles), "all are told", 20)


def _work_until_it_ends(server: Hooked, count: int) -> None:
    with contextlib.suppress(OSError, AssertionError):
        server.work(*[b"r"] * count)


def test_a_stop_waits_for_no_receiver(tmp_path: Path) -> None:
    release = threading.Event()
    with Receiver(lambda call: 200 if release.wait(60) else 500) as receiver:
        with hooked(tmp_path, stored(tmp_path)) as server:
            server.attach(server.submit(), receiver.url)
            server.work(b"r")
            wait_until(lambda: receiver.under_way == 1, "it is called")
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(5) == 0
        assert "Unclosed" not in server.log.read_text()
        assert "Traceback" not in server.log.read_text()
        release.set()
        server.log.unlink()
        with hooked(tmp_path, stored(tmp_path)):
            receiver.wait_for(2)


# ── in the HTTP face ────────────────────────────────────────────────────────────────────────────────────────────────


def test_whoever_serves_http_has_them(tmp_path: Path) -> None:
    options = ("--http=127.0.0.1:0", "--webhook-private", "--webhook-secret=of-the-server")
    with Receiver() as receiver, running_geartrain(*options, store=stored(tmp_path).removeprefix("store=")) as found:
        server = Hooked(found.kind, found.port, found.process, found.log)
        assert server.ask(f"policy set f webhook={receiver.url}") == ["OK"]
        server.submit()
        server.work(b"r")
        (call,) = receiver.wait_for(1)
        assert is_signed(call, "of-the-server")
        assert "of-the-server" not in server.log.read_text()


def test_a_submission_over_http_names_its_own(tmp_path: Path) -> None:
    """With its secret or without; as long as the job has not ended, by a later one of the same unique too."""
    options = ("--http=127.0.0.1:0", "--webhook-private", "--webhook-secret=of-the-server")
    with Receiver() as receiver, running_geartrain(*options, store=stored(tmp_path).removeprefix("store=")) as found:
        server = Hooked(found.kind, found.port, found.process, found.log)
        for webhook in ({"url": receiver.url + "/one", "secret": "its-own"}, receiver.url + "/two"):
            body = {"function": "f", "unique": "u", "background": True, "webhook": webhook}
            connection = http.client.HTTPConnection("127.0.0.1", found.http_port, timeout=20)
            connection.request("POST", "/api/v1/jobs", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["webhook"]) == (202, True)
            connection.close()
        server.work(b"r")
        calls = {call.path: call for call in receiver.wait_for(2)}
        assert is_signed(calls["/hook/one"], "its-own")
        assert is_signed(calls["/hook/two"], "of-the-server")
        assert {call.told["unique"] for call in calls.values()} == {"u"}


# ── where it may go ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "127.1"])
def test_this_machine_is_not_called_by_a_policy(tmp_path: Path, host: str) -> None:
    """Its URL is looked at when it is called; a name at the very address that it means then."""
    said = "webhook_delayed" if host == "localhost" else "webhook_failed"
    with _at_an_allowed_port() as receiver, hooked(tmp_path, private=False) as server:
        port = receiver.server_address[1]
        assert server.ask(f"policy set f webhook=http://{host}:{port}/") == ["OK"]
        server.submit()
        server.work(b"r")
        wait_until(lambda: said in server.log.read_text(), "it is not called")
        reason = "no address" if host in ("2130706433", "127.1") else "is no public address"
        assert reason in server.log.read_text()
        assert receiver.calls == []


@contextlib.contextmanager
def _at_an_allowed_port() -> Iterator[Receiver]:
    for port in (8080, 8443):
        with contextlib.suppress(OSError):
            receiver = Receiver(port=port)
            break
    else:
        pytest.skip("both ports are in use")
    with receiver:
        yield receiver


def test_a_webhook_that_nobody_calls_is_said_when_it_is_set_and_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "geartrain.toml"
    file.write_text('[policies."a*"]\nwebhook = "https://example.org/a"\n[policies.b]\nattempts = 2\n')
    store = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    with running_geartrain(f"--config={file}", store=store) as server:
        log = server.log
        wait_until(lambda: "webhook_not_called policy=a* policies=1 " in log.read_text(), "it is said at the start")
        assert server.ask("policy set b attempts=3") == ["OK"]
        assert server.ask("policy set b webhook=https://example.org/b") == ["OK"]
        wait_until(lambda: "webhook_not_called policy=b policies=1 " in log.read_text(), "it is said when it is set")
        assert log.read_text().count("webhook_not_called") == 2
        assert "--http" in log.read_text()
    with running_geartrain(f"--config={file}", store=store) as server:
        wait_until(lambda: "webhook_not_called policy=a* policies=2 " in server.log.read_text(), "both are")
    with running_geartrain(f"--config={file}", "--http=127.0.0.1:0", store=store) as server:
        assert server.ask("policy set c webhook=https://example.org/c") == ["OK"]
        wait_until(lambda: "policy_set" in server.log.read_text(), "it is set")
        assert "webhook_not_called" not in server.log.read_text()
