"""Every conversation, in memory, over sockets against our daemon, and against gearmand as referee."""

from __future__ import annotations

from pathlib import Path

import pytest

from conversation import Conversation, read_conversation
from players import MemoryPlayer, SocketPlayer
from servers import running_gearmand

STORIES = [read_conversation(path) for path in sorted(Path(__file__).with_name("conversations").glob("*.txt"))]
SPOKEN = [story for story in STORIES if story.clock is None]
IN_MEMORY = pytest.mark.parametrize("story", STORIES, ids=lambda story: story.path.stem)
OVER_SOCKETS = pytest.mark.parametrize("story", SPOKEN, ids=lambda story: story.path.stem)


@OVER_SOCKETS
def test_gearmand_plays_the_story(story: Conversation) -> None:
    with running_gearmand("--job-handle-prefix=H:t", *story.options(("sockets", "gearmand"))) as server:
        SocketPlayer("gearmand", server.host, server.port).play(story)


@IN_MEMORY
@pytest.mark.parametrize("piece", [1 << 30, 1], ids=["whole", "byte-by-byte"])
def test_the_rules_play_the_story(story: Conversation, piece: int) -> None:
    MemoryPlayer(story.options(("memory", "geartrain")), story.clock, piece).play(story)
