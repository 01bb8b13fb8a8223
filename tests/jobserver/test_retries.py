"""Jobs that do not succeed are tried again as their function's policy says, and then kept as dead letters."""

from __future__ import annotations

import pytest
from desk import Desk

from geartrain.jobserver.policy import read_policy


@pytest.fixture
def desk() -> Desk:
    return Desk(durable=True)


def fail(desk: Desk, handle: bytes, kind: str = "WORK_FAIL", *more: bytes) -> None:
    desk.send("worker", kind, handle, *more)


def test_without_a_policy_a_failure_is_the_end(desk: Desk) -> None:
    desk.works("worker", b"f")
    handle = desk.submit(b"f", kind="SUBMIT_JOB")
    assert desk.grab("worker") == handle
    fail(desk, handle)
    assert desk.take("client") == [("WORK_FAIL", handle)]
    assert desk.text("admin", "dead list") == ".\n"


@pytest.mark.parametrize("how", ["WORK_FAIL", "WORK_EXCEPTION", "timeout", "lost"])
def test_the_third_attempt_may_succeed_and_the_client_hears_of_nothing_else(desk: Desk, how: str) -> None:
    assert desk.text("admin", "policy set f attempts=3 delay=10s jitter=0 timeout=5s") == "OK\r\n"
    handle = desk.submit(b"f", kind="SUBMIT_JOB")
    for pause in (10, 20):
        desk.works("worker", b"f")
        assert desk.grab("worker") == handle
        if how == "timeout":
            desk.wait(6)
            desk.take("worker")
            pause -= 1
        elif how == "lost":
            desk.leave("worker")
        else:
            fail(desk, handle, how, *([b"oops"] if how == "WORK_EXCEPTION" else []))
        assert desk.take("client") == []
        desk.wait(pause - 0.5)
        desk.works("worker", b"f")
        assert desk.grab("worker") is None
        desk.wait(0.6)
    desk.works("worker", b"f")
    assert desk.grab("worker") == handle
    desk.send("worker", "WORK_COMPLETE", handle, b"done")
    assert desk.take("client") == [("WORK_COMPLETE", handle, b"done")]
    desk.commit()
    assert not desk.jobs
    assert {kind for kind, _ in desk.records} == {"policy"}


@pytest.mark.parametrize(("reason", "how"), [("fail", "WORK_FAIL"), ("exception", "WORK_EXCEPTION")])
def test_reasons_are_told_apart(desk: Desk, reason: str, how: str) -> None:
    desk.text("admin", "policy set f attempts=3 retry_on=timeout,lost")
    desk.works("worker", b"f")
    desk.send("client", "OPTION_REQ", b"exceptions")
    desk.take("client")
    handle = desk.submit(b"f", kind="SUBMIT_JOB")
    assert desk.grab("worker") == handle
    fail(desk, handle, how, *([b"oops"] if reason == "exception" else []))
    assert desk.take("client") == [(how, handle, *([b"oops"] if reason == "exception" else []))]
    assert f"\t{reason}\t1\t1\t" in desk.text("admin", "dead list")


