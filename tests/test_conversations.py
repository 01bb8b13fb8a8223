"""Every conversation, in memory, over sockets against our daemon, and against gearmand as referee."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conversation import PACKETS, Conversation, read_conversation
from geartrain.wire.packets import FROM_SERVER, LAYOUTS
from players import OURS, REFEREE, MemoryPlayer, SocketPlayer, forked_geartrain
from servers import running_gearmand

STORIES = [read_conversation(path) for path in sorted(Path(__file__).with_name("conversations").glob("*.txt"))]
COMPATIBILITY = Path(__file__).parents[1] / "docs" / "compatibility.md"
IN_MEMORY = pytest.mark.parametrize("story", STORIES, ids=lambda story: story.path.stem)
OVER_SOCKETS = pytest.mark.parametrize(
    "story", [story for story in STORIES if story.clock is None], ids=lambda story: story.path.stem
)
BY_GEARMAND = pytest.mark.parametrize(
    "story",
    [story for story in STORIES if story.clock is None and not story.is_ours_alone],
    ids=lambda story: story.path.stem,
)

IN_PIECES = pytest.mark.parametrize("piece", [1 << 30, 7, 1], ids=["whole", "in-sevens", "byte-by-byte"])


@IN_MEMORY
@IN_PIECES
def test_the_rules_play_the_story(story: Conversation, piece: int) -> None:
    MemoryPlayer(story.options(("memory", "geartrain")), story.clock, piece).play(story)


@OVER_SOCKETS
def test_our_daemon_plays_the_story(story: Conversation) -> None:
    with forked_geartrain(*OURS, *story.options(("sockets", "geartrain"))) as port:
        SocketPlayer("geartrain", port).play(story)


@BY_GEARMAND
def test_gearmand_plays_the_story(story: Conversation) -> None:
    with running_gearmand(*REFEREE, *story.options(("sockets", "gearmand"))) as server:
        SocketPlayer("gearmand", server.port).play(story)


# ── what the stories are, taken together ────────────────────────────────────────────────────────────────────────


def test_every_difference_is_listed_with_its_story() -> None:
    listed = set(re.findall(r"\.\./tests/conversations/([\w-]+)\.txt", COMPATIBILITY.read_text()))
    different = {story.path.stem for story in STORIES if story.differences}
    assert different - listed == set(), "missing in docs/compatibility.md"
    assert listed - {story.path.stem for story in STORIES} == set(), "docs/compatibility.md names no such story"


def test_a_difference_says_what_gearmand_does_instead() -> None:
    for story in STORIES:
        for_gearmand = any(step.audience == "gearmand" for step in story.steps)
        if story.is_ours_alone:
            continue
        closes_alike = any(step.verb == "is closed" and not step.audience for step in story.steps)
        if story.clock is None and not closes_alike:
            assert bool(story.differences) == for_gearmand, story.path.name


def test_every_packet_type_is_spoken() -> None:
    said: dict[str, set[str]] = {"->": set(), "<-": set()}
    for step in (step for story in STORIES for step in story.steps if step.messages):
        said[step.verb].update(message.name for message in step.messages)
    assert set(PACKETS) - said["->"] == set()
    assert {name for name, sender, _ in LAYOUTS.values() if sender & FROM_SERVER} - said["<-"] == set()


def test_stories_and_wire_agree_on_every_packet() -> None:
    known = {name: (number, len(arguments)) for number, (name, _, arguments) in LAYOUTS.items()}
    assert {name: row for name, row in PACKETS.items() if name != "UNUSED"} == known


# ── a story that is not true fails, at its line ─────────────────────────────────────────────────────────────────

FALSE_STORIES = {
    "another argument": ("x -> ECHO_REQ a\nx <- ECHO_RES b", "3: x <- ECHO_RES b\nx got\nECHO_RES a"),
    "another packet": ("x -> GRAB_JOB\nx <- NOOP", "3: x <- NOOP\nx got\nNO_JOB"),
    "another error": ("x -> NOOP\nx <- ERROR BAD ...", "3: x <- ERROR BAD ...\nx got\nERROR INVALID_COMMAND"),
    "silence": ("x -> PRE_SLEEP\nx <- NOOP", "3: x <- NOOP\nx got\nnothing"),
    "no silence": ("x -> GRAB_JOB\nx <- nothing", "3: x <- nothing\nx got\nNO_JOB"),
    "words left over": ("x -> GRAB_JOB + GRAB_JOB\nx <- NO_JOB", "x got at the end\nNO_JOB"),
    "a connection left open": ("x -> GRAB_JOB\nx is closed", "3: x is closed\nx is open, or got\nNO_JOB"),
    "another line": (r"x -> text status\n" "\n" r"x <- sorted text f\t<n>\n.\n", "3: x <- sorted"),
    "lines in another order": (
        r"x -> text create function a\n + text create function b\n + text status\n"
        "\n"
        r"x <- text OK\r\nOK\r\nb\t0\t0\t0\na\t0\t0\t0\n.\n",
        "3: x <- text",
    ),
}


@pytest.mark.parametrize(("steps", "complaint"), FALSE_STORIES.values(), ids=FALSE_STORIES)
def test_a_false_story_fails_at_its_line(tmp_path: Path, steps: str, complaint: str) -> None:
    path = tmp_path / "false.txt"
    path.write_text(f"\n{steps}\n")
    with pytest.raises(AssertionError) as failure:
        MemoryPlayer([]).play(read_conversation(path))
    assert complaint in str(failure.value)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("client -> SUBMIT_JBO f", "SUBMIT_JBO is no packet type"),
        ("client says hello", "not a step"),
        (r"client -> ECHO_REQ \q", r"unknown escape \\q"),
        ("client -> ECHO_REQ a +", "a message is missing"),
        ("wait soon", "soon"),
        ("clock 2027-03-01 12:00", "time zone"),
        ("gearmand: a <- NOOP   # differs: it does not", "no prefix"),
    ],
)
def test_a_misspelt_story_says_where(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "misspelt.txt"
    path.write_text(f"A title\n\n{line}\n")
    with pytest.raises(ValueError, match=rf"misspelt.txt:3: .*{complaint}"):
        read_conversation(path)
