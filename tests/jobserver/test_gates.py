"""Limits of a function: pause, concurrency, rates, the same for each key, weight and ageing."""

from __future__ import annotations

import pytest
from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def desk() -> Desk:
    return Desk()


def done(desk: Desk, worker: str, handle: bytes | None) -> None:
    assert handle is not None
    desk.send(worker, "WORK_COMPLETE", handle, b"")


def woken(desk: Desk, worker: str) -> bool:
    return ("NOOP",) in desk.take(worker)


def test_no_more_run_than_the_concurrency(desk: Desk) -> None:
    desk.text("admin", "policy set f concurrency=2")
    handles = [desk.submit(b"f") for _ in range(3)]
    for name in ("a", "b", "c"):
        desk.works(name, b"f")
    assert [desk.grab(name) for name in ("a", "b", "c")] == [*handles[:2], None]
    assert desk.text("admin", f"why {handles[2].decode()}") == "OK waiting 0.0 s: limit concurrency=2 is reached\n"
    desk.send("c", "PRE_SLEEP")
    assert not woken(desk, "c")
    done(desk, "a", handles[0])
    assert woken(desk, "c")
    assert desk.grab("c") == handles[2]


def test_a_lost_worker_gives_its_place_free(desk: Desk) -> None:
    desk.text("admin", "policy set f concurrency=1")
    desk.submit(b"f")
    for name in ("a", "b"):
        desk.works(name, b"f")
    assert desk.grab("a")
    assert not desk.grab("b")
    desk.send("b", "PRE_SLEEP")
    desk.leave("a")
    assert woken(desk, "b")


def test_a_rate_lets_one_through_after_another(desk: Desk) -> None:
    desk.text("admin", "policy set f rate=6/min burst=2")
    handles = [desk.submit(b"f") for _ in range(4)]
    desk.works("a", b"f")
    assert [desk.grab("a") for _ in range(3)] == [*handles[:2], None]
    assert desk.text("admin", f"why {handles[2].decode()}") == "OK waiting 0.0 s: rate 6/min: next start in 10 s\n"
    desk.send("a", "PRE_SLEEP")
    desk.wait(9.9)
    assert not woken(desk, "a")
    desk.wait(0.2)
    assert woken(desk, "a")
    assert [desk.grab("a"), desk.grab("a")] == [handles[2], None]
    desk.wait(1000)
    assert [desk.grab("a"), desk.grab("a")] == [handles[3], None]


def test_a_key_has_its_own_concurrency_and_blocks_nobody(desk: Desk) -> None:
    desk.text("admin", "policy set f key_concurrency=1")
    a1, a2, b1, plain = (desk.submit(b"f", unique) for unique in (b"a:1", b"a:2", b"b:1", b""))
    desk.works("w", b"f")
    assert [desk.grab("w") for _ in range(4)] == [a1, b1, plain, None]
    assert desk.text("admin", f"why {a2.decode()}") == (
        "OK waiting 0.0 s: limit key_concurrency=1 of the key 'a' is reached\n"
    )
    assert desk.text("admin", "status") == "f\t4\t3\t1\n.\n"
    desk.send("w", "PRE_SLEEP")
    assert not woken(desk, "w")
    done(desk, "w", a1)
    assert woken(desk, "w")
    assert desk.grab("w") == a2


def test_a_better_job_of_a_key_goes_first(desk: Desk) -> None:
    desk.text("admin", "policy set f key_concurrency=1")
    low = desk.submit(b"f", b"a:1", kind="SUBMIT_JOB_LOW_BG")
    high = desk.submit(b"f", b"a:2", kind="SUBMIT_JOB_HIGH_BG")
    desk.works("w", b"f")
    assert [desk.grab("w"), desk.grab("w")] == [high, None]
    done(desk, "w", high)
    assert desk.grab("w") == low


def test_a_key_has_its_own_rate(desk: Desk) -> None:
    desk.text("admin", "policy set f key_rate=1/s key_separator=/")
    handles = [desk.submit(b"f", unique) for unique in (b"a/1", b"a/2", b"b/1", b"a/3")]
    desk.works("w", b"f")
    assert [desk.grab("w") for _ in range(3)] == [handles[0], handles[2], None]
    assert "key_rate 1/s of the key 'a': next start in 1.0 s" in desk.text("admin", f"why {handles[1].decode()}")
    desk.send("w", "PRE_SLEEP")
    desk.wait(1.01)
    assert woken(desk, "w")
    assert [desk.grab("w"), desk.grab("w")] == [handles[1], None]
    for handle in handles[:3]:
        done(desk, "w", handle)
    desk.wait(1)
    done(desk, "w", desk.grab("w"))
    desk.wait(5)
    assert not desk.server.functions[b"f"].gate.keys  # type: ignore[union-attr]


