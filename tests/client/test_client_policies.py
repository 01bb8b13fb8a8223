"""What an administrator does about policies, single jobs and dead letters, against the real job server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hands import Hands
from hypothesis import given, settings
from hypothesis import strategies as st

from geartrain.client import AdminClient, Client, FunctionPolicy, JobDetails, JobHandle
from geartrain.client.command import read_back
from geartrain.errors import (
    ConnectError,
    ConnectionLostError,
    LocalProtocolError,
    ServerError,
    UnknownJobError,
)
from geartrain.jobserver.shown import show_value
from geartrain.link import Address
from geartrain.wire.packets import SET_CLIENT_ID, WORK_EXCEPTION, WORK_FAIL
from servers import RunningServer, free_port, running_gearmand, running_geartrain, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain("--job-handle-prefix=H:t") as server:
        yield server


@pytest.fixture
def admin(server: RunningServer) -> AdminClient:
    return AdminClient(server.address)


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def died(admin: AdminClient, handle: JobHandle) -> JobDetails:
    wait_until(lambda: admin.show_job(handle).state == "dead", "the job is dead")
    return admin.show_job(handle)


def bury(server: RunningServer, client: Client, function: str, *workloads: bytes) -> list[JobHandle]:
    """Have these jobs fail; the function needs a policy that keeps them."""
    handles = [client.submit_background(function, workload) for workload in workloads]
    admin = AdminClient(server.address)
    with Hands(server, function) as hands:
        for _ in handles:
            hands.send(WORK_FAIL, hands.take().handle)
        for handle in handles:
            died(admin, handle)
    return handles


def test_a_policy_is_set_merged_and_unset(server: RunningServer, admin: AdminClient) -> None:
    address = Address.parse(server.address)
    admin.policy_set("set.one", attempts=5, delay="90s", jitter=0.25)
    admin.policy_set("set.*", {"rate": "10/s"})
    one = FunctionPolicy(address, "set.one", "command", {"attempts": "5", "delay": "90s", "jitter": "0.25"})
    pattern = FunctionPolicy(address, "set.*", "command", {"rate": "10/s"})
    assert [policy for policy in admin.policies() if policy.name.startswith("set.")] == [pattern, one]
    assert admin.policy_of("set.one") == [one]
    assert admin.policy_of("set.two") == [pattern]
    assert admin.policy_of("other") == []
    admin.policy_set("set.one", attempts=None, jitter="", concurrency=2)
    assert admin.policy_of("set.one")[0].keys == {"delay": "90s", "concurrency": "2"}
    assert admin.policy_unset("set.one")
    assert not admin.policy_unset("set.one")
    assert admin.policy_unset("set.*")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"attempts": 0}, "attempts=0: write a whole number, 1 to 1000"),
        ({"delay": "soon"}, "delay=soon: write a time such as"),
        ({"server": "x"}, "server=x: there is no key server; the keys are attempts,"),
        ({"attempts": 3, "backoff": "slow"}, "backoff=slow: write constant or linear or exponential"),
    ],
)
def test_a_bad_policy_is_told_and_changes_nothing(admin: AdminClient, keys: dict[str, str | int], told: str) -> None:
    admin.policy_set("kept", attempts=2)
    with pytest.raises(ServerError, match=told) as caught:
        admin.policy_set("kept", keys)
    assert caught.value.code == "INVALID_POLICY"
    assert admin.policy_of("kept")[0].keys == {"attempts": "2"}


def test_what_is_no_word_is_not_sent(admin: AdminClient) -> None:
    for keys in ({"key_separator": " "}, {"rate": "1 /s"}, {"": "1"}, {"a=b": "1"}, {"attempts": "1\n"}):
        with pytest.raises(LocalProtocolError, match="hold no white space"):
            admin.policy_set("kept", keys)


def test_a_paused_function_hands_out_nothing(server: RunningServer, admin: AdminClient, client: Client) -> None:
    admin.pause("held", "the disk is full", who="me@desk")
    handle = client.submit_background("held", b"x")
    with Hands(server, "held") as hands:
        assert hands.look() is None
        assert "held is paused since" in admin.why(handle)
        assert "by me@desk 127.0.0.1: the disk is full" in admin.why(handle)
        assert admin.show_job(handle).state in ("queued", "blocked")
        assert admin.resume("held")
        assert hands.take().handle == handle
    assert not admin.resume("held")
    assert admin.cancel_job(handle)


def test_a_job_tells_of_itself(server: RunningServer, admin: AdminClient, client: Client) -> None:
    admin.policy_set("told", attempts=2, delay="1h", jitter=0)
    began = time.time()
    handle = client.submit_background("told", b"12345", unique="its\tkey", priority="low")
    job = admin.show_job(str(handle))
    assert (job.function, job.unique, job.state, job.priority) == ("told", "its\tkey", "queued", "low")
    assert job.handle == handle
    assert job.handle.address == Address.parse(server.address)
    assert (job.background, job.size, job.attempts, job.max_attempts, job.history) == (True, 5, 0, 2, ())
    assert job.created is not None
    assert began - 2 < job.created < time.time() + 2
    assert "no worker is registered for told" in admin.why(handle)
    admin.priority(handle, "high")
    assert admin.show_job(handle).priority == "high"
    with Hands(server, "told") as hands:
        hands.send(SET_CLIENT_ID, b"left-hand")
        hands.take()
        job = admin.show_job(handle)
        assert (job.state, job.worker, job.due) == ("running", "left-hand 127.0.0.1", None)
        assert job.running_since is not None
        assert admin.why(handle).startswith("running for ")
        for change in (admin.retry, lambda handle: admin.priority(handle, "low")):
            with pytest.raises(ServerError) as caught:
                change(handle)
            assert caught.value.code == "NOT_WAITING"
        hands.send(WORK_EXCEPTION, handle, b"line 1\nline 2")
        wait_until(lambda: admin.show_job(handle).state == "delayed", "the attempt has ended")
        job = admin.show_job(handle)
        assert job.due is not None
        assert 3500 < job.due - time.time() < 3700
        [attempt] = job.history
        assert (attempt.number, attempt.reason, attempt.text) == (1, "exception", "line 1\nline 2")
        assert attempt.worker == "left-hand 127.0.0.1"
        assert attempt.started <= attempt.ended
        assert "(attempt 2 of 2 after: exception)" in admin.why(handle)
        admin.retry(handle)
        hands.take()
        hands.send(WORK_FAIL, handle)
        job = died(admin, handle)
        assert (job.reason, job.attempts, [one.reason for one in job.history]) == ("fail", 2, ["exception", "fail"])
        admin.retry(handle)
        again = hands.take()
        assert again.workload == b"12345"
        hands.complete(again, b"")
        wait_until(lambda: server.jobs_of("told") == (0, 0), "the job has ended")
    with pytest.raises(UnknownJobError):
        admin.show_job(handle)


TRICKY = st.text(st.sampled_from("\\xu028tnr\t\n\x1b\x80\u2028ü")).map(str.encode)


@given(TRICKY | st.binary())
def test_a_value_of_any_bytes_is_one_line_and_can_be_read_back(value: bytes) -> None:
    shown = show_value(value)
    assert len(shown.splitlines()) <= 1
    assert b"\t" not in shown
    assert read_back(shown) == value


@settings(max_examples=40, deadline=None)
@given(TRICKY | st.binary(max_size=200))
def test_what_a_job_died_of_is_told_as_it_was_said(server: RunningServer, said: bytes) -> None:
    admin = AdminClient(server.address)
    admin.policy_set("said", dead="1d")
    with Hands(server, "said") as hands, Client(server.address) as client:
        handle = client.submit_background("said", b"", unique="a\\tb\tc")
        hands.take()
        hands.send(WORK_EXCEPTION, handle, said)
        job = died(admin, handle)
    [letter] = admin.dead_letters("said")
    [attempt] = job.history
    assert (job.data, attempt.data, letter.data) == (said, said, said)
    assert (job.unique, letter.unique) == ("a\\tb\tc", "a\\tb\tc")
    admin.dead_purge(handle)


def test_a_long_text_is_cut_between_two_letters(server: RunningServer, admin: AdminClient, client: Client) -> None:
    admin.policy_set("long", dead="1d")
    handle = client.submit_background("long", b"")
    with Hands(server, "long") as hands:
        hands.take()
        hands.send(WORK_EXCEPTION, handle, ("ü" * 200 + "!").encode())
        died(admin, handle)
    [letter] = admin.dead_letters("long")
    assert letter.text == "..." + "ü" * 99 + "!"
    admin.dead_purge(handle)


def test_a_job_that_has_ended_is_known_by_its_result(server: RunningServer, admin: AdminClient, client: Client) -> None:
    admin.policy_set("ended", results="1h")
    with Hands(server, "ended") as hands:
        handle = client.submit_background("ended", b"")
        hands.complete(hands.take(), b"12345")
        wait_until(lambda: server.jobs_of("ended") == (0, 0), "the job has ended")
    job = admin.show_job(handle)
    assert (job.handle, job.state, job.outcome, job.result_size) == (handle, "ended", "completed", 5)
    assert job.kept_until is not None
    assert 3500 < job.kept_until - time.time() < 3700


def test_a_function_tells_of_itself(server: RunningServer, admin: AdminClient, client: Client) -> None:
    admin.policy_set("counted", results="1h", concurrency=1)
    handles = [client.submit_background("counted", b"", priority="low") for _ in range(3)]
    with Hands(server, "counted") as hands:
        hands.take()
        [row] = admin.show_function("counted")
        assert (row.server, row.function) == (Address.parse(server.address), "counted")
        assert (row.running, row.low, row.workers, row.paused, row.dead) == (1, 2, 1, False, 0)
        assert row.policy == "concurrency=1 results=1h"
        assert (row.counters["submitted"], row.counters["started"], row.counters["result_hits"]) == (3, 1, 0)
        assert isinstance(row.counters["waited"], float)
        assert 0 <= row.counters["waiting_p50"] <= row.counters["waiting_p99"]
        wait_until(lambda: admin.show_function("counted")[0].oldest_waiting > 0, "they have waited a millisecond")
        assert row.idle == 0
    assert admin.show_function("never-named") == []
    assert all(admin.cancel_job(handle) for handle in handles)


def test_dead_letters_are_listed_tried_again_and_thrown_away(
    server: RunningServer, admin: AdminClient, client: Client
) -> None:
    admin.policy_set("grave", dead="1d")
    admin.policy_set("tomb", dead="1d")
    first, second, third = bury(server, client, "grave", b"one", b"\0two", b"")
    [other] = bury(server, client, "tomb", b"other")
    letters = admin.dead_letters("grave")
    assert [letter.handle for letter in letters] == [first, second, third]
    assert [letter.size for letter in letters] == [3, 4, 0]
    assert (letters[0].function, letters[0].reason, letters[0].attempts) == ("grave", "fail", 1)
    assert letters[0].handle.address == Address.parse(server.address)
    assert [letter.handle for letter in admin.dead_letters(count=2)] == [first, second]
    assert admin.dead_letters("grave", "timeout") == []
    assert [admin.dead_workload(handle) for handle in (first, second, third)] == [b"one", b"\0two", b""]
    with pytest.raises(ServerError, match="reason=tired: the reasons are fail, exception,"):
        admin.dead_letters(reason="tired")
    admin.dead_retry(first)
    assert admin.show_job(first).state == "queued"
    admin.dead_purge(second)
    with pytest.raises(UnknownJobError):
        admin.dead_workload(second)
    with pytest.raises(UnknownJobError):
        admin.dead_retry(first)
    assert admin.dead_retry_all("grave", "fail") == 1
    assert admin.show_job(third).state == "queued"
    assert admin.dead_retry_all("tomb", rate=1000) == 1
    wait_until(lambda: admin.show_job(other).state == "queued", "it is tried again")
    admin.policy_set("crypt", dead="1d")
    bury(server, client, "crypt", b"", b"")
    assert admin.dead_purge_all("grave") == 0
    assert admin.dead_purge_all() == 2
    assert admin.dead_letters() == []


def test_of_several_servers_the_one_that_knows_the_job_is_asked(
    server: RunningServer, admin: AdminClient, client: Client
) -> None:
    with running_geartrain("--job-handle-prefix=H:u") as second:
        both = AdminClient([second.address, server.address])
        handle = client.submit_background("where", b"")
        assert "no worker" in both.why(bytes(handle))
        assert both.show_job(bytes(handle)).handle.address == handle.address
        both.priority(bytes(handle), "high")
        with pytest.raises(UnknownJobError, match="UNKNOWN_JOB: No job H:x:1 is known"):
            both.retry("H:x:1")
        with pytest.raises(UnknownJobError):
            both.why(f"{second.address}//{bytes(handle).decode()}")
        both.policy_set("where", attempts=2)
        assert [policy.server for policy in both.policy_of("where")] == list(both.addresses)
        both.pause("where")
        assert both.resume("where", second.address)
        assert both.resume("where")
        assert admin.policy_unset("where")
        assert both.policy_unset("where")
        assert admin.cancel_job(handle)
    half = AdminClient([f"127.0.0.1:{free_port()}", server.address])
    handle = client.submit_background("where", b"")
    assert "no worker" in half.why(bytes(handle))
    with pytest.raises(ConnectError):
        half.why("H:x:1")
    assert admin.cancel_job(handle)


def test_another_job_server_is_told_to_know_no_policies() -> None:
    with running_gearmand() as gearmand:
        admin = AdminClient(gearmand.address)
        for ask in (admin.policies, lambda: admin.why("H:x:1"), lambda: admin.show_job("H:x:1")):
            with pytest.raises(ServerError, match="has to be a geartrain that has policies"):
                ask()
        with pytest.raises(ConnectionLostError, match="has to be a geartrain that has policies"):
            admin.policy_set("f", attempts=1, delay=1, jitter=1, timeout=1)
