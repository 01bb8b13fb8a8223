"""Results are kept as the policy says, answer submissions, and are told to whoever asks or waits for them."""

from __future__ import annotations

import pytest
from desk import Desk

from geartrain.jobserver.results import RESULT_COST
from geartrain.jobserver.snapshot import FunctionView


@pytest.fixture
def desk() -> Desk:
    desk = Desk(durable=True)
    desk.text("admin", "policy set f results=1h")
    desk.works("w", b"f")
    return desk


def run(desk: Desk, result: bytes = b"r", unique: bytes = b"u", kind: str = "SUBMIT_JOB_BG") -> bytes:
    handle = desk.submit(b"f", unique, kind=kind)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, result)
    desk.commit()
    return handle


def test_a_background_result_is_asked_for_by_handle_and_by_unique(desk: Desk) -> None:
    handle = run(desk, b"line\n\0end", b"u %")
    assert desk.text("admin", f"result {handle.decode()}") == "OK completed 9\nline\n\0end"
    assert desk.text("admin", "result unique f u%20%25") == "OK completed 9\nline\n\0end"
    desk.restart()
    assert desk.text("admin", f"result {handle.decode()}") == "OK completed 9\nline\n\0end"
    desk.wait(3601)
    assert desk.text("admin", f"result {handle.decode()}").startswith("ERR UNKNOWN_JOB")


def test_a_submission_is_answered_without_a_worker(desk: Desk) -> None:
    first = run(desk, b"result", kind="SUBMIT_JOB")
    assert desk.take("client") == [("WORK_COMPLETE", first, b"result")]
    desk.send("client", "SUBMIT_JOB_HIGH", b"f", b"u", b"whatever")
    created, complete = desk.take("client")
    assert created[0] == "JOB_CREATED"
    assert complete == ("WORK_COMPLETE", created[1], b"result")
    assert created[1] != first
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"u", b"whatever")
    assert desk.take("client") == [("JOB_CREATED", first)]
    assert desk.grab("w") is None
    view = FunctionView(desk.server, desk.server.functions[b"f"])
    counters = view.counters
    assert (counters.result_hits, counters.result_misses, counters.results_kept) == (2, 1, 1)
    assert [each and each.result_hits for each in view.by_priority] == [1, 1, None]


def test_a_job_for_a_time_that_is_over_is_answered_as_well(desk: Desk) -> None:
    first = run(desk)
    for when in (-5, 0, 5, int(desk.wall)):
        desk.send("client", "SUBMIT_JOB_EPOCH", b"f", b"u", b"%d" % when, b"w")
        desk.commit()
        assert desk.take("client") == [("JOB_CREATED", first)]


def test_a_large_result_goes_out_whole(desk: Desk) -> None:
    data = b"x" * 100_000
    run(desk, data)
    desk.send("client", "SUBMIT_JOB", b"f", b"u", b"")
    assert desk.take("client")[1][2] == data


def test_equal_calls_at_once_are_one_execution(desk: Desk) -> None:
    for n in range(1000):
        desk.send(f"c{n % 50}", "SUBMIT_JOB", b"f", b"u", b"w")
    handle = desk.grab("w")
    assert handle
    assert desk.grab("w") is None
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    assert sum(len(desk.take(f"c{n}")) for n in range(50)) == 2000


def test_no_unique_and_other_uniques_are_run(desk: Desk) -> None:
    run(desk, unique=b"")
    run(desk, unique=b"v")
    for unique in (b"", b"u"):
        handle = desk.submit(b"f", unique, kind="SUBMIT_JOB")
        assert desk.grab("w") == handle


def test_the_workload_may_be_the_unique(desk: Desk) -> None:
    run(desk, unique=b"-")
    desk.send("client", "SUBMIT_JOB", b"f", b"-", b"w")
    assert desk.take("client")[1][0] == "WORK_COMPLETE"
    handle = desk.submit(b"f", b"-", b"other", kind="SUBMIT_JOB")
    assert desk.grab("w") == handle