def test_a_pause_keeps_submissions_and_outlasts_a_restart() -> None:
    desk = Desk(durable=True)
    handle = desk.submit(b"f")
    assert desk.text("admin", "pause f the disk is full") == "OK\r\n"
    desk.works("w", b"f")
    assert desk.grab("w") is None
    assert "f is paused since 0.0 s by - 127.0.0.1: the disk is full" in desk.text("admin", f"why {handle.decode()}")
    desk.restart()
    desk.works("w", b"f")
    assert desk.grab("w") is None
    desk.send("w", "PRE_SLEEP")
    assert not woken(desk, "w")
    assert desk.text("admin", "resume f") == "OK\r\n"
    assert woken(desk, "w")
    assert desk.grab("w") == handle
    assert desk.text("admin", "resume f").startswith("ERR NOT_PAUSED")
    desk.commit()
    assert not desk.records


def test_weights_share_a_workers_attention(desk: Desk) -> None:
    desk.text("admin", "policy set f weight=3")
    desk.works("w", b"f", b"g")
    for _ in range(8):
        desk.submit(b"f")
        desk.submit(b"g")
    order = ""
    for _ in range(8):
        handle = desk.grab("w")
        assert handle
        order += desk.server.jobs.get(int(handle.split(b":")[1])).function.name.decode()  # type: ignore[union-attr]
    assert order in ("gfffgfff", "fffgfffg")


def test_a_low_job_ages(desk: Desk) -> None:
    desk.text("admin", "policy set f ageing=60s")
    low = desk.submit(b"f", kind="SUBMIT_JOB_LOW_BG")
    desk.wait(30)
    normal = desk.submit(b"f")
    desk.works("w", b"f")
    desk.wait(31)
    later = desk.submit(b"f")
    assert [desk.grab("w") for _ in range(3)] == [low, normal, later]


@pytest.mark.parametrize("kind", ["rate", "key_rate"])
def test_a_rate_that_is_raised_counts_at_once(desk: Desk, kind: str) -> None:
    desk.text("admin", f"policy set f {kind}=1/h")
    handles = [desk.submit(b"f", b"a:%d" % n) for n in range(3)]
    desk.works("w", b"f")
    assert [desk.grab("w"), desk.grab("w")] == [handles[0], None]
    desk.send("w", "PRE_SLEEP")
    desk.text("admin", f"policy set f {kind}=1/s")
    desk.wait(1.1)
    assert woken(desk, "w")
    assert [desk.grab("w"), desk.grab("w")] == [handles[1], None]


def test_a_key_that_had_nothing_to_do_is_looked_at_when_its_rate_lets_one_through(desk: Desk) -> None:
    """Not only when its bucket is full again, which it was to be forgotten at."""
    desk.text("admin", "policy set f key_rate=1/min key_burst=3")
    desk.works("w", b"f")
    for n in range(3):
        desk.submit(b"f", b"a:%d" % n)
    for handle in [desk.grab("w") for _ in range(3)]:
        done(desk, "w", handle)
    last = desk.submit(b"f", b"a:3")
    desk.send("w", "PRE_SLEEP")
    desk.wait(59)
    assert not woken(desk, "w")
    desk.wait(2)
    assert woken(desk, "w")
    assert desk.grab("w") == last


def test_a_key_is_let_through_as_its_tokens_come_while_another_of_its_jobs_runs(desk: Desk) -> None:
    desk.text("admin", "policy set f key_rate=1/s key_burst=5")
    desk.works("w", b"f")
    for n in range(4):
        desk.submit(b"f", b"a:%d" % n)
        done(desk, "w", desk.grab("w"))
    handles = [desk.submit(b"f", b"a:%d" % n) for n in range(3)]
    desk.wait(3)
    assert [desk.grab("w") for _ in range(3)] == handles


def test_a_job_that_has_lost_its_place_to_a_better_one_starts_when_the_rate_lets_it(desk: Desk) -> None:
    desk.text("admin", "policy set f key_rate=30/min key_burst=2")
    desk.works("w", b"f")
    first = desk.submit(b"f", b"a:0")
    assert desk.grab("w") == first
    normal = desk.submit(b"f", b"a:1")
    high = desk.submit(b"f", b"a:2", kind="SUBMIT_JOB_HIGH_BG")
    desk.wait(2.1)
    assert [desk.grab("w"), desk.grab("w")] == [high, normal]


def test_the_jobs_of_a_key_keep_their_order(desk: Desk) -> None:
    desk.text("admin", "policy set f key_concurrency=2")
    desk.works("w", b"f")
    handles = [desk.submit(b"f", b"a:%d" % n) for n in range(6)]
    assert [desk.grab("w"), desk.grab("w")] == handles[:2]
    done(desk, "w", handles[0])
    done(desk, "w", handles[1])
    assert [desk.grab("w"), desk.grab("w")] == handles[2:4]


