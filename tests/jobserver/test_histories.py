"""A few seconds of ``fuzz/run.py``, always the same: the histories of fixed seeds."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "fuzz" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


KINDS = [load("history").History, load("policies").PolicyHistory]


@pytest.mark.parametrize("kind", KINDS, ids=["good and bad bytes", "policies"])
@pytest.mark.parametrize("seed", range(8))
def test_a_history_of_a_fixed_seed(kind: Any, seed: int) -> None:
    happened = kind(seed, steps=200)
    try:
        happened.run()
    except Exception as error:
        steps = "\n".join(happened.log)
        raise AssertionError(f"seed {seed} (python fuzz/run.py --seed {seed} --steps 200):\n{steps}") from error