def test_a_failure_is_a_result_and_answers_nobody(desk: Desk) -> None:
    handle = desk.submit(b"f", b"u")
    assert desk.grab("w") == handle
    desk.send("w", "WORK_EXCEPTION", handle, b"out of paper")
    assert desk.text("admin", f"result {handle.decode()}") == "OK failed 12\nout of paper"
    again = desk.submit(b"f", b"u", kind="SUBMIT_JOB")
    assert desk.grab("w") == again


def test_a_stale_result_is_given_while_a_fresh_one_is_made(desk: Desk) -> None:
    desk.text("admin", "policy set f results=10s stale=1m")
    run(desk, b"old")
    desk.wait(11)
    for _ in range(3):
        desk.send("client", "SUBMIT_JOB", b"f", b"u", b"work")
        assert desk.take("client")[1][2] == b"old"
    handle = desk.grab("w")
    assert handle
    assert desk.grab("w") is None
    desk.send("w", "WORK_COMPLETE", handle, b"new")
    desk.send("client", "SUBMIT_JOB", b"f", b"u", b"work")
    assert desk.take("client")[1][2] == b"new"
    desk.wait(71)
    handle = desk.submit(b"f", b"u", kind="SUBMIT_JOB")
    assert desk.grab("w") == handle


def test_what_is_too_large_is_not_kept(desk: Desk) -> None:
    desk.text("admin", "policy set f result_size=10")
    run(desk, b"x" * 11)
    assert desk.text("admin", "result unique f u").startswith("ERR UNKNOWN_JOB")
    run(desk, b"x" * 10)
    assert desk.text("admin", "result unique f u").startswith("OK completed 10")


def test_the_oldest_results_make_room() -> None:
    desk = Desk(durable=True, max_results=3 * (RESULT_COST + 200))
    desk.text("admin", "policy set f results=1h")
    desk.works("w", b"f")
    handles = [run(desk, b"x" * 100, b"u%d" % n) for n in range(5)]
    answers = [desk.text("admin", f"result {handle.decode()}").split()[0] for handle in handles]
    assert answers == ["ERR", "ERR", "OK", "OK", "OK"]
    assert len([kind for kind, _ in desk.records if kind == "result"]) == 3


def test_whoever_waits_is_told_when_the_job_ends(desk: Desk) -> None:
    handle = desk.submit(b"f", b"u")
    assert desk.text("admin", f"result {handle.decode()}").startswith("ERR NOT_READY")
    for name in ("one", "two"):
        desk.write(name, b"result %b wait\nversion\n" % handle)
    desk.write("three", b"result unique f u wait\n")
    desk.leave("two")
    assert desk.grab("w") == handle
    assert desk.got[desk.peer("one")] == b""
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    assert desk.got[desk.peer("one")].startswith(b"OK completed 1\nrOK ")
    assert desk.got[desk.peer("three")] == b"OK completed 1\nr"


@pytest.mark.parametrize(("how", "answer"), [("cancel", b"OK failed 0\n"), ("fail", b"OK failed 0\n")])
def test_whoever_waits_is_told_of_any_end_with_and_without_a_policy(desk: Desk, how: str, answer: bytes) -> None:
    desk.works("w", b"g")
    for function in (b"f", b"g"):
        handle = desk.submit(function, b"u")
        desk.write("one", b"result %b wait\n" % handle)
        if how == "cancel":
            assert desk.text("admin", f"cancel job {handle.decode()}") == "OK\r\n"
        else:
            assert desk.grab("w") == handle
            desk.send("w", "WORK_FAIL", handle)
        assert desk.got[desk.peer("one")] == answer
        desk.got[desk.peer("one")] = b""


def test_a_result_without_a_policy_is_told_to_who_waits_and_to_nobody_later(desk: Desk) -> None:
    desk.works("w", b"g")
    handle = desk.submit(b"g")
    desk.write("one", b"result %b wait\n" % handle)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    assert desk.got[desk.peer("one")] == b"OK completed 1\nr"
    assert desk.text("admin", f"result {handle.decode()}").startswith("ERR UNKNOWN_JOB")


