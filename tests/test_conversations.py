"""Every conversation, in memory, over sockets against our daemon, and against gearmand as referee."""

from __future__ import annotations

from pathlib import Path

import pytest
from conversation import Conversation, read_conversation
from players import SocketPlayer
from servers import running_gearmand

STORIES = [read_conversation(path) for path in sorted(Path(__file__).with_name("conversations").glob("*.txt"))]
SPOKEN = [story for story in STORIES if not story.needs_clock]
OVER_SOCKETS = pytest.mark.parametrize("story", SPOKEN, ids=lambda story: story.path.stem)


@OVER_SOCKETS
def test_gearmand_plays_the_story(story: Conversation) -> None:
    with running_gearmand("--job-handle-prefix=H:t", *story.options(("sockets", "gearmand"))) as server:
        SocketPlayer("gearmand", server.host, server.port).play(story)
