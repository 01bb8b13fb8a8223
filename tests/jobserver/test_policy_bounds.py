"""What a peer may ask of policies, dead letters and results that nobody means: nothing breaks, and nothing grows."""

from __future__ import annotations

import struct

import pytest
from desk import Desk

from geartrain.jobserver.letters import pack_letter
from geartrain.jobserver.records import Record


@pytest.fixture
def desk() -> Desk:
    return Desk(durable=True)


def dead(desk: Desk, function: bytes = b"f", unique: bytes = b"") -> bytes:
    """The handle of a dead letter."""
    handle = desk.submit(function, unique)
    desk.works("w", function)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_FAIL", handle)
    desk.send("w", "CANT_DO", function)
    return handle


@pytest.mark.parametrize("what", ["retry", "purge"])
def test_a_letter_that_is_named_twice_counts_once(desk: Desk, what: str) -> None:
    desk.text("admin", "policy set f attempts=1")
    handle = dead(desk).decode()
    assert desk.text("admin", f"dead {what} {handle} {handle}") == "OK 1\n"
    assert desk.server.functions[b"f"].queued == (what == "retry")


@pytest.mark.parametrize("value", [b"", b"x", pack_letter(77, 1e9, b"t"), struct.pack(">Bd", 1, float("nan"))])
def test_letters_that_a_newer_server_wrote_are_told_as_far_as_they_can_be_read(desk: Desk, value: bytes) -> None:
    desk.text("admin", "policy set f attempts=1")
    handle = dead(desk).decode()
    desk.commit()
    for kind, key in list(desk.records):
        if kind == "dead":
            desk.records[kind, key] = Record(kind, key, value)
        elif kind == "attempts":
            line = bytearray(desk.records[kind, key].value or b"")
            line[4] = 99  # the reason
            desk.records[kind, key] = Record(kind, key, bytes(line))
    desk.restart()
    assert desk.text("admin", "dead list").startswith(handle)
    assert desk.text("admin", f"why {handle}").startswith("OK dead since")
    assert "attempt\t1\t" in desk.text("admin", f"show job {handle}")
    assert desk.text("admin", f"dead retry {handle}") == "OK 1\n"
    assert "OK waiting" in desk.text("admin", f"why {handle}")


def test_a_dropped_function_leaves_nothing_behind(desk: Desk) -> None:
    for line in ("policy set f attempts=1 key_rate=1/h key_burst=2", "pause f"):
        assert desk.text("admin", line) == "OK\r\n"
    desk.text("admin", "resume f")
    dead(desk, unique=b"a:0")
    dead(desk, unique=b"a:00")
    desk.text("admin", "dead purge all")
    for number in range(500):
        desk.submit(b"f", b"a:%d" % (number + 1))
    assert desk.server.functions[b"f"].blocked == 500
    desk.text("admin", "pause f")
    assert desk.text("admin", "drop function f") == "OK\r\n"
    desk.commit()
    assert not desk.jobs
    assert {kind for kind, _ in desk.records} == {"policy"}
    assert len(desk.server.jobs) == 0
    assert not desk.server.gate_timers.meant
    desk.wait(8000)
    desk.restart()
    desk.works("w", b"f")
    assert desk.grab("w") is None
    handle = desk.submit(b"f", b"b:1")
    assert desk.grab("w") == handle


def test_a_job_that_ran_under_limits_before_does_not_count_for_those_of_now(desk: Desk) -> None:
    desk.works("w", b"f")
    first, second, third = (desk.submit(b"f", b"a:%d" % number) for number in range(3))
    desk.text("admin", "policy set f key_concurrency=1")
    assert [desk.grab("w"), desk.grab("w")] == [first, None]
    for _ in range(70):
        desk.text("admin", "policy unset f")
        desk.text("admin", "policy set f key_concurrency=1")
    assert [desk.grab("w"), desk.grab("w")] == [second, None]
    desk.send("w", "WORK_COMPLETE", first, b"")
    assert desk.grab("w") is None
    desk.send("w", "WORK_COMPLETE", second, b"")
    assert desk.grab("w") == third