def test_sleepers_are_woken_for_all_that_a_rate_has_come_to_allow(desk: Desk) -> None:
    desk.text("admin", "policy set f rate=1/s burst=5")
    desk.works("w", b"f")
    for _ in range(4):
        desk.submit(b"f")
        done(desk, "w", desk.grab("w"))
    desk.wait(100)
    for name in ("a", "b", "c"):
        desk.works(name, b"f")
        desk.send(name, "PRE_SLEEP")
    for _ in range(5):
        desk.submit(b"f")
    assert desk.grab("w")
    assert all(woken(desk, name) for name in ("a", "b", "c"))


def test_a_pattern_that_changes_while_jobs_are_being_moved_counts_afterwards(desk: Desk) -> None:
    desk.text("admin", "policy set f* key_concurrency=1")
    body = b"f\0%d:%d\0"
    packets = [body % (n // 2, n) for n in range(4000)]
    desk.write("client", b"".join(b"\0REQ\0\0\0\x12" + len(one).to_bytes(4, "big") + one for one in packets))
    desk.take("client")
    desk.write("admin", b"policy set f* key_separator=/\n")
    gate = desk.server.functions[b"f"].gate
    assert gate is not None
    assert gate.leaving, "they were moved at once, and this shows nothing"
    desk.write("admin", b"policy set f* key_separator=#\npolicy set f* weight=5\n")
    desk.wait(1)
    policy = desk.server.functions[b"f"].policy
    assert policy is not None
    assert policy.text == "key_concurrency=1 key_separator=# weight=5"
    assert gate.separator == b"#"


@pytest.mark.parametrize("kind", ["rate", "key_rate"])
def test_a_function_is_not_forgotten_while_its_starts_count(kind: str) -> None:
    desk = Desk(forget_after=60.0)
    desk.text("admin", f"policy set f {kind}=1/h")
    desk.works("w", b"f")
    desk.submit(b"f", b"a:1")
    done(desk, "w", desk.grab("w"))
    desk.leave("w")
    desk.wait(1800)
    last = desk.submit(b"f", b"a:2")
    desk.works("w", b"f")
    assert desk.grab("w") is None
    desk.wait(1801)
    assert desk.grab("w") == last
    done(desk, "w", last)
    desk.leave("w")
    desk.wait(3700)
    assert not desk.server.functions


def test_a_dropped_function_leaves_nothing_behind() -> None:
    desk = Desk(durable=True)
    desk.text("admin", "policy set f key_rate=1/h")
    desk.works("w", b"f")
    desk.submit(b"f", b"a:0")
    done(desk, "w", desk.grab("w"))
    desk.leave("w")
    for n in range(3):
        desk.submit(b"f", b"a:%d" % n)
    desk.text("admin", "pause f")
    assert desk.text("admin", "drop function f") == "OK\r\n"
    assert not len(desk.server.jobs)
    desk.restart()
    assert not desk.jobs
    last = desk.submit(b"f", b"a:1")
    desk.works("w", b"f")
    assert desk.grab("w") == last


def test_a_low_job_ages_also_while_it_waits_for_its_key(desk: Desk) -> None:
    desk.text("admin", "policy set f ageing=60s key_concurrency=1")
    desk.works("w", b"f")
    running = desk.submit(b"f", b"a:0")
    assert desk.grab("w") == running
    low = desk.submit(b"f", b"a:1", kind="SUBMIT_JOB_LOW_BG")
    desk.wait(61)
    desk.submit(b"f", b"a:2")
    done(desk, "w", running)
    assert desk.grab("w") == low


def test_a_limit_is_set_changed_and_taken_away_while_jobs_wait(desk: Desk) -> None:
    handles = [desk.submit(b"f", b"k%d:%d" % (n % 2, n)) for n in range(8)]
    desk.works("w", b"f")
    assert desk.grab("w") == handles[0]  # not counted, since it ran before
    desk.text("admin", "policy set f key_concurrency=1")
    assert [desk.grab("w"), desk.grab("w"), desk.grab("w")] == [handles[1], handles[2], None]
    desk.text("admin", "policy set f key_concurrency=2")
    assert [desk.grab("w"), desk.grab("w"), desk.grab("w")] == [handles[3], handles[4], None]
    desk.text("admin", "policy set f key_concurrency= concurrency=6")
    got = [desk.grab("w")]  # each key's jobs in their order, but not those of several keys
    assert desk.grab("w") is None
    desk.text("admin", "policy unset f")
    got += [desk.grab("w"), desk.grab("w")]
    assert set(got) == set(handles[5:])
    assert desk.grab("w") is None
    for handle in handles:
        done(desk, "w", handle)


def test_a_limit_by_key_that_goes_and_comes_again_counts_anew(desk: Desk) -> None:
    desk.text("admin", "policy set f key_concurrency=1")
    handles = [desk.submit(b"f", b"a:%d" % n) for n in range(4)]
    desk.works("w", b"f")
    assert desk.grab("w") == handles[0]
    desk.text("admin", "policy unset f")
    desk.text("admin", "policy set f key_concurrency=1")
    assert [desk.grab("w"), desk.grab("w")] == [handles[1], None]
    done(desk, "w", handles[0])
    assert desk.grab("w") is None
    done(desk, "w", handles[1])
    assert [desk.grab("w"), desk.grab("w")] == [handles[2], None]


def test_a_separator_changes_while_jobs_wait(desk: Desk) -> None:
    desk.text("admin", "policy set f key_concurrency=1")
    handles = [desk.submit(b"f", b"a:%d/x" % n) for n in range(6)]
    desk.works("w", b"f")
    assert [desk.grab("w"), desk.grab("w")] == [handles[0], None]
    desk.text("admin", "policy set f key_separator=/")
    assert [desk.grab("w") for _ in range(6)] == [*handles[1:], None]
    done(desk, "w", handles[0])
    assert desk.text("admin", "status") == "f\t5\t5\t1\n.\n"


PRIORITIES = ("SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_BG", "SUBMIT_JOB_LOW_BG")
STEPS = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from(PRIORITIES), st.integers(0, 2)),
    st.tuples(st.just("grab"), st.just(""), st.just(0)),
    st.tuples(st.sampled_from(("done", "fail", "cancel", "raise", "lower")), st.just(""), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.just(""), st.integers(0, 12)),
    st.tuples(
        st.just("policy"),
        st.sampled_from((
            "concurrency=2", "concurrency=", "key_concurrency=1", "key_concurrency=2", "key_concurrency=", "rate=1/s",
            "rate=", "key_rate=1/s", "key_rate=", "ageing=3s", "attempts=2", "attempts=", "expires=5s", "queue=6",
            "queue=",
        )),
        st.just(0),
    ),
    st.tuples(st.sampled_from(("pause", "resume", "leave")), st.just(""), st.just(0)),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_whatever_happens_the_counts_are_right_and_no_limit_is_broken(steps: list[tuple[str, str, int]]) -> None:
    """``structure`` counts again after each step; here is seen that limits hold, and that all jobs come to an end."""
    desk = Desk()
    desk.works("w", b"f")
    running: list[bytes] = []
    all_handles: list[bytes] = []
    for number, (what, how, which) in enumerate(steps):
        function = desk.server.functions[b"f"]
        policy = function.policy
        if what == "submit":
            desk.send("client", how, b"f", b"%d:%d" % (which, number), b"")
            (answer,) = desk.take("client")
            if answer[0] == "JOB_CREATED":
                all_handles.append(answer[1])  # type: ignore[arg-type]
        elif what == "grab":
            before = function.running
            handle = desk.grab("w")
            if handle is not None:
                running.append(handle)
                assert not policy or not policy.concurrency or before < policy.concurrency
                assert function.gate is None or not function.gate.paused
        elif what in ("done", "fail") and running:
            handle = running.pop(which % len(running))
            desk.send(
                "w", "WORK_COMPLETE" if what == "done" else "WORK_FAIL", handle, *([b""] if what == "done" else [])
            )
            desk.take("w")
        elif what in ("cancel", "raise", "lower") and all_handles:
            handle = all_handles[which % len(all_handles)]
            command = (
                f"cancel job {handle.decode()}"
                if what == "cancel"
                else (f"priority {handle.decode()} {'high' if what == 'raise' else 'low'}")
            )
            desk.take("w")
            desk.text("admin", command)
            if what == "cancel" and handle in running:
                running.remove(handle)
        elif what == "wait":
            desk.wait(which / 4)
        elif what == "policy":
            desk.text("admin", f"policy set f {how}")
        elif what in ("pause", "resume"):
            desk.text("admin", f"{what} f")
        elif what == "leave":
            desk.leave("w")
            running.clear()
            desk.works("w", b"f")
        desk.take("w")
    for name in ("policy unset f", "resume f"):
        desk.text("admin", name)
    for handle in running:
        desk.send("w", "WORK_COMPLETE", handle, b"")
    for _ in range(200):
        handle = desk.grab("w")
        if handle is not None:
            desk.send("w", "WORK_COMPLETE", handle, b"")
        else:
            desk.wait(4000)
            desk.take("w")
            if not desk.server.functions[b"f"].total:
                break
    assert desk.server.functions[b"f"].total == 0