def test_a_job_that_never_succeeds_is_dead_with_all_its_attempts(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=2 delay=1s jitter=0")
    desk.works("worker", b"f")
    desk.send("worker", "SET_CLIENT_ID", b"bob")
    handle = desk.submit(b"f", b"u", b"work")
    for text in (b"one", b"two\nlines"):
        assert desk.grab("worker") == handle
        fail(desk, handle, "WORK_EXCEPTION", text)
        desk.wait(1)
    assert desk.grab("worker") is None
    line = desk.text("admin", "dead list")
    assert line == f"{handle.decode()}\tf\tu\t{desk.wall - 1:.3f}\texception\t2\t4\ttwo\\nlines\n.\n"
    shown = desk.text("admin", f"show job {handle.decode()}")
    assert "state\tdead\n" in shown
    assert "\texception\tbob 127.0.0.1\tone\n" in shown
    assert desk.text("admin", f"dead workload {handle.decode()}") == "OK 4\nwork"
    assert desk.text("admin", "status") == "f\t0\t0\t1\n.\n"
    assert desk.text("admin", "show jobs") == ".\n"
    desk.send("client", "GET_STATUS", handle)
    assert desk.take("client") == [("STATUS_RES", handle, b"0", b"0", b"0", b"0")]


def test_a_dead_letter_outlasts_a_restart_and_is_tried_again(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1")
    desk.works("worker", b"f")
    handle = desk.submit(b"f", b"u")
    assert desk.grab("worker") == handle
    fail(desk, handle)
    before = desk.text("admin", "dead list")
    desk.restart()
    assert desk.text("admin", "dead list") == before
    desk.works("worker", b"f")
    assert desk.grab("worker") is None
    assert desk.text("admin", f"dead retry {handle.decode()}") == "OK 1\n"
    assert desk.text("admin", "dead list") == ".\n"
    desk.restart()
    desk.works("worker", b"f")
    assert desk.grab("worker") == handle
    desk.send("worker", "WORK_COMPLETE", handle, b"")
    desk.commit()
    assert not desk.jobs
    assert {kind for kind, _ in desk.records} == {"policy"}


def test_a_foreground_job_that_died_is_stored(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1")
    desk.works("worker", b"f")
    handle = desk.submit(b"f", kind="SUBMIT_JOB")
    assert desk.grab("worker") == handle
    fail(desk, handle)
    assert desk.take("client") == [("WORK_FAIL", handle)]
    desk.restart()
    assert desk.text("admin", "dead list").startswith(handle.decode())


def test_after_a_restart_dead_letters_stand_in_the_order_of_their_deaths(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1 dead=1h")
    desk.works("w", b"f")
    handles = [desk.submit(b"f") for _ in range(3)]
    assert {desk.grab("w") for _ in handles} == set(handles)
    for handle in (handles[1], handles[2], handles[0]):
        desk.send("w", "WORK_FAIL", handle)
        desk.wait(1)
    before = desk.text("admin", "dead list")
    assert [line.split("\t")[0] for line in before.splitlines()[:3]] == ["H:2", "H:3", "H:1"]
    desk.restart()
    assert desk.text("admin", "dead list") == before


@pytest.mark.parametrize("unique", [b"u", b"-"])
def test_a_live_job_has_its_unique_after_a_restart_though_a_dead_one_stands_behind_it(
    desk: Desk, unique: bytes
) -> None:
    desk.text("admin", "policy set f attempts=1 dead=1h")
    desk.works("w", b"f")

    def die(handle: bytes) -> None:
        assert desk.grab("w") == handle
        desk.send("w", "WORK_FAIL", handle)

    first = desk.submit(b"f", unique)
    die(first)
    second = desk.submit(b"f", unique)
    for _ in range(2):
        desk.text("admin", f"retry {first.decode()}")
        desk.text("admin", f"priority {first.decode()} high")
        die(first)
    assert desk.submit(b"f", unique) == second
    desk.restart()
    assert desk.submit(b"f", unique) == second


def test_dead_letters_go_at_their_time_and_beyond_their_number(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1 dead=1h dead_count=2")
    desk.works("worker", b"f")
    handles = [desk.submit(b"f") for _ in range(3)]
    for handle in handles:
        assert desk.grab("worker") == handle
        fail(desk, handle)
        desk.wait(60)
    kept = desk.text("admin", "dead list").splitlines()
    assert [line.split("\t")[0].encode() for line in kept] == [*handles[1:], b"."]
    desk.wait(3600 - 100)
    assert desk.text("admin", "dead list").count("\n") == 2
    desk.wait(100)
    assert desk.text("admin", "dead list") == ".\n"
    desk.commit()
    assert not desk.jobs
    assert {kind for kind, _ in desk.records} == {"policy"}


def test_a_function_with_dead_letters_is_not_dropped_and_they_are_not_cancelled(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1")
    desk.works("worker", b"f")
    handle = desk.submit(b"f")
    assert desk.grab("worker") == handle
    fail(desk, handle)
    desk.leave("worker")
    assert desk.text("admin", "drop function f").startswith("ERR there are dead letters")
    assert desk.text("admin", f"cancel job {handle.decode()}") == "ERR UNKNOWN_JOB\r\n"
    assert desk.text("admin", f"dead retry {handle.decode()}") == "OK 1\n"
    desk.works("worker", b"f")
    assert desk.grab("worker") == handle


def test_where_fewer_dead_letters_are_kept_than_before_the_others_go(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1")
    desk.works("worker", b"f")
    handles = []
    for n in range(9):
        if n == 6:
            desk.text("admin", "policy set f dead_count=2")
        handles.append(desk.submit(b"f"))
        assert desk.grab("worker") == handles[-1]
        fail(desk, handles[-1])
    kept = desk.text("admin", "dead list").splitlines()
    assert [line.split("\t")[0].encode() for line in kept] == [*handles[-2:], b"."]


def test_a_job_that_expired_and_is_tried_again_has_all_its_time_again(desk: Desk) -> None:
    desk.text("admin", "policy set f expires=10s")
    handle = desk.submit(b"f")
    desk.wait(11)
    assert "\texpired\t0\t" in desk.text("admin", "dead list")
    assert desk.text("admin", "dead retry all") == "OK 1\n"
    desk.wait(6)
    desk.restart()
    desk.wait(3)
    assert desk.text("admin", "dead list") == ".\n"
    desk.wait(2)
    assert desk.text("admin", "dead list").startswith(handle.decode())


def test_a_job_that_began_and_is_tried_again_has_all_its_time_to_begin(desk: Desk) -> None:
    desk.text("admin", "policy set f expires=10s")
    desk.works("worker", b"f")
    handle = desk.submit(b"f")
    assert desk.grab("worker") == handle
    desk.wait(5)
    fail(desk, handle)
    assert desk.text("admin", "dead retry all") == "OK 1\n"
    desk.wait(9)
    assert desk.text("admin", "dead list") == ".\n"


def test_a_job_that_dies_again_is_kept_as_long_as_any_other(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1 dead=1h")
    desk.works("worker", b"f")
    handle = desk.submit(b"f")
    for _ in range(2):
        assert desk.grab("worker") == handle
        fail(desk, handle)
        desk.wait(1800)
        desk.text("admin", f"dead retry {handle.decode()}")
    assert desk.grab("worker") == handle
    fail(desk, handle)
    desk.wait(3500)
    assert desk.text("admin", "dead list").startswith(handle.decode())
    desk.wait(200)
    assert desk.text("admin", "dead list") == ".\n"


def test_a_job_not_begun_in_time_expires(desk: Desk) -> None:
    desk.text("admin", "policy set f expires=10s")
    one = desk.submit(b"f")
    two = desk.submit(b"f", kind="SUBMIT_JOB")
    desk.works("worker", b"f")
    assert desk.grab("worker") == one
    desk.wait(11)
    assert desk.take("client") == [("WORK_FAIL", two)]
    assert "\texpired\t0\t" in desk.text("admin", "dead list")
    desk.wait(100)
    desk.send("worker", "WORK_COMPLETE", one, b"")
    desk.commit()
    assert list(desk.jobs) == [2]


def test_a_full_queue_drops_its_oldest(desk: Desk) -> None:
    desk.text("admin", "policy set f queue=2 when_full=drop-oldest")
    first, second = desk.submit(b"f"), desk.submit(b"f")
    third = desk.submit(b"f")
    assert desk.text("admin", "dead list").split("\t")[0].encode() == first
    desk.works("worker", b"f")
    assert [desk.grab("worker"), desk.grab("worker"), desk.grab("worker")] == [second, third, None]
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"", b"")
    assert desk.take("client")[0][:2] == ("ERROR", b"QUEUE_ERROR")


def test_nothing_is_dropped_for_a_submission_that_is_refused(desk: Desk) -> None:
    desk.text("admin", "policy set f queue=1 when_full=drop-oldest")
    desk.submit(b"f")
    desk.server.drain()
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"", b"")
    assert desk.take("client")[0][:2] == ("ERROR", b"QUEUE_ERROR")
    assert desk.text("admin", "dead list") == ".\n"


def test_a_full_queue_refuses(desk: Desk) -> None:
    desk.text("admin", "policy set f queue=1")
    desk.submit(b"f")
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"", b"")
    assert desk.take("client") == [("ERROR", b"QUEUE_ERROR", b"Job queue is full")]


def test_a_worker_asks_for_another_attempt_or_for_none(desk: Desk) -> None:
    desk.send("client", "OPTION_REQ", b"exceptions")
    desk.take("client")
    desk.works("worker", b"f", verdicts=True)
    handle = desk.submit(b"f", kind="SUBMIT_JOB")
    assert desk.grab("worker") == handle
    fail(desk, handle, "WORK_FAIL", b"retry=30", b"later")
    assert desk.take("client") == []
    desk.wait(29)
    assert desk.grab("worker") is None
    desk.wait(1.1)
    assert desk.grab("worker") == handle
    fail(desk, handle, "WORK_FAIL", b"reject", b"bad input")
    assert desk.take("client") == [("WORK_EXCEPTION", handle, b"bad input")]


def test_another_attempt_is_bounded_by_the_policy(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=2")
    desk.works("worker", b"f", verdicts=True)
    handle = desk.submit(b"f", kind="SUBMIT_JOB")
    assert desk.grab("worker") == handle
    fail(desk, handle, "WORK_FAIL", b"retry=1", b"")
    desk.wait(1.1)
    assert desk.grab("worker") == handle
    fail(desk, handle, "WORK_FAIL", b"retry=1", b"")
    assert desk.take("client") == [("WORK_FAIL", handle)]
    assert "\tretry\t2\t" in desk.text("admin", "dead list")


def test_an_old_worker_has_no_verdicts(desk: Desk) -> None:
    desk.works("worker", b"f")
    handle = desk.submit(b"f", kind="SUBMIT_JOB")
    assert desk.grab("worker") == handle
    fail(desk, handle, "WORK_FAIL", b"retry=30", b"later")
    assert desk.take("client") == [("WORK_FAIL", handle)]


def test_a_retry_outlasts_a_restart_in_its_pause(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=3 delay=60s jitter=0")
    desk.works("worker", b"f")
    handle = desk.submit(b"f")
    assert desk.grab("worker") == handle
    fail(desk, handle)
    desk.wait(10)
    desk.restart()
    desk.works("worker", b"f")
    assert desk.grab("worker") is None
    assert desk.text("admin", f"why {handle.decode()}") == "OK due in 50 s (attempt 2 of 3 after: fail)\n"
    desk.wait(51)
    assert desk.grab("worker") == handle
    assert desk.text("admin", f"show job {handle.decode()}").count("attempt\t") == 1


def test_a_delayed_job_is_due_at_once_when_it_is_told_so(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=3 delay=60s jitter=0")
    desk.works("worker", b"f")
    handle = desk.submit(b"f")
    assert desk.grab("worker") == handle
    fail(desk, handle)
    assert desk.text("admin", f"retry {handle.decode()}") == "OK\r\n"
    assert desk.grab("worker") == handle
    fail(desk, handle)
    desk.wait(100)  # the first pause would have ended here, and the second has not
    assert desk.grab("worker") is None
    desk.wait(21)
    assert desk.grab("worker") == handle


def test_many_letters_are_tried_again_at_a_rate(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1")
    desk.works("worker", b"f")
    for _ in range(5):
        desk.submit(b"f")
    for _ in range(5):
        fail(desk, desk.grab("worker") or b"")
    assert desk.text("admin", "dead retry all function=f rate=2/s") == "OK 5\n"
    desk.wait(0.1)
    assert desk.text("admin", "dead list").count("\n") == 5
    desk.wait(1)
    assert desk.text("admin", "dead list").count("\n") == 3
    desk.wait(1)
    assert desk.text("admin", "dead list") == ".\n"


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("attempts=0", "attempts=0: write a whole number, 1 to 1000"),
        ("attempt=3", "attempt=3: there is no key attempt"),
        ("delay=soon", "delay=soon: write a time such as"),
        ("backoff=cubic", "backoff=cubic: write constant or linear or exponential"),
        ("retry_on=fail,luck", "retry_on=fail,luck: write one or more of fail, exception, timeout, lost"),
        ("rate=10", "rate=10: write a whole number and a time"),
        ("burst=3", "burst=3: it means something only beside rate"),
        ("jitter=2", "jitter=2: write a number, 0 to 1"),
        ("results=1h result_size=big", "result_size=big: write a size such as"),
        ("attempts", "attempts: write attempts=VALUE"),
        ("timeout=0", "timeout=0: write a time above 0"),
    ],
)
def test_a_bad_value_is_told_and_changes_nothing(desk: Desk, words: str, wrong: str) -> None:
    desk.text("admin", "policy set f weight=3")
    answer = desk.text("admin", f"policy set f {words}")
    assert answer.startswith("ERR INVALID_POLICY ")
    assert wrong in answer.replace("+", " ")
    assert desk.text("admin", "policy show f") == "f\tcommand\tweight=3\n.\n"


def test_the_most_exact_policy_counts(desk: Desk) -> None:
    for name in ("*", "mail.*", "mail.*.now", "mail.a.now"):
        desk.text("admin", f"policy set {name} weight={len(name)}")
    for function, name in (
        ("x", "*"),
        ("mail.b", "mail.*"),
        ("mail.b.now", "mail.*.now"),
        ("mail.a.now", "mail.a.now"),
    ):
        assert desk.text("admin", f"policy show {function}").split("\t")[0] == name
    assert desk.text("admin", "policy unset mail.a.now") == "OK\r\n"
    assert desk.text("admin", "policy show mail.a.now").split("\t")[0] == "mail.*.now"
    desk.restart()
    assert desk.text("admin", "policy show").count("\n") == 4


def test_a_policy_merges_and_loses_keys(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=3 weight=2")
    desk.text("admin", "policy set f attempts=5")
    assert desk.text("admin", "policy show f") == "f\tcommand\tattempts=5 weight=2\n.\n"
    desk.text("admin", "policy set f weight=")
    assert desk.text("admin", "policy show f") == "f\tcommand\tattempts=5\n.\n"
    desk.text("admin", "policy set f attempts=")
    assert desk.text("admin", "policy show f") == ".\n"


def test_what_the_file_says_is_not_taken_away_by_its_last_key() -> None:
    policy = read_policy(["attempts=3"])
    desk = Desk(durable=True, policies={b"f": policy})
    for rows in ("f\tfile\tattempts=3\n.\n", "f\tcommand\tattempts=3 weight=2\n.\n"):
        assert desk.text("admin", "policy show f") == rows
        answer = desk.text("admin", "policy set f attempts= weight=")
        assert answer.startswith("ERR INVALID_POLICY ")
        assert "attempts=3 of the configuration file would hold" in answer.replace("+", " ")
        assert desk.text("admin", "policy show f") == rows
        assert desk.text("admin", "policy set f weight=2") == "OK\r\n"


def test_pauses_grow_as_they_should() -> None:
    policy = read_policy(["attempts=9", "backoff=exponential", "delay=1s", "max_delay=10s", "jitter=0"])
    assert policy is not None
    assert [policy.pause(n, 1) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    policy = read_policy(["attempts=9", "backoff=linear", "delay=2s", "jitter=0"])
    assert policy is not None
    assert [policy.pause(n, 1) for n in range(1, 4)] == [2, 4, 6]
    policy = read_policy(["attempts=9", "backoff=constant", "delay=10s", "jitter=0.5"])
    assert policy is not None
    pauses = [policy.pause(1, n) for n in range(1000)]
    assert 5 <= min(pauses) < 5.1
    assert 9.9 < max(pauses) <= 10
    assert len(set(pauses)) > 900


def test_without_a_policy_or_a_time_a_retry_waits_longer_and_longer(desk: Desk) -> None:
    desk.works("worker", b"f", verdicts=True)
    handle = desk.submit(b"f")
    desk.server.take_events()
    for pause in (1, 2, 4):
        assert desk.grab("worker") == handle
        fail(desk, handle, "WORK_FAIL", b"retry", b"")
        desk.wait(pause - 0.1)
        assert desk.grab("worker") is None
        desk.wait(0.2)
    assert not desk.server.take_events()


def test_a_dead_letter_does_not_take_the_unique_of_a_living_job_at_a_restart(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1")
    desk.works("worker", b"f")
    dead = desk.submit(b"f", b"u")
    assert desk.grab("worker") == dead
    fail(desk, dead)
    living = desk.submit(b"f", b"u")
    assert living != dead
    desk.restart()
    assert desk.submit(b"f", b"u") == living
    desk.text("admin", f"dead retry {dead.decode()}")
    assert desk.submit(b"f", b"u") == living
    desk.text("admin", f"dead purge {dead.decode()}")
    assert desk.submit(b"f", b"u") == living


def test_a_dead_letter_that_is_tried_again_has_all_its_time_to_begin(desk: Desk) -> None:
    desk.text("admin", "policy set f expires=1h")
    handle = desk.submit(b"f")
    desk.wait(3601)
    assert "\texpired\t" in desk.text("admin", "dead list")
    assert desk.text("admin", "dead retry all") == "OK 1\n"
    desk.wait(3000)
    desk.restart()
    assert desk.text("admin", "dead list") == ".\n"
    desk.wait(500)
    assert desk.text("admin", "dead list") == ".\n"
    desk.wait(101)
    assert desk.text("admin", "dead list").startswith(handle.decode())
    assert desk.text("admin", "dead retry all") == "OK 1\n"
    desk.wait(3601)
    assert desk.text("admin", "dead list").startswith(handle.decode())
