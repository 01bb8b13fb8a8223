"""What an outlet does next, and bounds on unread output, for one reader and for all together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geartrain.daemon.flow import DRAIN, END, GO_ON, WAIT, Flow, UnreadOutput
from geartrain.jobserver import JobServer, Origin, Peer
from geartrain.jobserver.outbox import MAX_UNREAD_OUTPUT


class Reader:
    """An outlet that holds what the test says."""

    def __init__(self, unread: int = 0) -> None:
        self.unread = unread

    def write(self) -> None:
        raise AssertionError("nobody is asked to write here")

    abort = write

    def drain_close(self, seconds: float) -> None:
        raise AssertionError("nobody is closed here")


@pytest.fixture
def peer() -> Peer:
    return JobServer().connect(Origin("127.0.0.1", 1))


# ── one outlet ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_quiet_peer_is_read(peer: Peer) -> None:
    flow = Flow()
    assert flow.after_write(peer) == WAIT
    assert flow.may_read(peer)
    assert not flow.may_go_on(peer)
    assert not flow.has_more(peer)


def test_requests_that_waited_go_on_when_the_output_is_gone(peer: Peer) -> None:
    flow = Flow()
    peer.stalled = True
    assert flow.after_write(peer) == GO_ON
    assert flow.may_go_on(peer)
    assert not flow.may_read(peer)
    flow.full = True
    assert flow.after_write(peer) == WAIT
    assert not flow.may_go_on(peer)


def test_requests_wait_while_much_waits_for_the_store(peer: Peer) -> None:
    flow = Flow()
    peer.stalled = True
    peer.send(bytes(MAX_UNREAD_OUTPUT))
    assert flow.after_write(peer) == WAIT
    peer.take()
    assert flow.after_write(peer) == GO_ON


def test_who_does_not_read_is_not_read(peer: Peer) -> None:
    flow = Flow()
    flow.full = True
    assert not flow.may_read(peer)
    assert flow.after_write(peer) == WAIT


def test_our_close_comes_behind_the_last_words(peer: Peer) -> None:
    flow = Flow()
    peer.send(b"last words")
    peer.close()
    assert flow.after_write(peer) == WAIT
    peer.take()
    assert flow.after_write(peer) == DRAIN
    flow.closing = True
    peer.stalled = True
    assert flow.may_read(peer), "to throw it away"
    assert not flow.may_go_on(peer)


def test_who_has_said_all_gets_the_rest_first(peer: Peer) -> None:
    flow = Flow()
    flow.ending = True
    peer.send(b"answer")
    assert flow.has_more(peer)
    assert flow.after_write(peer) == WAIT
    peer.take()
    peer.stalled = True
    assert flow.has_more(peer)
    assert flow.after_write(peer) == GO_ON
    peer.stalled = False
    assert flow.after_write(peer) == END


# ── bounds ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_reader_has_a_bound_of_its_own() -> None:
    unread, reader = UnreadOutput(1000, 10_000), Reader()
    unread.note(reader, 300)
    assert not unread.is_too_much(reader, 900, 50)
    assert not unread.is_too_much(reader, 1300, 50), "what came at once passes"
    assert unread.is_too_much(reader, 1301, 50)


def test_a_packet_larger_than_the_bound_passes() -> None:
    unread, reader = UnreadOutput(1000, 100_000), Reader()
    unread.note(reader, 50_000)
    assert not unread.is_too_much(reader, 50_900, 10)
    assert unread.is_too_much(reader, 51_001, 10)


def test_the_worst_reader_goes_first_until_all_fit() -> None:
    unread = UnreadOutput(1000, 2000)
    readers = [Reader(size) for size in (500, 900, 700, 400)]
    for reader in readers:
        unread.note(reader, reader.unread)
    assert unread.total == 2500
    assert unread.worst() is readers[1]
    unread.forget(readers[1])
    assert unread.total == 1600
    assert unread.worst() is None


def test_who_has_read_since_is_spared() -> None:
    unread = UnreadOutput(1000, 2000)
    readers = [Reader(900), Reader(800), Reader(700)]
    for reader in readers:
        unread.note(reader, reader.unread)
    readers[0].unread = 100
    assert unread.worst() is None
    assert unread.total == 1600
    readers[0].unread = 750
    unread.note(readers[0], 750)
    assert unread.worst() is readers[1]


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(1, 1000)), max_size=300), st.integers(100, 3000))
def test_it_counts_as_plain_sums_do(steps: list[tuple[int, int | None]], limit: int) -> None:
    unread, readers, plain = UnreadOutput(1000, limit), [Reader() for _ in range(10)], dict[int, int]()
    for number, size in steps:
        if size is None:
            plain.pop(number, None)
            unread.forget(readers[number])
        else:
            plain[number] = readers[number].unread = size
            unread.note(readers[number], size)
        while sum(plain.values()) > limit:
            worst = unread.worst()
            assert isinstance(worst, Reader)
            assert worst.unread == max(plain.values())
            del plain[readers.index(worst)]
            unread.forget(worst)
        assert unread.worst() is None
        assert unread.total == sum(plain.values())
    for reader in readers:
        unread.forget(reader)
    assert unread.total == 0


def test_many_bad_readers_are_found_in_time() -> None:
    """Each is found without looking at all others."""
    unread = UnreadOutput(10**6, 10**9)
    readers = [Reader(20_000 + number % 7) for number in range(50_000)]
    for reader in readers:
        unread.note(reader, reader.unread)
    gone = 0
    for reader in readers:
        reader.unread += 2000
        unread.note(reader, reader.unread)
        while (worst := unread.worst()) is not None:
            unread.forget(worst)
            gone += 1
            assert gone < 10_000
    assert gone > 3000
    assert unread.total <= 10**9
