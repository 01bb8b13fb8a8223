"""The writer's threads."""

from __future__ import annotations

import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from unittest.mock import Mock

from place import batch, job, opened

from geartrain.store.writer import Read, Writer


def test_a_rebuild_that_was_not_needed_is_let_go(tmp_path: Path) -> None:
    posted: SimpleQueue[object] = SimpleQueue()
    with opened(f"sqlite:///{tmp_path}/jobs.sqlite") as store:
        writer: Writer[Read] = Writer(store, Mock(), lambda *call: posted.put(call), 5)
        known = job(1)
        held = sys.getrefcount(known)  # a compiled job takes no weak reference
        writer.rebuild([known], 2, [])
        assert sys.getrefcount(known) > held
        writer.commit(batch(job(2)))
        posted.get(timeout=10)
        assert sys.getrefcount(known) == held
        assert writer.close(5)


def test_nothing_is_heard_of_what_was_given_to_an_abandoned_writer(tmp_path: Path) -> None:
    posted: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
    outcomes = Mock()
    with opened(f"sqlite:///{tmp_path}/jobs.sqlite") as store:
        writer: Writer[Read] = Writer(store, outcomes, lambda *call: posted.put(call), 5)
        writer.commit(batch(job(1)))
        function, *arguments = posted.get(timeout=10)
        writer.abandon()
        function(*arguments)
        assert outcomes.mock_calls == []
