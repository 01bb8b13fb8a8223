"""A few seconds of ``fuzz/run.py``, always the same: the histories of fixed seeds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "fuzz" / "history.py"
SPEC = importlib.util.spec_from_file_location("history", PATH)
assert SPEC is not None
assert SPEC.loader is not None
history = importlib.util.module_from_spec(SPEC)
sys.modules["history"] = history
SPEC.loader.exec_module(history)


@pytest.mark.parametrize("seed", range(8))
def test_a_history_of_good_and_bad_bytes(seed: int) -> None:
    happened = history.History(seed, steps=200)
    try:
        happened.run()
    except Exception as error:
        steps = "\n".join(happened.log)
        raise AssertionError(f"seed {seed} (python fuzz/run.py --seed {seed} --steps 200):\n{steps}") from error
