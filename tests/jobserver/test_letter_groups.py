"""Dead letters of one kind stand together: counted, tried again and purged as one, and told by a number."""

from __future__ import annotations

import pytest
from desk import Desk

from geartrain.jobserver.letter_groups import LetterGroup


@pytest.fixture
def desk() -> Desk:
    desk = Desk(durable=True)
    desk.works("w", b"f", b"g")
    for function in ("f", "g"):
        desk.text("admin", f"policy set {function} attempts=1")
    return desk


def bury(desk: Desk, function: bytes, *text: bytes) -> bytes:
    handle = desk.submit(function)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_EXCEPTION" if text else "WORK_FAIL", handle, *text)
    desk.commit()
    return handle


def groups(desk: Desk) -> list[LetterGroup]:
    return list(desk.server.dead.groups.by_number.values())


def told(desk: Desk) -> list[tuple[bytes, int, bytes, int]]:
    return [(group.function, group.reason, group.line, len(group.letters)) for group in groups(desk)]


def test_letters_of_one_function_reason_and_line_are_a_group(desk: Desk) -> None:
    bury(desk, b"f", b"no such file\nat 1")
    bury(desk, b"f", b"no such file\nat 2")
    bury(desk, b"g", b"no such file\nat 1")
    bury(desk, b"f", b"other")
    bury(desk, b"f")
    assert told(desk) == [
        (b"f", 1, b"no such file", 2),
        (b"g", 1, b"no such file", 1),
        (b"f", 1, b"other", 1),
        (b"f", 0, b"", 1),
    ]
    assert len({group.number for group in groups(desk)}) == 4


def test_a_group_is_tried_again_or_purged_as_a_whole(desk: Desk) -> None:
    handles = [bury(desk, b"f", b"a\n%d" % at) for at in range(3)]
    bury(desk, b"f", b"b")
    bury(desk, b"g", b"a")
    (first, _, other) = groups(desk)
    listed = desk.text("admin", f"dead list group={first.number}").splitlines()
    assert [line.split("\t")[0] for line in listed[:-1]] == [handle.decode() for handle in handles]
    assert desk.text("admin", f"dead retry all group={first.number}") == "OK 3\n"
    assert [desk.server.functions[name].queued for name in (b"f", b"g")] == [3, 0]
    assert told(desk) == [(b"f", 1, b"b", 1), (b"g", 1, b"a", 1)]
    assert desk.text("admin", f"dead purge all group={other.number}") == "OK 1\n"
    assert told(desk) == [(b"f", 1, b"b", 1)]


def test_a_group_is_tried_again_one_by_one(desk: Desk) -> None:
    for _ in range(3):
        bury(desk, b"f", b"a")
    bury(desk, b"f", b"b")
    assert desk.text("admin", f"dead retry all group={groups(desk)[0].number} rate=1/s") == "OK 3\n"
    desk.wait(10)
    assert told(desk) == [(b"f", 1, b"b", 1)]


@pytest.mark.parametrize("group", ["1", "x", "-1", "9" * 30])
@pytest.mark.parametrize("command", ["dead list", "dead retry all", "dead purge all"])
def test_a_group_that_has_gone_means_nothing_else(desk: Desk, command: str, group: str) -> None:
    bury(desk, b"f", b"a")
    assert desk.text("admin", f"{command} group={group}").startswith("ERR UNKNOWN_GROUP")
    assert told(desk) == [(b"f", 1, b"a", 1)]


def test_groups_outlive_a_restart_with_other_numbers(desk: Desk) -> None:
    bury(desk, b"f", b"a")
    bury(desk, b"g", b"b")
    before = {group.number for group in groups(desk)}
    kinds = told(desk)
    desk.wait(1)
    desk.restart()
    assert sorted(told(desk)) == sorted(kinds)
    assert not before & {group.number for group in groups(desk)}