@pytest.mark.parametrize("function", [b"f", b"g"])
def test_whoever_waits_is_told_why_a_report_that_is_too_large_fails_its_job(function: bytes) -> None:
    desk = Desk(durable=True, max_body=1000)
    desk.text("admin", "policy set f results=1h")
    desk.works("w", function)
    handle = desk.submit(function)
    desk.write("one", b"result %b wait\n" % handle)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, b"x" * 1000)
    assert b"above the job server's limit of 1000" in desk.got[desk.peer("one")]


def test_a_dead_letter_has_a_result(desk: Desk) -> None:
    desk.text("admin", "policy set f results= attempts=1")
    handle = desk.submit(b"f", b"u")
    desk.write("one", b"result %b wait\n" % handle)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_EXCEPTION", handle, b"oops")
    assert desk.got[desk.peer("one")] == b"OK failed 4\noops"
    assert desk.text("admin", f"result {handle.decode()}") == "OK failed 4\noops"


def die(desk: Desk, unique: bytes = b"u") -> bytes:
    """A job that has become a dead letter."""
    handle = desk.submit(b"f", unique)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_EXCEPTION", handle, b"oops")
    desk.commit()
    return handle


def test_a_dead_letter_that_is_tried_again_has_not_ended(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1")
    handle = die(desk)
    question = f"result {handle.decode()}"
    assert desk.text("admin", question) == "OK failed 4\noops"
    assert desk.text("admin", f"retry {handle.decode()}") == "OK\r\n"
    assert desk.text("admin", question).startswith("ERR NOT_READY")
    desk.write("one", b"result %b wait\n" % handle)
    assert desk.grab("w") == handle
    assert desk.text("admin", question).startswith("ERR NOT_READY")
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    assert desk.got[desk.peer("one")] == b"OK completed 1\nr"
    assert desk.text("admin", question) == "OK completed 1\nr"


def test_a_failure_is_not_told_of_a_dead_letter_that_was_tried_again_and_cancelled(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1")
    handle = die(desk)
    assert desk.text("admin", f"retry {handle.decode()}") == "OK\r\n"
    assert desk.text("admin", f"cancel job {handle.decode()}") == "OK\r\n"
    for _ in range(2):
        assert desk.text("admin", f"result {handle.decode()}").startswith("ERR UNKNOWN_JOB")
        desk.restart()


def test_a_failure_is_not_told_of_a_dead_letter_that_then_made_too_large_a_result(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1 result_size=10")
    handle = die(desk)
    assert desk.text("admin", f"retry {handle.decode()}") == "OK\r\n"
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, b"x" * 11)
    for _ in range(2):
        assert desk.text("admin", f"result {handle.decode()}").startswith("ERR UNKNOWN_JOB")
        desk.restart()


@pytest.mark.parametrize("results", ["1h", ""])
def test_a_dead_letter_without_a_text_has_its_reason_for_a_result(desk: Desk, results: str) -> None:
    desk.text("admin", f"policy set f results={results} attempts=1 timeout=5s")
    handle = desk.submit(b"f", b"u")
    desk.write("one", b"result %b wait\n" % handle)
    assert desk.grab("w") == handle
    desk.wait(6)
    assert desk.got[desk.peer("one")] == b"OK failed 7\ntimeout"
    assert desk.text("admin", f"result {handle.decode()}") == "OK failed 7\ntimeout"


def end_later(desk: Desk, report: str, *data: bytes) -> None:
    """A job of the same unique that is not answered, for it was submitted for later, ends so."""
    desk.send("client", "SUBMIT_JOB_EPOCH", b"f", b"u", b"%d" % (desk.wall + 1), b"w")
    desk.commit()
    (answer,) = desk.take("client")
    desk.wait(2)
    assert desk.grab("w") == answer[1]
    desk.send("w", report, answer[1], *data)
    desk.commit()


def test_a_failure_does_not_hide_the_result_that_answers_submissions(desk: Desk) -> None:
    run(desk, b"result")
    end_later(desk, "WORK_EXCEPTION", b"oops")
    for _ in range(2):
        assert desk.text("admin", "result unique f u") == "OK failed 4\noops"
        desk.send("client", "SUBMIT_JOB", b"f", b"u", b"w")
        assert desk.take("client")[1][2] == b"result"
        desk.restart()


def test_a_stale_result_is_given_on_where_no_fresh_one_could_be_made(desk: Desk) -> None:
    desk.text("admin", "policy set f results=10s stale=1m")
    run(desk, b"old")
    desk.wait(11)
    for _ in range(3):
        desk.send("client", "SUBMIT_JOB", b"f", b"u", b"w")
        assert desk.take("client")[1][2] == b"old"
        handle = desk.grab("w")
        assert handle
        desk.send("w", "WORK_FAIL", handle)
        desk.wait(1)


def test_the_fresh_run_for_a_stale_result_expires(desk: Desk) -> None:
    desk.text("admin", "policy set f results=1s stale=5s expires=10s")
    first = run(desk)
    desk.wait(2)
    assert desk.submit(b"f", b"u") == first
    desk.wait(8)
    joined = desk.submit(b"f", b"u", kind="SUBMIT_JOB")  # the result is not given any more
    desk.wait(3)
    assert desk.take("client") == [("WORK_FAIL", joined)]


def test_the_later_result_answers_also_after_a_restart(desk: Desk) -> None:
    run(desk, b"old")
    desk.text("admin", "policy set f results=10m")
    end_later(desk, "WORK_COMPLETE", b"new")
    for _ in range(2):
        assert desk.text("admin", "result unique f u") == "OK completed 3\nnew"
        desk.send("client", "SUBMIT_JOB", b"f", b"u", b"w")
        assert desk.take("client")[1][2] == b"new"
        desk.restart()


def test_all_of_a_result_counts_against_the_memory_for_results() -> None:
    desk = Desk(durable=True, max_results=RESULT_COST + len(b"f\0udata"))
    desk.text("admin", "policy set f results=1h")
    desk.works("w", b"f")
    run(desk, b"data")  # what takes so much with its record's head is too large
    assert desk.text("admin", "result unique f u").startswith("ERR UNKNOWN_JOB")


@pytest.mark.parametrize("line", ["result", "result unique f", "result H:1 soon", "result unique f u now"])
def test_a_question_that_can_not_be_read(desk: Desk, line: str) -> None:
    assert desk.text("admin", line).startswith(("ERR INVALID_ARGUMENTS", "ERR UNKNOWN_COMMAND"))


def test_what_is_counted_is_shown(desk: Desk) -> None:
    run(desk, b"1234")
    desk.send("client", "SUBMIT_JOB", b"f", b"u", b"")
    desk.take("client")
    shown = desk.text("admin", "show function f")
    for line in (
        "policy\tresults=1h",
        "workers\t1",
        "result_hits\t1",
        "result_misses\t1",
        "result_bytes\t4",
        "dead\t0",
    ):
        assert f"{line}\n" in shown
    handle = desk.submit(b"f", b"u")  # the handle of the job that made the result
    shown = desk.text("admin", f"show job {handle.decode()}")
    assert "state\tended\noutcome\tcompleted\nresult_size\t4\n" in shown
    assert desk.text("admin", "show function nothing").startswith("ERR UNKNOWN_FUNCTION")


# ── what a submitter is promised ────────────────────────────────────────────────────────────────────────────────────


def end_before_it_is_stored(desk: Desk) -> None:
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert desk.grab("w") == b"H:1"
    desk.send("w", "WORK_COMPLETE", b"H:1", b"r")


def test_a_job_that_ended_before_it_was_stored_is_acknowledged_when_its_result_is(desk: Desk) -> None:
    end_before_it_is_stored(desk)
    assert desk.take("client") == []
    desk.commit()
    assert desk.take("client") == [("JOB_CREATED", b"H:1")]
    desk.restart(commits=False)
    assert desk.text("admin", "result H:1") == "OK completed 1\nr"


def test_a_job_that_ended_while_it_was_written_and_is_refused(desk: Desk) -> None:
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"u", b"w")
    batch = desk.server.take_batch()
    assert batch is not None
    assert desk.grab("w") == b"H:1"
    desk.send("w", "WORK_COMPLETE", b"H:1", b"r")
    desk.server.refused(batch, "a constraint", down=False)
    desk.settle()
    assert desk.take("client") == []
    desk.commit()
    assert desk.take("client") == [("JOB_CREATED", b"H:1")]
    desk.restart(commits=False)
    assert desk.text("admin", "result H:1") == "OK completed 1\nr"


@pytest.mark.parametrize("is_under_way", [False, True])
def test_a_result_that_is_not_stored_is_not_promised(desk: Desk, is_under_way: bool) -> None:
    if is_under_way:
        desk.send("client", "SUBMIT_JOB_BG", b"f", b"u", b"w")
    else:
        end_before_it_is_stored(desk)
    batch = desk.server.take_batch()
    assert batch is not None
    if is_under_way:
        assert desk.grab("w") == b"H:1"
        desk.send("w", "WORK_COMPLETE", b"H:1", b"r")
    desk.server.refused(batch, "it is away", down=True)
    desk.settle()
    refusal = ("ERROR", b"QUEUE_ERROR", b"The job could not be stored: it is away")
    assert desk.take("client") == [refusal]
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert desk.take("client") == [refusal]  # for the result that would answer it is not stored either
    desk.server.back()
    desk.commit()
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert desk.take("client") == [("JOB_CREATED", b"H:1")]


def test_a_job_that_ends_while_others_of_its_batch_are_refused(desk: Desk) -> None:
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"", b"w")
    batch = desk.server.take_batch()
    assert batch is not None
    desk.send("second", "SUBMIT_JOB_BG", b"f", b"u", b"w")
    desk.server.refused(batch, "it is away", down=True)
    handle = desk.grab("w")
    if handle is not None:
        desk.send("w", "WORK_COMPLETE", handle, b"r")
    desk.wait(1)
    for client in ("client", "second"):
        assert desk.take(client) == [("ERROR", b"QUEUE_ERROR", b"The job could not be stored: it is away")]