def test_a_rate_is_remembered_as_long_as_it_holds(desk: Desk) -> None:
    desk.text("admin", "policy set f rate=1/h")
    desk.text("admin", "policy set g key_rate=1/h")
    for function in (b"f", b"g"):
        desk.works("w", function)
        handle = desk.submit(function, b"a")
        assert desk.grab("w") == handle
        desk.send("w", "WORK_COMPLETE", handle, b"")
        desk.send("w", "CANT_DO", function)
    desk.wait(2000)
    for function in (b"f", b"g"):
        desk.works("w", function)
        desk.submit(function, b"a")
        assert desk.grab("w") is None
    for function in (b"f", b"g"):
        desk.text("admin", f"drop function {function.decode()}")
        desk.send("w", "CANT_DO", function)
        desk.text("admin", f"drop function {function.decode()}")
    desk.works("w", b"h")
    desk.send("w", "CANT_DO", b"h")
    desk.wait(9000)
    assert not desk.server.functions


def test_patterns_are_paid_for_by_those_who_make_functions(desk: Desk) -> None:
    for number in range(20):
        desk.text("admin", f"policy set {'*a' * 240}{number} weight=2")
    functions = [b"a" * 400 + b"%d" % number for number in range(100)]
    body = [b"\0".join((function, b"", b"")) for function in functions]
    desk.wait(1)
    peer = desk.peer("client")
    desk.server.receive(peer, b"".join(struct.pack(">4sII", b"\0REQ", 18, len(one)) + one for one in body))
    assert peer.stalled
    assert len(desk.server.functions) < 10
    for _ in range(100):
        desk.wait(0.01)
        desk.settle()
    assert len(desk.server.functions) == 100


def test_patterns_that_change_again_and_again_are_applied_once(desk: Desk) -> None:
    for number in range(100):
        desk.text("admin", f"create function f{number}")
    desk.server.cost = 1 << 30  # a turn that has done much already
    for number in range(30):
        desk.server.receive(desk.peer("admin"), b"policy set f* weight=%d\n" % (number + 2))
    assert len(desk.server.chores.line) <= 1
    desk.wait(1)
    for _ in range(100):
        desk.wait(0.01)
    assert {function.policy.weight for function in desk.server.functions.values() if function.policy} == {31}


def test_one_reason_is_kept_once(desk: Desk) -> None:
    desk.text("admin", f"policy set f attempts=2 retry_on={','.join(['lost', 'fail'] * 50)}")
    assert desk.text("admin", "policy show f") == "f\tcommand\tattempts=2 retry_on=fail,lost\n.\n"
    assert "jitter=.:+write+a+number" in desk.text("admin", "policy set f jitter=.")


def test_many_who_wait_for_results_leave_without_a_trace(desk: Desk) -> None:
    handles = [desk.submit(b"f") for _ in range(300)]
    for name in ("one", "two"):
        desk.write(name, b"".join(b"result %b wait\n" % handle for handle in handles))
        desk.wait(0.01)
    assert desk.server.waits == 600
    desk.leave("one")
    desk.wait(0.01)
    assert desk.server.waits == 300
    desk.works("w", b"f")
    for handle in handles:
        assert desk.grab("w") == handle
        desk.send("w", "WORK_COMPLETE", handle, b"r")
    assert desk.got[desk.peer("two")] == b"OK completed 1\nr" * 300


def test_who_waits_for_results_and_reads_none_is_let_go() -> None:
    desk = Desk(max_unsent=10_000)
    handles = [desk.submit(b"f") for _ in range(5)]
    desk.write("one", b"".join(b"result %b wait\n" % handle for handle in reversed(handles)))
    desk.works("w", b"f")
    for handle in handles[:4]:  # the first in its line is not there, so that nothing can be written
        assert desk.grab("w") == handle
        desk.send("w", "WORK_COMPLETE", handle, b"r" * 8000)
    assert desk.peer("one").overflown


