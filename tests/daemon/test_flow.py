"""Bounds on unread output, for one reader and for all together."""

from __future__ import annotations

from geartrain.daemon.flow import UnreadOutput


class Reader:
    def write(self) -> None:
        raise AssertionError("nobody is asked to write here")

    cut_off = write


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
    readers = [Reader() for _ in range(4)]
    for reader, size in zip(readers, (500, 900, 700, 400), strict=True):
        unread.note(reader, size)
    assert unread.total == 2500
    assert unread.worst() is readers[1]
    unread.forget(readers[1])
    assert unread.total == 1600
    assert unread.worst() is None
    unread.note(readers[0], 950)
    unread.note(readers[3], 100)
    assert unread.total == 1750
    for reader in readers:
        unread.forget(reader)
    assert unread.total == 0
    assert unread.worst() is None
