"""The writer's threads."""

from __future__ import annotations

import sys
from pathlib import Path
from queue import SimpleQueue
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