def test_while_the_store_is_down_nothing_piles_up_for_it(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=2 delay=0 dead_count=3 results=1m")
    desk.works("w", b"f", verdicts=True)
    stored = desk.submit(b"g")
    desk.server.store.trouble = "it is down"
    changes = desk.server.changes
    for number in range(50):
        desk.send("client", "SUBMIT_JOB", b"f", b"u%d" % number, b"w")
        assert desk.grab("w")
        handle = desk.take("client")[0][1]
        assert isinstance(handle, bytes)
        if number % 2:
            desk.send("w", "WORK_COMPLETE", handle, b"r")
        else:
            desk.send("w", "WORK_FAIL", handle)
            assert desk.grab("w") == handle
            desk.send("w", "WORK_FAIL", handle)
        desk.take("client")
        desk.take("w")
    desk.wait(100)
    assert len(desk.server.dead.all) == 3
    assert len(changes.records) + len(changes.new) + len(changes.changed) + len(changes.removed) <= 5
    for _ in range(50):
        desk.text("admin", f"priority {stored.decode()} high")
        desk.text("admin", f"priority {stored.decode()} low")
    assert len(changes.changed) <= 1
    desk.server.back()
    desk.restart()


def test_texts_of_failures_stay_within_the_memory() -> None:
    desk = Desk(max_memory=200_000)
    desk.text("admin", "policy set f attempts=1")
    desk.works("w", b"f")
    for _ in range(100):
        desk.submit(b"f")
    for _ in range(100):
        handle = desk.grab("w")
        assert handle
        desk.send("w", "WORK_EXCEPTION", handle, b"t" * 60_000)
    assert desk.server.memory <= 210_000
    assert desk.server.dead.all


def test_a_large_result_is_held_once_however_many_get_it_and_takes_the_place_of_few(desk: Desk) -> None:
    desk.server.settings.max_results = 3_000_000
    desk.text("admin", "policy set f results=1h result_size=10MiB")
    desk.works("w", b"f")
    desk.submit(b"f", b"u")
    desk.send("w", "WORK_COMPLETE", desk.grab("w") or b"", b"r" * 100_000)
    for name in ("a", "b"):
        desk.server.receive(desk.peer(name), struct.pack(">4sII", b"\0REQ", 7, 4) + b"f\0u\0")
    assert desk.peer("a").pieces[-1] is desk.peer("b").pieces[-1]
    desk.settle()
    for number in range(1200):
        desk.submit(b"f", b"%d" % number)
        desk.send("w", "WORK_COMPLETE", desk.grab("w") or b"", b"r" * 1000)
    desk.submit(b"f", b"large")
    desk.send("w", "WORK_COMPLETE", desk.grab("w") or b"", b"r" * 2_990_000)
    assert desk.server.functions[b"f"].counters.results_too_large == 1


def test_a_refresh_keeps_to_the_limit_of_the_queue(desk: Desk) -> None:
    desk.text("admin", "policy set f results=1s stale=1h queue=1")
    desk.works("w", b"f")
    for unique in (b"a", b"b"):
        handle = desk.submit(b"f", unique)
        assert desk.grab("w") == handle
        desk.send("w", "WORK_COMPLETE", handle, b"r")
    desk.wait(2)
    for unique in (b"a", b"b"):
        desk.send("client", "SUBMIT_JOB", b"f", unique, b"")
        assert desk.take("client")[1][0] == "WORK_COMPLETE"
    assert desk.server.functions[b"f"].total == 1


def test_a_separator_of_any_bytes_is_told_and_kept(desk: Desk) -> None:
    desk.server.take_events()
    desk.write("admin", b"policy set f key_concurrency=1 key_separator=\xff\n")
    desk.commit()
    assert desk.got[desk.peer("admin")] == b"OK\r\n"
    for _, _, fields in desk.server.take_events():
        assert "".join(map(str, fields.values())).encode("utf-8", "strict")
    desk.restart()
    desk.write("admin", b"policy show f\n")
    admin = desk.peer("admin")
    assert desk.got[admin] == b"f\tcommand\tkey_concurrency=1 key_separator=\xff\n.\n"
    desk.got[admin] = b""
    assert desk.text("admin", "policy set f key_separator=\x1f").startswith("ERR INVALID_POLICY")
