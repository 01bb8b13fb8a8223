"""A job server in a fleet: what it holds, lets go, takes over and forsakes; ``fleet_desk`` has the place they share."""

from __future__ import annotations

import pytest
from fleet_desk import BLOCK, FOREVER, FencedError, Member, Place

from geartrain.jobserver import elsewhere
from geartrain.jobserver.model import HELD, MOVING, QUEUED, RUNNING, STORED, UNSTORED, Job
from geartrain.jobserver.records import Record
from geartrain.jobserver.rules.answers import not_stored
from geartrain.jobserver.rules.lease import FORSAKEN, LAPSED
from geartrain.jobserver.rules.submission import NO_NUMBERS
from geartrain.store.writer import taken_back
from geartrain.wire import packets as p
from geartrain.wire.packets import pack_response


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def one(place: Place) -> Member:
    return Member(place)


@pytest.fixture
def two(place: Place) -> Member:
    return Member(place)


def job_of(member: Member, handle: bytes) -> Job:
    job = member.server.jobs.get(member.number(handle))
    assert job is not None
    return job


def policy(member: Member, name: str, words: str) -> None:
    assert member.text("admin", f"policy set {name} {words}").startswith("OK")


def new_handle(member: Member, function: bytes, unique: bytes = b"", kind: str = "SUBMIT_JOB_BG") -> bytes:
    """Submit without a commit; the handle that is promised."""
    handle = b"H:%d" % member.server.next_number
    member.send("client", kind, function, unique, b"w")
    return handle


def all_of(member: Member, worker: str) -> list[bytes]:
    """The handles of all that a worker gets, each completed."""
    got = []
    while (handle := member.grab(worker)) is not None:
        got.append(handle)
        member.send(worker, "WORK_COMPLETE", handle, b"")
    return got


def errors(member: Member, name: str = "client") -> list[bytes]:
    return [bytes(packet[2]) for packet in member.take(name) if packet[0] == "ERROR"]  # type: ignore[arg-type]


# ── uniques over the whole fleet ────────────────────────────────────────────────────────────────────────────────────


def test_a_job_with_a_unique_is_held_until_it_is_written(one: Member) -> None:
    one.works("worker", b"f")
    one.send("worker", "PRE_SLEEP")
    handle = new_handle(one, b"f", b"u")
    assert job_of(one, handle).state == HELD
    assert one.take("worker") == []
    assert one.grab("worker") is None
    one.send("worker", "PRE_SLEEP")
    assert "whether the fleet has a job of this function" in one.text("asking", f"why {handle.decode()}")
    one.commit()
    assert one.take("worker") == [("NOOP",)]
    assert one.take("client") == [("JOB_CREATED", handle)]
    assert one.grab("worker") == handle


@pytest.mark.parametrize("unique", [b"", b"-"])
def test_what_no_other_can_have_is_handed_out_at_once(one: Member, unique: bytes) -> None:
    one.works("worker", b"f")
    one.send("client", "SUBMIT_JOB_BG", b"f", unique, b"")
    assert one.grab("worker") == b"H:1"


def test_a_foreground_job_with_a_unique_is_handed_out_at_once(one: Member) -> None:
    one.works("worker", b"f")
    handle = new_handle(one, b"f", b"u", "SUBMIT_JOB")
    assert one.grab("worker") == handle


@pytest.mark.parametrize("unique", [b"u", b"-"])
def test_whoever_submits_a_twin_gets_the_handle_of_the_job_that_is_there(
    one: Member, two: Member, unique: bytes
) -> None:
    first = one.submit(b"f", unique)
    memory = int(two.server.memory)
    assert two.submit(b"f", unique) == first
    two.send("other", "SUBMIT_JOB_BG", b"f", unique, b"w")
    two.send("another", "SUBMIT_JOB_BG", b"f", unique, b"w")
    two.commit()
    assert two.take("other") == two.take("another") == [("JOB_CREATED", first)]
    assert len(two.server.jobs) == 0
    assert int(two.server.memory) - memory == 1600 + 1  # the function
    two.works("worker", b"f")
    assert two.grab("worker") is None
    one.works("worker", b"f")
    assert all_of(one, "worker") == [first]
    one.commit()
    assert two.submit(b"f", unique) != first


def test_a_foreground_client_that_joined_meanwhile_keeps_its_job_when_there_is_a_twin(one: Member, two: Member) -> None:
    first = one.submit(b"f", b"u")
    handle = new_handle(two, b"f", b"u")
    two.send("waiting", "SUBMIT_JOB", b"f", b"u", b"w")
    assert two.take("waiting") == [("JOB_CREATED", handle)]
    two.works("worker", b"f")
    two.send("worker", "PRE_SLEEP")
    two.commit()
    assert two.take("client") == [("JOB_CREATED", first)]
    assert two.take("worker") == [("NOOP",)]
    assert two.grab("worker") == handle
    two.send("worker", "WORK_COMPLETE", handle, b"done")
    assert two.take("waiting") == [("WORK_COMPLETE", handle, b"done")]
    two.commit()
    assert two.place.owner(two.number(first)) == one.me
    assert two.place.owner(two.number(handle)) is None


def test_a_twin_that_has_ended_at_its_owner_is_joined_by_nobody(one: Member, two: Member) -> None:
    first = one.submit(b"f", b"u")
    one.works("worker", b"f")
    assert all_of(one, "worker") == [first]  # the place has not heard of it
    handle = new_handle(two, b"f", b"u")
    two.commit()
    assert two.take("client") == []
    one.commit()
    two.commit()
    assert two.take("client") == [("JOB_CREATED", handle)]
    assert two.place.owner(two.number(handle)) == two.me


def test_a_job_that_is_cancelled_while_it_is_written_has_a_twin_or_none(one: Member, two: Member) -> None:
    first = one.submit(b"f", b"u")
    for unique in (b"u", b"v"):
        handle = new_handle(two, b"f", unique)
        batch = two.batch()
        assert two.text_now("admin", f"cancel job {handle.decode()}") == "OK\r\n"
        two.carry_out(batch)
        assert two.take("client") == [("JOB_CREATED", handle)]
        two.commit()
        assert len(two.server.jobs) == 0
        assert list(two.place.rows) == [one.number(first)]