def test_a_background_submission_is_answered_when_the_result_is_stored(desk: Desk) -> None:
    handle = desk.submit(b"f", b"u", kind="SUBMIT_JOB")
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    desk.send("second", "SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert desk.take("second") == []
    batch = desk.server.take_batch()
    assert batch is not None
    desk.send("third", "SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert desk.take("third") == []
    desk.store(batch)
    desk.server.written(batch)
    desk.settle()
    assert desk.take("second") == desk.take("third") == [("JOB_CREATED", handle)]
    desk.restart(commits=False)
    assert desk.text("admin", f"result {handle.decode()}") == "OK completed 1\nr"


def test_a_result_in_memory_alone_answers_no_background_submission(desk: Desk) -> None:
    handle = desk.submit(b"f", b"u", kind="SUBMIT_JOB")
    assert desk.grab("w") == handle
    desk.send("other", "SUBMIT_JOB_BG", b"f", b"", b"w")
    batch = desk.server.take_batch()
    assert batch is not None
    desk.server.refused(batch, "it is away", down=True)
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    desk.server.back()
    second = desk.submit(b"f", b"u", client="second")
    assert second != handle
    assert desk.grab("w") == second


def test_after_a_restart_the_oldest_results_make_room_first() -> None:
    desk = Desk(durable=True)
    desk.text("admin", "policy set f results=1h")
    desk.works("w", b"f")
    handles = [desk.submit(b"f", b"%d" % n) for n in range(3)]
    got = {desk.grab("w") for _ in handles}
    assert got == set(handles)
    for handle in reversed(handles):
        desk.send("w", "WORK_COMPLETE", handle, b"r")
        desk.wait(1)
    desk.restart()
    assert list(desk.server.results.by_number) == [3, 2, 1]