def test_a_held_job_waits_for_its_time_when_it_is_written(one: Member) -> None:
    one.works("worker", b"f")
    due = int(one.wall) + 10
    soon = int(one.wall) + 1
    one.send("client", "SUBMIT_JOB_EPOCH", b"f", b"u", b"%d" % due, b"w")
    one.send("client", "SUBMIT_JOB_EPOCH", b"f", b"v", b"%d" % soon, b"w")
    batch = one.batch()
    one.wait(2)
    assert one.grab("worker") is None
    one.carry_out(batch)
    assert one.grab("worker") == b"H:2"
    assert one.grab("worker") is None
    one.wait(8)
    assert one.grab("worker") == b"H:1"


def test_a_held_job_of_a_refused_batch_goes_on_for_its_foreground_client_alone(one: Member) -> None:
    one.works("worker", b"f")
    alone = new_handle(one, b"f", b"v")
    joined = new_handle(one, b"f", b"u")
    one.send("waiting", "SUBMIT_JOB", b"f", b"u", b"w")
    one.server.refused(one.batch(), "no", down=False)
    one.settle()
    assert [b"no" in text for text in errors(one)] == [True, True]
    assert one.server.jobs.get(one.number(alone)) is None
    assert one.grab("worker") == joined


def test_a_held_job_may_expire_and_be_dropped_with_its_function(one: Member) -> None:
    policy(one, "f", "expires=1s dead=0")
    new_handle(one, b"f", b"u")
    new_handle(one, b"g", b"u")
    batch = one.batch()
    one.wait(2)
    assert one.text_now("admin", "drop function g").startswith("OK")
    assert len(one.server.jobs) == 0
    one.carry_out(batch)
    one.commit()
    assert one.place.rows == {}


def test_a_job_comes_again_whose_twin_has_ended_here_without_the_stores_knowledge(one: Member) -> None:
    """More has gathered than one batch takes, so that the removal comes after the new job."""
    one.is_checked = False
    one.works("worker", b"f")
    policy(one, "g", "attempts=1 dead=1h")
    first = one.submit(b"f", b"u")
    dead = one.submit(b"g", b"u")
    for number in range(10_001):
        one.server.keep(Record("thing", b"%d" % number, b""))
    one.grab("worker")
    one.send("worker", "WORK_COMPLETE", first, b"")
    one.works("failing", b"g")
    one.grab("failing")
    one.send("failing", "WORK_FAIL", dead)
    again = new_handle(one, b"f", b"u")
    after = new_handle(one, b"g", b"u")
    one.commit()
    assert one.take("client") == [("JOB_CREATED", again), ("JOB_CREATED", after)]
    assert one.grab("worker") == again
    assert one.grab("failing") == after
    assert {one.place.owner(one.number(each)) for each in (again, after, dead)} == {one.me}


def test_a_refused_job_that_another_member_may_have_found_is_not_taken_back(one: Member, two: Member) -> None:
    handle = new_handle(one, b"f", b"u")
    plain = b"H:%d" % one.server.next_number
    one.send("other client", "SUBMIT_JOB_BG", b"f", b"", b"w")
    batch = one.batch()
    one.place.commit(one.me, batch)
    one.server.refused(batch, "no answer", down=True)
    one.settle()
    assert errors(one) == errors(one, "other client") == [b"The job could not be stored: no answer"]
    assert two.submit(b"f", b"u") == handle
    one.place.commit(one.me, taken_back(batch))
    one.server.back()
    one.commit()
    assert list(one.place.rows) == [one.number(handle)]
    assert one.state(plain) == ""
    one.works("worker", b"f")
    assert all_of(one, "worker") == [handle]
    one.commit()
    assert one.place.rows == {}


# ── a lease that is over ────────────────────────────────────────────────────────────────────────────────────────────


def test_when_the_lease_is_over_only_foreground_jobs_go_on(one: Member) -> None:
    one.works("worker", b"f")
    one.server.renew_lease(one.now + 3)
    stored = one.submit(b"f")
    running = one.submit(b"f")
    later = one.submit(b"f", kind="SUBMIT_JOB_LOW_BG")
    one.text("admin", f"priority {running.decode()} high")
    assert one.grab("worker") == running
    one.wait(3)
    assert one.server.lapsed
    assert [job_of(one, handle).state for handle in (stored, running, later)] == [HELD, RUNNING, HELD]
    assert one.grab("worker") is None
    one.send("client", "SUBMIT_JOB_BG", b"f", b"", b"w")
    assert errors(one) == [b"The job could not be stored: " + LAPSED.encode()]
    foreground = new_handle(one, b"f", kind="SUBMIT_JOB")
    one.works("other", b"f")
    assert one.grab("other") == foreground
    assert LAPSED in one.text("admin", f"why {stored.decode()}").replace("\\x20", " ")
    assert "lease_over" in [name for name, _, _ in one.server.take_events()]
    one.renew()
    assert "lease_holds" in [name for name, _, _ in one.server.take_events()]
    assert all_of(one, "worker") == [stored, later]


def test_what_comes_to_wait_while_the_lease_is_over_is_held(one: Member) -> None:
    policy(one, "tried", "attempts=3 delay=1s retry_on=fail,lost")
    policy(one, "gone", "attempts=1 dead=1h")
    one.works("worker", b"tried", b"lost", b"gone")
    tried = one.submit(b"tried")
    lost = one.submit(b"lost")
    gone = one.submit(b"gone")
    one.send("client", "SUBMIT_JOB_EPOCH", b"lost", b"", b"%d" % (one.wall + 5), b"w")
    one.commit()
    ((_, delayed),) = one.take("client")
    assert isinstance(delayed, bytes)
    assert {one.grab("worker") for _ in range(3)} == {tried, lost, gone}
    one.send("worker", "WORK_FAIL", gone)
    one.lapse()
    one.send("worker", "WORK_FAIL", tried)
    one.leave("worker")
    answer = one.text_now("admin", f"retry {gone.decode()}")
    assert answer.encode() == not_stored(LAPSED)
    one.wait(10)
    assert [job_of(one, handle).state for handle in (tried, lost, gone, delayed)] == [HELD] * 4
    one.works("worker", b"tried", b"lost", b"gone")
    one.send("worker", "PRE_SLEEP")
    assert one.take("worker") == []
    one.renew()
    assert ("NOOP",) in one.take("worker")
    assert set(all_of(one, "worker")) == {tried, lost, gone, delayed}
    one.commit()
    assert one.place.rows == {}


def test_held_jobs_go_on_in_their_order_and_sleepers_are_woken(one: Member) -> None:
    normal = [one.submit(b"f") for _ in range(5)]
    low = one.submit(b"f", kind="SUBMIT_JOB_LOW_BG")
    high = one.submit(b"f", kind="SUBMIT_JOB_HIGH_BG")
    one.works("worker", b"f")
    one.lapse()
    one.send("worker", "PRE_SLEEP")
    assert one.take("worker") == []
    one.renew()
    assert one.take("worker") == [("NOOP",)]
    assert all_of(one, "worker") == [high, *normal, low]


def test_a_background_submission_does_not_join_what_may_have_ended_elsewhere(one: Member) -> None:
    handle = one.submit(b"f", b"u")
    one.lapse()
    one.send("client", "SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert errors(one) == [b"The job could not be stored: " + LAPSED.encode()]
    one.renew()
    assert one.submit(b"f", b"u") == handle


def test_a_batch_is_under_way_when_the_lease_is_over(one: Member) -> None:
    """What is being written may be stored, and so may be another's."""
    one.works("worker", b"f")
    handles = [new_handle(one, b"f"), new_handle(one, b"f", b"u"), new_handle(one, b"f")]
    batch = one.batch()
    assert one.grab("worker") == handles[0]
    waiting = new_handle(one, b"g")
    one.lapse()
    assert one.grab("worker") is None
    assert one.take("client") == []
    one.carry_out(batch)
    assert one.take("client") == [("JOB_CREATED", handle) for handle in handles]
    assert one.grab("worker") is None
    assert one.server.take_batch() is None
    one.renew()
    assert set(all_of(one, "worker")) == set(handles[1:])
    one.commit()
    assert one.take("client") == [("JOB_CREATED", waiting)]


def test_a_batch_that_was_under_way_is_stored_after_the_lease_holds_again(one: Member) -> None:
    one.works("worker", b"f")
    plain, with_unique = new_handle(one, b"f"), new_handle(one, b"f", b"u")
    batch = one.batch()
    one.lapse()
    one.renew()
    assert one.grab("worker") is None
    one.carry_out(batch)
    assert all_of(one, "worker") == [plain, with_unique]


def test_a_batch_that_was_under_way_is_refused_while_the_lease_is_over(one: Member) -> None:
    new_handle(one, b"f")
    batch = one.batch()
    one.lapse()
    one.server.refused(batch, "no", down=True)
    one.settle()
    assert len(errors(one)) == 1
    assert len(one.server.jobs) == 0
    one.renew()
    one.send("client", "SUBMIT_JOB_BG", b"f", b"", b"w")
    assert errors(one) == [b"The job could not be stored: no"]
    one.server.back()
    assert one.submit(b"f")


def test_gates_count_right_through_the_end_of_a_lease_and_back(one: Member) -> None:
    policy(one, "keyed", "key_separator=: key_concurrency=1")
    policy(one, "few", "concurrency=2")
    one.text("admin", "pause paused")
    keyed = [one.submit(b"keyed", b"a:%d" % n) for n in range(3)] + [one.submit(b"keyed", b"b:1")]
    few = [one.submit(b"few") for _ in range(3)]
    paused = one.submit(b"paused")
    one.works("worker", b"keyed", b"few", b"paused")
    begun = [one.grab("worker"), one.grab("worker")]
    for _ in range(2):
        one.lapse()
        assert one.grab("worker") is None
        one.renew()
    begun += [one.grab("worker"), one.grab("worker")]
    assert one.grab("worker") is None
    assert {keyed[0], keyed[3], *few[:2]} == set(begun)
    one.lapse()
    for handle in begun:
        assert handle is not None
        one.send("worker", "WORK_COMPLETE", handle, b"")
    assert one.grab("worker") is None
    one.renew()
    assert set(all_of(one, "worker")) == {keyed[1], keyed[2], few[2]}
    one.lapse()
    one.text_now("admin", "resume paused")
    assert one.grab("worker") is None
    one.renew()
    assert all_of(one, "worker") == [paused]


def test_a_lease_may_end_and_come_back_while_much_is_still_being_held_or_let_go(one: Member) -> None:
    """The work of the times before must not take itself for that of this one."""
    one.is_checked = False
    for _ in range(8000):
        one.send("client", "SUBMIT_JOB_BG", b"f", b"", b"")
    one.commit()
    one.works("worker", b"f")
    server = one.server
    for ends in (True, False, True, False, False, True):
        server.tick(one.now, one.wall)
        if ends:
            server.end_lease()
        else:
            server.renew_lease(FOREVER)
            server.end_lease()
            server.renew_lease(FOREVER)
        while server.chores.line:
            assert not (server.lapsed and one.grab("worker"))
            if not server.withholding:
                break
            one.wait(0)
        if ends:
            assert server.lapsed
            assert one.grab("worker") is None
    one.renew()
    while server.chores.line:
        one.wait(0)
    assert {job.state for job in server.jobs} <= {QUEUED, RUNNING}


# ── forsaking ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_member_forsakes_all_that_is_stored_and_comes_back(one: Member, two: Member) -> None:
    policy(one, "dead", "attempts=1 dead=1h")
    policy(one, "kept", "results=1h attempts=2 retry_on=fail")
    policy(one, "keyed", "key_separator=: key_concurrency=1 expires=1h")
    for function in (b"f", b"dead", b"kept", b"keyed"):
        one.works("worker", function)
    one.works("other", b"f")
    one.commit()
    one.server.create_function(b"quiet")
    before = int(one.server.memory)
    handles = [one.submit(b"f") for _ in range(3)] + [one.submit(b"keyed", b"a:%d" % n) for n in range(3)]
    dead = one.submit(b"dead", b"u")
    kept = [one.submit(b"kept"), one.submit(b"kept")]
    one.send("client", "SUBMIT_JOB_EPOCH", b"f", b"", b"%d" % (one.wall + 50), b"w")
    one.commit()
    one.take("client")
    begun = [one.grab("worker") for _ in range(6)]
    one.send("worker", "WORK_FAIL", dead)
    one.send("worker", "WORK_COMPLETE", kept[0], b"result")
    one.send("worker", "WORK_FAIL", kept[1])
    assert {dead, kept[0], kept[1]} <= set(begun)
    one.commit()
    foreground = new_handle(one, b"quiet", kind="SUBMIT_JOB")
    one.take("client")
    waiting = new_handle(one, b"f", b"x")
    batch = one.batch()
    one.send("second", "SUBMIT_JOB_BG", b"f", b"y", b"w")
    one.write("admin", b"policy set f attempts=3\n")
    assert one.take("client") == one.take("second") == []
    one.forsake()
    assert [b"taken this job server for dead" in text for text in errors(one) + errors(one, "second")] == [True] * 2
    assert one.got[one.peer("admin")] == not_stored(FORSAKEN)
    one.got[one.peer("admin")] = b""
    assert [b"H:%d" % job.number for job in one.server.jobs] == [foreground]
    one.leave("client")
    assert one.server.take_batch() is None
    assert not one.server.changes.waiting
    assert {record.kind for record in one.server.stored_records()} == {"policy"}
    one.text("admin", "policy unset f")
    assert int(one.server.memory) == before + 100 * len(one.peer("worker").revoked or ())
    one.server.written(batch)
    one.settle()
    two.claim(1)
    two.claim(-1)
    old = one.server.next_number
    one.join()
    assert one.server.next_number == one.place.next_block - BLOCK > old
    assert waiting not in handles
    fresh = one.submit(b"f")
    assert one.number(fresh) >= one.place.next_block - BLOCK
    assert one.grab("worker") == fresh
    assert two.server.jobs.count == len(handles) + 3


def test_a_job_that_runs_is_taken_from_its_worker_when_it_is_forsaken(one: Member) -> None:
    handle = one.submit(b"f")
    one.works("worker", b"f")
    assert one.grab("worker") == handle
    one.forsake()
    assert len(one.server.jobs) == 0
    assert one.server.functions[b"f"].counters.unstored == 0
    one.send("worker", "WORK_COMPLETE", handle, b"")  # late, and no error
    assert one.take("worker") == []


def test_a_dead_letter_that_was_never_stored_stays_when_all_else_is_forsaken(one: Member) -> None:
    policy(one, "f", "attempts=2 delay=0 retry_on=fail dead=1h")
    one.works("worker", b"f")
    handle = new_handle(one, b"f")
    for _ in range(2):
        assert one.grab("worker") == handle
        one.send("worker", "WORK_FAIL", handle)
    batch = one.batch()
    one.lapse()
    one.server.refused(batch, "no", down=True)
    one.settle()
    one.forsake()
    one.join()
    one.text("admin", f"dead purge {handle.decode()}")
    assert {kind for kind, _ in one.place.records} == {"policy"}
    assert {record.kind for record in one.server.stored_records()} == {"policy"}


def test_of_a_dead_letter_that_was_refused_and_has_arrived_nothing_remains(one: Member) -> None:
    policy(one, "f", "attempts=1 dead=1h")
    one.works("worker", b"f")
    handle = new_handle(one, b"f")
    assert one.grab("worker") == handle
    one.send("worker", "WORK_FAIL", handle)
    batch = one.batch()
    one.wait(one.server.store.longest_wait + 1)
    one.carry_out(batch)
    one.commit()
    assert one.place.rows == {}
    assert {kind for kind, _ in one.place.records} == {"policy"}
    assert one.state(handle) == "dead"


def test_a_late_answer_about_a_batch_of_before_means_nothing(one: Member) -> None:
    new_handle(one, b"f")
    batch = one.batch()
    one.server.refused(batch, "fenced", down=True)
    one.settle()
    one.forsake()
    one.join()
    handle = new_handle(one, b"f")
    two = one.batch()
    one.server.refused(batch, "fenced", down=True)
    one.server.written(batch)
    one.settle()
    assert len(one.take("client")) == 1
    one.carry_out(two)
    assert one.take("client") == [("JOB_CREATED", handle)]


def test_a_foreground_client_goes_on_with_what_was_stored(one: Member, two: Member) -> None:
    shared, running, back = (one.submit(b"f", unique) for unique in (b"a", b"b", b"c"))
    for number, unique in enumerate((b"a", b"b", b"c")):
        one.send(f"waiting {number}", "SUBMIT_JOB", b"f", unique, b"w")
        one.take(f"waiting {number}")
    one.works("worker", b"f")
    assert one.grab("worker") == shared
    one.forsake()
    one.join()
    assert [job_of(one, handle).stored for handle in (shared, running, back)] == [UNSTORED] * 3
    one.send("worker", "WORK_COMPLETE", shared, b"1")
    assert one.take("waiting 0") == [("WORK_COMPLETE", shared, b"1")]
    assert one.grab("worker") == running
    two.claim(1)
    two.server.give_away_all(-1, one.me)
    two.commit()
    assert len(one.receive()) == 3
    assert [job_of(one, handle).stored for handle in (running, back)] == [STORED] * 2
    one.lapse()
    assert job_of(one, back).state == HELD
    one.renew()
    assert set(all_of(one, "worker")) == {back, shared}  # which was two's to do as well
    one.send("worker", "WORK_COMPLETE", running, b"2")
    assert one.take("waiting 1") == [("WORK_COMPLETE", running, b"2")]
    one.commit()
    assert one.place.rows == {}


def test_a_dead_letter_of_a_job_that_goes_on_for_a_foreground_client_is_none(one: Member, two: Member) -> None:
    for member in (one, two):
        policy(member, "f", "attempts=1 dead=1h")
        member.works("worker", b"f")
    handle = one.submit(b"f", b"a")
    one.send("waiting", "SUBMIT_JOB", b"f", b"a", b"w")
    one.take("waiting")
    one.forsake()
    one.join()
    two.claim(1)
    assert two.grab("worker") == handle
    two.send("worker", "WORK_FAIL", handle)
    two.commit()
    two.server.give_away_all(-1, one.me)
    two.commit()
    assert one.receive() == [one.number(handle)]
    assert all_of(one, "worker") == [handle]
    one.commit()
    assert one.place.rows == {}
    assert {kind for kind, _ in one.place.records} == {"policy"}


def test_a_job_that_is_anothers_too_is_not_stored_again(one: Member, two: Member) -> None:
    policy(one, "f", "attempts=1 dead=1h")
    handle = one.submit(b"f", b"u")
    one.send("waiting", "SUBMIT_JOB", b"f", b"u", b"w")
    one.take("waiting")
    one.forsake()
    one.join()
    two.claim(1)
    assert one.submit(b"f", b"u") == handle  # two's
    one.works("worker", b"f")
    assert one.grab("worker") == handle
    one.send("worker", "WORK_FAIL", handle)
    assert one.take("waiting") == [("WORK_FAIL", handle)]
    assert len(one.server.jobs) == 0
    one.commit()
    assert one.place.owner(1) == two.me
    assert {kind for kind, _ in one.place.records} == {"policy"}


# ── jobs that go to others ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_best_and_oldest_jobs_go_to_another_member(one: Member, two: Member) -> None:
    normal = [one.submit(b"f", unique) for unique in (b"", b"u", b"-")]
    low = one.submit(b"f", kind="SUBMIT_JOB_LOW_BG")
    high = one.submit(b"f", kind="SUBMIT_JOB_HIGH_BG")
    assert one.server.give_away(b"f", two.me, 3) == 3
    one.settle()
    one.works("worker", b"f")
    assert job_of(one, high).state == HELD
    assert one.server.give_away(b"g", two.me, 3) == 0
    batch = one.batch()
    assert {number for number, _ in batch.moved} == {one.number(each) for each in (high, *normal[:2])}
    one.carry_out(batch)
    assert two.receive() == [two.number(each) for each in (high, *normal[:2])]
    assert all_of(one, "worker") == [normal[2], low]
    two.works("worker", b"f")
    assert all_of(two, "worker") == [high, *normal[:2]]
    for member in (one, two):
        member.commit()
    assert one.place.rows == {}


def test_what_the_place_strikes_out_stays_and_goes_on(one: Member, two: Member) -> None:
    policy(one, "f", "expires=1m")
    handle = one.submit(b"f", b"u")
    one.works("worker", b"f")
    one.send("worker", "PRE_SLEEP")
    one.take("worker")
    one.send("worker", "GRAB_JOB")
    one.take("worker")
    again = one.submit(b"f", b"v")
    one.place.judge(two.me)
    assert one.server.give_away(b"f", two.me, 10) == 1
    one.commit()
    assert job_of(one, again).flags & MOVING == 0
    assert one.grab("worker") == again
    assert handle != again


def test_what_the_place_has_not_confirmed_is_nobodys_until_it_has(one: Member, two: Member) -> None:
    handles = [one.submit(b"f") for _ in range(2)]
    one.works("worker", b"f")
    one.server.give_away(b"f", two.me, 1)
    batch = one.batch()
    one.place.commit(one.me, batch)  # and the answer is lost
    one.server.refused(batch, "down", down=True)
    one.settle()
    assert one.server.give_away(b"f", two.me, 1) == 0
    assert one.server.give_away_all(-1, two.me) == -1
    assert all_of(one, "worker") == [handles[1]]
    one.server.back()
    one.commit()
    assert len(one.server.jobs) == 0
    two.receive()
    two.works("worker", b"f")
    assert all_of(two, "worker") == [handles[0]]


def test_a_refused_move_is_asked_again(one: Member, two: Member) -> None:
    handle = one.submit(b"f")
    one.server.give_away(b"f", two.me, 1)
    batch = one.batch()
    one.server.refused(batch, "no", down=False)
    one.settle()
    assert job_of(one, handle).state == HELD
    one.commit()
    assert two.receive() == [two.number(handle)]
    assert len(one.server.jobs) == 0


def test_a_move_is_under_way_when_the_store_hangs(one: Member, two: Member) -> None:
    handle = one.submit(b"f")
    one.server.give_away(b"f", two.me, 1)
    batch = one.batch()
    one.wait(one.server.store.longest_wait + 1)
    assert job_of(one, handle).state == HELD
    one.carry_out(batch)
    one.commit()
    assert len(one.server.jobs) == 0
    assert two.receive() == [two.number(handle)]


@pytest.mark.parametrize("way", ["runs", "awaited", "for a client", "foreground", "not written", "moving"])
def test_what_is_bound_to_this_member_does_not_go(one: Member, two: Member, way: str) -> None:
    class Silent:
        def tell(self, number: int, event: bytes, data: bytes) -> None:
            pass

    if way == "foreground":
        new_handle(one, b"f", kind="SUBMIT_JOB")
    elif way == "not written":
        new_handle(one, b"f")
    else:
        handle = one.submit(b"f", b"u")
    if way == "runs":
        one.works("worker", b"f")
        assert one.grab("worker") == handle
    elif way == "awaited":
        one.write("waiting", b"result %b wait\n" % handle)
    elif way == "for a client":
        one.send("waiting", "SUBMIT_JOB", b"f", b"u", b"w")
    elif way == "moving":
        assert one.server.give_away(b"f", two.me, 1) == 1
    assert one.server.give_away(b"f", two.me, 5) == 0
    assert one.server.give_away_all(-1, two.me) == -1
    one.settle()
    assert len(one.server.changes.moving) == (way == "moving")


def test_all_that_waits_in_whatever_way_moves_with_its_records(one: Member, two: Member) -> None:
    for member in (one,):
        policy(member, "dead", "attempts=1 dead=1h")
        policy(member, "tried", "attempts=3 delay=0 retry_on=fail")
        policy(member, "soon", "expires=20s dead=0")
        policy(member, "keyed", "key_separator=: key_concurrency=1")
        member.works("worker", b"dead", b"tried")
    two.server.apply_shared(one.place.shared_records())
    dead, tried = one.submit(b"dead", b"u"), one.submit(b"tried")
    one.send("client", "SUBMIT_JOB_EPOCH", b"later", b"u", b"%d" % (one.wall + 10), b"w")
    one.commit()
    ((_, later),) = one.take("client")
    assert isinstance(later, bytes)
    soon = one.submit(b"soon")
    keyed = [one.submit(b"keyed", b"a:%d" % n) for n in range(3)]
    for _ in range(2):
        handle = one.grab("worker")
        assert handle is not None
        one.send("worker", "WORK_FAIL", handle)
    one.commit()
    assert one.server.give_away_all(-1, two.me) == -1
    one.settle()
    one.commit()
    assert len(one.server.jobs) == 0
    assert {kind for kind, of_kind in one.server.records.kinds.items() if of_kind} == {"policy"}
    two.receive()
    assert two.state(dead) == "dead"
    assert [row.owner for row in two.place.rows.values()] == [two.me] * 7
    assert {owner for record, owner in two.place.records.values() if record.kind != "policy"} == {two.me}
    assert "attempt\t1" in two.text("asking", f"show job {tried.decode()}")
    two.works("worker", b"dead", b"tried", b"later", b"keyed")
    assert set(all_of(two, "worker")) == {tried, *keyed}
    two.wait(10)
    assert all_of(two, "worker") == [later]
    two.wait(10)
    assert two.state(soon) == ""
    assert two.submit(b"dead", b"u") != dead
    assert two.text("admin", f"dead retry {dead.decode()}") == "OK 1\n"
    assert len(all_of(two, "worker")) == 2
    two.commit()
    assert two.place.rows == {}
    assert {kind for kind, _ in two.place.records} == {"policy"}


def test_a_job_of_which_one_asks_while_it_goes_is_asked_about_elsewhere(one: Member, two: Member) -> None:
    policy(one, "dead", "attempts=1 dead=1h")
    one.works("worker", b"dead")
    dead, handle = one.submit(b"dead"), one.submit(b"f")
    assert one.grab("worker") == dead
    one.send("worker", "WORK_FAIL", dead)
    one.commit()
    one.server.give_away_all(-1, two.me)
    number = one.number(handle)
    assert not one.server.cancel(number)
    assert not one.server.change_priority(number, 0)
    assert not one.server.retry(one.number(dead))
    for command in ("cancel job", "why", "show job", "priority", "retry"):
        line = f"{command} {handle.decode()}" + (" high" if command == "priority" else "")
        one.write("asking", line.encode() + b"\n")
    one.write("asking", b"dead retry %b\n" % dead)
    one.send("asking", "GET_STATUS", handle)
    assert [question.number for question in one.questions()] == [number] * 5 + [one.number(dead), number]
    assert one.text_now("admin", "dead retry all") == "OK 0\n"
    one.commit()
    two.receive()
    assert two.state(handle) == "queued"
    assert two.state(dead) == "dead"


def test_a_submission_with_the_key_of_a_job_that_goes_is_decided_by_the_store(one: Member, two: Member) -> None:
    handle = one.submit(b"f", b"u")
    one.works("worker", b"f")
    one.server.give_away(b"f", two.me, 1)
    foreground = new_handle(one, b"f", b"u", "SUBMIT_JOB")
    background = b"H:%d" % one.server.next_number
    one.send("another", "SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert all_of(one, "worker") == [foreground]
    assert one.take("client") == [("JOB_CREATED", foreground), ("WORK_COMPLETE", foreground, b"")]
    one.commit()
    assert one.take("another") == [("JOB_CREATED", handle)]
    later = new_handle(one, b"f", b"u")
    one.commit()
    assert one.take("client") == []  # that one is on its way, where nobody can tell whether it lives
    two.receive()
    one.commit()
    assert one.take("client") == [("JOB_CREATED", handle)]
    assert one.state(later) == ""
    two.works("worker", b"f")
    assert all_of(two, "worker") == [handle]
    two.commit()
    assert one.submit(b"f", b"u") not in (handle, background)


# ── jobs that come from others ──────────────────────────────────────────────────────────────────────────────────────


def test_the_jobs_of_a_dead_member_come_with_their_attempts(one: Member, two: Member) -> None:
    handles = [one.submit(b"f") for _ in range(3)]
    one.works("worker", b"f")
    one.grab("worker")
    one.server.tell_begun()
    one.commit()
    one.place.judge(one.me)
    two.works("worker", b"f")
    two.send("worker", "PRE_SLEEP")
    assert two.claim(one.me, 1) == [1]
    assert two.take("worker") == [("NOOP",)]
    two.claim(one.me)
    assert job_of(two, handles[0]).attempts == 1
    assert all_of(two, "worker") == [handles[1], handles[2], handles[0]]


def test_adopting_twice_is_as_once(one: Member, two: Member) -> None:
    policy(one, "f", "attempts=1 dead=1h")
    one.works("worker", b"f")
    dead = one.submit(b"f")
    one.grab("worker")
    one.send("worker", "WORK_FAIL", dead)
    one.commit()
    waits = one.submit(b"g")
    one.place.judge(one.me)
    two.server.apply_shared(two.place.shared_records())
    jobs, records = two.place.claim(two.me, one.me)
    for _ in range(2):
        for job in jobs:
            two.server.adopt(job)
        for record in records:
            two.server.restore_record(record)
        two.settle()
    two.commit()
    assert two.state(dead) == "dead"
    assert two.state(waits) == "queued"
    assert [kind for kind, _ in two.place.records].count("dead") == 1


def test_a_job_may_come_back_before_its_leaving_is_known(one: Member, two: Member) -> None:
    one.send("client", "SUBMIT_JOB_EPOCH", b"f", b"u", b"%d" % (one.wall + 10), b"w")
    one.commit()
    one.server.give_away_all(-1, two.me)
    batch = one.batch()
    one.place.commit(one.me, batch)
    two.receive()
    two.text("admin", "retry H:1")
    two.server.give_away_all(-1, one.me)
    two.commit()
    assert one.receive() == [1]
    assert one.server.give_away(b"f", two.me, 1) == 1
    one.server.written(batch)
    one.settle()
    assert one.state(b"H:1") == ""  # it goes again
    assert job_of(one, b"H:1").state == HELD
    one.place.judge(two.me)
    one.commit()
    one.works("worker", b"f")
    assert all_of(one, "worker") == [b"H:1"]


def test_what_was_planned_for_a_job_means_nothing_when_it_comes_back(one: Member, two: Member) -> None:
    one.send("client", "SUBMIT_JOB_EPOCH", b"f", b"u", b"%d" % (one.wall + 10), b"w")
    one.commit()
    one.server.give_away_all(-1, two.me)
    one.commit()
    two.receive()
    job = two.place.rows[1].job
    job.due += 100
    two.place.rows[1].owner = -one.me
    one.receive()
    one.works("worker", b"f")
    one.wait(50)
    assert one.grab("worker") is None
    one.wait(60)
    assert one.grab("worker") == b"H:1"
    assert one.server.delayed.live == 0


def test_an_adopted_job_leaves_its_key_to_a_foreground_job_that_has_it(one: Member, two: Member) -> None:
    stored = one.submit(b"f", b"u")
    foreground = new_handle(two, b"f", b"u", "SUBMIT_JOB")
    one.place.judge(one.me)
    two.claim(one.me)
    two.works("worker", b"f")
    two.send("third", "SUBMIT_JOB", b"f", b"u", b"w")
    assert two.take("third") == [("JOB_CREATED", foreground)]
    assert two.grab("worker") == foreground
    two.send("worker", "WORK_COMPLETE", foreground, b"")
    assert two.submit(b"f", b"u", client="fourth") == stored
    assert all_of(two, "worker") == [stored]
    two.commit()
    assert two.place.rows == {}
    assert two.submit(b"f", b"u", client="fourth") != stored


def test_what_is_adopted_after_the_lease_has_ended_is_held(one: Member, two: Member) -> None:
    handle = one.submit(b"f")
    one.place.judge(one.me)
    two.works("worker", b"f")
    two.lapse()
    two.claim(one.me)
    assert two.grab("worker") is None
    two.renew()
    assert two.grab("worker") == handle


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_numbers_come_in_blocks_and_without_one_nothing_is_taken(place: Place) -> None:
    member = Member(place)
    server = member.server
    server.give_numbers(100, 3)
    server.begin_block()
    policy(member, "f", "queue=2 when_full=drop-oldest results=1h")
    assert server.numbers_left == 3
    server.give_numbers(200, 2)
    assert server.numbers_left == 5
    assert [member.submit(b"g") for _ in range(2)] == [b"H:100", b"H:101"]
    assert member.submit(b"f") == b"H:102"
    assert server.next_number == 200  # so that whoever submits can tell which number it gets
    assert member.submit(b"f", b"u") == b"H:200"
    member.works("worker", b"f", b"g")
    member.text("admin", "pause g")
    assert member.grab("worker") == b"H:102"
    member.send("worker", "WORK_COMPLETE", b"H:102", b"")
    assert member.grab("worker") == b"H:200"
    member.send("worker", "WORK_COMPLETE", b"H:200", b"result")
    member.submit(b"f")
    assert server.numbers_left == 0
    for kind in ("SUBMIT_JOB_BG", "SUBMIT_JOB"):
        member.send("client", kind, b"f", b"", b"w")
        member.send("client", kind, b"g", b"", b"w")
    member.send("client", "SUBMIT_JOB", b"f", b"u", b"w")  # there is a result, but no number for its job
    assert errors(member) == [NO_NUMBERS] * 5
    assert member.grab("worker") == b"H:201"  # which no job has driven out
    server.give_numbers(300, 2)
    assert member.submit(b"f") == b"H:300"


# ── questions ───────────────────────────────────────────────────────────────────────────────────────────────────────

UNKNOWN = b"ERR UNKNOWN_JOB"


@pytest.mark.parametrize(
    "line",
    ["cancel job H:9", "why H:9", "show job H:9", "show status H:9", "result H:9", "result H:9 wait", "retry H:9",
     "priority H:9 high", "dead retry H:9", "dead purge H:9", "dead workload H:9"],
)  # fmt: skip
def test_what_is_asked_of_a_job_that_is_not_here_waits_for_another_member(one: Member, line: str) -> None:
    one.write("asking", line.encode() + b"\nversion\n")
    peer = one.peer("asking")
    assert one.got[peer] == b""
    (question,) = one.questions()
    assert (question.number, question.handle, question.line) == (9, b"H:9", line.encode())
    one.answer(question, b"OK there\n")
    assert one.got[peer].startswith(b"OK there\nOK ")
    one.got[peer] = b""
    one.write("asking", line.encode() + b"\n")
    (question,) = one.questions()
    one.answer(question, None)
    assert one.got[peer].startswith(UNKNOWN)
    one.got[peer] = b""
    assert one.text_now("asking", "local " + line).encode().startswith(UNKNOWN)
    assert one.text_now("asking", line.replace("H:9", "X:9")).encode().startswith(UNKNOWN)
    assert one.questions() == []


def test_get_status_waits_in_its_place_behind_other_replies(one: Member) -> None:
    handle = new_handle(one, b"f")
    one.send("client", "GET_STATUS", b"H:9")
    one.send("client", "ECHO_REQ", b"behind")
    (question,) = one.questions()
    assert (question.number, question.line) == (9, b"")
    one.answer(question, pack_response(p.STATUS_RES, b"H:9", b"1", b"0", b"3", b"4"))
    assert one.take("client") == []
    one.commit()
    assert one.take("client") == [
        ("JOB_CREATED", handle), ("STATUS_RES", b"H:9", b"1", b"0", b"3", b"4"), ("ECHO_RES", b"behind"),
    ]  # fmt: skip
    assert one.text_now("admin", "local why H:9").startswith("ERR UNKNOWN_JOB")
    one.send("client", "GET_STATUS", b"H:9")  # which is not the other's command
    (question,) = one.questions()
    one.answer(question, None)
    assert one.take("client") == [("STATUS_RES", b"H:9", b"0", b"0", b"0", b"0")]
    one.send("client", "GET_STATUS", handle)
    assert one.take("client") == [("STATUS_RES", handle, b"1", b"0", b"0", b"0")]


def test_a_question_outlives_its_asker(one: Member) -> None:
    one.send("client", "GET_STATUS", b"H:9")
    (question,) = one.questions()
    one.leave("client")
    one.answer(question, b"x")
    assert one.server.elsewhere is not None
    assert one.server.elsewhere.open == 0


def test_beyond_the_bound_of_questions_the_answer_is_that_of_this_member(one: Member) -> None:
    one.is_checked = False
    for _ in range(elsewhere.MOST):
        one.send("many", "GET_STATUS", b"H:9")
    one.send("client", "GET_STATUS", b"H:9")
    assert len(one.take("client")) == 1
    first, *rest = one.questions()
    assert len(rest) == elsewhere.MOST - 1
    one.answer(first, None)
    one.send("client", "GET_STATUS", b"H:9")
    assert one.take("client") == []
    for question in rest + one.questions():
        one.answer(question, None)
    assert len(one.take("many")) == elsewhere.MOST


# ── what all members share ──────────────────────────────────────────────────────────────────────────────────────────


def test_policies_and_pauses_follow_what_others_set_change_and_take_back(one: Member, two: Member) -> None:
    def follow() -> None:
        two.server.apply_shared(two.place.shared_records())
        two.settle()
        while two.server.chores.line:
            two.wait(0.01)
        assert two.server.take_batch() is None

    two.works("worker", b"f")
    two.send("worker", "PRE_SLEEP")
    memory = int(two.server.memory)
    policy(one, "f", "concurrency=1")
    policy(one, "f*", "timeout=5s")
    one.text("admin", "pause f")
    one.server.keep(Record("schedule", b"daily", b"1"))
    one.commit()
    follow()
    handle = two.submit(b"f")
    function = two.server.functions[b"f"]
    assert function.is_paused
    assert function.policy is not None
    assert function.policy.concurrency == 1
    assert two.server.kept("schedule", b"daily") is not None
    policy(one, "f", "concurrency=2")
    one.text("admin", "resume f")
    one.server.keep(Record("schedule", b"daily", b"2"))
    one.commit()
    follow()
    assert two.take("worker") == [("NOOP",)]
    record = two.server.kept("schedule", b"daily")
    assert record is not None
    assert record.value == b"2"
    assert all_of(two, "worker") == [handle]
    two.commit()
    one.text("admin", "policy unset f")
    one.text("admin", "policy unset f*")
    one.server.keep(Record("schedule", b"daily", None))
    one.commit()
    follow()
    assert function.policy is None
    assert int(two.server.memory) == memory


def test_what_has_been_changed_here_and_is_not_stored_yet_is_not_taken_back(one: Member) -> None:
    before = one.place.shared_records()
    one.write("admin", b"policy set f concurrency=1\n")
    one.server.apply_shared(before)
    batch = one.batch()
    one.server.apply_shared(before)
    one.carry_out(batch)
    assert [record.key for record in one.server.kept_of("policy")] == [b"f"]
    assert one.server.policies.policy_for(b"f") is not None


def test_a_policy_that_others_took_back_while_a_member_was_out_is_taken_back(one: Member, two: Member) -> None:
    policy(one, "f", "concurrency=1")
    two.server.apply_shared(two.place.shared_records())
    one.forsake()
    two.text("admin", "policy unset f")
    one.join()
    assert one.server.policies.policy_for(b"f") is None


# ── what the place is told of running jobs ──────────────────────────────────────────────────────────────────────────


def test_the_place_is_told_once_which_stored_jobs_have_begun(one: Member) -> None:
    one.works("worker", b"f", b"g")
    first, second = one.submit(b"f"), one.submit(b"f")
    new_handle(one, b"g", kind="SUBMIT_JOB")
    for _ in range(3):
        one.grab("worker")
    assert one.server.take_batch() is None
    one.send("worker", "WORK_COMPLETE", second, b"")
    batch = one.batch()
    assert batch.begun == {one.number(first): 1}
    one.server.refused(batch, "no", down=False)
    batch = one.batch()
    assert batch.begun == {one.number(first): 1}
    one.carry_out(batch)
    one.server.tell_begun()
    assert one.server.take_batch() is None
    one.leave("worker")
    one.works("worker", b"f")
    assert one.grab("worker") == first
    one.server.tell_begun()
    assert one.batch().begun == {one.number(first): 2}


def test_a_job_that_was_begun_before_it_was_written_is_told(one: Member) -> None:
    one.works("worker", b"f")
    handles = [new_handle(one, b"f") for _ in range(2)]
    one.grab("worker")
    batch = one.batch()
    assert [job.begun for job in batch.added] == [1, 0]
    one.grab("worker")
    one.carry_out(batch)
    one.server.tell_begun()
    assert one.batch().begun[one.number(handles[1])] == 1


def test_a_fenced_members_commit_changes_nothing(one: Member) -> None:
    new_handle(one, b"f")
    one.place.judge(one.me)
    with pytest.raises(FencedError):
        one.commit()
    assert one.place.rows == {}
